"""Region features on disk: (n, regions, dim) arrays, memory-mapped, and single images of them. No torch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.errors import ImageError
from encoders.images import DecodedImage
from indexer.corpus.item import ROW_MARK, file_of
from storage.schema import ImageInfo

from ...errors import RegionError

Features = NDArray[np.float32]
LAYOUT = "regions"
"""The name of the corpus layout that holds region features."""

_FEW = 8
WAY_OUT = "make them from images with: twinlens regions"


Regions = DecodedImage[Features]
"""The regions of one image, (regions, dim) float32, in the place of its pixels; they have no width and no height."""


def open_features(path: Path) -> NDArray[np.floating]:
    """Return (n, regions, dim) features, memory-mapped.

    Raises:
        RegionError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise RegionError(f"there are no region features at {str(path)!r}; {WAY_OUT}")
    try:
        array: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        words = " ".join(str(error).split())[:200]
        raise RegionError(f"{str(path)!r} cannot be read as a .npy array: {words}; write it again") from error
    if array.ndim != 3 or array.dtype.kind != "f" or 0 in array.shape:
        raise RegionError(
            f"{str(path)!r} holds {array.dtype} of shape {array.shape}; region features are floats of shape "
            "(images, regions, dim)"
        )
    return array


def rows_of(array: NDArray[np.floating], rows: NDArray[np.int64], source: str) -> Features:
    """Return some images' features as (len(rows), regions, dim) float32.

    Raises:
        RegionError: A value is not finite.
    """
    # Sorted, since a memory map reads forward faster.
    order = np.argsort(rows, kind="stable")
    features = np.empty((len(rows), *array.shape[1:]), dtype=np.float32)
    features[order] = array[rows[order]]
    if not np.isfinite(features).all():
        bad = int(rows[np.flatnonzero(~np.isfinite(features).all(axis=(1, 2)))[0]])
        raise RegionError(f"row {bad} of {source} has a feature that is NaN or infinite; extract that image again")
    return features


def read_regions(source: object) -> Regions:
    """Return the regions of one image.

    Args:
        source: `FILE.npy#ROW`, a `.npy` file of one image (regions, dim), the bytes of one, or the array itself.

    Raises:
        ImageError: It is none of these, such as a photograph, or a feature is not finite.
    """
    array = _array(source)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        what = f"{_name(source)} holds {array.dtype} of shape {array.shape}"
        raise ImageError("not_an_image", f"{what}; the regions of one image are floats of shape (regions, dim)")
    features = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(features).all():
        raise ImageError("corrupt", f"a region feature of {_name(source)} is NaN or infinite")
    sha256 = hashlib.sha256(features.tobytes()).hexdigest()
    info = ImageInfo(width=None, height=None, sha256=sha256, file_bytes=0, mtime_ns=None)
    return DecodedImage(pixels=features, info=info)


def _array(source: object) -> NDArray[np.generic]:
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, bytes):
        return _loaded(io.BytesIO(source), _name(source))
    if not isinstance(source, str | Path):
        raise ImageError("not_an_image", f"{_name(source)} has no region features; {WAY_OUT}")
    path = Path(source)
    if file_of(path) != path:
        return _row(file_of(path), int(path.name.rpartition(ROW_MARK)[2]))
    if not path.is_file():
        raise ImageError("missing", f"no file at {str(path)!r}")
    return _loaded(path, _name(source))


