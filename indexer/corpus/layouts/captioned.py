"""Images with captions from one of the published data sets, whatever layout its files have."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.errors import DuplicateItemError

from ...errors import SourceError
from ..image_paths import ImagePaths
from ..item import Item, Rejection, SourceOptions, shown, text_item, uri_of

PROBE_IMAGES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Captioned:
    """One image of a data set: its file name, where it was named, and its captions in the set's own order."""

    name: str
    location: str
    split: str | None = None
    captions: Sequence[str | bytes | None] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a layout's files say. `folder` is the corpus, `rejected` the lines that could not be read."""

    name: str
    folder: Path
    images: Sequence[Captioned]
    metadata_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    rejected: Sequence[Rejection] = ()
    notes: tuple[str, ...] = ()


class CaptionedSource:
    """The images of a data set, each followed by its captions: ids `NAME` and `NAME#0`, `NAME#1`, ...

    The images are looked for under `options.root`, else beside the data set's files and in the folders there.

    Raises:
        SourceError: Nothing is in the set, or nothing of the splits that were requested.
        DuplicateItemError: Two entries name one image.
    """

    def __init__(self, data: DataSet, options: SourceOptions) -> None:
        self._data = data
        self._images = _of_splits(data, options.splits)
        folder, present = find_images(data.folder, [one.name for one in self._images], options.root)
        below = folder.is_relative_to(data.folder)
        self._paths = ImagePaths(folder)
        _check_unique(self._images, self._paths)
        self.root = options.root or (data.folder if below else data.folder.parent)
        self.name = data.name
        self.metadata_schema = data.metadata_schema
        lost = f"none of the first images was found below {data.folder}; name their folder with --root"
        self.notes = data.notes if present else (*data.notes, lost)

    def items(self) -> Iterator[Item | Rejection]:
        """Image by image in the order of the set, then the lines that could not be read."""
        for image in self._images:
            yield from self._image(image)
        yield from self._data.rejected

    def _image(self, image: Captioned) -> Iterator[Item | Rejection]:
        path = self._paths.find(image.name).path
        uri = uri_of(path, self.root)
        common: dict[str, Any] = {"uri": uri, "location": image.location, "split": image.split}
        common["metadata"] = image.metadata
        yield Item(item_id=image.name, collection="images", content=path, **common)
        for number, caption in enumerate(image.captions):
            key = f"{image.name}#{number}"
            yield text_item(
                Item(item_id=key, collection="texts", content="", image_ids=(image.name,), **common), caption
            )


def find_images(folder: Path, names: Sequence[str], root: Path | None) -> tuple[Path, bool]:
    """The folder that `names` start from, and whether any of the first few is really there.

    Looked for in `folder`, in the folders right below it, in the one above and in the folders right below that, then
    one more folder below `folder`, since archives often hold their own name once more.
    """
    probes = names[:PROBE_IMAGES]
    if root is not None:
        return root, _any_there(root, probes)
    return next(
        ((candidate, True) for candidate in _candidates(folder) if _any_there(candidate, probes)), (folder, False)
    )


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder
    yield from _folders(folder)
    yield folder.parent
    yield from _folders(folder.parent)
    for below in _folders(folder):
        yield from _folders(below)


def _any_there(folder: Path, names: Sequence[str]) -> bool:
    paths = ImagePaths(folder)
    return any(paths.is_there(name) for name in names)


def _folders(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    # Where one cannot be examined, the others still can: isdir says no where Path.is_dir fails.
    return [path for path in paths if os.path.isdir(path) and not path.name.startswith(".")]  # noqa: PTH112


def _of_splits(data: DataSet, splits: Sequence[str]) -> list[Captioned]:
    counts = Counter(image.split or "(none)" for image in data.images)
    missing = sorted(set(splits) - counts.keys())
    if missing or not data.images:
        known = ", ".join(f"{name} ({count})" for name, count in counts.most_common(10)) or "no images at all"
        problem = f"no images of split {missing[0]!r}" if missing else "nothing to index"
        raise SourceError(f"{data.name} has {problem}; its splits: {known}")
    return [image for image in data.images if not splits or image.split in splits]


def _check_unique(images: Sequence[Captioned], paths: ImagePaths) -> None:
    """Refuse two entries of one file, however they spell it."""
    locations: dict[str, str] = {}
    for image in images:
        first = locations.setdefault(paths.find(image.name).uri, image.location)
        if first != image.location:
            raise DuplicateItemError(
                f"image {shown(image.name)!r} stands in {first} and in {image.location}; an id may stand only once"
            )
