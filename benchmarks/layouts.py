"""Where the published data sets lie: which of a folder's files say what belongs together, in whichever layout."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from indexer import SourceOptions
from indexer.corpus import Item, Source, open_source
from indexer.errors import SourceError

SUFFIXES = (".json", ".jsonl", ".txt", ".token", ".csv")
DEPTH = 3
PROBES = 20
SAME_SPLIT = {"val": "dev", "dev": "val"}


class NoDataError(Exception):
    """One line that says which files to get, and where they go."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a data set is handed on.

    Attributes:
        name: The file that gives it away, as a regular expression over lower-case names; SPLIT stands for the split.
        opens: `file`, or `folder` for the folder in which it lies.
        kind: The layout as `SourceOptions` calls it.
        split_inside: Whether what is opened holds other splits too, so that one has to be picked.
    """

    name: str
    opens: Literal["file", "folder"] = "file"
    kind: Literal["auto", "flickr", "precomp", "split-tables"] = "auto"
    split_inside: bool = True


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set: its layouts, the best first, what its splits hold, and how to come by it."""

    name: str
    title: str
    layouts: Sequence[Layout]
    images: Mapping[str, int]
    advice: str
    captions: int = 5
    default_split: str = "test"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What was found: an open source, how it was opened, and what it holds."""

    data: DataSet
    split: str
    path: Path
    source: Source
    options: SourceOptions
    images: int
    texts: int
    captions: Counter[int]
    named_split: str | None

    def warning(self) -> str | None:
        """Return one line where the split is not the published one; None where it is, or where nobody knows."""
        wanted = self.data.images.get(self.split, self.data.images.get(SAME_SPLIT.get(self.split, "")))
        few = {count: images for count, images in self.captions.items() if count < self.data.captions}
        if wanted is None or (self.images == wanted and not few):
            return None
        return (
            f"split {self.split!r} of {self.path.name} has {self.images:,} images with {self.texts:,} captions, and "
            f"the published one {wanted:,} with {self.data.captions} each; do not compare these figures with papers"
        )


def find_corpus(root: Path, data: DataSet, split: str, *, images: Path | None = None, captions: int = 0) -> Corpus:
    """Return the split of a data set below `root`.

    Args:
        root: The folder that holds captions and pictures, in any of the layouts, up to three folders deep.
        data: Which data set.
        split: `train`, `val`, `test`; `dev` and `val` are the same.
        images: The folder of the pictures, where it is not below `root`.
        captions: Keep the first so many captions of an image; 0 keeps all.

    Raises:
        NoDataError: Nothing was found that can be used.
    """
    refused: list[str] = []
    for layout, path, named in _candidates(root, data, split):
        options = SourceOptions(layout=layout.kind, root=images, splits=(named,) if layout.split_inside else ())
        try:
            source = open_source(path, options)
        except SourceError as error:
            refused.append(str(error))
            continue
        kept = FirstCaptions(source, captions) if captions else source
        return _counted(kept, data=data, split=named, path=path, options=options)
    if refused:
        raise NoDataError(f"{refused[0]}. Usual are: {data.advice}")
    raise NoDataError(f"{str(root)!r} holds no {data.title}; get {data.advice}")


def _candidates(root: Path, data: DataSet, split: str) -> Iterator[tuple[Layout, Path, str]]:
    if not root.is_dir():
        raise NoDataError(f"there is no folder {str(root)!r}; make it and put there {data.advice}")
    files = list(_files(root, DEPTH))
    for layout in data.layouts:
        for named in (split, *filter(None, [SAME_SPLIT.get(split)])):
            pattern = re.compile(layout.name.replace("SPLIT", re.escape(named)))
            for path in (path for path in files if pattern.fullmatch(path.name.lower())):
                yield layout, path.parent if layout.opens == "folder" else path, named


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Files that may hold captions, those of a folder before those below it."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    yield from (Path(entry.path) for entry in found if entry.name.lower().endswith(SUFFIXES) and entry.is_file())
    for entry in found:
        if depth and entry.is_dir():
            yield from _files(Path(entry.path), depth - 1)


def _counted(source: Source, *, data: DataSet, split: str, path: Path, options: SourceOptions) -> Corpus:
    captions: Counter[str] = Counter()
    splits: set[str | None] = set()
    items = [item for item in source.items() if isinstance(item, Item)]
    pictures = [item for item in items if item.collection == "images"]
    for item in items:
        captions.update(item.image_ids)
        splits.add(item.split)
    probes = list(islice((item.content for item in pictures if isinstance(item.content, Path)), PROBES))
    if not any(content.is_file() for content in probes):
        shown = probes[0].name if probes else "any"
        raise NoDataError(
            f"{path.name} names pictures such as {shown!r} that are not there; name their folder, --images"
        )
    return Corpus(
        data=data,
        split=split,
        path=path,
        source=source,
        options=options,
        images=len(pictures),
        texts=len(items) - len(pictures),
        captions=Counter(captions[item.item_id] for item in pictures),
        named_split=split if splits == {split} else None,
    )


class FirstCaptions:
    """A corpus with the first few captions of each image only, as the VSE++ family of papers cuts COCO's."""

    def __init__(self, source: Source, captions: int) -> None:
        self._source = source
        self._captions = captions
        self.root = source.root
        self.name = f"{source.name}, the first {captions} captions of an image"
        self.notes = source.notes
        self.metadata_schema = source.metadata_schema

    def items(self) -> Iterator[object]:
        """Yield what the corpus holds, in its order, without the captions too many."""
        seen: Counter[tuple[str, ...]] = Counter()
        for entry in self._source.items():
            if isinstance(entry, Item) and entry.collection == "texts":
                seen[entry.image_ids] += 1
                if seen[entry.image_ids] > self._captions:
                    continue
            yield entry


