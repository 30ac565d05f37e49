"""`<name>_precomp` folders: region features, captions, and whose they are.

    f30k_precomp/
      train_ims.npy    (pictures, regions, dim); one row a picture, or one row a caption
      train_caps.txt   one caption a line
      train_ids.txt    one id a caption, or one a picture; may be missing
      id_mapping.json  {id: file name}; may be missing

SCAN (Lee et al. 2018) made the layout, with five captions a picture; with one id a caption any number may differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import RegionError
from .features import Features, open_features, rows_of

FEATURES, CAPTIONS, IDS, NAMES = "_ims.npy", "_caps.txt", "_ids.txt", "id_mapping.json"
USUAL = 5
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class RegionSplit:
    """One split of a folder.

    Attributes:
        folder: Where it lies.
        split: Its name.
        features: (rows, regions, dim), memory-mapped.
        rows: (pictures,) the row of each picture in `features`.
        ids: (pictures,) its id.
        captions: All captions in the order of the file.
        owners: (captions,) the picture of each, counted from 0; never falling.
    """

    folder: Path
    split: str
    features: NDArray[np.floating]
    rows: NDArray[np.int64]
    ids: Sequence[str]
    captions: Sequence[str]
    owners: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def region_dim(self) -> int:
        """Length of one region's features."""
        return int(self.features.shape[2])

    @property
    def pairs(self) -> NDArray[np.int64]:
        """(captions, 2) picture and caption that belong together."""
        return np.stack([self.owners, np.arange(len(self.captions))], axis=1)

    def regions(self, pictures: NDArray[np.int64]) -> Features:
        """Return (len(pictures), regions, dim) float32.

        Raises:
            RegionError: A value is not finite.
        """
        return rows_of(self.features, self.rows[pictures], f"{self.split}{FEATURES}")

    def first(self, pictures: int) -> RegionSplit:
        """Return the split cut to its first pictures."""
        count = int(np.searchsorted(self.owners, pictures))
        return RegionSplit(
            folder=self.folder, split=self.split, features=self.features, rows=self.rows[:pictures],
            ids=self.ids[:pictures], captions=self.captions[:count], owners=self.owners[:count],
        )  # fmt: skip


def splits_of(folder: Path) -> tuple[str, ...]:
    """Return the splits with features and captions, sorted."""
    found = (path.name.removesuffix(FEATURES) for path in folder.glob(f"*{FEATURES}"))
    return tuple(sorted(split for split in found if (folder / f"{split}{CAPTIONS}").is_file()))


def open_split(folder: Path, split: str) -> RegionSplit:
    """Return a split, its features still on disk.

    Raises:
        RegionError: A file is missing or broken, or features, captions and ids do not fit together.
    """
    known = splits_of(folder)
    if split not in known:
        what = f"it has {', '.join(known)}" if known else f"it needs {split}{FEATURES} and {split}{CAPTIONS}"
        raise RegionError(f"folder {str(folder)!r} has no split {split!r}; {what}")
    features = open_features(folder / f"{split}{FEATURES}")
    captions = _captions(folder / f"{split}{CAPTIONS}")
    ids_file = folder / f"{split}{IDS}"
    ids = [line.strip() for line in _lines(ids_file)] if ids_file.is_file() else None
    counts, names = _counts(split, len(features), len(captions), ids)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    rows = starts if len(features) == len(captions) else np.arange(len(counts))
    return RegionSplit(
        folder=folder, split=split, features=features, rows=rows, ids=names, captions=captions,
        owners=np.repeat(np.arange(len(counts)), counts),
    )  # fmt: skip


def file_names(folder: Path) -> dict[str, str]:
    """Return the file names by id that `id_mapping.json` gives; empty without one.

    Raises:
        RegionError: The file is no JSON object.
    """
    path = folder / NAMES
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(name) for key, name in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RegionError(f"{str(path)!r} is no JSON object of file names by id; mend or remove it") from error


def _counts(split: str, rows: int, captions: int, ids: list[str] | None) -> tuple[list[int], list[str]]:
    """Return how many captions each picture has, and its id."""
    if ids is not None and len(ids) == captions:
        groups = [(key, len(list(group))) for key, group in groupby(ids)]
        if rows in (len(groups), captions):
            return [count for _, count in groups], [key for key, _ in groups]
    pictures, rest = divmod(captions, USUAL) if rows == captions else (rows, captions % rows)
    if pictures == 0 or rest:
        told = f" and {len(ids)} ids" if ids is not None else ""
        raise RegionError(
            f"{split}{FEATURES} has {rows} rows, but {split}{CAPTIONS} {captions} captions{told}; there must be the "
            f"same number of captions (five) for each row, one row a caption, or one id a caption in {split}{IDS}"
        )
    each = captions // pictures
    names = _names(split, pictures, each, ids)
    return [each] * pictures, names


def _names(split: str, pictures: int, each: int, ids: list[str] | None) -> list[str]:
    if ids is None:
        return [f"{split}:{row}" for row in range(pictures)]
    step = {pictures: 1, pictures * each: each}.get(len(ids))
    if step is None:
        raise RegionError(
            f"{split}{IDS} has {len(ids)} lines for {pictures} pictures and {pictures * each} captions; "
            "give one for each of either, or remove the file"
        )
    names = ids[::step]
    twice = next((key for key, group in groupby(sorted(names)) if len(list(group)) > 1), None)
    if twice is not None:
        raise RegionError(f"{split}{IDS} names picture {twice!r} in two places; an id may stand only once")
    return names


def _captions(path: Path) -> list[str]:
    captions = [line.strip() for line in _lines(path)]
    empty = next((number for number, caption in enumerate(captions, 1) if not caption), None)
    if empty is not None:
        raise RegionError(f"line {empty} of {path.name} is empty; each line is a caption, so mend it")
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().removeprefix(_BOM).rstrip().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RegionError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from error
