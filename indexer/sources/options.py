"""How a corpus is to be read, where the defaults do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Layout = Literal[
    "auto", "folder", "table", "lines", "karpathy", "coco", "flickr", "precomp", "regions", "split-tables", "webdataset"
]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Column names, filters and overrides for `open_source`. The defaults fit a folder of pictures.

    Attributes:
        layout: What the corpus is; `auto` looks at the path, its suffix and the names inside a folder. `precomp` is a
            folder of `test_caps.txt` and `test_ids.txt` whose pictures are files, `regions` one whose pictures are rows
            of `test_ims.npy` (an encoder of regions takes no other), `split-tables` one of `train.csv`, `val.csv`,
            `test.csv`, `webdataset` a folder, a file or a pattern of `.tar` shards.
        image: The table column with image paths (several may be joined by `;`), lists of paths, or image bytes.
        text: The table column with a text or a list of texts.
        id: The table column with the user's own key. Without it an image's path is its id.
        metadata: The table columns to keep for `where`; None keeps all others, `()` keeps none.
        split_column: The table column that holds the split; None takes `split` where there is one.
        splits: Only items of these splits are read; empty reads all. COCO's `restval` is a split of its own.
        root: The folder that relative image paths start from; None takes the folder of the file, and for the
            published layouts a folder of images beside it.
        allow_urls: Fetch the images that a table names by http or https URL. Off, such rows are rejected.
        allow_private: Let URLs lead to this machine and to private networks too; for those who index an intranet.
        delimiter: What separates the cells of a CSV file; None counts `,` `;` tab and `|` in the header.
    """

    layout: Layout = "auto"
    image: str | None = None
    text: str | None = None
    id: str | None = None
    metadata: tuple[str, ...] | None = None
    split_column: str | None = None
    splits: tuple[str, ...] = ()
    root: Path | None = None
    delimiter: str | None = None
    allow_urls: bool = False
    allow_private: bool = False
