"""Webdataset tar shards: `KEY.jpg` with captions in `KEY.txt`, one a line, and metadata in `KEY.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import ContentError, SourceError
from ..item import Item, Rejection, SourceOptions, printable, text_item
from ..layouts.lines import BOM, read_whole
from ..tables.cells import Text, plain, text_cells
from ..tables.columns import TEXT_NAMES, BadRecord, Roles, choose_roles, first_of, renamed
from ..tables.json_file import JsonTypes, cast_json, parse_object
from .shard import Sample, Shard, find_shards, read_shard
from .tar_file import TarEntry, TarMember

MAX_MEMBER_BYTES = 2**20
# What img2dataset writes beside each shard.
STATS_SUFFIX = "_stats.json"
MAX_STATS_BYTES = 16 * 2**20


class WebDataset:
    """The samples of tar shards, in the order of the shards and of each sample's first member.

    A key is a member's path up to the first dot of its file name; up to the last in shards where a text or JSON is
    called so like an image. The image of a key is `SHARD/KEY` (`SHARD/KEY#0`, ... when there are several), its captions
    `SHARD/KEY#0`, ...; SHARD is the archive's name without `.tar`, below the folder of the corpus. Captions are the
    lines of every `.txt` of a key, or the text of a key of `KEY.json` that is named; for samples without a `.txt`, of
    `caption`, `text`, ... The other keys of the JSON are metadata.

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
        self._json_only = options.text is not None
        self._splits = frozenset(options.splits)
        self.metadata_schema = _schema(self._types, self._roles)
        self.notes = (
            *_passed_over(seen.others),
            *seen.captions(self._roles, named=options.text is not None),
            *_not_fetched(self._paths),
            *renamed(self._roles.metadata),
        )

    def items(self) -> Iterator[Item | Rejection]:
        """Shard by shard: each image before its captions, then what was refused of the shard."""
        for shard in self.shards():
            for key, sample in shard.samples.items():
                yield from self._sample(shard, key, sample)
            yield from shard.rejected

    def shards(self) -> Iterator[Shard]:
        """Each archive with where its members lie; one at a time is held."""
        for path in self._paths:
            yield read_shard(path, path.relative_to(self.root).as_posix())

    def _sample(self, shard: Shard, key: str, sample: Sample) -> Iterator[Item | Rejection]:
        values, problem = read_meta(shard, sample.meta)
        split = plain(values.get(self._roles.split)) if self._roles.split else None
        if self._splits and split not in self._splits:
            return
        base = Item(
            item_id=f"{shard.base}/{key}",
            collection="images",
            content="",
            uri=f"{shard.name}/{key}",
            location=f"{key} of {shard.name}",
            split=split,
            metadata=self._metadata(values),
        )
        if problem is not None:
            yield problem
        ids = shard.image_ids(key, sample)
        yield from (_image(base, one, entry, shard) for one, entry in zip(ids, sample.images, strict=True))
        texts = list(self._texts(base, sample, shard, values, tuple(ids) + sample.described))
        yield from texts
        if not ids and not texts and problem is None:
            yield base.rejected("read", "missing_value", f"neither image nor text in {base.location}")

    def _texts(
        self, base: Item, sample: Sample, shard: Shard, values: Mapping[str, Any], images: tuple[str, ...]
    ) -> Iterator[Item | Rejection]:
        """The captions of a sample, numbered through."""
        number = 0
        for name, member in self._holding_texts(sample):
            uri = f"{shard.name}/{name}"
            try:
                texts = text_cells(values.get(self._roles.text or "")) if member is None else _lines(member)
            except ContentError as error:
                detail = f"{error.detail}: {name} of {shard.name}"
                yield replace(base, collection="texts", uri=uri).rejected("read", error.reason, detail)
                continue
            for text in texts:
                item = replace(
                    base,
                    item_id=f"{base.item_id}#{number}",
                    collection="texts",
                    image_ids=images,
                    uri=uri,
                    location=f"text {number + 1} of {base.location}",
                )
                yield text_item(item, text)
                number += 1

    def _holding_texts(self, sample: Sample) -> Iterable[tuple[str, TarMember | None]]:
        """Names of the members that hold the captions, and their bytes; None stands for the JSON."""
        if sample.texts and not self._json_only:
            return [(text.name, text.content) for text in sample.texts]
        return [] if sample.meta is None else [(sample.meta.name, None)]

    def _metadata(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: cast_json(values.get(column), self._types.type_of(column))
            for column, name in self._roles.metadata.items()
        }


