"""A simulated index with what is known of it: each step changes both, and what was promised is compared after it."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from searcher import Searcher
from storage import IndexStore, TwinlensError
from storage.errors import CorruptIndexError, IncompatibleIndexError, IndexNotFoundError, PublishStateUnknownError
from storage.version import IndexVersion

from .compare import compare, same_ranking
from .disk import Disk, Fault
from .expected import Content, unit
from .promise import BrokenPromiseError, expect

MANIFEST = "manifest.json"
MOST_READERS = 4
Stat = tuple[int, ...]


@dataclass
class Known:
    """A version: its content, the checksum and state of each of its files, and the bytes of those that are damaged."""

    content: Content
    parent: int | None
    hashes: dict[str, str]
    stats: dict[str, Stat]
    damaged: dict[str, bytes | None] = field(default_factory=dict)


@dataclass
class Reader:
    """An open searcher, which must go on to answer from the version it has opened."""

    searcher: Searcher
    number: int
    content: Content

    @property
    def version(self) -> IndexVersion:
        return self.searcher._version


@dataclass(frozen=True)
class Ended:
    """How a disturbed change ended: by itself, by an error of ours, or as a process that is gone."""

    fault: Fault | None
    error: TwinlensError | None = None
    gone: bool = False

    @property
    def done(self) -> bool:
        """Whether it says that it is done, and nothing stood against it."""
        return self.error is None and not self.gone


class World:
    """One index under simulation.

    Attributes:
        versions: What is known of each.
        current: The version that CURRENT names; None where nothing is published or CURRENT is lost.
        pointer: `good`, `lost` or `damaged`: what CURRENT is.
        readers: Open searchers.
        done: How often each step was taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index"
        self.store = IndexStore.create(self.path)
        self.disk = Disk(self.path)
        self.versions: dict[int, Known] = {}
        self.current: int | None = None
        self.pointer = "good"
        self.readers: list[Reader] = []
        self.staged: dict[tuple[str, int], bytes] = {}
        self.changed = False
        self.compared: int | None = None
        self.done: Counter[str] = Counter()

    def close(self) -> None:
        """Close the readers and remove the folder."""
        for reader in self.readers:
            reader.searcher.close()
        shutil.rmtree(self.folder)

    # --- changes

    def attempt(self, action: Callable[[], Any], fault: Fault | None = None) -> Ended:
        """Carry out a change, perhaps disturbed, then open the index as another process would."""
        self.changed = True
        error, gone = None, fault is not None and fault.ends_the_process
        try:
            with self.disk.disturbed(fault):
                action()
        except KeyboardInterrupt:
            expect(fault is not None and fault.kind, "interrupt", "who raised KeyboardInterrupt")
        except TwinlensError as raised:
            error = raised
            expect("\n" in str(error), False, f"{type(error).__name__} in one line: {error}")
            expect(fault is not None, True, f"{type(error).__name__} without a fault: {error}")
            if not gone:
                expect(str(self.path) in str(error), True, f"the path is named in {error}")
        self.store = IndexStore.open(self.path)
        self.done["faults that struck"] += error is not None or (gone and fault is not None)
        return Ended(fault, error, gone)

    def refused(self, kinds: tuple[type[TwinlensError], ...], action: Callable[[], Any], what: str) -> str:
        """Return the message of the error that an action must end with."""
        try:
            action()
        except kinds as error:
            return str(error)
        raise BrokenPromiseError(f"{what} was not refused")

    def after_publishing(self, ended: Ended, content: Content, parent: int | None) -> int | None:
        """Take note of what a publish has left: the old version, or the new one, whole."""
        new = set(self.store.versions()) - set(self.versions)
        expect(len(new) <= 1, True, f"at most one new version, found {sorted(new)}")
        number = next(iter(new), None)
        if number is not None:
            expect(number > max(self.versions, default=0), True, f"{number} is a new number")
            self.adopt(number, content, parent)
        named = self.named()
        expect(named in (self.current, number), True, f"CURRENT names {named}, the old or the new version")
        if ended.done:
            expect(number is not None and named == number, True, f"the new version is current, CURRENT names {named}")
        elif not ended.gone and not isinstance(ended.error, PublishStateUnknownError):
            expect(named, self.current, f"CURRENT after {ended.error}")
        if number is not None and named == number:
            self.current, self.pointer = number, "good"
        return number

    def adopt(self, number: int, content: Content, parent: int | None) -> None:
        """Take note of a version that was published."""
        folder = self.store.version_path(number)
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        hashes = {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}
        self.versions[number] = Known(content, parent, hashes, stats(folder))
        with self.store.open_version(number) as version:
            expect(version.manifest.parent, parent, f"parent of version {number}")
            compare(version, content)
        self.compared = number

    def forget(self, numbers: set[int]) -> None:
        """Take note of versions that were removed."""
        expect(self.current in numbers, False, f"the current version {self.current} was removed")
        for number in numbers:
            del self.versions[number]

    def named(self) -> int | None:
        """What CURRENT names, as its bytes say; None where it is lost or damaged."""
        path = self.path / "CURRENT"
        if not path.exists():
            return None
        number, _, digest = path.read_bytes().decode("ascii", "replace").partition(" ")
        if not (number.isascii() and number.isdigit()) or int(number) not in self.versions:
            return None
        return int(number) if digest == self.versions[int(number)].hashes[MANIFEST] + "\n" else None

    # --- what is promised after each step

    def check(self, chance: random.Random) -> None:
        """Compare what is published with what is expected; in full after a change, else a little of it."""
        if self.changed:
            self.changed = False
            self._check_all()
            return
        expect(self.store.versions(), sorted(self.versions), "the versions")
        if self.pointer == "good":
            expect(self.store.current(), self.current, "the current version")
        if self.versions and chance.random() < 0.2:
            number = chance.choice(sorted(self.versions))
            expect(stats(self.store.version_path(number)), self.versions[number].stats, f"files of version {number}")
        if self.readers and chance.random() < 0.2:
            one_search(chance.choice(self.readers), chance)

    def _check_all(self) -> None:
        expect(self.store.versions(), sorted(self.versions), "the versions")
        for number, known in self.versions.items():
            expect(stats(self.store.version_path(number)), known.stats, f"files of version {number}")
        if self.pointer == "good":
            expect(self.store.current(), self.current, "the current version")
            expect(self.named(), self.current, "what CURRENT names")
        if self.current is None or self.current != self.compared:
            self.open(None)
        self.compared = None

    def open(self, asked: int | None) -> None:
        """Open a version, or see that it is refused, and compare all that it holds."""
        number = self.current if asked is None else asked
        if asked is None and self.pointer == "damaged":
            self.refused((CorruptIndexError,), self.store.open_version, "an index with a damaged CURRENT")
        elif number is None:
            self.refused((IndexNotFoundError,), self.store.open_version, "an index without a current version")
        elif damaged := self.versions[number].damaged:
            kinds = (CorruptIndexError, *((IncompatibleIndexError,) if MANIFEST in damaged else ()))
            told = self.refused(kinds, lambda: self.store.open_version(asked), f"version {number}, damaged")
            expect(any(f"{number:08d}/{name}" in told for name in damaged), True, f"{told!r} names of {set(damaged)}")
        else:
            with self.store.open_version(asked) as version:
                expect(version.number, number, "the version that was opened")
                compare(version, self.versions[number].content)

    @contextmanager
    def searcher(self, number: int | None) -> Iterator[Searcher]:
        """Open a searcher of ready vectors."""
        with Searcher.open(self.path, version=number) as searcher:
            yield searcher


