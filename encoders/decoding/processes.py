"""Processes that decode images and write their bytes into shared memory, where the interpreter's lock holds nobody up.

Threads of one process take turns at everything that Python does for an image, 0.2 to 0.5 ms of each: however many cores
there are, they decode 2,000 to 4,700 images a second. A process that only asks and gets no pixels back takes a fraction
of that time.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from storage.child_process import ChildProcess, ProcessEndedError, ProcessPool
from storage.schema import ImageInfo

from ..errors import EncoderError, ImageError
from ..images import DecodeLimits
from ..preprocess import PreprocessConfig
from .shared_pixels import SharedPixels, Slot

# A process that waits for a busy machine is not too slow; what an image may compute is for the process to check.
_LATEST, _WAITS = 60.0, 50.0
_TRIES = 2
# Fewer threads than this decode as fast as processes, and for fewer images these do not pay for their start.
_PROCESSES_FROM, _IMAGES_FROM = 4, 10_000


def processes_pay(workers: int, images: int) -> bool:
    """Return whether so many images are decoded sooner by processes than by as many threads, for a GPU.

    Processes take 2 to 3 s to start, in which threads decode 4,000 to 14,000 images.
    """
    return workers >= _PROCESSES_FROM and images >= _IMAGES_FROM


class DecodeProcesses:
    """Decodes and resizes images in processes; bytes and errors are those of `decode_image` and `FastPreprocess`.

    A process that dies is replaced, and its image tried once more, as it may have been ended for no fault of the image.
    Safe from many threads; a context manager that ends the processes.
    """

    def __init__(self, config: PreprocessConfig, limits: DecodeLimits, *, processes: int, slots: int) -> None:
        """Begin to start processes, which takes seconds; `is_ready` tells when, and `wait` waits for it.

        Args:
            config: What an image is made into.
            limits: What an image may cost.
            processes: At most so many; each takes 300 MB.
            slots: Images that may be under way, from the begin of their decoding until they are encoded.
        """
        self._shared = SharedPixels(slots, config.pixel_shape)
        self._setup = {"count": slots, "config": asdict(config), "limits": asdict(limits)}
        self._seconds = _LATEST + _WAITS * limits.max_seconds
        self._pool = ProcessPool(self._started, processes)
        self._ready = False
        # As many requests at once as processes, so that each of them starts one.
        self._starters = ThreadPoolExecutor(processes, thread_name_prefix="decode-start")
        self._starts = [self._starters.submit(self._pool.ask, {}, seconds=_LATEST) for _ in range(processes)]

    @property
    def is_ready(self) -> bool:
        """Whether all processes have been started."""
        if not self._ready:
            self._ready = all(start.done() for start in self._starts) and self.failure is None
        return self._ready

    @property
    def failure(self) -> BaseException | None:
        """Why a process could not be started, an `EncoderError` as a rule; None where none has failed."""
        return next((start.exception() for start in self._starts if start.done() and start.exception()), None)

    def wait(self) -> None:
        """Wait until the processes have been started.

        Raises:
            EncoderError: One of them cannot be started.
        """
        for start in self._starts:
            start.result()

    @property
    def pixels(self) -> SharedPixels:
        """The memory that the images are written to."""
        return self._shared

    def decode(self, source: Path | bytes, slot: Slot) -> ImageInfo:
        """Write an image to `slot` as (3, H, W) bytes, and return what is known of it.

        Raises:
            ImageError: It cannot be decoded, or has ended two processes.
            EncoderError: No process can be started.
        """
        request = {"slot": slot.number, "path": str(source) if isinstance(source, Path) else None}
        told = self._ask(request, source if isinstance(source, bytes) else b"")
        if "failed" in told:
            raise ImageError(*told["failed"])
        return info_from(told["info"])

    def close(self) -> None:
        """End the processes; the memory goes with the last array over it."""
        self._starters.shutdown(wait=True, cancel_futures=True)
        self._pool.close()
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], data: bytes) -> Mapping[str, Any]:
        for attempt in range(_TRIES):
            try:
                return self._pool.ask(request, data, seconds=self._seconds)[0]
            except ProcessEndedError as error:
                if attempt + 1 == _TRIES:
                    raise ImageError(
                        "corrupt", f"decoding it ended {_TRIES} processes, {_ended(error.code)}"
                    ) from error
            except TimeoutError as error:
                raise ImageError(
                    "too_slow", f"a process that decodes it gave no answer in {self._seconds:g} s"
                ) from error
        raise AssertionError  # the loop returns or raises

    def _started(self) -> ChildProcess:
        descriptor = self._shared.descriptor
        arguments = (str(descriptor), json.dumps(self._setup))
        try:
            return ChildProcess("encoders.decoding.decode_worker", arguments, (descriptor,))
        except (ProcessEndedError, TimeoutError, OSError) as error:
            how = (
                _ended(error.code) if isinstance(error, ProcessEndedError) else str(error) or "it was not ready in time"
            )
            raise EncoderError(
                f"a process that decodes images cannot be started: {how}; decode in threads (--decode-in threads)"
            ) from error


def _ended(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit {code}"
    return f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"signal {-code}"


def info_as_json(info: ImageInfo) -> dict[str, Any]:
    """Return what is known of an image as JSON values."""
    taken_at = info.taken_at
    return {**asdict(info), "taken_at": None if taken_at is None else taken_at.isoformat()}


def info_from(values: Mapping[str, Any]) -> ImageInfo:
    """Return what `info_as_json` was made of."""
    taken_at, keywords = values["taken_at"], values["keywords"]
    return ImageInfo(
        **{
            **values,
            "taken_at": None if taken_at is None else datetime.fromisoformat(taken_at),
            "keywords": None if keywords is None else tuple(keywords),
        }
    )
