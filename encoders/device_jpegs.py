"""JPEG files decoded and resized on a GPU, by torchvision and nvJPEG; every other file is left to the usual decoder."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from storage.errors import install_hint

from .cpu_backends import golden_files
from .errors import EncoderError, ImageError
from .images import DEFAULT_LIMITS, DecodedImage, DecodeLimits, decode_plain_jpeg, read_image_file
from .open_clip_encoder import ClipEncoder
from .perceptual_hash import reduction
from .preprocess import Fit, Preprocess, PreprocessConfig

# Files that one call decodes at most, and pixels of one: of 16 megapixels 64 take 3 GB as bytes, one 200 MB as floats.
AT_ONCE, MOST_PIXELS = 64, 1 << 24

DecodeFiles = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]
"""From the bytes of files to (3, H, W) uint8 on the device; raises where it cannot decode one of them."""
Ready = tuple[np.ndarray, Image.Image]


class DeviceJpegs:
    """Decodes JPEG files for many threads: what they ask for at the same time is one call to the decoder.

    A context manager. A file that it does not decode, for whatever reason, is for `decode_image`.

    Args:
        config: What an image is made into.
        device: `cuda` or `cuda:N`.
        decode: The decoder; None takes torchvision's.

    Raises:
        EncoderError: Torchvision is not installed, or has no decoder for JPEG files.
    """

    def __init__(self, config: PreprocessConfig, device: str, decode: DecodeFiles | None = None) -> None:
        self._preprocess = Preprocess(config)
        self._decode = decode or torchvision_decoder(device)
        # A stream of its own, so that no batch that is encoded waits for it.
        self._stream: Any = torch.cuda.Stream(device) if device.startswith("cuda") else None  # type: ignore[no-untyped-call]
        self._asked: SimpleQueue[tuple[bytes, Future[Ready | None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="device-jpegs", daemon=True)
        self._thread.start()

    def read(self, source: Path | bytes, limits: DecodeLimits) -> DecodedImage[np.ndarray] | None:
        """Return an image as (3, H, W) bytes, with what is known of it; None where it is for the usual decoder."""
        try:
            data = source if isinstance(source, bytes) else read_image_file(source, limits)
        except ImageError:
            return None
        return decode_plain_jpeg(data, limits, self._ask) if data.startswith(b"\xff\xd8") else None

    def close(self) -> None:
        """End the thread that decodes; nothing may be read any more."""
        self._asked.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, data: bytes, size: tuple[int, int]) -> Ready | None:
        width, height = size
        if width * height > MOST_PIXELS or self._preprocess.is_strip(width, height):
            return None
        ready = Future[Ready | None]()
        self._asked.put((data, ready))
        return ready.result()

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            batch = [asked]
            while len(batch) < AT_ONCE and not self._asked.empty():
                following = self._asked.get()
                if following is None:
                    self._asked.put(None)
                    break
                batch.append(following)
            for (_, future), ready in zip(batch, self._ready([data for data, _ in batch]), strict=True):
                future.set_result(ready)

    def _ready(self, files: list[bytes]) -> list[Ready | None]:
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream) if self._stream else nullcontext():
                decoded = self._decode([torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files])
                return [(fitted(image, self._preprocess).cpu().numpy(), _for_hash(image)) for image in decoded]
        except Exception:  # noqa: BLE001  # as the decoder or the memory fails: the usual decoder tells what is wrong
            return [None] if len(files) == 1 else [one for data in files for one in self._ready([data])]


def fitted(image: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Return (3, H, W) bytes of what a model takes, on the image's device; a byte differs from Pillow's by a rounding.

    Args:
        image: (3, H, W) uint8, no strip.
        preprocess: Whose transform it is.
    """
    config = preprocess.config
    width, height = preprocess.target(image.shape[2], image.shape[1])
    # As Pillow does: across, then down, and bytes between.
    for size in ((image.shape[1], width), (height, width)):
        if size != tuple(image.shape[1:]):
            wide = functional.interpolate(image[None].float(), size=size, mode=config.interpolation, antialias=True)
            image = wide[0].round().clamp(0, 255).to(torch.uint8)
    fit = Fit.of(width, height, config)
    if any(fit.border):
        left, top, right, bottom = fit.border
        image = functional.pad(image, (left, right, top, bottom), value=fit.fill)
    return image[:, fit.top : fit.top + config.size[0], fit.left : fit.left + config.size[1]].contiguous()


def lowest_cosine(jpegs: DeviceJpegs, encoder: ClipEncoder) -> float:
    """Return the lowest cosine of golden photographs decoded there to those decoded as usual; 0 where none is there."""
    files = golden_files()
    pairs = [(found.pixels, data) for data in files if (found := jpegs.read(data, DEFAULT_LIMITS)) is not None]
    if not pairs:
        return 0.0
    exact = np.stack([encoder.byte_pixels(encoder.open_image(data).pixels) for _, data in pairs])
    rows = encoder.encode_pixels(np.stack([pixels for pixels, _ in pairs])), encoder.encode_pixels(exact)
    return float(np.einsum("nd,nd->n", *rows).min())


def _for_hash(image: torch.Tensor) -> Image.Image:
    """Return an image as small as `perceptual_hash` makes it first."""
    factor = reduction(image.shape[2], image.shape[1])
    if factor > 1:
        means = functional.avg_pool2d(image[None].float(), factor, ceil_mode=True, count_include_pad=False)
        image = (means[0] + 0.5).floor().to(torch.uint8)
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def torchvision_decoder(device: str) -> DecodeFiles:
    """Return torchvision's decoder for files on a device; on a GPU it is NVIDIA's nvJPEG.

    Raises:
        EncoderError: It is not installed, or no longer part of torchvision.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError as error:
        raise EncoderError(
            f"JPEG files are decoded on a GPU by torchvision: {error}; {install_hint('encode')}"
        ) from error

    # Since 0.29 it announces that TorchCodec will take its place.
    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision", DeprecationWarning)

    def decode(files: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        found: Any = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
        return list(found)

    return decode
