"""Region features on disk: (n, regions, dim) arrays, memory-mapped, and single pictures of them. No torch."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .errors import RegionError

Features = NDArray[np.float32]

# Between the file and the row of a picture in it: `dev_ims.npy#12`.
ROW_MARK = "#"
_FEW = 8
WAY_OUT = "make them from pictures with: twinlens regions"


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of one picture, in the place of its pixels; the fields are those of `encoders.DecodedImage`.

    Attributes:
        pixels: (regions, dim) float32.
        width: None, since features have no pixels.
        height: None.
        sha256: Of the features.
        file_bytes: 0: a row of a file.
    """

    pixels: Features
    sha256: str
    width: int | None = None
    height: int | None = None
    file_bytes: int = 0


def file_of(path: Path) -> Path:
    """Return the file that holds a picture: the path itself, or of `FILE.npy#ROW` the part before the mark."""
    file, mark, row = path.name.rpartition(ROW_MARK)
    return path.with_name(file) if mark and row.isdigit() and file.endswith(".npy") else path


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
            "(pictures, regions, dim)"
        )
    return array


def rows_of(array: NDArray[np.floating], rows: NDArray[np.int64], place: str) -> Features:
    """Return some pictures' features as (len(rows), regions, dim) float32.

    Raises:
        RegionError: A value is not finite.
    """
    # Sorted, since a memory map reads forward faster.
    order = np.argsort(rows, kind="stable")
    found = np.empty((len(rows), *array.shape[1:]), dtype=np.float32)
    found[order] = array[rows[order]]
    if not np.isfinite(found).all():
        bad = int(rows[np.flatnonzero(~np.isfinite(found).all(axis=(1, 2)))[0]])
        raise RegionError(f"row {bad} of {place} has a feature that is NaN or infinite; extract that picture again")
    return found


def read_regions(source: object) -> Regions:
    """Return the regions of one picture.

    Args:
        source: `FILE.npy#ROW`, a `.npy` file of one picture (regions, dim), the bytes of one, or the array itself.

    Raises:
        ImageError: It is none of these, such as a photograph, or a feature is not finite.
    """
    array = _array(source)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        what = f"{_name(source)} holds {array.dtype} of shape {array.shape}"
        raise ImageError("not_an_image", f"{what}; the regions of one picture are floats of shape (regions, dim)")
    features = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(features).all():
        raise ImageError("corrupt", f"a region feature of {_name(source)} is NaN or infinite")
    return Regions(pixels=features, sha256=hashlib.sha256(features.tobytes()).hexdigest())


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
        raise ImageError("missing", f"{str(path)!r} has {len(array)} pictures, so none in row {row}")
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
