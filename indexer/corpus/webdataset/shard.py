"""Tar shards: which ones a path or a pattern names, which members of one make a sample, and which were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from encoders.images import IMAGE_SUFFIXES

from ...errors import ContentError, SourceError
from ..file_pattern import is_pattern, matching_files
from ..item import Rejection, printable, shown
from ..layouts.folder import TEXT_SUFFIX
from ..layouts.walk import Exclusion, kept_paths
from .tar_file import FOLDER, REGULAR, TarEntry, tar_entries

TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_shard_pattern(path: Path) -> bool:
    """Whether a path names several shards: with `{00000..00009}`, `{a,b}`, `*`, `?` or `[ab]`, ending in `.tar`."""
    return is_pattern(path, (TAR_SUFFIX,))


def is_packed(path: Path) -> bool:
    """Whether a file is named like a compressed archive."""
    return path.name.lower().endswith(PACKED_SUFFIXES)


def holds_shards(folder: Path, exclude: Sequence[str] = ()) -> bool:
    """Whether a folder is one of shards: `.tar` files, and neither folders nor images beside them."""
    entries = kept_paths(folder, _entries(folder), exclude)
    if not any(_is_tar(entry) for entry in entries):
        return False
    return not any(entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def find_shards(corpus: Path, exclude: Sequence[str] = ()) -> tuple[Path, list[Path]]:
    """The folder that the names of shards start from, and the shards: in the order of a pattern, else by name.

    Raises:
        SourceError: There is no such shard, or none that is not excluded.
    """
    if corpus.is_dir():
        root, shards = corpus, sorted(entry for entry in _entries(corpus) if _is_tar(entry))
    elif is_shard_pattern(corpus):
        root, shards = matching_files(corpus, "shard")
    else:
        return corpus.parent, [corpus]
    kept = kept_paths(root, shards, exclude)
    if not kept:
        but = f"{len(shards)} .tar files, all hidden or excluded" if shards else "no .tar files"
        raise SourceError(f"{str(corpus)!r} holds {but}; name a folder of shards or a pattern")
    return root, kept


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise SourceError(f"folder {str(folder)!r} cannot be read ({error.strerror}); fix its permissions") from error


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == TAR_SUFFIX and path.is_file()


JSON_SUFFIX = ".json"
MAX_NAME = 1000
# Only what is hidden or of a system is left out of an archive.
_NOTHING = Exclusion(())


@dataclass(slots=True)
class Sample:
    """The members of one key, in the order of the archive.

    `described` are the ids of images of other keys that its texts describe beside its own.
    """

    images: list[TarEntry] = field(default_factory=list)
    texts: list[TarEntry] = field(default_factory=list)
    metas: list[TarEntry] = field(default_factory=list)
    described: tuple[str, ...] = ()

    @property
    def meta(self) -> TarEntry | None:
        """The JSON of the sample: the one with the shortest name, as `a.json` beside `a.seg.json`."""
        return min(self.metas, key=lambda entry: len(entry.name), default=None)

    @property
    def members(self) -> Iterator[TarEntry]:
        """All of them."""
        yield from (*self.images, *self.texts, *self.metas)


@dataclass(slots=True)
class Shard:
    """What one archive holds: samples by key in the order of their first members, and what was refused."""

    path: Path
    name: str
    samples: dict[str, Sample] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def base(self) -> str:
        """The name of the archive as it stands in ids."""
        return self.name.removesuffix(".tar")

    def image_ids(self, key: str, sample: Sample) -> list[str]:
        """The ids of a sample's own images: `SHARD/KEY`, numbered when there are several."""
        base = f"{self.base}/{key}"
        return [base] if len(sample.images) == 1 else [f"{base}#{number}" for number in range(len(sample.images))]

    def reject(self, name: str, reason: str, detail: str) -> None:
        """Count a member, or with the empty name the archive itself."""
        uri = f"{self.name}/{printable(name)[:MAX_NAME]}" if name else self.name
        detail = printable(detail).replace("\0", "\\0")
        uri = uri.replace("\0", "\\0")
        self.rejected.append(
            Rejection(item_id=uri, collection="images", uri=uri, stage="read", reason=reason, detail=detail)
        )


