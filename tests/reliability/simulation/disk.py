"""Faults of a simulated disk, within this process: a kill, a full disk, an I/O error, an interruption."""

from __future__ import annotations

import ctypes
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shim import Arming, Call, arm, disarm, read_record

from storage.files import atomic

# A publish makes some 70 calls, a build twice as many; a number beyond the last one disturbs nothing.
MOST_CALLS = 90
MOST_NAMED_STEPS = 40
_ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")


@dataclass(frozen=True)
class Fault:
    """What disturbs one change of the disk.

    `cut off`: from a call on nothing reaches the disk, as after SIGKILL. `fail`: one call fails. `full`: from a call on
    nothing takes space. `part`: one write is short. `interrupt`: Ctrl-C at a named step of `storage.files.atomic`.
    """

    kind: str
    at: int
    error: str = "EIO"

    @property
    def ends_the_process(self) -> bool:
        """Whether nobody is left to be told how it ended."""
        return self.kind in ("cut off", "interrupt")


def shim_is_loaded() -> bool:
    """Whether this process was started with the shim before the C library."""
    return hasattr(ctypes.CDLL(None), "shim_arm")


class Disk:
    """Disturbs and records what happens below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_shim = shim_is_loaded()

    def fault(self, chance: random.Random) -> Fault:
        """A fault at a random call or named step."""
        with_shim = ("cut off", "cut off", "cut off", "fail", "fail", "full", "part") if self.has_shim else ()
        kind = chance.choice(("interrupt", *with_shim))
        most = MOST_NAMED_STEPS if kind == "interrupt" else MOST_CALLS
        return Fault(kind, chance.randrange(most), chance.choice(_ERRORS))

    @contextmanager
    def disturbed(self, fault: Fault | None) -> Iterator[None]:
        """Let the fault happen to what is done in the block."""
        if fault is None:
            yield
            return
        if fault.kind == "interrupt":
            atomic.hook = _interrupting(fault.at)
        else:
            action, error = {"full": "fail from"}.get(fault.kind, fault.kind), fault.error
            error = {"full": "ENOSPC", "cut off": "EIO"}.get(fault.kind, error)
            arm(self.folder, Arming(action=action, at=fault.at, error=error))
        try:
            yield
        finally:
            atomic.hook = None
            if self.has_shim:
                disarm()

    @contextmanager
    def recorded(self, *, with_data: bool = False) -> Iterator[list[Call]]:
        """Record every call of the block; the list is filled when it ends."""
        calls: list[Call] = []
        with tempfile.NamedTemporaryFile(dir=self.folder.parent) as record:
            descriptor = arm(self.folder, Arming(record=record.name, with_data=with_data))
            try:
                yield calls
            finally:
                disarm()
                os.close(descriptor)
                calls += read_record(Path(record.name), self.folder)


def _interrupting(step: int) -> Callable[[str], None]:
    seen = 0

    def hook(_name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == step + 1:
            raise KeyboardInterrupt

    return hook


def unsynced(calls: Sequence[Call]) -> list[str]:
    """What of a version was not safe yet when CURRENT named it, and CURRENT itself when all was done."""
    pending: set[str] = set()
    wrong: list[str] = []
    for call in calls:
        if call.result < 0:
            continue
        parent = str(PurePosixPath(call.path).parent)
        if call.name == "fsync":
            pending.discard(call.path)
        elif call.name == "rename":
            if call.other == "CURRENT":
                wrong += sorted(path for path in pending if path.startswith("versions") or path == call.path)
            pending = {path.replace(call.path, call.other, 1) for path in pending} | {parent}
        elif call.name in ("unlink", "rmdir"):
            pending = {path for path in pending if path != call.path} | {parent}
        else:
            pending |= {parent} if call.name == "mkdir" else {call.path}
            pending |= {parent} if call.name == "open" else set()
    return wrong + [f"{path}, at the end" for path in sorted(pending & {".", "CURRENT"})]
