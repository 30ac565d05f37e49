"""Copies from this machine's memory to a GPU, beside its arithmetic.

A GPU copies pinned memory without the processor, and on a stream of their own copies do not wait for what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch

_PORTABLE = 1  # pinned memory that every GPU may copy from (cudaHostRegisterPortable)


class Transfer:
    """Returns batches on a device. Safe from many threads.

    On a GPU the copy of a batch runs while the one before is computed; only what is computed with the batch waits for
    it. The call returns before the copy is done, so memory that was pinned before must stay as it is until something
    has waited for the results; what is pinned here is kept by torch until the copy is done.
    """

    def __init__(self, device: str, cuda: Any = torch.cuda) -> None:
        """Copy to `device`.

        Args:
            device: `cpu`, `cuda` or `cuda:N`.
            cuda: The module that makes streams.
        """
        self._device, self._cuda = device, cuda

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch on the device; one that is there already is returned as it is.

        Raises:
            torch.OutOfMemoryError: The device has no room for it.
        """
        if self._device == "cpu" or batch.device.type != "cpu":
            return batch.to(self._device)
        pinned = self.pin(batch)
        with self._cuda.stream(self._stream):
            there: torch.Tensor = pinned.to(self._device, non_blocking=True)
            copied = self._stream.record_event()
        computing = self._cuda.current_stream(self._device)
        computing.wait_event(copied)
        # Its memory is of the copying stream, which must not use it again before it was computed with.
        there.record_stream(computing)
        return there

    def pin(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch in pinned memory where it is to be copied: of use in a thread that makes batches."""
        if self._device == "cpu" or batch.device.type != "cpu" or batch.is_pinned():
            return batch
        return batch.pin_memory()

    @cached_property
    def _stream(self) -> Any:
        return self._cuda.Stream(self._device)


@contextmanager
def pinned(memory: np.ndarray, device: str, runtime: Any = None) -> Iterator[bool]:
    """Pin memory that is there already, for as long as the context lasts, and say whether that was possible.

    Where it was not, as in a system that allows no more of it, `Transfer` copies each batch to pinned memory first.

    Args:
        memory: One block, for example shared with other processes. Nothing may be copied from it any more at the end.
        device: Which GPU it is copied to.
        runtime: CUDA's; None takes that of torch.
    """
    runtime = torch.cuda.cudart() if runtime is None else runtime  # type: ignore[no-untyped-call]
    address = memory.ctypes.data
    if int(runtime.cudaHostRegister(address, memory.nbytes, _PORTABLE)):
        with suppress(RuntimeError):
            torch.zeros(1, device=device)  # takes the error, which CUDA would tell of whatever is computed next
        yield False
        return
    try:
        yield True
    finally:
        runtime.cudaHostUnregister(address)
