"""Damage to the files of the golden indexes: seeded cases, each the same bytes on every machine and for ever."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KINDS = ("flat", "hnsw", "ivf-flat", "ivf-pq", "ivf-pq4", "ivf-rabitq")
VERSION = "versions/00000001"
FILES = ("manifest.json", "catalog.duckdb", "images/vectors.arrow", "texts/vectors.arrow")
ANN_FILES = ("images/ann.faiss", "texts/ann.faiss")
# `full` and `size` are the ways to open an index; `resealed` opens one whose manifest was made to fit the damage, by
# somebody who may write all files: nothing is promised then, and a process should still not die of it.
MODES = ("full", "size", "resealed")
_PAGE = 4096


@dataclass(frozen=True)
class Case:
    """One damaged file in one index."""

    index: str
    file: str
    how: str
    seed: int
    mode: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def flip(data: bytearray, chance: random.Random) -> None:
    """One bit anywhere."""
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_head(data: bytearray, chance: random.Random) -> None:
    """One bit in the first 512 bytes, where counts and types are."""
    data[chance.randrange(min(512, len(data)))] ^= 1 << chance.randrange(8)


def splice(data: bytearray, chance: random.Random) -> None:
    """Eight random bytes anywhere."""
    start = chance.randrange(max(1, len(data) - 8))
    data[start : start + 8] = chance.randbytes(len(data[start : start + 8]))


def splice_head(data: bytearray, chance: random.Random) -> None:
    """Eight random bytes in the first 2 KB."""
    start = chance.randrange(max(1, min(2048, len(data)) - 8))
    data[start : start + 8] = chance.randbytes(len(data[start : start + 8]))


def splice_tail(data: bytearray, chance: random.Random) -> None:
    """Eight random bytes in the last 2 KB, where footers are."""
    start = len(data) - 8 - chance.randrange(max(1, min(2048, len(data)) - 8))
    data[start : start + 8] = chance.randbytes(len(data[start : start + 8]))


def huge_number(data: bytearray, chance: random.Random) -> None:
    """A large count where four bytes were."""
    start = chance.randrange(max(1, min(1024, len(data)) - 4))
    value = chance.choice((0x7FFFFFFF, 0xFFFFFFFF, 0x10000000, 0x00FFFFFF))
    data[start : start + 4] = value.to_bytes(4, "little")


def cut(data: bytearray, chance: random.Random) -> None:
    """Cut anywhere, to nothing as well."""
    del data[chance.randrange(len(data)) :]


def extend(data: bytearray, chance: random.Random) -> None:
    """Up to a page of random bytes more."""
    data += chance.randbytes(1 + chance.randrange(_PAGE))


def zero_page(data: bytearray, chance: random.Random) -> None:
    """One page of zeros, as a lost write leaves."""
    start = chance.randrange((len(data) + _PAGE - 1) // _PAGE) * _PAGE
    data[start : start + _PAGE] = bytes(len(data[start : start + _PAGE]))


def move_page(data: bytearray, chance: random.Random) -> None:
    """One page in the place of another, as a misdirected write leaves."""
    pages = max(1, len(data) // _PAGE)
    source, target = (chance.randrange(pages) * _PAGE for _ in range(2))
    page = data[source : source + _PAGE]
    data[target : target + len(page)] = page


BYTES: dict[str, Callable[[bytearray, random.Random], None]] = {
    change.__name__: change
    for change in (flip, flip_head, splice, splice_head, splice_tail, huge_number, cut, extend, zero_page, move_page)
}


def renamed(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.old"))


def linked(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def foldered(path: Path) -> None:
    path.unlink()
    path.mkdir()


def swapped(path: Path) -> None:
    """The two collections' files of this kind change places; other files take the place of the catalog's."""
    other = Path(str(path).replace("/images/", "/TEXTS/").replace("/texts/", "/images/").replace("/TEXTS/", "/texts/"))
    other = other if other != path else path.parent / "images" / "vectors.arrow"
    path.rename(path.with_name("held"))
    other.rename(path)
    path.with_name("held").rename(other)


WHOLE: dict[str, Callable[[Path], None]] = {
    change.__name__: change for change in (renamed, linked, piped, foldered, swapped)
}
FOREIGN = "foreign"  # the file of this name from another golden index
LENGTH_KEPT = tuple(name for name in BYTES if name not in ("cut", "extend"))


def damage(case: Case, index: Path, golden: Path) -> None:
    """Do to the copy `index` what the case says."""
    path = index / VERSION / case.file if case.file != "CURRENT" else index / "CURRENT"
    chance = random.Random(f"{case.how} {case.seed}")
    if case.how in WHOLE:
        WHOLE[case.how](path)
        return
    if case.how == FOREIGN:
        others = [golden / f"{kind}.index" / VERSION / case.file for kind in KINDS if kind != case.index]
        data = bytearray(chance.choice([other for other in others if other.exists()]).read_bytes())
    else:
        data = bytearray(path.read_bytes())
        BYTES[case.how](data, chance)
    path.unlink()  # the copy is made of hard links: never write into a golden file
    path.write_bytes(data)


def files_of(kind: str) -> tuple[str, ...]:
    """Names of the files of a golden index, CURRENT among them."""
    return ("CURRENT", *FILES, *(() if kind == "flat" else ANN_FILES))


def byte_cases(seeds: range, mode: str) -> Iterator[Case]:
    """Every change of bytes to every file of every golden index, once for each seed.

    With sizes compared alone, what changes a length is found by `full` already, and so is the manifest.
    """
    for seed in seeds:
        for kind in KINDS:
            for file in files_of(kind):
                if mode != "full" and file in ("CURRENT", "manifest.json"):
                    continue
                for how in LENGTH_KEPT if mode == "size" else BYTES:
                    yield Case(kind, file, how, seed, mode)


def whole_cases(mode: str = "full") -> Iterator[Case]:
    """Files that are renamed, linked, swapped, from another index, or something else than files."""
    for kind in KINDS:
        for file in files_of(kind):
            for how in WHOLE:
                if (how, file) not in (("swapped", "CURRENT"), ("linked", "CURRENT")):
                    yield Case(kind, file, how, 0, mode)
            for seed in range(3) if file != "CURRENT" else ():
                yield Case(kind, file, FOREIGN, seed, mode)
