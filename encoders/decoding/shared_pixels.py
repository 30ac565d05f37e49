"""Shared memory for images of one shape: slots that other processes write to, handed out in a ring.

The memory has no name in any folder. It is gone with the last process that has it open, however that one ended.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np


class Slot:
    """Room for one image, in use until `release`.

    Attributes:
        number: Its index among the slots.
        pixels: (3, H, W) uint8, a view of the shared memory.
    """

    __slots__ = ("_owner", "number", "pixels")

    def __init__(self, owner: SharedPixels, number: int) -> None:
        self.number, self.pixels = number, owner.array[number]
        self._owner = owner

    def release(self) -> None:
        """Let the slot be used for another image; nobody may read or write it any more."""
        self._owner._release(self.number)


class SharedPixels:
    """Slots for `count` images of `shape`. Safe from many threads.

    Slots that are taken one after the other lie one after the other where they are free, so that the images of a batch
    are one array as a rule: see `joined`.

    Attributes:
        array: (count, *shape) uint8 over all slots.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self._file = _nameless_file()
        size = count * int(np.prod(shape))
        self._file.truncate(size)
        self.array = mapped(self.descriptor, count, shape)
        self._lock = threading.Lock()
        self._used = bytearray(count)
        self._next = 0

    @property
    def descriptor(self) -> int:
        """The open file of the memory, which a child process may inherit."""
        return self._file.fileno()

    @property
    def free(self) -> int:
        """How many slots are free."""
        return self._used.count(0)

    def take(self) -> Slot | None:
        """Return the next free slot behind the one that was taken last; None where all are in use."""
        with self._lock:
            number = self._used.find(0, self._next)
            if number < 0:
                number = self._used.find(0)
            if number < 0:
                return None
            self._used[number] = 1
            self._next = (number + 1) % len(self._used)
        return Slot(self, number)

    def close(self) -> None:
        """Give up the file; the memory goes with the last array over it."""
        self._file.close()

    def _release(self, number: int) -> None:
        with self._lock:
            self._used[number] = 0


def mapped(descriptor: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the memory behind a file as (count, *shape) uint8, shared with every process that has it open."""
    memory = mmap.mmap(descriptor, count * int(np.prod(shape)))
    return np.frombuffer(memory, dtype=np.uint8).reshape(count, *shape)


def _nameless_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("twinlens-pixels"), "w+b")
    return tempfile.TemporaryFile()  # macOS: a file that has lost its name


def joined(images: Sequence[np.ndarray], slots: Sequence[Slot | None]) -> np.ndarray:
    """Return n images of one shape as one array, without a copy where their slots lie one after the other.

    Args:
        images: The images.
        slots: Which slot of one `SharedPixels` each of them lies in; None for one that lies elsewhere.
    """
    first = slots[0]
    numbers = [None if slot is None else slot.number for slot in slots]
    if first is None or numbers != list(range(first.number, first.number + len(images))):
        return np.stack(images)
    view: np.ndarray = first._owner.array[first.number : first.number + len(images)]
    return view
