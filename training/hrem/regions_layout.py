"""Region features in a `_precomp` folder as the images of a corpus, for encoders that see regions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from indexer.corpus import SourceError
from indexer.corpus.item import ROW_MARK, Item, Rejection, SourceOptions, text_item

from ..errors import RegionError
from .towers.region_features import FEATURES, RegionSplit, file_names, open_split, splits_of

_TEST, _WHOLE_TEST = "test", "testall"


class RegionSource:
    """The images of a folder, each a row of `SPLIT_ims.npy`, followed by its captions.

    An image is called by its file where `id_mapping.json` says which, otherwise by its id; its captions `NAME#0`,
    `NAME#1`, ...

    Raises:
        SourceError: There are no features, or not of these splits, or they do not fit their captions.
    """

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        known = splits_of(folder)
        if not known:
            raise SourceError(
                f"{str(folder)!r} holds no region features (SPLIT_ims.npy with SPLIT_caps.txt), and the encoder sees "
                "nothing else; make them from images with: twinlens regions"
            )
        # COCO's `test` is the first fifth of its `testall`.
        names = options.splits or tuple(name for name in known if name != _TEST or _WHOLE_TEST not in known)
        try:
            self._splits = [open_split(folder, name) for name in names]
            self._names = file_names(folder)
        except RegionError as error:
            raise SourceError(str(error)) from error
        self.name = f"region features {folder.name}"
        self.root = folder
        self.notes: tuple[str, ...] = ()
        self.metadata_schema = pa.schema([])

    def items(self) -> Iterator[Item | Rejection]:
        """Image by image in the order of the features, split by split."""
        for split in self._splits:
            first = 0
            for image in range(len(split)):
                last = first
                while last < len(split.captions) and split.owners[last] == image:
                    last += 1
                yield from self._image(split, image, first, last)
                first = last

    def _image(self, split: RegionSplit, image: int, first: int, last: int) -> Iterator[Item | Rejection]:
        name = self._names.get(split.ids[image], split.ids[image])
        row = int(split.rows[image])
        uri = f"{split.split}{FEATURES}{ROW_MARK}{row}"
        location = f"row {row} of {split.split}{FEATURES}"
        content = self.root / uri
        yield Item(item_id=name, collection="images", content=content, uri=uri, location=location, split=split.split)
        for number in range(first, last):
            item = Item(
                item_id=f"{name}#{number - first}",
                collection="texts",
                content="",
                uri=uri,
                image_ids=(name,),
                location=f"line {number + 1} of {split.split}_caps.txt",
                split=split.split,
            )
            yield text_item(item, split.captions[number])
