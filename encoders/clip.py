"""Two open_clip towers at work: batches, devices, precisions, unit rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from open_clip.hf_model import HFTextEncoder
from PIL import Image
from torch import nn
from torch.nn import functional

from storage.spec import EncoderInfo

from .base import ImageLike
from .device import Placement
from .errors import EncoderError
from .fingerprint import fingerprint
from .images import decode_image
from .lean import ready_for_inference
from .model import TwoTowers
from .preprocess import Preprocess

# Images or texts a forward pass. A CPU loses 10-30 % above 16, as activations leave its cache; a GPU needs hundreds.
CPU_BATCH = 16
GPU_BATCH = 256
# A caption is a fraction of a picture's work and memory.
TEXTS_A_PICTURE = 4


class ClipEncoder:
    """An `Encoder` over any open_clip model; see `encoders.base.Encoder` for the attributes. Made by `load_encoder`.

    It takes the towers over: they are not to be trained or saved afterwards.
    """

    def __init__(self, towers: TwoTowers, placement: Placement) -> None:
        self.spec = towers.spec
        self.device = placement.device
        self.precision = placement.precision
        self.batch_size = CPU_BATCH if placement.kind == "cpu" else GPU_BATCH
        self.dim = _dim(towers)
        # Before anything is moved, folded or cast: the fingerprint is that of the model as it was loaded.
        self.fingerprint = fingerprint(towers, self.dim)
        self._preprocess = Preprocess(towers.preprocess)
        self.details: Mapping[str, Any] = dict(towers.details)
        self.logit_scale = _logit_scale(towers)
        self._placement = placement
        self._pixel_shape = tuple(self._preprocess.config.input_size)
        self._tokenizer = towers.tokenizer
        self._pad = _trimmable_pad(towers.model)
        self._model = ready_for_inference(towers.model, placement)
        # Rust tokenizers keep padding and truncation as state and fail when two threads borrow them at once.
        self._tokenizer_lock = threading.Lock()

    @property
    def info(self) -> EncoderInfo:
        """What an index remembers of this encoder; device and precision are not part of it."""
        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint, details=self.details)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return one RGB picture as the model wants it: (3, H, W) float32. Meant for decode threads; needs no GPU."""
        return self._preprocess(image)

    def encode_pixels(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return (n, dim) float32 unit rows for (n, 3, H, W) preprocessed pictures, in the order given.

        Raises:
            EncoderError: Where the shape is not what `preprocess` gives, or a vector is not finite.
        """
        batch = torch.as_tensor(pixels)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != self._pixel_shape:
            wanted = ", ".join(["n", *map(str, self._pixel_shape)])
            raise EncoderError(f"pixels have shape {tuple(batch.shape)}, encoder {self.spec!r} takes ({wanted})")
        return self._stack([self._images(part) for part in torch.split(batch, self.batch_size)] if len(batch) else [])

    def encode_images(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for pictures, in the order given.

        Raises:
            ImageError: Where one of them cannot be decoded.
        """
        parts = []
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            ready = [self.preprocess(decode_image(image).pixels) for image in chunk]
            parts.append(self.encode_pixels(np.stack(ready)))
        return self._stack(parts)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts, in the order given; what is too long for the model is cut.

        Raises:
            EncoderError: Where something is not a text, or a vector is not finite.
        """
        if isinstance(texts, str):
            raise EncoderError(f"encode_texts takes a list of texts, got the one text {texts[:40]!r}; put it in a list")
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise EncoderError(f"encode_texts takes texts, got {type(wrong).__name__} {wrong!r}")
        if not len(texts):
            return self._stack([])
        ids = self._tokenize(list(texts))
        # Neighbours of like length share a batch, so that a short text is not computed at the length of a long one.
        order = torch.argsort(self._lengths(ids), stable=True)
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for part in torch.split(order, self.batch_size * TEXTS_A_PICTURE):
            rows[part.numpy()] = self._texts(self._trim(ids[part]))
        return rows

    def _images(self, batch: torch.Tensor) -> np.ndarray:
        moved = batch.to(self.device, torch.float32, non_blocking=True, memory_format=torch.channels_last)
        return self._run(self._model.encode_image, moved)

    def _texts(self, ids: torch.Tensor) -> np.ndarray:
        return self._run(self._model.encode_text, ids.to(self.device))

    def _run(self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> np.ndarray:
        place = self._placement
        with torch.inference_mode():
            with torch.autocast(place.kind, dtype=place.dtype, enabled=place.precision != "fp32"):
                features = tower(batch)
            rows: np.ndarray = functional.normalize(features.float(), dim=-1).cpu().numpy()
        if not np.isfinite(rows).all():
            hint = "; fp16 may have overflowed, try --precision bf16 or fp32" if place.precision == "fp16" else ""
            raise EncoderError(f"encoder {self.spec!r} gave values that are not finite at {place.precision}{hint}")
        return rows

    def _stack(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        with self._tokenizer_lock:
            return self._tokenizer(texts)

    def _lengths(self, ids: torch.Tensor) -> torch.Tensor:
        if self._pad is None:
            return torch.zeros(len(ids), dtype=torch.int64)
        positions = torch.arange(1, ids.shape[1] + 1)
        return ((ids != self._pad) * positions).amax(1)

    def _trim(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the batch without the columns that hold nothing but padding: 5 times faster for captions."""
        return ids if self._pad is None else ids[:, : max(1, int(self._lengths(ids).max()))]


def _trimmable_pad(model: nn.Module) -> int | None:
    """Return the padding id of a text tower that masks its padding out; None where the padded length matters."""
    text = getattr(model, "text", None)
    if not isinstance(text, HFTextEncoder):
        return None
    pad: int | None = text.config.pad_token_id
    return pad


def _logit_scale(towers: TwoTowers) -> float | None:
    """Return what the model was trained to multiply cosines with before a softmax; None where it never was."""
    learned: Any = getattr(towers.model, "logit_scale", None)
    if learned is None or towers.details.get("family") == "lite":
        return None
    return float(torch.as_tensor(learned).detach().float().exp())


def _dim(towers: TwoTowers) -> int:
    """Return the length of the vectors, which a projection head may make differ from `embed_dim`."""
    with torch.inference_mode():
        model: Any = towers.model
        return int(model.encode_text(towers.tokenizer([""])).shape[-1])
