"""Shards: consecutive items of a corpus that are encoded as one, and the table of their rows and vectors.

A finished shard is durable, so that a killed build goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.base import Encoder, backend_of
from storage.catalog import IMAGE_COLUMNS
from storage.errors import DuplicateItemError
from storage.schema import COLLECTIONS, IMAGE_INFO_COLUMNS, Collection, ImageInfo, Rounding

from ..config import BuildConfig
from ..corpus.item import Item, LazyBytes, Rejection, Source, file_of, one_line, shown
from ..errors import BuildError


class UniqueIds:
    """Remembers eight bytes an item, so that ten million items take 80 MB; only what looks equal is compared."""

    def __init__(self) -> None:
        self._hashes: dict[Collection, array[int]] = {name: array("q") for name in COLLECTIONS}

    def add(self, item: Item) -> None:
        """Remember the id of one item."""
        self._hashes[item.collection].append(hash(item.item_id))

    def check(self, source: Source) -> None:
        """Read `source` once more if two of its ids may be the same.

        Raises:
            DuplicateItemError: They are; the message names both locations.
        """
        twice = {name: _repeated(hashes) for name, hashes in self._hashes.items()}
        if not any(twice.values()):
            return
        locations: dict[tuple[Collection, str], str] = {}
        for entry in source.items():
            if not isinstance(entry, Item) or hash(entry.item_id) not in twice[entry.collection]:
                continue
            key = (entry.collection, entry.item_id)
            if key in locations:
                raise DuplicateItemError(
                    f"id {shown(entry.item_id, 200)!r} stands for two {entry.collection}, in {locations[key]} and in "
                    f"{entry.location}; make the ids unique"
                )
            locations[key] = entry.location


def _repeated(hashes: array[int]) -> frozenset[int]:
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    return frozenset(values[counts > 1].tolist())


Entry = Item | Rejection

# What encoding costs beside a text: an image takes about eight times as long on a CPU, with small models and large.
IMAGE_COST, TEXT_COST = 8, 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive items of a corpus; `digest` changes with anything that its vectors or rows depend on."""

    number: int
    digest: str
    entries: Sequence[Entry]
    changed_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a source holds: counts, and a digest that changes with any item, its position in the order included.

    `absent` counts the images whose files are not there, and `first_absent` is the `uri` of the first of them.
    `changed_ns` is when the system last saw a change of any file that holds images, renames included: see `changed_ns`.
    """

    digest: str
    images: int
    texts: int
    unreadable: int
    absent: int = 0
    first_absent: str | None = None
    changed_ns: int = 0

    @property
    def items(self) -> int:
        """All items, rejected ones included."""
        return self.images + self.texts + self.unreadable


def survey(source: Source) -> Corpus:
    """Read a corpus once, without opening its images, and return what there is.

    Raises:
        DuplicateItemError: Two items of one collection have one id; raised here, before anything is encoded.
    """
    counts = {"images": 0, "texts": 0, "unreadable": 0, "absent": 0}
    digest, unique = hashlib.sha256(), UniqueIds()
    first_absent: str | None = None
    changes = LatestChange()
    for entry in source.items():
        identity = _identity(entry)
        digest.update(_encoded(identity))
        counts["unreadable" if isinstance(entry, Rejection) else entry.collection] += 1
        if isinstance(entry, Item):
            unique.add(entry)
            changes.add(entry)
            if isinstance(entry.content, Path) and identity[-1] is None:
                counts["absent"] += 1
                first_absent = first_absent or entry.uri
    unique.check(source)
    return Corpus(digest=digest.hexdigest(), first_absent=first_absent, changed_ns=changes.latest_ns, **counts)


def build_fingerprint(
    source: Source,
    encoder: Encoder,
    config: BuildConfig,
    shard_cost: int,
    rounding: Mapping[Collection, Rounding] = MappingProxyType({}),
) -> str:
    """Return the name under which a build keeps its shards; builds that may share them have the same one.

    `rounding` is that of the vectors that an update takes over: shards with such are for its like alone. Other shards
    hold float16, whatever the vectors will be stored in.
    """
    # A source's name holds its path as it was written: from another folder it is written otherwise.
    # Precision and batch size change the last bits of a vector, so shards made with others are not taken over.
    parts = [
        str(source.root.resolve()),
        str(source.metadata_schema),
        encoder.fingerprint,
        encoder.dim,
        config.device,
        encoder.precision,
        backend_of(encoder),
        config.batch_size,
        shard_cost,
        config.max_pixels,
        config.max_file_bytes,
        list(IMAGE_INFO_COLUMNS),
    ]
    if config.prompt is not None:
        parts.append(config.prompt)
    if rounding:
        parts.append({name: one.within for name, one in sorted(rounding.items())})
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cut(entries: Iterable[Entry], shard_cost: int) -> Iterator[Shard]:
    """Yield the shards of a corpus in order; each holds at least one item and about `shard_cost` images of work."""
    limit, cost, number = shard_cost * IMAGE_COST, 0, 0
    held: list[Entry] = []
    for entry in entries:
        held.append(entry)
        cost += IMAGE_COST if entry.collection == "images" else TEXT_COST
        if cost >= limit:
            yield _shard(number, held)
            held, cost, number = [], 0, number + 1
    if held:
        yield _shard(number, held)


def _shard(number: int, entries: list[Entry]) -> Shard:
    digest, changes = hashlib.sha256(), LatestChange()
    for entry in entries:
        digest.update(_encoded(_identity(entry)))
        changes.add(entry)
    return Shard(number=number, digest=digest.hexdigest(), entries=entries, changed_ns=changes.latest_ns)


def _encoded(identity: list[Any]) -> bytes:
    return json.dumps(identity, default=str, sort_keys=True).encode("utf-8", "surrogatepass")


def _identity(entry: Entry) -> list[Any]:
    if isinstance(entry, Rejection):
        return [asdict(entry)]
    return [
        entry.collection,
        entry.item_id,
        entry.uri,
        entry.split,
        entry.image_ids,
        entry.metadata,
        _content_identity(entry.content),
    ]


def _content_identity(content: Path | bytes | str | LazyBytes) -> Any:
    if isinstance(content, LazyBytes):
        return content.identity
    if isinstance(content, Path):
        return file_state(content)
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content


def file_state(path: Path) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a file, or of that which an image is a row of; None without one."""
    try:
        state = file_of(path).stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


