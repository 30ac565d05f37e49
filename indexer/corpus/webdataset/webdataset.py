"""Webdataset tar shards: `KEY.jpg` with captions in `KEY.txt`, one a line, and metadata in `KEY.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from encoders.images import IMAGE_SUFFIXES

from ...errors import ContentError, SourceError
from ..item import Item, Rejection, SourceOptions, printable, shown, text_item
from ..layouts.folder import TEXT_SUFFIX
from ..layouts.lines import BOM
from ..tables.cells import Text, plain, text_cells
from ..tables.columns import TEXT_NAMES, BadRecord, Roles, choose_roles, first_of, renamed
from ..tables.json_file import JsonTypes, cast_json, parse_object
from .shard_list import find_shards
from .tar_file import FOLDER, REGULAR, TarEntry, TarMember, tar_entries

JSON_SUFFIX = ".json"
MAX_MEMBER_BYTES = 2**20
MAX_NAME = 1000


@dataclass(slots=True)
class _Sample:
    """The members of one key."""

    images: list[TarEntry] = field(default_factory=list)
    text: TarMember | None = None
    meta: TarMember | None = None


@dataclass(slots=True)
class _Shard:
    """What one archive holds: samples by key in the order of their first members, and what was refused."""

    path: Path
    name: str
    samples: dict[str, _Sample] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def reject(self, name: str, reason: str, detail: str) -> None:
        """Count a member, or with the empty name the archive itself."""
        uri = f"{self.name}/{printable(name)[:MAX_NAME]}" if name else self.name
        detail = printable(detail).replace("\0", "\\0")
        uri = uri.replace("\0", "\\0")
        self.rejected.append(
            Rejection(item_id=uri, collection="images", uri=uri, stage="read", reason=reason, detail=detail)
        )


class WebDataset:
    """The samples of tar shards, in the order of the shards and of each sample's first member.

    A key is a member's path up to the first dot of its file name. The image of a key is `SHARD/KEY` (`SHARD/KEY#0`,
    ... when there are several), its captions `SHARD/KEY#0`, ...; SHARD is the archive's name without `.tar`, below
    the folder of the corpus. Captions are the lines of `KEY.txt`, or the text of a key of `KEY.json` that is named,
    or of `caption`, `text`, ... where no shard holds a `.txt`. The other keys of the JSON are metadata.

    Members that are no plain files or whose names leave the archive are rejected; so is an archive that is damaged
    or cut short, once, beside the samples that stand before the damage.

    Raises:
        SourceError: Nothing in the shards can be indexed, or a column or split that was named is not there.
    """

    def __init__(self, corpus: Path, options: SourceOptions) -> None:
        self.root, self._paths = find_shards(corpus, options.exclude)
        self.name = f"webdataset {printable(corpus.name)} ({len(self._paths)} shards)"
        self._types = JsonTypes()
        seen = _Survey(self.shards(), self.name, self._types, options)
        if not seen.samples:
            first = f": {seen.problems[0].detail}" if seen.problems else ""
            raise SourceError(f"{self.name} holds no image, .txt or .json to index{first}")
        self._roles = seen.roles(options)
        self._from_json = options.text is not None or not seen.texts
        self._splits = frozenset(options.splits)
        self.metadata_schema = _schema(self._types, self._roles)
        self.notes = (*_passed_over(seen.others), *renamed(self._roles.metadata))

    def items(self) -> Iterator[Item | Rejection]:
        """Shard by shard: each image before its captions, then what was refused of the shard."""
        for shard in self.shards():
            for key, sample in shard.samples.items():
                yield from self._sample(shard, key, sample)
            yield from shard.rejected

    def shards(self) -> Iterator[_Shard]:
        """Each archive with where its members lie; one at a time is held."""
        for path in self._paths:
            yield _read(path, path.relative_to(self.root).as_posix())

    def _sample(self, shard: _Shard, key: str, sample: _Sample) -> Iterator[Item | Rejection]:
        values, problem = read_meta(shard, key, sample.meta)
        split = plain(values.get(self._roles.split)) if self._roles.split else None
        if self._splits and split not in self._splits:
            return
        base = Item(
            item_id=f"{shard.name.removesuffix('.tar')}/{key}",
            collection="images",
            content="",
            uri=f"{shard.name}/{key}",
            location=f"{key} of {shard.name}",
            split=split,
            metadata=self._metadata(values),
        )
        if problem is not None:
            yield problem
        images = [_image(base, number, entry, sample, shard) for number, entry in enumerate(sample.images)]
        yield from images
        texts = list(self._texts(base, sample, shard, key, values, tuple(image.item_id for image in images)))
        yield from texts
        if not images and not texts and problem is None:
            yield base.rejected("read", "missing_value", f"neither image nor text in {base.location}")

    def _texts(
        self, base: Item, sample: _Sample, shard: _Shard, key: str, values: Mapping[str, Any], images: tuple[str, ...]
    ) -> Iterator[Item | Rejection]:
        try:
            texts = self._raw_texts(sample, values)
        except ContentError as error:
            yield replace(base, collection="texts").rejected("read", error.reason, f"{error.detail}: {base.location}")
            return
        uri = base.uri + (JSON_SUFFIX if self._from_json else TEXT_SUFFIX)
        for number, text in enumerate(texts):
            item = replace(
                base,
                item_id=f"{base.item_id}#{number}",
                collection="texts",
                image_ids=images,
                uri=uri,
                location=f"text {number + 1} of {key} in {shard.name}",
            )
            yield text_item(item, text)

    def _raw_texts(self, sample: _Sample, values: Mapping[str, Any]) -> list[Text]:
        if self._from_json:
            return text_cells(values.get(self._roles.text or ""))
        if sample.text is None:
            return []
        lines = sample.text.read(MAX_MEMBER_BYTES).removeprefix(BOM).split(b"\n")
        # A file without any words is one empty text, so that it is counted.
        texts: list[Text] = [line.rstrip(b"\r") for line in lines if line.strip()]
        return texts or [b""]

    def _metadata(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: cast_json(values.get(column), self._types.type_of(column))
            for column, name in self._roles.metadata.items()
        }


class _Survey:
    """One pass over all shards, for the columns and for what there is."""

    def __init__(self, shards: Iterator[_Shard], name: str, types: JsonTypes, options: SourceOptions) -> None:
        self.samples, self.texts = 0, 0
        self.splits: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.problems: list[Rejection] = []
        self._types, self._name = types, name
        split = options.split_column or "split"
        for shard in shards:
            self.samples += len(shard.samples)
            self.others.update(shard.others)
            self.problems = self.problems or shard.rejected[:1]
            for key, sample in shard.samples.items():
                self.texts += sample.text is not None
                values, _ = read_meta(shard, key, sample.meta)
                self._types.add(values)
                self.splits[plain(values.get(split)) or "(none)"] += 1

    def roles(self, options: SourceOptions) -> Roles:
        """The columns of the JSON members; the text column is guessed where there are no `.txt` members."""
        if options.text is None and not self.texts:
            options = replace(options, text=first_of(self._types.columns, TEXT_NAMES))
        roles = choose_roles(self._types.columns, options, f"the .json of {self._name}", guess=False)
        missing = sorted(set(options.splits) - self.splits.keys())
        if missing:
            known = ", ".join(f"{name} ({count})" for name, count in self.splits.most_common(10))
            raise SourceError(f"{self._name} has no samples of split {missing[0]!r}; its splits: {known}")
        return roles


def read_meta(shard: _Shard, key: str, member: TarMember | None) -> tuple[Mapping[str, Any], Rejection | None]:
    """The object in `KEY.json`; {} and why where it cannot be read."""
    if member is None:
        return {}, None
    uri = f"{shard.name}/{key}{JSON_SUFFIX}"
    try:
        record = parse_object(member.read(MAX_MEMBER_BYTES), 1, uri)
    except ContentError as error:
        record = BadRecord(number=1, reason=error.reason, detail=f"{uri}: {error.detail}")
    if not isinstance(record, BadRecord):
        return {printable(key): value for key, value in record.values.items()}, None
    return {}, Rejection(
        item_id=uri, collection="images", uri=uri, stage="read", reason=record.reason, detail=record.detail
    )


def _read(path: Path, name: str) -> _Shard:
    shard = _Shard(path, printable(name))
    try:
        for entry in tar_entries(path):
            if entry.kind != FOLDER:
                _take(shard, entry)
    except ContentError as error:
        shard.reject("", error.reason, error.detail)
    return shard


def _take(shard: _Shard, entry: TarEntry) -> None:
    if entry.kind != REGULAR:
        shard.reject(entry.name, "not_a_file", f"{entry.name[:MAX_NAME]!a} of {shard.name} is a {entry.kind}")
        return
    name = _safe(entry.name)
    if name is None:
        shard.reject(
            entry.name,
            "unsafe_name",
            f"the name {entry.name[:MAX_NAME]!a} of a member leaves the archive, is not UTF-8 or is too long",
        )
        return
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    if not stem or not dot:
        shard.others["(hidden)" if dot else "(no suffix)"] += 1
        return
    _sort_in(shard, str(path.with_name(stem)), f".{suffix}".lower(), TarEntry(name, entry.kind, entry.content))


def _sort_in(shard: _Shard, key: str, suffix: str, entry: TarEntry) -> None:
    kind = PurePosixPath(suffix).suffix or suffix
    if kind not in IMAGE_SUFFIXES and suffix not in (TEXT_SUFFIX, JSON_SUFFIX):
        shard.others[suffix] += 1
        return
    sample = shard.samples.setdefault(key, _Sample())
    if kind in IMAGE_SUFFIXES and entry.name not in (image.name for image in sample.images):
        sample.images.append(entry)
    elif suffix == TEXT_SUFFIX and sample.text is None:
        sample.text = entry.content
    elif suffix == JSON_SUFFIX and sample.meta is None:
        sample.meta = entry.content
    else:
        shard.reject(
            entry.name,
            "duplicate_member",
            f"{shown(entry.name, 200)!r} stands twice in {shard.name}; the first is kept",
        )


def _safe(name: str) -> str | None:
    """A member's name without `./` at its start; None when it points elsewhere or no id can be made of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or printable(name) != name
    return None if odd or not parts or len(name) > MAX_NAME else "/".join(parts)


def _image(base: Item, number: int, entry: TarEntry, sample: _Sample, shard: _Shard) -> Item:
    key = base.item_id if len(sample.images) == 1 else f"{base.item_id}#{number}"
    uri = f"{shard.name}/{entry.name}"
    return replace(base, item_id=key, content=entry.content, uri=uri, location=f"{entry.name} of {shard.name}")


def _schema(types: JsonTypes, roles: Roles) -> pa.Schema:
    return pa.schema([(name, types.type_of(column)) for column, name in roles.metadata.items()])


def _passed_over(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {printable(suffix)[:40]}" for suffix, count in others.most_common(5))
    return (f"passed over {others.total()} members that are neither images nor .txt nor .json: {kinds}",)
