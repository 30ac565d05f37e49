"""Faster ways to compute an image tower on a GPU, behind a gate: compiled by torch, or replayed as one CUDA graph.

Both compute batches of one size alone, so that a smaller one is filled up. They are taken where they are asked for by
name, and only with vectors that are those of the plain way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from .cpu_backends import GATE, golden_images
from .device import choose_device
from .errors import EncoderError
from .open_clip_encoder import ClipEncoder

ImageTower: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From (n, 3, H, W) float32 on the device, channels last, to (n, dim) features."""
Make: TypeAlias = Callable[[ImageTower, str], ImageTower]
"""From an image tower and its device to the same for batches of one size."""

_WARM_UPS = 3  # as torch's own examples do before a capture: libraries choose and allocate in the first calls


class FixedBatches:
    """An image tower that computes `size` images at a time: more are split, fewer are filled up with black ones."""

    def __init__(self, tower: ImageTower, size: int) -> None:
        self._tower, self._size = tower, size

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) features of (n, 3, H, W) images."""
        parts = [self._tower(self._filled(part))[: len(part)] for part in torch.split(images, self._size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _filled(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) == self._size:
            return images
        filled = _empty_like(images, self._size)
        filled[: len(images)].copy_(images)
        filled[len(images) :].zero_()
        return filled


class CudaGraph:
    """An image tower whose hundreds of kernels are launched at once, for batches of the size of its first.

    Safe from many threads that compute on one stream, as all do that have not chosen another.

    Args:
        tower: What to compute.
        device: `cuda` or `cuda:N`.
        cuda: The module that makes graphs.
    """

    def __init__(self, tower: ImageTower, device: str, cuda: Any = torch.cuda) -> None:
        self._tower, self._device, self._cuda = tower, device, cuda
        self._lock = threading.Lock()
        self._graph: Any = None
        self._images = self._features = torch.empty(0)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of a batch, in memory of its own."""
        with self._lock, self._cuda.device(self._device):
            if self._graph is None:
                self._capture(images)
            # One behind the other on one stream, so that no batch overwrites another that is not computed yet.
            self._images.copy_(images)
            self._graph.replay()
            return self._features.clone()

    def _capture(self, images: torch.Tensor) -> None:
        self._images = _empty_like(images, len(images))
        self._images.copy_(images)
        caches = torch.is_autocast_cache_enabled()
        # Weights that autocast keeps in 16 bits are gone at its end, and the graph would go on to read them.
        torch.set_autocast_cache_enabled(False)
        try:
            current, aside = self._cuda.current_stream(), self._cuda.Stream()
            aside.wait_stream(current)
            with self._cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    self._tower(self._images)
            current.wait_stream(aside)
            graph = self._cuda.CUDAGraph()
            # Other threads may allocate meanwhile, as for another GPU.
            with self._cuda.graph(graph, capture_error_mode="thread_local"):
                self._features = self._tower(self._images)
        finally:
            torch.set_autocast_cache_enabled(caches)
        self._graph = graph


def compiled(tower: ImageTower, device: str, compiler: str = "inductor") -> ImageTower:
    """Return an image tower that torch compiles, with its first batch, for batches of that size."""
    del device
    made: ImageTower = torch.compile(tower, dynamic=False, backend=compiler)
    return made


GPU_BACKENDS: dict[str, Make] = {"torch-compile": compiled, "cuda-graph": CudaGraph}
"""How an image tower may be computed on a GPU, besides by torch as it is."""


def check_gpu(backend: str, device: str) -> None:
    """Refuse a backend for a GPU where there is none.

    Raises:
        EncoderError: The device is a CPU, or is not there.
    """
    if choose_device(device).kind == "cpu":
        raise EncoderError(f"{backend} computes on a GPU, and device {device!r} is none here; leave --backend out")


def faster(encoder: ClipEncoder, backend: str, warn: Callable[[str], None]) -> ClipEncoder:
    """Return an encoder on a GPU as a backend of `GPU_BACKENDS` computes its images, in batches of its `batch_size`.

    It takes from seconds (a graph) to a minute (compiled for the first time on a machine). Where vectors of golden
    photographs are not those of the plain way, or the memory does not suffice, the encoder is returned as it is. Texts
    are computed as before.

    Args:
        encoder: On a GPU.
        backend: One of `GPU_BACKENDS`.
        warn: Told in one line why the encoder stays as it is.

    Raises:
        EncoderError: The encoder is not on a GPU, or torch cannot compile or capture it.
    """
    check_gpu(backend, encoder.device)
    return gated(encoder, backend, GPU_BACKENDS[backend], warn)


def gated(encoder: ClipEncoder, backend: str, make: Make, warn: Callable[[str], None]) -> ClipEncoder:
    """Return what `faster` does, on whatever device the encoder is."""
    pixels = np.stack([encoder.byte_pixels(image) for image in golden_images()])
    exact = encoder.encode_pixels(pixels)
    size = encoder.batch_size
    other = encoder.with_image_tower(backend, lambda tower: FixedBatches(make(tower, encoder.device), size))
    try:
        found = other.encode_pixels(pixels)
    except Exception as error:  # a compiler's may be of any kind
        said = str(error).strip().partition("\n")[0][:200]
        raise EncoderError(
            f"{backend} cannot compute encoder {encoder.spec!r} on {encoder.device}: {type(error).__name__}: {said}; "
            "leave --backend out (torch-compile needs a C compiler and the package triton)"
        ) from error
    cosine = float(np.einsum("nd,nd->n", found, exact).min())
    if other.backend == backend and cosine >= GATE:
        return other
    why = f"{encoder.device} has no memory for it in batches of {size}; a smaller --batch-size may find some"
    if other.backend == backend:
        why = f"its cosine to torch, {cosine:.4f}, is below {GATE}"
    warn(f"images are encoded by torch, not by {backend}: {why}")
    return encoder


def _empty_like(images: torch.Tensor, count: int) -> torch.Tensor:
    """Return memory for `count` images like these, channels last."""
    shape = (count, *images.shape[1:])
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
