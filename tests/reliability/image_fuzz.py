"""Hostile images by the thousand: each must give a picture or an `ImageError`, within memory and time.

    python tests/reliability/image_fuzz.py [COUNT] [SEED]

Prints what was tried and what came of it as JSON; the exit status is 1 when anything else happened. A case is named by
its number and the seed, so `image_fuzz.py --case NUMBER SEED` writes its bytes to stdout.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import phone_files
import stamped
from PIL import Image

from encoders import DecodeLimits, ImageError, decode_image

# Small limits, so that the bound on memory is one that a bomb would break.
LIMITS = DecodeLimits(max_bytes=4 * 2**20, max_pixels=2_000_000)
# 2 megapixels in two modes at a time, the file, and what the interpreter's own heap takes over many cases.
MAX_GROWTH = 64 * 2**20
MAX_SECONDS = 5.0
# Mode of the picture and options of the file; the rest of a format's name is its variety.
_VARIETIES: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("RGB", {}),
    "JPEG progressive": ("RGB", {"progressive": True}),
    "JPEG cmyk": ("CMYK", {}),
    "JPEG grey": ("L", {}),
    "PNG": ("RGBA", {}),
    "PNG palette": ("P", {}),
    "PNG 16-bit": ("I;16", {}),
    "PNG one-bit": ("1", {}),
    "WEBP": ("RGB", {}),
    "WEBP lossless": ("RGBA", {"lossless": True}),
    "GIF": ("P", {}),
    "BMP": ("RGB", {}),
    "TIFF": ("RGB", {}),
    "TIFF lzw": ("RGB", {"compression": "tiff_lzw"}),
    "TIFF float": ("F", {}),
    "PPM": ("RGB", {}),
    "AVIF": ("RGB", {}),
    "GIF animated": ("P", {"frames": 4}),
    "WEBP animated": ("RGB", {"frames": 3}),
    "MPO": ("RGB", {"frames": 2}),
    "PNG animated": ("RGB", {"frames": 3}),
    **phone_files.varieties(),
    **stamped.varieties(),
}


def seeds() -> dict[str, bytes]:
    """One good file of each variety, 61 x 43 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((61, 43), Image.Resampling.BICUBIC)
    return {name: _file(picture, name, mode, dict(options)) for name, (mode, options) in _VARIETIES.items()}