def one_search(reader: Reader, chance: random.Random) -> None:
    """Search one half of an open version exactly and compare ids and scores, bit for bit."""
    name = chance.choice(sorted(reader.content.halves))
    queries, k = random_queries(chance, reader.content.dim), chance.randrange(1, 9)
    found = reader.version.ann(name).search(queries, k, nprobe=4096, oversample=8)
    same_ranking(found, reader.content.halves[name].ranking(queries, k), f"version {reader.number}")


def random_queries(chance: random.Random, dim: int) -> np.ndarray:
    """One to three unit queries, now and then along an axis."""
    if chance.random() < 0.1:
        return np.eye(dim, dtype=np.float32)[[chance.randrange(dim)]]
    start = chance.randrange(200)
    return _pool(dim)[start : start + chance.randrange(1, 4)]


@cache
def _pool(dim: int) -> np.ndarray:
    return unit(np.random.default_rng(dim).standard_normal((203, dim)))


def stats(folder: Path) -> dict[str, Stat]:
    """What tells a file that was changed or replaced, for each below a folder."""
    return dict(_entries(str(folder), ""))


def _entries(folder: str, below: str) -> Iterator[tuple[str, Stat]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            told = entry.stat(follow_symlinks=False)
            yield below + entry.name, (told.st_ino, told.st_mode, told.st_size, told.st_mtime_ns)
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, f"{below}{entry.name}/")