KARPATHY = "dataset_X.json (from caption_datasets.zip, cs.stanford.edu/people/karpathy/deepimagesent)"

FLICKR30K = DataSet(
    name="flickr30k",
    title="Flickr30K",
    layouts=(
        Layout(name=r"dataset_flickr30k\.json"),
        Layout(name=r"flickr30k_SPLIT_karpathy\.txt", opens="folder", kind="flickr"),
        Layout(name=r"flickr30k_SPLIT\.json", split_inside=False),
        Layout(name=r"results(_\d+)?\.(token|csv)", opens="folder", kind="flickr"),
        Layout(name=r"SPLIT\.csv", opens="folder", kind="split-tables"),
        Layout(name=r"SPLIT_caps\.txt", opens="folder", kind="precomp"),
    ),
    images={"train": 29_000, "val": 1_014, "test": 1_000},
    advice=f"{KARPATHY.replace('X', 'flickr30k')} and the pictures as DIR/flickr30k-images/*.jpg (on request from "
    "shannon.cs.illinois.edu/DenotationGraph); also read are results_20130124.token with a list of the split, "
    "flickr30k_test_karpathy.txt, flickr30k_processed/test.csv and f30k_precomp",
)
FLICKR8K = DataSet(
    name="flickr8k",
    title="Flickr8k",
    layouts=(
        Layout(name=r"dataset_flickr8k\.json"),
        Layout(name=r"flickr8k_SPLIT_karpathy\.txt", opens="folder", kind="flickr"),
        Layout(name=r"flickr8k\.token\.txt", opens="folder", kind="flickr"),
        Layout(name=r"captions\.txt", opens="folder", kind="flickr"),
        Layout(name=r"captions\.jsonl"),
    ),
    images={"train": 6_000, "dev": 1_000, "test": 1_000},
    advice="Flickr8k_text.zip (Flickr8k.token.txt, Flickr_8k.testImages.txt, ...) and Flickr8k_Dataset.zip, both "
    "unpacked into DIR with the pictures as DIR/Flicker8k_Dataset/*.jpg; also read is "
    f"{KARPATHY.replace('X', 'flickr8k')} beside the pictures",
)
COCO = DataSet(
    name="coco",
    title="COCO captions",
    layouts=(
        Layout(name=r"dataset_coco\.json"),
        Layout(name=r"coco_SPLIT_karpathy\.json"),
        Layout(name=r"coco_karpathy_SPLIT\.json", split_inside=False),
        Layout(name=r"SPLIT_caps\.txt", opens="folder", kind="precomp"),
    ),
    images={"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000, "testall": 5_000},
    advice=f"{KARPATHY.replace('X', 'coco')} and val2014.zip of cocodataset.org, unpacked as DIR/val2014/*.jpg; also "
    "read is coco_test_karpathy.json; captions_val2014.json alone does not tell Karpathy's split",
)
