"""Copies to a GPU run beside its arithmetic: in which order what is asked of CUDA, by an object that writes it down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from encoders.transfer import Transfer, pinned


class Cuda:
    """What is asked of CUDA, in order; each call names the stream that it goes to."""

    def __init__(self, refuses: int = 0) -> None:
        self.calls: list[str] = []
        self.current = Stream(self, "computing")
        self.refuses = refuses

    def Stream(self, device: str) -> Stream:  # noqa: N802
        self.calls.append(f"a stream on {device}")
        return Stream(self, "copying")

    def current_stream(self, device: str) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.calls.append(f"pin {size} bytes{' for every GPU' if flags & 1 else ''}")
        self.pinned_at = address
        return self.refuses

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        assert address == self.pinned_at
        self.calls.append("unpin")
        return 0


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def record_event(self) -> str:
        self.cuda.calls.append(f"{self.name}: event")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.cuda.calls.append(f"{self.name}: wait for {event}")


class Batch:
    """A batch in this machine's memory or on the device."""

    def __init__(self, cuda: Cuda, kind: str = "cpu", is_pinned: bool = False) -> None:
        self._cuda, self._is_pinned, self.device = cuda, is_pinned, torch.device(kind)

    def is_pinned(self) -> bool:
        return self._is_pinned

    def pin_memory(self) -> Batch:
        self._cuda.calls.append("pin")
        return Batch(self._cuda, is_pinned=True)

    def to(self, device: str, non_blocking: bool = False) -> Batch:
        self._cuda.calls.append(f"{self._cuda.current.name}: copy{'' if non_blocking else ' and wait'}")
        assert self._is_pinned or self.device.type == "cuda"
        return Batch(self._cuda, "cuda")

    def record_stream(self, stream: Stream) -> None:
        self._cuda.calls.append(f"memory is used by {stream.name}")


COPIED = ["copying: copy", "copying: event", "computing: wait for event of copying", "memory is used by computing"]


def test_a_copy_waits_for_nothing_and_what_is_computed_waits_for_its_copy_alone() -> None:
    cuda = Cuda()
    send: Any = Transfer("cuda:1", cuda)
    for is_pinned in (False, True):
        assert send(Batch(cuda, is_pinned=is_pinned)).device.type == "cuda"
    assert cuda.calls == ["pin", "a stream on cuda:1", *COPIED, *COPIED]


def test_what_is_on_the_device_is_not_copied_beside_what_made_it() -> None:
    cuda = Cuda()
    send: Any = Transfer("cuda", cuda)
    send(Batch(cuda, "cuda"))
    assert cuda.calls == ["computing: copy and wait"]  # to the device where it is: torch copies nothing


def test_on_a_cpu_a_batch_stays_where_it_is() -> None:
    batch = torch.arange(3)
    assert Transfer("cpu")(batch) is batch


@pytest.mark.parametrize(
    ("refuses", "asked"),
    [(0, ["pin 6 bytes for every GPU", "copies", "unpin"]), (2, ["pin 6 bytes for every GPU", "copies"])],
)
def test_shared_memory_is_pinned_for_as_long_as_it_is_copied_from(refuses: int, asked: list[str]) -> None:
    cuda, memory = Cuda(refuses), np.zeros((2, 3), np.uint8)

    def copy_and_fail() -> None:
        with pinned(memory, "cpu", cuda) as is_pinned:
            assert is_pinned == (refuses == 0)
            cuda.calls.append("copies")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        copy_and_fail()
    assert (cuda.calls, cuda.pinned_at) == (asked, memory.ctypes.data)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_what_was_sent_from_pinned_and_other_memory() -> None:
    memory = np.random.default_rng(0).integers(0, 256, (4, 1 << 18), dtype=np.uint8)
    send = Transfer("cuda")
    with pinned(memory, "cuda") as is_pinned:
        assert is_pinned
        assert torch.from_numpy(memory).is_pinned()
        for sent in (torch.from_numpy(memory), torch.from_numpy(memory.copy())):
            np.testing.assert_array_equal(send(sent).cpu().numpy(), memory)
