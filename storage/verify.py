"""Verification of a version: the checksum of every file, then whether the files are consistent with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .catalog import Catalog
from .errors import CorruptIndexError, StorageError
from .files.canonical_json import parse, to_plain
from .files.layout import (
    CATALOG,
    MANIFEST,
    TOWER_DESCRIPTION,
    FileEntry,
    ann_name,
    check,
    open_regular,
    unexpected_files,
    vectors_name,
    words_name,
)
from .lexical.inverted_index import InvertedIndex
from .manifest import Manifest
from .schema import Collection
from .vectors import VectorTable

_CHUNK_ROWS = 65_536
Rule = Callable[[Path, Manifest], None]
Checksum = Literal["ok", "bad", "missing", "unasked"]


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """The result of the checksum of one file.

    Attributes:
        name: Its path below the index.
        bytes: Its size on the disk; None where nothing can be read.
        checksum: `ok`, `bad`, `missing`, or `unasked` for a file that does not belong there.
        problem: One line that says what is wrong; None when it is as it was published.
    """

    name: str
    bytes: int | None = None
    checksum: Checksum = "ok"
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class StructureCheck:
    """The result of one consistency rule between files.

    Attributes:
        name: What is compared.
        file: The file that is at fault where the rule is broken, below the folder of the version.
        outcome: `ok`, `bad`, or `not checked` when a file that it needs is damaged.
        problem: One line that says what is wrong; None for the two other outcomes.
    """

    name: str
    file: str
    outcome: Literal["ok", "bad", "not checked"]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of a full check of one version.

    Attributes:
        version: Its number; None where CURRENT does not say which is meant.
        files: One result a file.
        structure: One result a rule that the files obey together; empty where there is no manifest to compare with.
    """

    version: int | None
    files: tuple[FileCheck, ...]
    structure: tuple[StructureCheck, ...] = ()

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is wrong; empty for a whole version."""
        every = [*(file.problem for file in self.files), *(rule.problem for rule in self.structure)]
        return [problem for problem in every if problem is not None]

    @property
    def ok(self) -> bool:
        """Whether the version is whole."""
        return not self.problems


def unreadable(root: Path, path: Path, error: StorageError, version: int | None = None) -> Verification:
    """Return the result where CURRENT or a manifest is damaged, so that nothing says what the rest should be."""
    return Verification(version=version, files=(_file(root, path, str(error)),))


def check_version(root: Path, folder: Path, manifest: Manifest) -> Verification:
    """Check a version in `folder`, below the index `root`: every file is read; those that are whole are then opened.

    A file whose checksum is wrong never reaches a library that would parse it.
    """
    files = [_file(root, folder / MANIFEST, None)]
    for name in unexpected_files(folder, {MANIFEST, *manifest.files}):
        files.append(_file(root, folder / name, f"{folder / name} does not belong there; remove it", "unasked"))
    damaged = set()
    for name, entry in sorted(manifest.files.items()):
        problem = _damage(folder, name, entry)
        files.append(_file(root, folder / name, problem))
        damaged |= {name} if problem else set()
    structure = check_structure(folder, manifest, damaged)
    return Verification(version=manifest.version, files=tuple(files), structure=structure)


def check_structure(folder: Path, manifest: Manifest, damaged: Set[str]) -> tuple[StructureCheck, ...]:
    """Return one result a rule for the version in `folder`; the `damaged` files are not opened."""
    results = []
    for name, files, rule in _rules(manifest):
        if damaged & set(files):
            results.append(StructureCheck(name=name, file=files[0], outcome="not checked"))
            continue
        problem = _violation(rule, folder, manifest)
        results.append(StructureCheck(name=name, file=files[0], outcome="bad" if problem else "ok", problem=problem))
    return tuple(results)


def verification_json(index: Path, result: Verification) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {"path": str(index), "ok": result.ok, **to_plain(result)}


def verification_text(index: Path, result: Verification) -> str:
    """Return the result as lines: every file, then every rule, then the conclusion."""
    width = max(
        len(name) for name in [*(file.name for file in result.files), *(rule.name for rule in result.structure)]
    )
    lines = [f"{check.name:{width}}  {_size(check):>19}  checksum {_describe_file(check)}" for check in result.files]
    for rule in result.structure:
        outcome = f"{rule.outcome}: {rule.problem}" if rule.problem else rule.outcome
        lines.append(f"{rule.name:{width}}  {'':>19}  structure {outcome}")
    return "\n".join([*lines, _conclusion(index, result)])


def _size(check: FileCheck) -> str:
    return "" if check.bytes is None else f"{check.bytes:,} bytes"


def _describe_file(check: FileCheck) -> str:
    return f"{check.checksum}: {check.problem}" if check.problem else check.checksum


def _conclusion(index: Path, result: Verification) -> str:
    name = f"version {result.version} of {index}" if result.version is not None else str(index)
    if result.ok:
        return f"{name} is whole"
    count = len(result.problems)
    return f"{name} has {count} problem{'' if count == 1 else 's'}"


def _file(root: Path, path: Path, problem: str | None, checksum: Checksum | None = None) -> FileCheck:
    present = path.exists() and not path.is_symlink()
    outcome: Checksum = checksum or ("ok" if problem is None else "bad" if present else "missing")
    size = path.stat().st_size if present else None
    return FileCheck(name=path.relative_to(root).as_posix(), bytes=size, checksum=outcome, problem=problem)


def _damage(folder: Path, name: str, entry: FileEntry) -> str | None:
    try:
        check(folder, name, entry, "full")
    except StorageError as error:
        return str(error)
    return None


def _rules(manifest: Manifest) -> Iterator[tuple[str, tuple[str, ...], Rule]]:
    """Yield name, files with the one at fault first, and rule."""
    yield "rows of the catalog against the manifest", (CATALOG,), _catalog_counts
    yield "pairs name rows that exist", (CATALOG,), _pairs
    for name, info in manifest.collections.items():
        vectors = vectors_name(name)
        yield f"{name}: rows and dim of the vectors against the manifest", (vectors,), _for(name, _vector_shape)
        yield f"{name}: every value of the vectors is finite", (vectors,), _for(name, _finite)
        yield f"{name}: item ids of the catalog against the vectors", (CATALOG, vectors), _for(name, _item_ids)
        if manifest.has_words:
            yield f"{name}: terms and rows of the lexical index", (words_name(name),), _for(name, _words)
        if info.ann.kind != "flat":
            yield f"{name}: rows, dim and metric of the ANN file", (ann_name(name), vectors), _for(name, _ann)
    for tower in manifest.towers:
        described = f"{tower}/{TOWER_DESCRIPTION}"
        words = tower.replace("_", " ")
        yield f"fingerprint of the {words} against the encoder", (described,), partial(_tower, described)


def _for(collection: Collection, rule: Callable[[Path, Manifest, Collection], None]) -> Rule:
    return lambda folder, manifest: rule(folder, manifest, collection)


def _violation(rule: Rule, folder: Path, manifest: Manifest) -> str | None:
    try:
        rule(folder, manifest)
    except StorageError as error:
        return str(error)
    return None


def _catalog_counts(folder: Path, manifest: Manifest) -> None:
    with Catalog.open(folder / CATALOG) as catalog:
        for table, count in catalog.counts.items():
            _expect(folder / CATALOG, f"rows of {table}", count, getattr(manifest.counts, table))


def _pairs(folder: Path, _manifest: Manifest) -> None:
    with Catalog.open(folder / CATALOG) as catalog:
        pairs, counts = catalog.table("pairs"), catalog.counts
    for column, table in (("image_row", "images"), ("text_row", "texts")):
        rows = np.asarray(pairs.column(column))
        if rows.size and (rows.min() < 0 or rows.max() >= counts[table]):
            raise CorruptIndexError(
                f"{folder / CATALOG} has pairs of {table} {rows.min()} to {rows.max()} and {counts[table]} {table}; "
                "build again"
            )


def _vector_shape(folder: Path, manifest: Manifest, collection: Collection) -> None:
    path = folder / vectors_name(collection)
    with VectorTable.open(path) as vectors:
        _expect(path, "rows", vectors.rows, manifest.collections[collection].rows)
        if manifest.encoder is not None:
            _expect(path, "dim", vectors.dim, manifest.encoder.dim)
        _expect(path, "numbers", vectors.dtype, manifest.vector_dtype)


def _finite(folder: Path, _manifest: Manifest, collection: Collection) -> None:
    path = folder / vectors_name(collection)
    with VectorTable.open(path) as vectors:
        what = "NaN or infinity" if vectors.dtype == "float16" else "a level or scale that no vector has"
        for start in range(0, vectors.rows, _CHUNK_ROWS):
            wrong = vectors.wrong_rows(start, min(start + _CHUNK_ROWS, vectors.rows))
            if len(wrong):
                raise CorruptIndexError(f"{path} holds {what} in row {wrong[0]}; build again")


def _item_ids(folder: Path, _manifest: Manifest, collection: Collection) -> None:
    with VectorTable.open(folder / vectors_name(collection)) as vectors, Catalog.open(folder / CATALOG) as catalog:
        for rows in _row_ranges(vectors.rows):
            expected, actual = vectors.item_ids(rows), catalog.item_ids(collection, int(rows[0]), int(rows[-1]) + 1)
            if len(actual) != len(expected) or (actual != expected).any():
                raise CorruptIndexError(
                    f"{folder / CATALOG} gives the {collection} from row {rows[0]} on other item ids than the vectors "
                    "have; build again"
                )


def _words(folder: Path, manifest: Manifest, collection: Collection) -> None:
    path = folder / words_name(collection)
    index = InvertedIndex.open(path)
    _expect(path, "rows", index.rows, manifest.collections[collection].rows)
    index.check()


def _ann(folder: Path, manifest: Manifest, collection: Collection) -> None:
    from .ann import AnnIndex

    with VectorTable.open(folder / vectors_name(collection)) as vectors:
        AnnIndex.open(folder / ann_name(collection), manifest.collections[collection].ann, vectors)


def _tower(described: str, folder: Path, manifest: Manifest) -> None:
    with open_regular(folder, described) as file:
        data = file.read()
    try:
        found = parse(data)["fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptIndexError(f"{folder / described} is damaged ({error}); build again") from error
    if manifest.encoder is None or found != manifest.encoder.fingerprint:
        expected = manifest.encoder and manifest.encoder.fingerprint
        raise CorruptIndexError(
            f"{folder / described} is that of the encoder {found} and the manifest says {expected}; build again"
        )


def _row_ranges(rows: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, _CHUNK_ROWS):
        yield np.arange(start, min(start + _CHUNK_ROWS, rows))


def _expect(path: Path, what: str, actual: int | str, expected: int | str) -> None:
    if actual != expected:
        raise CorruptIndexError(
            f"{path} has {what} {actual} and the manifest says {expected}; roll back to another version or build again"
        )