def path_of(entry: Entry) -> Path | None:
    """Return the file that holds an image, itself or an archive; None where it needs none."""
    if not isinstance(entry, Item):
        return None
    path = entry.content if isinstance(entry.content, Path) else getattr(entry.content, "path", None)
    return file_of(path) if isinstance(path, Path) else None


def changed_ns(path: Path) -> int:
    """Return when the system last saw a change of a file, in ns: of its bytes, its name or its rights; 0 without one.

    Unlike the modification time nobody can set it back, so that it tells two files of one size and one modification
    time that have swapped their names. A copy of a file has a new one.
    """
    try:
        return path.stat().st_ctime_ns
    except (OSError, ValueError):
        return 0


class LatestChange:
    """Finds the latest `changed_ns` among the files that hold images; each archive is looked at once."""

    def __init__(self) -> None:
        self.latest_ns = 0
        self._archive: Path | None = None

    def add(self, entry: Entry) -> None:
        """Take the file of one entry into account."""
        path = path_of(entry)
        if path is None or path == self._archive:
            return
        self._archive = path
        self.latest_ns = max(self.latest_ns, changed_ns(path))


def text_sha256(text: str) -> str:
    """Return the checksum of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


DIGEST_KEY = b"twinlens.shard.digest"
READ_FROM_KEY = b"twinlens.shard.read_from_ns"

ITEM_FIELDS = (
    pa.field("collection", pa.string()),
    *(pa.field(name, kind) for name, kind in IMAGE_COLUMNS.items() if name != "row_id"),
    pa.field("image_ids", pa.list_(pa.string())),
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)
ITEM_NAMES = tuple(field.name for field in ITEM_FIELDS)
# Before the name of each metadata column of a shard, so that it may be called like one of those above.
METADATA = "metadata."


class ShardTable:
    """Collects the rows of one shard in source order; vectors may come later and in any order."""

    def __init__(self, dim: int, metadata: pa.Schema, digest: str, read_from_ns: int = 0) -> None:
        keys = {DIGEST_KEY: digest.encode(), READ_FROM_KEY: str(read_from_ns).encode()}
        own = [field.with_name(METADATA + field.name) for field in metadata]
        self._schema = pa.schema([*ITEM_FIELDS, *own], keys)
        self._dim = dim
        self._rows: list[dict[str, Any]] = []
        self._vectors: dict[int, np.ndarray] = {}

    def add_image(self, item: Item, info: ImageInfo) -> int:
        """Append an image and return its position in the shard."""
        return self._append(item, **{name: getattr(info, name) for name in IMAGE_INFO_COLUMNS})

    def add_text(self, item: Item) -> int:
        """Append a text and return its position in the shard."""
        text = str(item.content)
        return self._append(item, caption=text, sha256=text_sha256(text), image_ids=list(item.image_ids))

    def reject(self, rejection: Rejection) -> None:
        """Append an item that cannot be indexed."""
        self._rows.append(_rejected_row(rejection))

    def set_vectors(self, positions: Sequence[int], vectors: np.ndarray) -> None:
        """Give vectors, (n, dim), to the rows at `positions`; a row with a vector that is not finite is rejected."""
        finite = np.isfinite(vectors).all(axis=1)
        for position, vector, good in zip(positions, vectors, finite, strict=True):
            if good:
                self._vectors[position] = vector.astype(np.float16)
            else:
                row = self._rows[position]
                row.update(stage="encode", reason="not_finite", detail="the encoder gave NaN or infinity")

    def finish(self) -> pa.Table:
        """Return the shard as a table; raises `BuildError` where metadata does not fit its declared type."""
        columns = [self._column(field) for field in self._schema]
        flat = np.zeros((len(self._rows), self._dim), dtype=np.float16)
        for position, vector in self._vectors.items():
            flat[position] = vector
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), self._dim)
        schema = self._schema.append(pa.field("vector", vectors.type))
        return pa.Table.from_arrays([*columns, vectors], schema=schema)

    def _append(self, item: Item, **facts: Any) -> int:
        self._rows.append(
            {
                "collection": item.collection,
                "item_id": item.item_id,
                "uri": item.uri,
                "split": item.split,
                **facts,
                "metadata": item.metadata,
            }
        )
        return len(self._rows) - 1

    def _column(self, field: pa.Field) -> pa.Array:
        name = field.name.removeprefix(METADATA)
        if name == field.name:
            return pa.array([row.get(name) for row in self._rows], field.type)
        try:
            return pa.array([row["metadata"].get(name) for row in self._rows], field.type)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise BuildError(
                f"metadata column {name!r} holds a value that is not {field.type}: {one_line(error)}; "
                "fix the value or leave the column out"
            ) from error


def is_of(table: pa.Table, shard: Shard) -> bool:
    """Return whether a table that was kept holds the items of a shard, from files that have not changed since."""
    return (table.schema.metadata or {}).get(DIGEST_KEY) == shard.digest.encode() and shard.changed_ns < read_from(
        table
    )


def read_from(table: pa.Table) -> int:
    """Return when the run that made the table of a shard began to read, in ns."""
    return int((table.schema.metadata or {}).get(READ_FROM_KEY, 0))


def _rejected_row(rejection: Rejection) -> dict[str, Any]:
    return {
        "collection": rejection.collection,
        "item_id": rejection.item_id,
        "uri": rejection.uri,
        "stage": rejection.stage,
        "reason": rejection.reason,
        "detail": rejection.detail,
        "metadata": {},
    }