def read_shard(path: Path, name: str) -> Shard:
    """The samples of an archive; damage is among what was refused."""
    shard = Shard(path, printable(name))
    names: set[str] = set()
    try:
        for entry in tar_entries(path):
            if entry.kind != FOLDER:
                _take(shard, entry, names)
    except ContentError as error:
        shard.reject("", error.reason, error.detail)
    if dots_in_keys(shard.samples):
        shard.samples = _apart(shard)
    for sample in shard.samples.values():
        shard.others.update(_suffixes(entry.name) for entry in sample.metas if entry is not sample.meta)
    return shard


def _take(shard: Shard, entry: TarEntry, names: set[str]) -> None:
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
    stem, dot, _ = path.name.partition(".")
    kind = path.suffix.lower()
    left = next((why for part in path.parts if (why := _NOTHING.reason(part, part))), None)
    if left or not dot:
        shard.others[f"({left})" if left else "(no suffix)"] += 1
    elif kind not in (*IMAGE_SUFFIXES, TEXT_SUFFIX, JSON_SUFFIX):
        shard.others[_suffixes(name)] += 1
    elif name in names:
        shard.reject(name, "duplicate_member", f"{shown(name, 200)!r} stands twice in {shard.name}; the first is kept")
    else:
        names.add(name)
        sample = shard.samples.setdefault(normalize("NFC", str(path.with_name(stem))), Sample())
        _list_of(sample, kind).append(TarEntry(name, entry.kind, entry.content))


def _list_of(sample: Sample, kind: str) -> list[TarEntry]:
    return {TEXT_SUFFIX: sample.texts, JSON_SUFFIX: sample.metas}.get(kind, sample.images)


def _safe(name: str) -> str | None:
    """A member's name without `./` at its start; None when it points elsewhere or no id can be made of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or printable(name) != name
    return None if odd or not parts or len(name) > MAX_NAME else "/".join(parts)


def _suffixes(name: str) -> str:
    """All that follows the first dot, as webdataset calls a member."""
    return f".{PurePosixPath(name).name.partition('.')[2]}".lower()


def _stem(name: str) -> str:
    """The name up to its last dot, as keys are written: a Mac takes umlauts apart, and others do not."""
    return normalize("NFC", str(PurePosixPath(name).with_suffix("")))


def dots_in_keys(samples: Mapping[str, Sample]) -> bool:
    """Whether the keys of a shard hold dots: a text or JSON is called like an image up to its *last* dot.

    webdataset ends a key at the first dot, so that `22.05.jpg`, `22.05.txt`, `22.06.jpg` and `22.06.txt` are one sample
    of two images and two texts to it. Who wrote them meant two.
    """
    for key, sample in samples.items():
        stems = {_stem(image.name) for image in sample.images} - {key}
        if any(_stem(entry.name) in stems for entry in (*sample.texts, *sample.metas)):
            return True
    return False


def _apart(shard: Shard) -> dict[str, Sample]:
    """The samples with keys up to the last dot.

    A text or JSON with no image of its name belongs to the images below it, as `a.txt` to `a.left.jpg` and
    `a.right.jpg`, else to the nearest above it, as `a.ocr.txt` to `a.jpg`; without either it is on its own.
    """
    apart: dict[str, Sample] = {}
    for sample in shard.samples.values():
        keys = list(dict.fromkeys(_stem(entry.name) for entry in sample.images))
        parts = {key: Sample(images=[one for one in sample.images if _stem(one.name) == key]) for key in keys}
        for text in sample.texts:
            _add_text(shard, parts, keys, text)
        for meta in sample.metas:
            for key in _related(_stem(meta.name), keys):
                parts.setdefault(key, Sample()).metas.append(meta)
        order = [_stem(entry.name) for entry in sample.members]
        apart |= {key: parts[key] for key in dict.fromkeys((*order, *parts)) if key in parts}
    return apart


def _add_text(shard: Shard, parts: dict[str, Sample], keys: list[str], text: TarEntry) -> None:
    related = _related(_stem(text.name), keys)
    if len(related) == 1:
        parts.setdefault(related[0], Sample()).texts.append(text)
        return
    # One text of several keys stands once, and describes the images of all of them.
    described = tuple(name for key in related for name in shard.image_ids(key, parts[key]))
    parts.setdefault(_stem(text.name), Sample(described=described)).texts.append(text)


def _related(stem: str, keys: Iterable[str]) -> list[str]:
    """The keys that a text or JSON of this stem belongs to; its own stem where there are none."""
    known = list(keys)
    if stem in known:
        return [stem]
    below = [key for key in known if key.startswith(f"{stem}.")]
    above = sorted((key for key in known if stem.startswith(f"{key}.")), key=len)
    return below or above[-1:] or [stem]