def _row(path: Path, row: int) -> NDArray[np.generic]:
    try:
        state = path.stat()
        array = _mapped(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ImageError("missing", f"no file at {str(path)!r}") from error
    except RegionError as error:
        raise ImageError("unreadable", str(error)) from error
    if row >= len(array):
        raise ImageError("missing", f"{str(path)!r} has {len(array)} images, so none in row {row}")
    return np.asarray(array[row])


@lru_cache(maxsize=_FEW)
def _mapped(path: Path, size: int, mtime: int) -> NDArray[np.floating]:
    del size, mtime  # a file that changed is another one
    return open_features(path)


def _loaded(file: io.BytesIO | Path, name: str) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(
            "not_an_image", f"{name} is no .npy file of region features, which is all that this encoder sees; {WAY_OUT}"
        ) from error
    return array


def _name(source: object) -> str:
    if isinstance(source, bytes):
        return f"a file of {len(source)} bytes"
    return repr(str(source)) if isinstance(source, str | Path) else f"a {type(source).__name__}"


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
        rows: (images,) the row of each image in `features`.
        ids: (images,) its id.
        captions: All captions in the order of the file.
        owners: (captions,) the image of each, counted from 0; never falling.
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
        """(captions, 2) image and caption that belong together."""
        return np.stack([self.owners, np.arange(len(self.captions))], axis=1)

    def regions(self, images: NDArray[np.int64]) -> Features:
        """Return (len(images), regions, dim) float32.

        Raises:
            RegionError: A value is not finite.
        """
        return rows_of(self.features, self.rows[images], f"{self.split}{FEATURES}")

    def first(self, images: int) -> RegionSplit:
        """Return the split cut to its first images."""
        count = int(np.searchsorted(self.owners, images))
        return RegionSplit(
            folder=self.folder,
            split=self.split,
            features=self.features,
            rows=self.rows[:images],
            ids=self.ids[:images],
            captions=self.captions[:count],
            owners=self.owners[:count],
        )


def splits_of(folder: Path) -> tuple[str, ...]:
    """Return the splits with features and captions, sorted."""
    names = (path.name.removesuffix(FEATURES) for path in folder.glob(f"*{FEATURES}"))
    return tuple(sorted(split for split in names if (folder / f"{split}{CAPTIONS}").is_file()))


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
        folder=folder,
        split=split,
        features=features,
        rows=rows,
        ids=names,
        captions=captions,
        owners=np.repeat(np.arange(len(counts)), counts),
    )


def file_names(folder: Path) -> dict[str, str]:
    """Return the file names by id that `id_mapping.json` gives; empty without one.

    Raises:
        RegionError: The file is no JSON object.
    """
    path = folder / NAMES
    if not path.is_file():
        return {}
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(name) for key, name in names.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RegionError(f"{str(path)!r} is no JSON object of file names by id; correct or remove it") from error


def _counts(split: str, rows: int, captions: int, ids: list[str] | None) -> tuple[list[int], list[str]]:
    """Return how many captions each image has, and its id."""
    if ids is not None and len(ids) == captions:
        groups = [(key, len(list(group))) for key, group in groupby(ids)]
        if rows in (len(groups), captions):
            return [count for _, count in groups], [key for key, _ in groups]
    images, rest = divmod(captions, USUAL) if rows == captions else (rows, captions % rows)
    if images == 0 or rest:
        counted = f" and {len(ids)} ids" if ids is not None else ""
        raise RegionError(
            f"{split}{FEATURES} has {rows} rows, but {split}{CAPTIONS} {captions} captions{counted}; there must be the "
            f"same number of captions (five) for each row, one row a caption, or one id a caption in {split}{IDS}"
        )
    each = captions // images
    names = _names(split, images, each, ids)
    return [each] * images, names


def _names(split: str, images: int, each: int, ids: list[str] | None) -> list[str]:
    if ids is None:
        return [f"{split}:{row}" for row in range(images)]
    step = {images: 1, images * each: each}.get(len(ids))
    if step is None:
        raise RegionError(
            f"{split}{IDS} has {len(ids)} lines for {images} images and {images * each} captions; "
            "give one for each of either, or remove the file"
        )
    names = ids[::step]
    twice = next((key for key, group in groupby(sorted(names)) if len(list(group)) > 1), None)
    if twice is not None:
        raise RegionError(f"{split}{IDS} names image {twice!r} in two places; an id may stand only once")
    return names


def _captions(path: Path) -> list[str]:
    captions = [line.strip() for line in _lines(path)]
    empty = next((number for number, caption in enumerate(captions, 1) if not caption), None)
    if empty is not None:
        raise RegionError(f"line {empty} of {path.name} is empty; each line is a caption, so correct it")
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().removeprefix(_BOM).rstrip().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RegionError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from error
