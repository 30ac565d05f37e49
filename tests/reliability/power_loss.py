"""What a disk may hold after a power loss, from the record of a build: every write, entry and rename since its sync.

Nothing is taken for granted but what a call promises. Bytes of a file are safe once the file was synced, its name once
its folder was; until then each write and each change of a folder may be on the disk or not, whatever came before or
after it, and the last write may be there in part. A rename is one change: both names of it, or neither.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shim import Call

PAGE = 4096


@dataclass
class File:
    """Bytes that are safe, and writes since: number of the call, offset (None for a new length), bytes or length."""

    safe: bytes = b""
    pending: list[tuple[int, int | None, bytes | int]] = field(default_factory=list)
    syncs: int = 0

    def content(self, kept: frozenset[int], torn: Torn | None) -> bytes:
        """The bytes with the writes that were kept."""
        data = bytearray(self.safe)
        for number, offset, value in self.pending:
            if number not in kept:
                continue
            if isinstance(value, int):
                data = data[:value].ljust(value, b"\0")
                continue
            piece = torn.cut(value) if torn and torn.number == number else value
            start = offset or 0
            data = data.ljust(start, b"\0")
            data[start : start + len(piece)] = piece
        return bytes(data)


@dataclass
class Folder:
    """Names that are safe, names as the program sees them, and changes since the last sync."""

    safe: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, tuple[tuple[str, int | None], ...]]] = field(default_factory=list)

    def entries(self, kept: frozenset[int]) -> dict[str, int]:
        """The names with the changes that were kept."""
        found = dict(self.safe)
        for number, changes in self.pending:
            if number in kept:
                _apply(found, changes)
        return found


@dataclass(frozen=True)
class Torn:
    """The last write, there in part: a share of its bytes, or a page of zeros in it."""

    number: int
    how: str

    def cut(self, data: bytes) -> bytes:
        """Return what is there of the bytes."""
        if self.how == "half":
            return data[: len(data) // 2]
        if self.how == "sector":
            return data[: len(data) // 512 * 512]
        start = len(data) // 2 // PAGE * PAGE
        zeros = bytes(len(data[start : start + PAGE]))
        return data[:start] + zeros + data[start + PAGE :]


@dataclass(frozen=True)
class State:
    """One thing that the disk may hold: the calls that had happened, and those of them that are on the disk."""

    after: int
    kept: frozenset[int]
    torn: Torn | None = None


class Disk:
    """Plays a record back, from a folder as it was."""

    def __init__(self, start: Path) -> None:
        self._nodes: dict[int, File | Folder] = {}
        self._hashes: dict[tuple[int, int, frozenset[int], Torn | None], str] = {}
        self._root = self._load(start) if start.exists() else self._add(Folder())
        self.done = 0

    def play(self, call: Call) -> None:
        """Carry out one more call."""
        number, self.done = self.done, self.done + 1
        if call.result < 0:
            return
        path = PurePosixPath(call.path)
        if call.name == "fsync":
            self._sync(self._node(path))
        elif call.name in ("write", "truncate", "open-truncate"):
            self._change_file(number, call, self._node(path))
        elif call.name == "rename":
            self._rename(number, path, PurePosixPath(call.other))
        elif call.name in ("open", "mkdir"):
            made = self._add(File() if call.name == "open" else Folder())
            # The index folder itself: who made it has synced its parent, which is not below it.
            if call.path == ".":
                self._root = made
            else:
                self._change_folder(number, self._folder(path.parent), ((path.name, made),))
        else:
            self._change_folder(number, self._folder(path.parent), ((path.name, None),))

    def states(self, chance: random.Random, subsets: int) -> Iterator[State]:
        """Yield what the disk may hold now: none, all, all but one and one alone of what is pending, subsets, tears."""
        pending = sorted(self._pending())
        entries = frozenset(
            number for node in self._nodes.values() if isinstance(node, Folder) for number, _ in node.pending
        )
        everything = frozenset(pending)
        chosen = [frozenset(), everything, entries, everything - entries]
        for number in pending[-8:]:
            chosen += [everything - {number}, frozenset({number})]
        chosen += [frozenset(n for n in pending if chance.random() < 0.5) for _ in range(subsets)]
        for kept in dict.fromkeys(chosen):
            yield State(self.done, kept)
        last = self._last_write()
        if last is not None:
            for how in ("half", "sector", "zeros"):
                yield State(self.done, everything, Torn(last, how))

    def digest(self, state: State) -> str:
        """Return a checksum of everything that the disk holds in a state."""
        told = hashlib.sha256()
        for name, held, number in self._walk(self._root, "", state):
            told.update(f"{name}\0{self._hash(number, held, state) if held else None}\0".encode())
        return told.hexdigest()

    def _hash(self, number: int, file: File, state: State) -> str:
        """The checksum of one file in a state, computed once for what its own writes make of it."""
        own = frozenset(change[0] for change in file.pending) & state.kept
        key = (number, file.syncs, own, state.torn)
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(file.content(state.kept, state.torn)).hexdigest()
        return self._hashes[key]

    def write(self, state: State, target: Path) -> Path:
        """Write what the disk holds in a state to a folder."""
        target.mkdir()
        for name, held, _ in self._walk(self._root, "", state):
            if held is None:
                (target / name).mkdir()
            else:
                (target / name).write_bytes(held.content(state.kept, state.torn))
        return target

    def _walk(self, number: int, below: str, state: State) -> Iterator[tuple[str, File | None, int]]:
        node = self._nodes[number]
        assert isinstance(node, Folder)
        for name, child in sorted(node.entries(state.kept).items()):
            held, path = self._nodes[child], f"{below}/{name}".lstrip("/")
            if isinstance(held, File):
                yield path, held, child
            else:
                yield path, None, child
                yield from self._walk(child, path, state)

    def _pending(self) -> set[int]:
        return {change[0] for node in self._nodes.values() for change in node.pending}

    def _last_write(self) -> int | None:
        writes = [
            change[0]
            for node in self._nodes.values()
            if isinstance(node, File)
            for change in node.pending
            if isinstance(change[2], bytes)
        ]
        return max(writes, default=None)

    def _sync(self, node: File | Folder) -> None:
        everything = frozenset(number for number, *_ in node.pending)
        if isinstance(node, File):
            node.safe, node.syncs = node.content(everything, None), node.syncs + 1
        else:
            node.safe = node.entries(everything)
        node.pending.clear()

    def _change_file(self, number: int, call: Call, node: File | Folder) -> None:
        assert isinstance(node, File)
        if call.name == "write":
            node.pending.append((number, call.offset, call.data))
        else:
            node.pending.append((number, None, call.offset))

    def _rename(self, number: int, source: PurePosixPath, target: PurePosixPath) -> None:
        assert source.parent == target.parent, "nothing here is renamed into another folder"
        folder = self._folder(source.parent)
        changes = ((source.name, None), (target.name, folder.seen[source.name]))
        self._change_folder(number, folder, changes)

    @staticmethod
    def _change_folder(number: int, folder: Folder, changes: tuple[tuple[str, int | None], ...]) -> None:
        folder.pending.append((number, changes))
        _apply(folder.seen, changes)

    def _node(self, path: PurePosixPath) -> File | Folder:
        number = self._root
        for name in path.parts:
            node = self._nodes[number]
            assert isinstance(node, Folder)
            number = node.seen[name]
        return self._nodes[number]

    def _folder(self, path: PurePosixPath) -> Folder:
        node = self._node(path)
        assert isinstance(node, Folder)
        return node

    def _add(self, node: File | Folder) -> int:
        self._nodes[len(self._nodes)] = node
        return len(self._nodes) - 1

    def _load(self, path: Path) -> int:
        if path.is_file():
            return self._add(File(safe=path.read_bytes()))
        held = {entry.name: self._load(Path(entry)) for entry in os.scandir(path)}
        return self._add(Folder(safe=dict(held), seen=dict(held)))


def _apply(entries: dict[str, int], changes: tuple[tuple[str, int | None], ...]) -> None:
    for name, child in changes:
        if child is None:
            entries.pop(name, None)
        else:
            entries[name] = child


def distinct_states(
    start: Path, calls: Sequence[Call], seed: int = 0, subsets: int = 5
) -> Iterator[tuple[Disk, State]]:
    """Yield every distinct state after each prefix of a record, with the disk that can write it out."""
    disk, chance, known = Disk(start), random.Random(seed), set()
    for call in (None, *calls):
        if call is not None:
            disk.play(call)
        for state in disk.states(chance, subsets):
            digest = disk.digest(state)
            if digest not in known:
                known.add(digest)
                yield disk, state
