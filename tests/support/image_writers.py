"""Samples of any depth written to TIFF, PNG, PNM and BMP, by nothing that the decoders under test use."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_DEFLATE = 8


def packed(rows: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Each row of (height, values) integers as bytes, the first value in the highest bits."""
    if rows.dtype.kind == "f" or bits in (8, 16, 32):
        kind = "f" if rows.dtype.kind == "f" else "i" if rows.dtype.kind == "i" else "u"
        return [row.tobytes() for row in rows.astype(f"{order}{kind}{bits // 8}")]
    shifts = np.arange(bits - 1, -1, -1)
    spread = (rows[:, :, None].astype(np.uint32) >> shifts) & 1
    return [row.tobytes() for row in np.packbits(spread.reshape(len(rows), -1).astype(np.uint8), axis=1)]


def reversed_bits(data: bytes) -> bytes:
    """The bytes with the lowest bit first: TIFF's fill order 2."""
    return bytes(int(f"{value:08b}"[::-1], 2) for value in data)


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    planar: bool = False,
    tile: int = 0,
    fill: int = 1,
    deflate: bool = False,
    extra: Sequence[int] = (),
    colours: np.ndarray | None = None,
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """Samples (height, width) or (height, width, bands) as a TIFF, in strips of two rows or in square tiles."""
    cube = samples[:, :, None] if samples.ndim == 2 else samples
    height, width, bands = cube.shape
    layers = [cube[:, :, band : band + 1] for band in range(bands)] if planar else [cube]
    blocks = [block for layer in layers for block in _blocks(layer, tile)]
    pieces = [b"".join(packed(block.reshape(len(block), -1), bits, order)) for block in blocks]
    pieces = [zlib.compress(piece) for piece in pieces] if deflate else pieces
    pieces = [reversed_bits(piece) for piece in pieces] if fill == 2 else pieces
    starts = [8 + sum(len(piece) for piece in pieces[:place]) for place in range(len(pieces) + 1)]
    kind = {"u": 1, "i": 2, "f": 3}[cube.dtype.kind]
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * bands),
        (259, 3, [_DEFLATE if deflate else 1]),
        (262, 3, [photometric]),
        (266, 3, [fill]),
        (277, 3, [bands]),
        (284, 3, [2 if planar else 1]),
        (339, 3, [kind] * bands),
        *([(338, 3, list(extra))] if extra else []),
        *([(320, 3, colours.T.reshape(-1).tolist())] if colours is not None else []),
        *([(322, 3, [tile]), (323, 3, [tile])] if tile else [(278, 4, [2])]),
        (324 if tile else 273, 4, starts[:-1]),
        (325 if tile else 279, 4, [len(piece) for piece in pieces]),
        *tags,
    ]
    # Of a tag given twice, the one that was asked for.
    entries = list({entry[0]: entry for entry in entries}.values())
    return _tiff_file(b"".join(pieces), sorted(entries), order)


def _blocks(layer: np.ndarray, tile: int) -> list[np.ndarray]:
    height, width, _ = layer.shape
    if not tile:
        edges = [*range(0, height, 2), height]
        return [layer[top:bottom] for top, bottom in pairwise(edges)]
    whole = np.pad(layer, ((0, -height % tile), (0, -width % tile), (0, 0)))
    corners = [(top, left) for top in range(0, height, tile) for left in range(0, width, tile)]
    return [whole[top : top + tile, left : left + tile] for top, left in corners]


def _tiff_file(data: bytes, entries: Sequence[tuple[int, int, Sequence[int]]], order: str) -> bytes:
    data += b"\0" * (len(data) % 2)
    head, start = {"<": b"II*\0", ">": b"MM\0*"}[order], 8 + len(data)
    beyond = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for tag, kind, numbers in entries:
        body = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        if len(body) <= 4:
            directory += body.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", beyond + len(values))
            values += body + b"\0" * (len(body) % 2)
    return head + struct.pack(f"{order}I", start) + data + directory + b"\0\0\0\0" + values


def png(
    samples: np.ndarray, bits: int, kind: int, *, chunks: Sequence[tuple[bytes, bytes]] = (), interlaced: bool = False
) -> bytes:
    """Samples as a PNG of colour type 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA, with further `chunks`."""
    cube = samples[:, :, None] if samples.ndim == 2 else samples
    height, width, _ = cube.shape
    raw = b"".join(b"\0" + row for part in _passes(cube, interlaced) for row in packed(part, bits))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in body)


def png_chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _passes(cube: np.ndarray, interlaced: bool) -> list[np.ndarray]:
    parts = [cube[y::down, x::across] for x, y, across, down in _ADAM7] if interlaced else [cube]
    return [part.reshape(len(part), -1) for part in parts if part.size]


def pnm(samples: np.ndarray, most: int, *, plain: bool = False) -> bytes:
    """Samples as PGM (height, width) or PPM (height, width, 3), binary or plain, whose white is `most`."""
    kind = (2 if plain else 5) + (samples.ndim == 3)
    head = f"P{kind}\n{samples.shape[1]} {samples.shape[0]}\n{most}\n".encode()
    if plain:
        return head + " ".join(map(str, samples.reshape(-1).tolist())).encode() + b"\n"
    return head + samples.astype(">u2" if most > 255 else "u1").tobytes()


def bmp(rows: Sequence[bytes], width: int, bits: int, *, colours: bytes = b"", masks: Sequence[int] = ()) -> bytes:
    """Packed rows, the top one first, as a Windows bitmap."""
    body = b"".join(row + b"\0" * (-len(row) % 4) for row in reversed(rows))
    extra = struct.pack(f"<{len(masks)}I", *masks) + colours
    compression = 3 if masks else 0
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, len(rows), 1, bits, compression, len(body), 0, 0, len(colours) // 4, 0
    )
    start = 14 + len(header) + len(extra)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + extra + body