def case(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The name of a way to do harm and the bytes that it gives; the same for one number and seed."""
    chance = random.Random(f"{seed}/{number}")
    name = chance.choice(list(files))
    kind = chance.choice(list(_HARMS))
    return f"{kind} {name}", _HARMS[kind](bytearray(files[name]), chance, files)


def fuzz(count: int, seed: int = 0) -> dict[str, object]:
    """Decode `count` hostile images and say what came of them: `unexpected` and `slow` are to be empty."""
    files = seeds()
    for data in files.values():
        decode_image(data, LIMITS)
    decode_image(bomb(1400, 1400), LIMITS)
    outcomes: Counter[str] = Counter()
    unexpected: dict[int, str] = {}
    slow: dict[int, float] = {}
    before, started = peak(), time.perf_counter()
    for number in range(count):
        kind, data = case(number, seed, files)
        begun = time.perf_counter()
        outcome = _outcome(data)
        if outcome.startswith("!"):
            unexpected[number] = f"{kind}: {outcome}"
        if time.perf_counter() - begun > MAX_SECONDS:
            slow[number] = round(time.perf_counter() - begun, 1)
        outcomes[outcome] += 1
    return {
        "hostile images": count,
        "seed": seed,
        "varieties": len(files),
        "harms": len(_HARMS),
        "outcomes": dict(outcomes),
        "unexpected": unexpected,
        "slow": slow,
        "grown": peak() - before,
        "most_allowed": MAX_GROWTH,
        "seconds": round(time.perf_counter() - started, 1),
    }


def peak() -> int:
    """The most memory that this process ever held, in bytes."""
    # Not getrusage: a child inherits the figure of the process that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def bomb(width: int, height: int) -> bytes:
    """A whole PNG of one colour, a thousandth of its size in memory."""
    row = b"\0" + bytes(width * 3)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _outcome(data: bytes) -> str:
    try:
        decoded = decode_image(data, LIMITS)
    except ImageError as error:
        return error.reason if "\n" not in str(error) else "!an error of several lines"
    except BaseException as error:  # whatever else comes out is what is looked for
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"!{type(error).__name__}: {error}"
    whole = decoded.pixels.mode == "RGB" and decoded.pixels.width * decoded.pixels.height <= LIMITS.max_pixels
    return "decoded" if whole else f"!a picture in {decoded.pixels.mode} of {decoded.pixels.size}"


def _file(picture: Image.Image, name: str, mode: str, options: dict[str, object]) -> bytes:
    file, frames = io.BytesIO(), int(str(options.pop("frames", 1)))
    shown = picture.convert("I").point(lambda value: value * 257).convert("I;16") if mode == "I;16" else None
    shown = shown or picture.convert(mode)
    if frames > 1:
        options |= {"save_all": True, "append_images": [shown.rotate(90 * n) for n in range(1, frames)]}
    shown.save(file, name.split()[0], **options)
    return file.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


Harm = Callable[[bytearray, random.Random, dict[str, bytes]], bytes]


def _flip(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _head(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    for _ in range(chance.choice((1, 2, 4))):
        data[chance.randrange(min(len(data), 128))] = chance.choice((0, 1, 127, 128, 254, 255))
    return bytes(data)


def _extreme(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    """A number of a header set to the least or the most that it can be."""
    width, order = chance.choice((2, 4)), chance.choice(("<", ">"))
    value = chance.choice((0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)) % 2 ** (8 * width)
    place = chance.randrange(max(1, min(len(data), 256) - width))
    data[place : place + width] = struct.pack(order + {2: "H", 4: "I"}[width], value)
    return bytes(data)


def _cut(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _splice(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    """Part of another picture in the middle: a polyglot when it is at the start."""
    other = files[chance.choice(list(files))]
    start, place = chance.randrange(len(other)), chance.choice((0, chance.randrange(len(data))))
    piece = other[start : start + chance.randrange(1, 400)]
    return bytes(data[:place]) + piece + bytes(data[place + chance.choice((0, len(piece))) :])


def _repeat(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    start = chance.randrange(len(data))
    return bytes(data[:start]) + bytes(data[start : start + 200]) * chance.randrange(2, 50) + bytes(data[start:])


def _noise(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    return bytes(data[: chance.randrange(4, 40)]) + chance.randbytes(chance.randrange(0, 2000))


def _random(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 2, 7, 16, 100, 3000)))


def _bomb(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    """A PNG that says it is huge, and holds next to nothing."""
    sides = (1, 2, 1000, 1415, 30_000, 2**16, 2**31 - 1)
    header = struct.pack(">IIBBBBB", chance.choice(sides), chance.choice(sides), 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(chance.choice((0, 1000, 100_000))))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _text_bomb(data: bytearray, chance: random.Random, files: dict[str, bytes]) -> bytes:
    """A small PNG with a text of many megabytes, packed."""
    whole, kind = files["PNG"], chance.choice((b"zTXt", b"iCCP"))
    body = b"x\0\0" + zlib.compress(bytes(chance.choice((2**16, 2**22, 2**24))), 9)
    return whole[:33] + _chunk(kind, body) * chance.choice((1, 3)) + whole[33:]


_HARMS: dict[str, Harm] = {
    "bits flipped": _flip,
    "header bytes": _head,
    "extreme number": _extreme,
    "cut short": _cut,
    "spliced": _splice,
    "repeated": _repeat,
    "noise after the start": _noise,
    "random bytes": _random,
    "pixel bomb": _bomb,
    "text bomb": _text_bomb,
}


def main(arguments: list[str]) -> int:
    """Run as a program."""
    if arguments[:1] == ["--case"]:
        sys.stdout.buffer.write(case(int(arguments[1]), int(arguments[2]), seeds())[1])
        return 0
    numbers = [int(argument) for argument in arguments]
    result = fuzz(*(numbers or [20_000]))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    grown = result["grown"]
    return int(bool(result["unexpected"] or result["slow"]) or not isinstance(grown, int) or grown > MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
