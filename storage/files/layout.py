"""Layout of an index folder: the names of its files and folders, how a file in it is opened, and its checksum."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ..errors import CorruptIndexError
from ..schema import COLLECTIONS, Collection
from .atomic import drop_cache

CURRENT = "CURRENT"
LOCK = "LOCK"
VERSIONS = "versions"
STAGING = "staging"
MANIFEST = "manifest.json"
CATALOG = "catalog.duckdb"

# Folders under versions/ that are no version: one being written, and one being removed.
DRAFT_PREFIX = ".draft-"
TRASH_PREFIX = ".trash-"

MAX_VERSION = 99_999_999
# Files that this process holds open, by descriptor; each looks like a link, also to a file that was removed.
HELD_FILES = Path("/dev/fd")

_BLOCK = 1 << 20
_NUMBER = re.compile(r"[0-9]{8}", re.ASCII)
_IN_NAME = re.compile(r"(?:\.draft-|\.trash-)?([0-9]{8})(?![0-9])", re.ASCII)

# The towers of the encoder, each in a folder of the version of an index that was built with it.
TOWER_DESCRIPTION, TOWER_WEIGHTS, TOWER_TOKENIZER = "tower.json", "weights.safetensors", "tokenizer.json"
TOWER_FILES: Mapping[str, tuple[str, ...]] = {
    "text_tower": (TOWER_DESCRIPTION, TOWER_WEIGHTS, TOWER_TOKENIZER),
    "image_tower": (TOWER_DESCRIPTION, TOWER_WEIGHTS),
}
"""The files of each tower, by its folder, which is also the name of a manifest's feature."""


def vectors_name(collection: Collection) -> str:
    """Return the name of a collection's vectors below the folder of a version."""
    return f"{collection}/vectors.arrow"


def ann_name(collection: Collection) -> str:
    """Return the name of a collection's FAISS file below the folder of a version."""
    return f"{collection}/ann.faiss"


def words_name(collection: Collection) -> str:
    """Return the name of a collection's lexical index below the folder of a version."""
    return f"{collection}/words.safetensors"


def tower_names(tower: str) -> frozenset[str]:
    """Return the names of a tower's files below the folder of a version."""
    return frozenset(f"{tower}/{name}" for name in TOWER_FILES[tower])


_COLLECTION_FILES = (vectors_name, ann_name, words_name)
FILE_NAMES = frozenset({CATALOG, *(name_of(each) for name_of in _COLLECTION_FILES for each in COLLECTIONS)}).union(
    *map(tower_names, TOWER_FILES)
)


def version_name(number: int) -> str:
    """Return the folder name of a version: eight digits."""
    return f"{number:08d}"


def version_number(name: str) -> int | None:
    """Return the number of a published version's folder name; None for any other name."""
    return int(name) if _NUMBER.fullmatch(name) and int(name) else None


def number_in(name: str) -> int:
    """Return the version number that a name under versions/ mentions, also a draft's or a leftover's; 0 for none."""
    match = _IN_NAME.match(name)
    return int(match[1]) if match else 0


def open_regular(root: Path, name: str) -> io.BufferedReader:
    """Open `root/name` for reading, `name` being a relative name with `/`; links are not followed below `root`.

    Raises:
        CorruptIndexError: It is missing, a link, or not a regular file, or it cannot be read.
    """
    path = root / name
    try:
        for folder in path.relative_to(root).parents[:-1]:
            _refuse_link(root / folder)
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        follow = 0 if root == HELD_FILES else os.O_NOFOLLOW
        descriptor = os.open(path, os.O_RDONLY | follow | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CorruptIndexError(f"{path} is missing; roll back to another version or build again") from error
    except OSError as error:
        raise CorruptIndexError(f"{path} cannot be opened ({_reason(path, error)}); put the file back") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptIndexError(f"{path} is not a regular file; roll back to another version or build again")
    return io.BufferedReader(io.FileIO(descriptor))


def copy_open_file(file: IO[bytes], target: Path) -> None:
    """Copy all of an open file to a new one, also if its name is gone by now.

    Raises:
        OSError: The disk refuses.
    """
    with target.open("xb") as copy:
        while block := os.pread(file.fileno(), _BLOCK, copy.tell()):
            copy.write(block)


def is_same_file(path: Path, file: IO[bytes]) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def file_names(root: Path) -> set[str]:
    """Return the names of all files below `root`, with `/`, whatever they are (a link counts as a file)."""
    files: set[str] = set()
    for folder, _, names in os.walk(root):
        files.update((Path(folder) / name).relative_to(root).as_posix() for name in names)
    return files


def unexpected_files(root: Path, expected: Set[str]) -> list[str]:
    """Return the names of files below `root` that are not expected there, sorted; hidden files are no concern."""
    return sorted(name for name in file_names(root) - expected if not Path(name).name.startswith("."))


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise CorruptIndexError(f"{folder} is a symbolic link, which an index never holds; put the folder itself there")


def _reason(path: Path, error: OSError) -> str:
    return "it is a symbolic link" if path.is_symlink() else error.strerror or type(error).__name__


Verify = Literal["full", "size"]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Size in bytes and SHA-256, in hexadecimal, of one file."""

    bytes: int
    sha256: str


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def measure(root: Path, name: str, *, from_disk: bool = False) -> FileEntry:
    """Read a file and return its entry; `from_disk` asks the kernel to read it anew and not from its cache.

    Raises:
        CorruptIndexError: It is missing or not a regular file.
    """
    with open_regular(root, name) as file:
        if from_disk:
            drop_cache(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(bytes=file.tell(), sha256=digest)


def check(root: Path, name: str, expected: FileEntry, verify: Verify) -> None:
    """Compare a file with what the manifest says of it: its size, and for `full` its checksum.

    Raises:
        CorruptIndexError: They differ; the message names the file and both values.
    """
    with open_regular(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.bytes:
            raise CorruptIndexError(
                f"{root / name} has {size} bytes and the manifest says {expected.bytes}; "
                "roll back to another version or build again"
            )
        if verify == "size":
            return
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        raise CorruptIndexError(
            f"{root / name} has SHA-256 {sha256} and the manifest says {expected.sha256}; "
            "roll back to another version or build again"
        )
