"""TIFF files: what they state about their samples, and what Pillow would read wrongly put right or refused."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, TiffImagePlugin

from .errors import ImageError

_BITS_PER_SAMPLE, _PHOTOMETRIC, _STRIP_BYTES, _PLANAR, _SAMPLE_FORMAT = 258, 262, 279, 284, 339
_TILE_BYTES = 325
_WHITE_IS_ZERO, _SEPARATE_PLANES = 0, 2
_UNSIGNED, _SIGNED = 1, 2


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a file states about its samples that Pillow's pixel mode does not.

    Attributes:
        white: The value that is white, in a mode wider than a byte; None where the file states no range.
        inverted: The lowest value is white, and Pillow has not turned it round.
        numpy: The type of the values where it is not that of Pillow's mode.
        transparent: The one colour that is transparent, in the values that Pillow gives; None for none, and where
            Pillow knows it already.
    """

    white: int | None = None
    inverted: bool = False
    numpy: str | None = None
    transparent: tuple[int, ...] | None = None


def tiff_samples(image: Image.Image, tags: Any) -> Samples:
    """Return what the tags of an opened TIFF state about its samples."""
    (bits, *_), (kind, *_) = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    sixteen = image.mode.startswith("I;16")
    values = {("I", _UNSIGNED): "uint32", ("L", _SIGNED): "int8"}.get((image.mode, kind))
    return Samples(
        white=2**bits - 1 if sixteen else None,
        # Pillow turns bytes round, and nothing wider.
        inverted=(sixteen or image.mode in ("I", "F")) and tags.get(_PHOTOMETRIC, 0) == _WHITE_IS_ZERO,
        numpy=values,
    )


# libtiff gives values in the machine's order of bytes, whatever the order of the file is.
_NATIVE = {f"{name}{order}{kind}": f"{name}N{kind}" for name in ("I;16", "I;32") for order in ("", "B") for kind in "S"}
_NATIVE |= {"F;32F": "F;32NF", "F;32BF": "F;32NF"}
_WITH_PLANES_OF_16_BITS = ("RGB", "RGBA")


def correct_tiles(image: Image.Image, tags: Any) -> None:
    """Have a TIFF that was opened and not yet loaded read in its own order of bytes and depth.

    Raises:
        ImageError: Pillow would give other pixels than the file's, and cannot be told to read them.
    """
    separate = tags.get(_PLANAR, 1) == _SEPARATE_PLANES
    if separate and image.mode in ("LA", "La", "PA"):
        raise ImageError("unsupported_format", "a TIFF with transparency in a plane of its own; save it interleaved")
    if (
        image.mode == "YCbCr"
        and sum(tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES, ())) < 3 * image.width * image.height
    ):
        raise ImageError("unsupported_format", "a TIFF with subsampled YCbCr that is not compressed; save it as RGB")
    tiles: list[Any] = getattr(image, "tile", [])
    wide = separate and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8
    for number, tile in enumerate(tiles):
        rawmode, *rest = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if tile[0] == "libtiff":
            rawmode = _NATIVE.get(rawmode, rawmode)
        elif wide:
            rawmode = _wide_plane(image, rawmode)
        tiles[number] = tile._replace(args=(rawmode, *rest))


def _wide_plane(image: Image.Image, band: str) -> str:
    """Return the raw mode of a 16-bit plane, which Pillow takes for one of bytes."""
    if image.mode not in _WITH_PLANES_OF_16_BITS or band not in image.getbands():
        raise ImageError("unsupported_format", f"a TIFF with {image.mode} in planes of 16 bits; save it interleaved")
    order = "B" if getattr(image, "tag_v2").prefix == b"MM" else "L"  # noqa: B009
    return f"{band};16{order}"


# What Pillow says of a whole header with an unusual order or number of samples; the last one of a plane too many.
_UNREADABLE = ("unknown pixel mode", "unknown data organization", "string index out of range")


def refused_tiff(data: bytes) -> ImageError | None:
    """Return why Pillow did not take the bytes of a TIFF; None where it found no header of one."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except (SyntaxError, OSError, ValueError) as error:
        if any(words in str(error) for words in _UNREADABLE):
            return ImageError(
                "unsupported_format", "a TIFF with samples of a kind that is not read; save it with 8 bits a sample"
            )
    return None
