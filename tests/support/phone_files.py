"""Image files and films as phones and cameras write them."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from image_writers import tiff
from PIL import Image

HAS_PHOTOS = find_spec("pillow_heif") is not None and find_spec("pillow_jxl") is not None
"""Whether the extra `photos` is installed."""


def exif_of(turn: int = 1) -> Image.Exif:
    """EXIF with an orientation, a date and a place as a phone has them."""
    tags = Image.Exif()
    tags[0x0112] = turn
    tags[0x8769] = {0x9003: "2024:07:01 12:30:45", 0x9011: "+02:00"}
    tags[0x8825] = {1: "N", 2: (48.0, 12.0, 0.0), 3: "E", 4: (16.0, 22.0, 0.0)}
    return tags


def varieties() -> dict[str, tuple[str, dict[str, object]]]:
    """What to fuzz, as mode and options by Pillow's name of the format; nothing without the packages."""
    if not HAS_PHOTOS:
        return {}
    import pillow_jxl  # noqa: F401 - registers itself
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return {
        "HEIF": ("RGB", {}),
        "HEIF alpha": ("RGBA", {}),
        "JXL": ("RGB", {}),
        "JXL lossless": ("RGBA", {"lossless": True}),
    }


def heic(image: Image.Image, turn: int = 1, **options: object) -> bytes:
    """A HEIC, stored as it lies: how it is to be turned stands in the boxes, and in EXIF as well."""
    varieties()
    file = io.BytesIO()
    image.save(file, "HEIF", **{"exif": exif_of(turn).tobytes(), "quality": 95, **options})
    return file.getvalue()


def jpeg_xl(image: Image.Image, **options: object) -> bytes:
    """A JPEG XL of pixels."""
    varieties()
    file = io.BytesIO()
    image.save(file, "JXL", effort=3, **options)
    return file.getvalue()


def jpeg_xl_of_jpeg(image: Image.Image, turn: int, folder: Path) -> bytes:
    """A JPEG XL from which a JPEG can be made again, with the turn that its EXIF has."""
    varieties()
    path, file = folder / "before.jpg", io.BytesIO()
    image.save(path, exif=exif_of(turn), quality=95)
    with Image.open(path) as before:
        before.save(file, "JXL", lossless_jpeg=True)
    return file.getvalue()


def dng(preview: Image.Image, turn: int = 1, *, exif: Image.Exif | None = None) -> bytes:
    """A RAW file: a thumbnail, a JPEG preview behind the sensor's data, and the turn in its own tags."""
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=95, **({"exif": exif} if exif else {}))
    tags = [(274, 3, [turn]), (50706, 1, [1, 4, 0, 0])]
    whole = tiff(np.full((6, 8), 90, np.uint32), 8, 32803, tags=tags)
    return whole + bytes(64) + b"\xff\xd8\xff\xc3\0\x0b\x08" + struct.pack(">HH", 900, 900) + file.getvalue()


def film(
    path: Path,
    shown: list[tuple[float, Image.Image]],
    *,
    seconds: float,
    fps: int = 10,
    turn: int = 0,
    keys: int = 20,
    variable: bool = False,
    told: Mapping[str, str] | None = None,
) -> Path:
    """A film that shows each image from its time on; with `variable` each is one frame that stays."""
    import av

    base = Fraction(1, 1000)
    times = [time for time, _ in shown] + [seconds] if variable else [n / fps for n in range(int(seconds * fps))]
    options = {"movflags": "use_metadata_tags"} if told else {}
    with av.open(path, "w", options=options) as container:
        container.metadata.update(told or {})
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = shown[0][1].size
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", base, base
        stream.options = {"g": str(keys), "preset": "ultrafast", "bf": "2", "sc_threshold": "0"}
        if turn:
            stream.set_display_rotation(turn)
        for time in times:
            image = [image for start, image in shown if start <= time + 1e-9][-1]
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(time * 1000), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
