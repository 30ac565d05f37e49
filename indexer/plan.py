"""Cutting a corpus into shards: units of encode work that a killed build can take up again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from encoders.regions.features import file_of
from storage.spec import EncoderInfo

from .config import BuildConfig
from .rejection import Rejection
from .sources.item import Item, Source
from .sources.lazy import LazyBytes
from .unique_ids import UniqueIds

Entry = Item | Rejection

# What encoding costs beside a text: an image takes about eight times as long on a CPU, with small models and large.
IMAGE_COST, TEXT_COST = 8, 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive items of a corpus; `digest` changes with anything that its vectors or rows depend on."""

    number: int
    digest: str
    entries: Sequence[Entry]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a source holds: counts, and a digest that changes with any item, its place in the order included."""

    digest: str
    images: int
    texts: int
    unreadable: int

    @property
    def items(self) -> int:
        """All items, rejected ones included."""
        return self.images + self.texts + self.unreadable


def survey(source: Source) -> Corpus:
    """Read a corpus once, without opening its images, and return what there is.

    Raises:
        DuplicateItemError: Two items of one collection have one id; told here, before anything is encoded.
    """
    counts = {"images": 0, "texts": 0, "unreadable": 0}
    digest = hashlib.sha256()
    unique = UniqueIds()
    for entry in source.items():
        digest.update(_encoded(entry))
        counts["unreadable" if isinstance(entry, Rejection) else entry.collection] += 1
        if isinstance(entry, Item):
            unique.add(entry)
    unique.check(source)
    return Corpus(digest=digest.hexdigest(), **counts)


def build_fingerprint(source: Source, encoder: EncoderInfo, config: BuildConfig, shard_cost: int) -> str:
    """Return the name under which a build keeps its shards; builds that may share them have the same one."""
    # A source's name holds its path as it was written: from another folder it is written otherwise.
    # Precision and batch size change the last bits of a vector, so shards made with others are not taken over.
    parts = [
        str(source.root.resolve()), str(source.metadata_schema), encoder.fingerprint, encoder.dim, config.device,
        config.precision, config.batch_size, shard_cost, config.max_pixels, config.max_file_bytes,
    ]  # fmt: skip
    if config.prompt is not None:
        parts.append(config.prompt)
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
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(_encoded(entry))
    return Shard(number=number, digest=digest.hexdigest(), entries=entries)


def _encoded(entry: Entry) -> bytes:
    return json.dumps(_identity(entry), default=str, sort_keys=True).encode("utf-8", "surrogatepass")


def _identity(entry: Entry) -> list[Any]:
    if isinstance(entry, Rejection):
        return [asdict(entry)]
    return [
        entry.collection, entry.item_id, entry.uri, entry.split, entry.image_ids, entry.metadata,
        _content_identity(entry.content),
    ]  # fmt: skip


def _content_identity(content: Path | bytes | str | LazyBytes) -> Any:
    if isinstance(content, LazyBytes):
        return content.identity
    if isinstance(content, Path):
        return file_state(content)
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content


def file_state(path: Path) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a file, or of that which a picture is a row of; None without one."""
    try:
        state = file_of(path).stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns
