"""One encoder a GPU, in one process: each batch goes to whichever is free, and comes back in its turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from encoders import Encoder, EncoderError, load_encoder
from encoders.base import backend_of

from ..config import ON_GPU, BuildConfig
from ..errors import BuildError
from ..progress import Progress
from .build_encoder import DeferredEncoder, loaded, on_gpu_backend

# One that is computed, and one that is packed and sent meanwhile.
_BATCHES_A_GPU = 2


def team_of(encoder: Encoder, config: BuildConfig, progress: Progress) -> EncoderTeam:
    """Return the encoder of a build with its like on every other GPU that the build may use.

    In an update that has not loaded its encoder yet, the others are loaded with the first batch that comes to them.

    Raises:
        BuildError: The encoder is not on a GPU, or another than it is loaded by its name.
        EncoderError: There are fewer GPUs.
    """
    others = [OnOtherDevice(encoder, number, config, progress) for number in range(1, config.gpus)]
    if not isinstance(encoder, DeferredEncoder) or encoder.is_loaded:
        for other in others:
            other.load()
    return EncoderTeam([encoder, *others])


class OnOtherDevice:
    """The encoder of a build on another GPU, loaded when it is first needed. Safe from many threads.

    Args:
        encoder: Of the build.
        number: Which of the further GPUs, from 1.
        config: Says how many there are in all.
        progress: Told when it is loaded.
    """

    def __init__(self, encoder: Encoder, number: int, config: BuildConfig, progress: Progress) -> None:
        self._encoder, self._number, self._config, self._progress = encoder, number, config, progress
        self._loaded: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        """Where it runs, or will."""
        return f"cuda:{self._number}" if self._loaded is None else self._loaded.device

    @property
    def batch_size(self) -> int:
        """Images that it computes at once."""
        return (self._loaded or self._encoder).batch_size

    def load(self) -> Encoder:
        """Return the encoder itself, loaded where it is not yet.

        Raises:
            BuildError: The encoder of the build is not on a GPU, or another is loaded by its name.
            EncoderError: There are fewer GPUs.
        """
        with self._lock:
            if self._loaded is None:
                first = loaded(self._encoder)
                device = other_devices(first, self._config.gpus)[self._number - 1]
                self._progress.note(f"loading encoder {first.spec} on {device}")
                self._loaded = _loaded_on(device, first, self._progress)
            return self._loaded

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the encoder returns."""
        return self.load().encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return what the encoder returns."""
        return self.load().encode_texts(texts)


def _loaded_on(device: str, first: Encoder, progress: Progress) -> Encoder:
    other = load_encoder(first.spec, device, first.precision)
    if other.fingerprint != first.fingerprint:
        raise BuildError(
            f"encoder {first.spec!r} was loaded again for {device} and is another than before "
            f"({other.fingerprint}, not {first.fingerprint}); leave --gpus out, or its files as they are"
        )
    other.batch_size = first.batch_size
    backend = backend_of(first)
    return on_gpu_backend(other, backend, progress) if backend in ON_GPU else other


def other_devices(encoder: Encoder, gpus: int) -> tuple[str, ...]:
    """Return the names of the GPUs of this machine beside the first, which the encoder is on.

    Raises:
        BuildError: The encoder is not on the first GPU.
        EncoderError: There are fewer.
    """
    import torch

    if encoder.device not in ("cuda", "cuda:0"):
        raise BuildError(f"--gpus {gpus} goes with an encoder on the first GPU, not on {encoder.device}; leave it out")
    count = torch.cuda.device_count()
    if gpus > count:
        raise EncoderError(f"--gpus {gpus}: torch sees {count} of them; give {count} at most, or leave --gpus out")
    return tuple(f"cuda:{number}" for number in range(1, gpus))


class Member(Protocol):
    """What a team asks of an encoder."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def batch_size(self) -> int:
        """Images that it computes at once."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return (n, dim) rows of images."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) rows of texts."""


class EncoderTeam:
    """Encoders of one model, each on a device of its own, that batches are dealt to.

    A batch goes to the encoder that has been free for longest, so that a slow GPU gets fewer. On GPUs of one kind the
    vectors are the same whichever computes them.

    Args:
        encoders: One at least; all with the same weights and precision.
    """

    def __init__(self, encoders: Sequence[Member]) -> None:
        self.encoders = tuple(encoders)
        self.devices = tuple(encoder.device for encoder in encoders)
        self.on_cpu_alone = self.devices == ("cpu",)
        self.threads = 1 if self.on_cpu_alone else _BATCHES_A_GPU * len(self.encoders)
        """How many batches may be handed over at once."""
        self._free: SimpleQueue[Member] = SimpleQueue()
        for _ in range(self.threads // len(self.encoders)):
            for encoder in self.encoders:
                self._free.put(encoder)

    @property
    def batch_size(self) -> int:
        """Images that the smallest of the devices computes at once."""
        return min(encoder.batch_size for encoder in self.encoders)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the encoder returns.

        Raises:
            EncoderError: The device that the batch went to has failed.
        """
        with self._one() as encoder:
            return encoder.encode_pixels(pixels)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Return what the encoder returns.

        Raises:
            EncoderError: The device that the batch went to has failed.
        """
        with self._one() as encoder:
            return encoder.encode_texts(texts)

    @contextmanager
    def _one(self) -> Iterator[Member]:
        """Give an encoder that is free; what fails on a GPU is said in one line, with the device."""
        encoder = self._free.get()
        try:
            yield encoder
        except RuntimeError as error:  # as CUDA fails in torch
            if self.on_cpu_alone:
                raise
            said = str(error).partition("\n")[0]
            raise EncoderError(
                f"device {encoder.device!r} failed: {said}; run the same command again, which goes on with what is "
                "encoded, without that device where it fails again (CUDA_VISIBLE_DEVICES names those to use)"
            ) from error
        finally:
            self._free.put(encoder)
