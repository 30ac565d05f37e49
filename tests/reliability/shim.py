"""The shim between a program and the file system (`fault_shim.c`): made, armed in a process, and its record read."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "fault_shim.c"
# The order of the actions in the C source.
ACTIONS = ("record", "kill before", "kill after", "fail", "fail from", "part", "cut off")


@dataclass(frozen=True)
class Call:
    """One call that changes what is below the folder, by its path there; `data` is what a write has written."""

    name: str
    path: str
    other: str = ""
    offset: int = 0
    size: int = 0
    result: int = 0
    data: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Arming:
    """What the shim is to do at the call with a number, counted from 0."""

    action: str = "record"
    at: int = 0
    error: str = "ENOSPC"
    record: str = ""
    with_data: bool = False
    with_reads: bool = False

    def to_json(self) -> dict[str, Any]:
        return self.__dict__


def missing() -> str | None:
    """Return why the shim cannot be used here; None where it can."""
    if os.uname().sysname != "Linux":
        return "the shim stands before the C library of Linux"
    return None if shutil.which("gcc") else "gcc is absent, which the shim is compiled with"


def compile_shim(folder: Path) -> Path:
    """Compile the shim into a folder and return the library for LD_PRELOAD."""
    library = folder / "fault_shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def arm(folder: Path, arming: Arming) -> int:
    """Arm the shim that this process was started with, for what lies below a folder; return the record's descriptor."""
    record = -1
    if arming.record:
        record = os.open(arming.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    number = getattr(errno, arming.error)
    ctypes.CDLL(None).shim_arm(
        os.fsencode(folder.resolve()),
        ACTIONS.index(arming.action),
        ctypes.c_long(arming.at),
        number,
        record,
        int(arming.with_data),
        int(arming.with_reads),
    )
    return record


def disarm() -> None:
    """Let every call pass from here on."""
    ctypes.CDLL(None).shim_disarm()


def read_record(path: Path, folder: Path) -> list[Call]:
    """Return the calls of a record in order, their paths below `folder`."""
    return list(_calls(path.read_bytes(), str(folder.resolve())))


def _calls(record: bytes, folder: str) -> Iterator[Call]:
    place = 0
    while place < len(record):
        end = record.index(b"\n", place)
        name, offset, size, result, follows, where, other = record[place:end].decode().split("\t")
        place = end + 1 + int(follows)
        yield Call(
            name=name,
            path=_below(where, folder),
            other=_below(other, folder),
            offset=int(offset),
            size=int(size),
            result=int(result),
            data=record[end + 1 : place],
        )


def _below(path: str, folder: str) -> str:
    if not path or not path.startswith(folder):
        return path
    return path.removeprefix(folder).lstrip("/") or "."
