"""FAISS files, written so that a full disk is noticed and read so that a damaged one is refused."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import faiss

from .errors import CorruptIndexError, first_line
from .faiss_structure import Shape, StructureError, check_structure
from .files.atomic import checkpoint, explained, sync_file
from .files.layout import measure, open_regular
from .schema import AnnKind

_BLOCK = 1 << 20
_PQ_CENTROIDS = 256
# FAISS keeps its deserialisation limits in process-wide variables: one reader at a time sets and restores them.
_limits_lock = threading.Lock()


def write_ann(index: Any, path: Path) -> None:
    """Write a trained FAISS index to `path`, durably, and read it back from the disk.

    FAISS's own writer can report success on a full disk, so the bytes go through a file handle of ours, unbuffered, and
    the file is read again and compared with what was written. The folder still has to be synced.

    Raises:
        StorageError: The disk is full or failing.
        CorruptIndexError: The file does not hold the bytes that were written.
    """
    written = hashlib.sha256()
    failures: list[OSError] = []
    with explained("write", path), path.open("wb", buffering=0) as file:
        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(_writer(file, written, failures), _BLOCK))
        except RuntimeError:
            raise failures[0] if failures else OSError("FAISS stopped writing") from None
        checkpoint("ann.written")
        sync_file(path)
    checkpoint("ann.synced")
    if measure(path.parent, path.name, from_disk=True).sha256 != written.hexdigest():
        raise CorruptIndexError(f"{path} does not read back as it was written; check the disk and build again")


def _writer(file: FileIO, written: Any, failures: list[OSError]) -> Callable[[bytes], int]:
    """The function that FAISS hands its bytes to; it takes all of them, hashes them, and remembers why it could not."""

    def write(data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:  # an unbuffered write may take only a part
                rest = rest[file.write(rest) :]
        except OSError as error:
            failures.append(error)  # FAISS may turn it into an exception of its own
            raise
        written.update(data)
        return len(data)

    return write


def read_ann(path: Path, kind: AnnKind, *, rows: int, dim: int, nlist: int = 0, items: int | None = None) -> Any:
    """Read the FAISS index of a collection.

    Args:
        path: The file.
        kind: The kind it must be; a file of any other structure never reaches the loader.
        rows: Vectors it must hold.
        dim: Their length.
        nlist: Inverted lists it must have; 0 for kinds without lists. The three, and the size of the file, bound what
            the loader may allocate, so that a damaged count ends in an error and not in an allocation.
        items: Ids that its entries may have are below this; by default as many as there are vectors in it.

    Raises:
        CorruptIndexError: The file is missing, of another kind, cut short, or does not parse.
    """
    with open_regular(path.parent, path.name) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            check_structure(file, kind, Shape(entries=rows, rows=items or rows, dim=dim, nlist=nlist))
        except StructureError as error:
            raise CorruptIndexError(
                f"{path} has {error}, as a {kind!r} index of these vectors; roll back to another version or build again"
            ) from error
        file.seek(0)
        # Nothing in the file is longer than the file; the loader also counts a table of distances that it may compute
        # for PQ codes: a float for each list, code and centroid, and there are at most `dim` codes.
        table = 4 * nlist * dim * _PQ_CENTROIDS
        with _limits(byte_limit=2 * size + table + (1 << 20), loop_limit=4 * max(rows, nlist) + 4096):
            try:
                return faiss.read_index(faiss.PyCallbackIOReader(file.read, _BLOCK))
            except (RuntimeError, MemoryError) as error:
                raise CorruptIndexError(
                    f"{path} cannot be read as a {kind!r} index ({first_line(error)}); "
                    "roll back to another version or build again"
                ) from error


@contextmanager
def _limits(*, byte_limit: int, loop_limit: int) -> Iterator[None]:
    with _limits_lock:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(byte_limit)
        faiss.set_deserialization_loop_limit(loop_limit)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])
