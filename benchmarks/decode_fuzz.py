"""Seconds of thousands of crafted image files, mutations of valid ones and files made to take long: none over five.

    python benchmarks/decode_fuzz.py [COUNT] [SEED]

A case is named by its number and the seed; `decode_fuzz.py --case NUMBER SEED` writes its bytes to stdout.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import numpy as np
import phone_files
import stamped
from PIL import Image
from record import Figure, record
from slow_images import BOUNDED, REFUSED

from encoders import ImageError, decode_image

MOST_SECONDS = 5.0
_LARGEST_BOMB = 48_000_000
_EVERY = 50
_ELSEWHERE = ("HEIF", "JXL")
# By format: the mode of the image, and options of the file.
_VARIETIES: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("RGB", {}),
    "JPEG progressive": ("RGB", {"progressive": True}),
    "JPEG cmyk": ("CMYK", {}),
    "PNG": ("RGBA", {}),
    "PNG palette": ("P", {}),
    "WEBP": ("RGB", {}),
    "WEBP lossless": ("RGBA", {"lossless": True}),
    "GIF": ("P", {}),
    "TIFF": ("RGB", {}),
    "TIFF deflate": ("RGB", {"compression": "tiff_adobe_deflate"}),
    "TIFF jpeg": ("RGB", {"compression": "jpeg"}),
    "AVIF": ("RGB", {}),
    "BMP": ("RGB", {}),
    "PPM": ("RGB", {}),
    **phone_files.varieties(),
    **stamped.varieties(),
}


@dataclass(frozen=True)
class Result:
    """One case: what was done, in how many seconds of this thread, and what came of it."""

    name: str
    seconds: float
    outcome: str


def main(arguments: list[str]) -> None:
    """Run as a program."""
    if arguments[:1] == ["--case"]:
        sys.stdout.buffer.write(case(int(arguments[1]), int(arguments[2]), valid_files())[1])
        return
    count, seed = (*map(int, arguments), *(5000, 0)[len(arguments) :])
    results = fuzz(count, seed)
    worst = sorted(results, key=lambda result: -result.seconds)[:5]
    figures = [
        Figure("crafted files", len(results), ">= 5000"),
        Figure("formats", len({result.name.split()[0].rstrip(",").upper() for result in results}), ">= 5"),
        Figure("files over 5 s", sum(result.seconds > MOST_SECONDS for result in results), "0"),
        *(Figure(f"worst {place + 1}: {r.name}, {r.outcome}", r.seconds, "< 5", "s") for place, r in enumerate(worst)),
        *(Figure(f"outcome {name}", number) for name, number in Counter(r.outcome for r in results).most_common()),
    ]
    notes = (
        f"Seed {seed}. Seconds are those that the decoding thread computed, and for HEIF and JXL, which a process of "
        "its own decodes, those that passed; the machine was shared with other programs."
    )
    record("decode_fuzz", figures, notes)


def fuzz(count: int, seed: int, largest: int = _LARGEST_BOMB) -> list[Result]:
    """Decode `count` crafted files, of which one in fifty was made to take long, and say what each cost."""
    files = valid_files()
    return [measured(*case(number, seed, files, largest)) for number in range(count)]


def case(number: int, seed: int, files: dict[str, bytes], largest: int = _LARGEST_BOMB) -> tuple[str, bytes]:
    """Return the name and the bytes of a case; the same for one number and seed."""
    chance = random.Random(f"{seed}/{number}")
    bombs = {**REFUSED, **BOUNDED}
    if number % _EVERY == 0:
        name = list(bombs)[number // _EVERY % len(bombs)]
        size = int(10 ** chance.uniform(4, np.log10(largest)))
        return f"{name} of {size / 1e6:.2f} MB", bombs[name](size)
    name = chance.choice(list(files))
    kind = chance.choice(list(_CHANGES))
    return f"{name}, {kind}", _CHANGES[kind](bytearray(files[name]), chance)


def measured(name: str, data: bytes) -> Result:
    """Return what decoding the bytes costs."""
    clock = time.perf_counter if name.startswith(_ELSEWHERE) else time.thread_time
    started = clock()
    try:
        outcome = decode_image(data).pixels.mode
    except ImageError as error:
        outcome = error.reason
    return Result(name, clock() - started, outcome)


def valid_files() -> dict[str, bytes]:
    """Return one good file of each variety, 160 x 120 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)
    return {name: _file(image.convert(mode), name.split()[0], options) for name, (mode, options) in _VARIETIES.items()}


def _file(image: Image.Image, format: str, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _flipped(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _header(data: bytearray, chance: random.Random) -> bytes:
    """Sizes and counts of the header, as large as a number can be or somewhat too large."""
    for _ in range(chance.choice((1, 2, 3))):
        width, order = chance.choice((2, 4)), chance.choice("<>")
        value = chance.choice((0, 1, 4000, 9000, 16383, 2**15, 2**16 - 1, 2**24, 2**31 - 1)) % 2 ** (8 * width)
        place = chance.randrange(max(1, min(len(data), 300) - width))
        data[place : place + width] = struct.pack(order + {2: "H", 4: "I"}[width], value)
    return bytes(data)


def _larger(data: bytearray, chance: random.Random) -> bytes:
    """The size of the image, wherever it is written, made ten times as large, now and then sixty times."""
    times = chance.choice((10,) * 19 + (60,))
    for order, kind in ((">", "H"), ("<", "H"), (">", "I"), ("<", "I")):
        for old in (160, 120):
            data = bytearray(data.replace(struct.pack(order + kind, old), struct.pack(order + kind, old * times), 3))
    return bytes(data)


def _repeated(data: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    length = chance.choice((4, 12, 60, 400))
    return (
        bytes(data[: start + length])
        + bytes(data[start : start + length]) * chance.choice((10, 1000, 20_000))
        + bytes(data[start + length :])
    )


def _cut(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _larger_and_flipped(data: bytearray, chance: random.Random) -> bytes:
    return _flipped(bytearray(_larger(data, chance)), chance)


_CHANGES: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "bits flipped": _flipped,
    "numbers of the header": _header,
    "size enlarged": _larger,
    "size enlarged and bits flipped": _larger_and_flipped,
    "a piece repeated": _repeated,
    "cut short": _cut,
}


if __name__ == "__main__":
    main(sys.argv[1:])
