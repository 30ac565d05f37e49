"""Trained region towers at work: an `Encoder` whose images are region features."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from encoders.decoding.ahead import taken_ahead
from encoders.device import Placement
from encoders.errors import EncoderError, ImageError
from encoders.images import DEFAULT_LIMITS, DecodeLimits
from storage.schema import EncoderInfo

from .region_features import LAYOUT, Regions, read_regions
from .region_towers import RegionTowers, load_towers
from .tokens import Tokens, padded_ids

CPU_BATCH, GPU_BATCH = 64, 512
# Threads that read and check regions while a batch is encoded: of each image 300 KB and a checksum.
READERS = 4
# A caption has fewer words than an image has regions.
TEXTS_PER_IMAGE = 4
_PROBES = ("", "A photo of two Dogs, playing.", "\u4e00\u53ea\u72d7 12345", "long " * 600)


class RegionEncoder:
    """An `Encoder` over region features; see `encoders.base.Encoder`. Made by `load_encoder("hrem:CHECKPOINT")`.

    Where other encoders take an image, this one takes its regions: `FILE.npy#ROW`, a `.npy` file of (regions, dim),
    the bytes of one, or the array.
    """

    def __init__(self, spec: str, folder: Path, placement: Placement) -> None:
        towers = load_towers(folder)
        self.spec = spec
        self.device, self.precision = placement.device, placement.precision
        self.batch_size = CPU_BATCH if placement.kind == "cpu" else GPU_BATCH
        self.dim = towers.config.dim
        self.fingerprint = _fingerprint(towers)
        self.details: Mapping[str, Any] = {"family": LAYOUT, **asdict(towers.config)}
        self.logit_scale: float | None = None
        self.config = towers.config
        self._placement = placement
        self._towers = towers.to(placement.device)
        self._tokenizer_lock = threading.Lock()

    @property
    def info(self) -> EncoderInfo:
        """What an index remembers of this encoder; device and precision are not part of it."""
        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint, details=self.details)

    def open_image(self, source: object, limits: DecodeLimits = DEFAULT_LIMITS) -> Regions:
        """Return the regions of one image, checked against what the towers take.

        Raises:
            ImageError: It holds no regions, or regions of another shape.
        """
        del limits  # of files of images
        regions = read_regions(source)
        count, dim = regions.pixels.shape
        if dim != self.config.region_dim or count > self.config.max_regions:
            raise ImageError(
                "unsupported_format",
                f"{count} regions of {dim} features, and encoder {self.spec!r} takes at most {self.config.max_regions} "
                f"of {self.config.region_dim}",
            )
        return regions

    def preprocess(self, image: Any) -> np.ndarray:
        """Return (max_regions, region_dim) float32, rows of NaN behind the regions that there are."""
        regions_or_nan = np.full((self.config.max_regions, self.config.region_dim), np.nan, dtype=np.float32)
        regions = np.asarray(image)
        regions_or_nan[: len(regions)] = regions
        return regions_or_nan

    def encode_pixels(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return (n, dim) float32 unit rows for what `preprocess` gave, stacked, in the order given.

        Raises:
            EncoderError: The shape is another, or a vector is not finite.
        """
        batch = torch.as_tensor(pixels, dtype=torch.float32)
        expected = (self.config.max_regions, self.config.region_dim)
        if batch.ndim != 3 or tuple(batch.shape[1:]) != expected:
            takes = f"(n, {expected[0]}, {expected[1]})"
            raise EncoderError(f"regions have shape {tuple(batch.shape)}, encoder {self.spec!r} takes {takes}")
        parts = [self._images(part) for part in torch.split(batch, self.batch_size)] if len(batch) else []
        return self._stack(parts)

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for the regions of images, in the order given.

        The next batch is read while one is computed.

        Raises:
            ImageError: One of them has no regions that the towers take.
        """
        if len(images) == 1:
            return self.encode_pixels(self._regions_of(images[0])[None])
        batches = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-regions") as pool:
            read = taken_ahead(batches, lambda image: pool.submit(self._regions_of, image))
            with closing(read) as ahead:
                return self._stack([self.encode_pixels(np.stack(batch)) for batch in ahead])

    def _regions_of(self, image: Any) -> np.ndarray:
        return self.preprocess(self.open_image(image).pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts, in the order given; what is too long is cut.

        Raises:
            EncoderError: Something is not a text.
        """
        if isinstance(texts, str):
            raise EncoderError(f"encode_texts takes a list of texts, got the one text {texts[:40]!r}; put it in a list")
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise EncoderError(f"encode_texts takes texts, got {type(wrong).__name__} {wrong!r}")
        tokens = self._tokenize(texts)
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([len(one.ids) for one in tokens], kind="stable")
        size = self.batch_size * TEXTS_PER_IMAGE
        for start in range(0, len(order), size):
            part = order[start : start + size]
            rows[part] = self._texts([tokens[row] for row in part])
        return rows

    def _tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        if not len(texts):
            return []
        with self._tokenizer_lock:
            return self._towers.tokenizer(texts)

    def _images(self, batch: torch.Tensor) -> np.ndarray:
        mask = ~torch.isnan(batch[:, :, 0])
        with torch.inference_mode(), self._autocast():
            unit = self._towers.image(torch.nan_to_num(batch).to(self.device), mask.to(self.device)).unit
        return self._rows(unit)

    def _texts(self, tokens: Sequence[Tokens]) -> np.ndarray:
        ids, mask = padded_ids([one.ids for one in tokens], self._towers.tokenizer.pad)
        with torch.inference_mode(), self._autocast():
            unit = self._towers.text(ids.to(self.device), mask.to(self.device)).unit
        return self._rows(unit)

    def _autocast(self) -> torch.autocast:
        device = self._placement
        return torch.autocast(device.kind, dtype=device.dtype, enabled=device.precision != "fp32")

    def _rows(self, unit: torch.Tensor) -> np.ndarray:
        rows: np.ndarray = torch.nn.functional.normalize(unit.float(), dim=-1).cpu().numpy()
        if not np.isfinite(rows).all():
            raise EncoderError(f"encoder {self.spec!r} gave values that are not finite at {self.precision}; try fp32")
        return rows

    def _stack(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)


def _fingerprint(towers: RegionTowers) -> str:
    """Return one SHA-256 over weights, shape and tokenizer; the towers must still be as they were loaded."""
    probes = [one.ids for one in towers.tokenizer(list(_PROBES))]
    digest = hashlib.sha256(json.dumps([asdict(towers.config), probes], sort_keys=True).encode())
    digest.update(save({name: tensor.contiguous() for name, tensor in towers.state_dict().items()}))
    return digest.hexdigest()