class _Survey:
    """One pass over all shards, for the columns and for what there is."""

    def __init__(self, shards: Iterator[Shard], name: str, types: JsonTypes, options: SourceOptions) -> None:
        self.samples = self.images = self.texts = 0
        self.splits: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.problems: list[Rejection] = []
        # Of samples without a .txt: how many have a text in a column of these names.
        self.in_json: Counter[str] = Counter()
        self._types, self._name = types, name
        split = options.split_column or "split"
        for shard in shards:
            self.samples += len(shard.samples)
            self.others.update(shard.others)
            self.problems = self.problems or shard.rejected[:1]
            for sample in shard.samples.values():
                values, _ = read_meta(shard, sample.meta)
                self._types.add(values)
                self.splits[plain(values.get(split)) or "(none)"] += 1
                self.images += bool(sample.images)
                self.texts += bool(sample.texts)
                if not sample.texts:
                    self.in_json.update(name for name in TEXT_NAMES if text_cells(values.get(name)))

    def roles(self, options: SourceOptions) -> Roles:
        """The columns of the JSON members; the text column is guessed for samples without a `.txt`."""
        if options.text is None:
            options = replace(options, text=first_of(tuple(self.in_json), TEXT_NAMES))
        roles = choose_roles(self._types.columns, options, f"the .json of {self._name}", guess=False)
        missing = sorted(set(options.splits) - self.splits.keys())
        if missing:
            known = ", ".join(f"{name} ({count})" for name, count in self.splits.most_common(10))
            raise SourceError(f"{self._name} has no samples of split {missing[0]!r}; its splits: {known}")
        return roles

    def captions(self, roles: Roles, *, named: bool) -> Iterator[str]:
        """What is to be said of where the captions come from, when the user has `named` nothing."""
        if named:
            return
        if roles.text is None and self.images and not self.texts and self._types.columns:
            keys = ", ".join(map(repr, self._types.columns[:10]))
            known = ", ".join(TEXT_NAMES)
            yield f"no image has a caption: no .txt and no {known} in the .json; --text names another of {keys}"
        elif roles.text is not None and self.texts:
            yield f"captions of {self.in_json[roles.text]} samples without a .txt are {roles.text!r} of their .json"


def read_meta(shard: Shard, entry: TarEntry | None) -> tuple[Mapping[str, Any], Rejection | None]:
    """The object in `KEY.json`; {} and why where it cannot be read."""
    if entry is None:
        return {}, None
    uri = f"{shard.name}/{entry.name}"
    try:
        record = parse_object(entry.content.read(MAX_MEMBER_BYTES), 1, uri)
    except ContentError as error:
        record = BadRecord(number=1, reason=error.reason, detail=f"{uri}: {error.detail}")
    if not isinstance(record, BadRecord):
        return {printable(key): value for key, value in record.values.items()}, None
    return {}, Rejection(
        item_id=uri, collection="images", uri=uri, stage="read", reason=record.reason, detail=record.detail
    )


def _lines(member: TarMember) -> list[Text]:
    lines = member.read(MAX_MEMBER_BYTES).removeprefix(BOM).split(b"\n")
    # A file without any words is one empty text, so that it is counted.
    texts: list[Text] = [line.rstrip(b"\r") for line in lines if line.strip()]
    return texts or [b""]


def _image(base: Item, key: str, entry: TarEntry, shard: Shard) -> Item:
    uri = f"{shard.name}/{entry.name}"
    return replace(base, item_id=key, content=entry.content, uri=uri, location=f"{entry.name} of {shard.name}")


def _schema(types: JsonTypes, roles: Roles) -> pa.Schema:
    return pa.schema([(name, types.type_of(column)) for column, name in roles.metadata.items()])


def _passed_over(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {printable(suffix)[:40]}" for suffix, count in others.most_common(5))
    return (f"passed over {others.total()} members that are neither images nor .txt nor .json: {kinds}",)


def _not_fetched(shards: Sequence[Path]) -> tuple[str, ...]:
    """What img2dataset says beside its shards of samples that it could not fetch, and that are in none of them."""
    counts: Counter[str] = Counter()
    for shard in shards:
        try:
            stats = json.loads(read_whole(shard.with_name(f"{shard.stem}{STATS_SUFFIX}"), MAX_STATS_BYTES))
        except (OSError, ValueError, RecursionError):
            continue  # most shards come from elsewhere
        if isinstance(stats, dict):
            counts.update({key: value for key, value in stats.items() if isinstance(value, int)})
    lost = counts["count"] - counts["successes"]
    if lost <= 0:
        return ()
    return (
        f"{lost} of {counts['count']} samples are in no shard, as the {STATS_SUFFIX} files beside them say: "
        f"{counts['failed_to_download']} failed to download, {counts['failed_to_resize']} to resize",
    )
