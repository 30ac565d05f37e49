"""An open version: immutable, checked against its manifest, and readable for as long as it is open."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Self

from .catalog import Catalog
from .errors import CorruptIndexError, IndexNotFoundError
from .files.atomic import explained
from .files.layout import (
    CATALOG,
    HELD_FILES,
    MANIFEST,
    TOWER_FILES,
    Verify,
    ann_name,
    check,
    copy_open_file,
    is_same_file,
    open_regular,
    unexpected_files,
    vectors_name,
    words_name,
)
from .lexical.inverted_index import InvertedIndex
from .manifest import Manifest
from .schema import Collection
from .vectors import VectorTable

if TYPE_CHECKING:
    from .ann import AnnIndex


class IndexVersion:
    """One version of an index; safe from many threads.

    It keeps working, whole, while other versions are published and even while it is vacuumed itself.

    Attributes:
        number: Its number.
        path: Its folder.
        manifest: What it is.
        catalog: What is known of each item.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Open the files of a version whose checksums hold already; `open_files` checks them first."""
        self.path = path
        self.manifest = manifest
        self.number = manifest.version
        self._lock = threading.RLock()
        self._ann: dict[Collection, AnnIndex] = {}
        with ExitStack() as stack:
            self.catalog = stack.enter_context(Catalog.open(path / CATALOG))
            self._vectors = {
                name: stack.enter_context(VectorTable.open(path / vectors_name(name))) for name in manifest.collections
            }
            has = manifest.collections if manifest.has_words else ()
            self._words = {name: InvertedIndex.open(path / words_name(name)) for name in has}
            # Loaded on first use; until then descriptors keep these files from vanishing in a vacuum.
            self._ann_files: dict[Collection, IO[bytes]] = {
                name: stack.enter_context(open_regular(path, ann_name(name)))
                for name, info in manifest.collections.items()
                if info.ann.kind != "flat"
            }
            self._tower_files: dict[str, dict[str, IO[bytes]]] = {
                tower: {name: stack.enter_context(open_regular(path / tower, name)) for name in TOWER_FILES[tower]}
                for tower in manifest.towers
            }
            self._tower_copies: dict[str, Path] = {}
            self._check()
            self._stack = stack.pop_all()

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return next(iter(self._vectors.values())).dim

    def tower(self, tower: str) -> Path | None:
        """Return the folder of its encoder's `text_tower` or `image_tower`; None for a version built without it.

        Where the version was vacuumed or a file replaced since it was opened, it is a copy, gone when it is closed.

        Raises:
            StorageError: There is no room for the copy.
        """
        if tower not in self.manifest.towers:
            return None
        with self._lock:
            if tower in self._tower_copies:
                return self._tower_copies[tower]
            folder, files = self.path / tower, self._tower_files[tower]
            whole = all(is_same_file(folder / name, file) for name, file in files.items())
            return folder if whole else self._copied(tower)

    def vectors(self, collection: Collection) -> VectorTable:
        """Return the vectors of a collection.

        Raises:
            IndexNotFoundError: The version has no such collection.
        """
        if collection not in self._vectors:
            raise IndexNotFoundError(
                f"version {self.number} in {self.path} holds no {collection}; it has {', '.join(self._vectors)}"
            )
        return self._vectors[collection]

    def words(self, collection: Collection) -> InvertedIndex | None:
        """Return the lexical index of a collection; None for a version that was built without."""
        return self._words.get(collection)

    def ann(self, collection: Collection) -> AnnIndex:
        """Return the approximate index of a collection, loaded on first use.

        Raises:
            IndexNotFoundError: The version has no such collection.
            CorruptIndexError: The file does not fit the manifest or the vectors.
        """
        vectors = self.vectors(collection)
        with self._lock:
            if collection not in self._ann:
                self._ann[collection] = self._load_ann(collection, vectors)
            return self._ann[collection]

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._ann.clear()
            self._words.clear()
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copied(self, tower: str) -> Path:
        with explained("copy", self.path / tower):
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="twinlens-")))
            for name, file in self._tower_files[tower].items():
                copy_open_file(file, folder / name)
        self._tower_copies[tower] = folder
        return folder

    def _load_ann(self, collection: Collection, vectors: VectorTable) -> AnnIndex:
        from .ann import AnnIndex

        plan = self.manifest.collections[collection].ann
        if plan.kind == "flat":
            return AnnIndex.open(None, plan, vectors)
        path, held = self.path / ann_name(collection), self._ann_files[collection]
        try:
            if is_same_file(path, held):
                return AnnIndex.open(path, plan, vectors)
        except CorruptIndexError:
            if is_same_file(path, held):
                raise
        # Vacuumed, or replaced, since this version was opened.
        return AnnIndex.open(HELD_FILES / str(held.fileno()), plan, vectors)

    def _check(self) -> None:
        for name, info in self.manifest.collections.items():
            self._expect(vectors_name(name), "rows", self._vectors[name].rows, info.rows)
            self._expect(vectors_name(name), "dim", self._vectors[name].dim, self._stated_dim())
            self._expect(vectors_name(name), "numbers", self._vectors[name].dtype, self.manifest.vector_dtype)
            if name in self._words:
                self._expect(words_name(name), "rows", self._words[name].rows, info.rows)
        counts = self.manifest.counts
        for table in ("images", "texts", "pairs", "rejected"):
            self._expect(CATALOG, f"rows of {table}", self.catalog.counts[table], getattr(counts, table))

    def _stated_dim(self) -> int:
        return self.manifest.encoder.dim if self.manifest.encoder else self.dim

    def _expect(self, name: str, what: str, actual: int | str, expected: int | str) -> None:
        if actual != expected:
            raise CorruptIndexError(
                f"{self.path / name} has {what} {actual} and the manifest says {expected}; "
                "roll back to another version or build again"
            )


def check_files(path: Path, manifest: Manifest, verify: Verify) -> None:
    """Compare the files of a version with its manifest before any library reads them.

    Raises:
        CorruptIndexError: One is missing, differs, or does not belong there; the message names it.
    """
    # DuckDB would replay a stray write-ahead log, so a file too many is as bad as one that differs.
    if strays := unexpected_files(path, {MANIFEST, *manifest.files}):
        raise CorruptIndexError(f"{path / strays[0]} does not belong to version {manifest.version}; remove it")
    for name, entry in sorted(manifest.files.items()):
        check(path, name, entry, verify)
