"""Images that are decoded in a process of their own, by decoders that Pillow does not have."""

from __future__ import annotations

import os
import signal
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate, pairwise

from PIL import Image

from storage.child_process import ChildProcess, ProcessEndedError, ProcessPool
from storage.errors import install_hint

from ..errors import ImageError

PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}
"""The package that decodes each of these formats."""
EXTRA = "photos"
# These decoders are slower than the others: 48 megapixels of a telephone take 3 seconds as HEIC.
_SHARE = 3.0
# A process that waits for a busy machine is not too slow.
_LATEST, _WAITS = 60.0, 10.0


def decode_elsewhere(format: str, data: bytes, max_pixels: int, seconds: float) -> Image.Image:
    """Return the first image of a file, turned as the file says, its EXIF and XMP in `info`.

    Decoding may take three times `seconds` of one core.

    Raises:
        ImageError: The package for it is not installed, or the file gives no image within the limits.
    """
    if find_spec(PACKAGES[format]) is None:
        raise ImageError("unsupported_format", f"{format} needs the extra {EXTRA}; {install_hint(EXTRA)}")
    seconds *= _SHARE
    request = {"format": format, "max_pixels": max_pixels, "seconds": seconds}
    try:
        told, decoded = _pool().ask(request, data, seconds=_LATEST + _WAITS * seconds)
    except ProcessEndedError as error:
        if error.code == -signal.SIGPROF:
            limit = f"the limit of {seconds:g} seconds of one core"
            raise ImageError("too_slow", f"decoding takes longer than {limit}") from error
        raise ImageError("corrupt", f"the decoder of {format} broke off on it (exit {error.code})") from error
    except TimeoutError as error:
        raise ImageError("too_slow", "the decoder gave no answer") from error
    if "failed" in told:
        raise ImageError(*told["failed"])
    pixels, exif, xmp = (decoded[start:end] for start, end in pairwise(accumulate(told["parts"], initial=0)))
    image = Image.frombytes(told["mode"], tuple(told["size"]), pixels)
    image.format = format
    image.info.update({name: value for name, value in (("exif", exif), ("xmp", xmp)) if value})
    return image


@lru_cache(maxsize=1)
def _pool() -> ProcessPool:
    return ProcessPool(lambda: ChildProcess("encoders.formats.worker"), os.cpu_count() or 1)
