"""What it costs to read EXIF, XMP and IPTC, of the CPU time of decoding and of a build; and filters by them.

    python benchmarks/photo_columns.py [--rows 1000000]

The photographs are those of `coco_cc`, with the metadata of a camera and of an editor put into copies of them.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import numpy as np
import pyarrow as pa
import stamped
from PIL import Image
from record import Figure, need_data, record

import encoders.images
from encoders import load_encoder
from indexer import build_index
from storage.catalog import TABLES, Catalog, write_catalog

ROUNDS = 9
MAKER_NOTE = bytes(20_000)  # what a camera writes for itself, and nobody else reads
WHERE = "taken_at >= DATE '2024-06-01' AND within_km(latitude, longitude, 48.2, 16.4, 5)"
READ = encoders.images.file_facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in sorted((need_data() / "coco_cc" / "images").glob("*.jpg"))]
    figures = [
        *decoded("640 x 427, EXIF", [told(one) for one in files]),
        *decoded("640 x 427, EXIF and XMP", [told(one, xmp=True) for one in files]),
        *decoded("640 x 427, neither", files),
        *decoded("4000 x 3000, EXIF and XMP", [told(enlarged(one), xmp=True) for one in files[:4]]),
        *built([told(one, xmp=True) for one in files]),
        *filtered(arguments.rows),
    ]
    record("photo_columns", figures, "CPU seconds; the share is that of reading metadata. The machine was busy.")


def told(jpeg: bytes, *, xmp: bool = False) -> bytes:
    """Return a JPEG with metadata, its pixels as they are."""
    exif = stamped.exif(fields={0x927C: MAKER_NOTE}).tobytes()
    segments = [exif if exif.startswith(b"Exif") else b"Exif\0\0" + exif]
    if xmp:
        words = "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
        packet = stamped.xmp('xmp:Rating="4"', words)
        segments.append(b"http://ns.adobe.com/xap/1.0/\0" + packet + b" " * 2_000)
    parts = [b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def enlarged(jpeg: bytes) -> bytes:
    """Return a photograph as large as a camera makes them."""
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).resize((4000, 3000), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


class Meter:
    """Counts the CPU seconds of a function within others."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, *given: Any) -> dict[str, Any]:
        began = time.thread_time()
        try:
            return READ(*given)
        finally:
            self.seconds += time.thread_time() - began


def decoded(name: str, files: Sequence[bytes]) -> list[Figure]:
    """Decode files, and tell what their metadata takes."""

    def decode_all() -> None:
        for data in files * ROUNDS:
            encoders.images.decode_image(data)

    whole, read = measured(decode_all)
    return [
        Figure(f"decoded a CPU second, {name}", len(files) * ROUNDS / whole),
        Figure("metadata of an image", read / len(files) / ROUNDS * 1e6, "", "us"),
        Figure("share of decoding", 100 * read / whole, "", "%"),
    ]


def built(files: Sequence[bytes]) -> list[Figure]:
    """Build an index of photographs, and tell what their metadata takes."""
    encoder = load_encoder("lite")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for number, data in enumerate(files):
            (folder / f"{number:03}.jpg").write_bytes(data)
        whole, read = measured(lambda: build_index(folder, Path(scratch) / "index", encoder=encoder))
    return [
        Figure(f"CPU seconds of a build of {len(files)} photographs with `lite`, EXIF and XMP", whole),
        Figure("share of metadata", 100 * read / whole, "<= 2", "%"),
    ]


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU seconds of some work in all threads, and those of metadata in it."""
    meter = Meter()
    encoders.images.file_facts = meter
    began = time.process_time()
    try:
        work()
    finally:
        encoders.images.file_facts = READ
    return time.process_time() - began, meter.seconds


def filtered(rows: int) -> list[Figure]:
    """Filter photographs that lie all over the world, taken in ten years."""
    rng = np.random.default_rng(0)
    made = {
        "row_id": pa.array(np.arange(rows)),
        "item_id": pa.array(np.char.mod("%d.jpg", np.arange(rows))),
        "taken_at": pa.array(rng.integers(1_450_000_000, 1_765_000_000, rows) * 1_000_000, pa.timestamp("us")),
        "latitude": pa.array(rng.normal(48, 3, rows)),
        "longitude": pa.array(rng.normal(16, 5, rows)),
    }
    tables = {
        name: pa.table({column: made.get(column, pa.nulls(rows, kind)) for column, kind in columns.items()})
        if name == "images"
        else pa.table({column: pa.array([], kind) for column, kind in columns.items()})
        for name, columns in TABLES.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        write_catalog(Path(scratch) / "c", **tables)
        with Catalog.open(Path(scratch) / "c") as catalog:
            seconds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                found = catalog.filter_rows("images", WHERE)
                seconds.append(time.perf_counter() - began)
    return [Figure(f"a date and a place among {rows:,} images, {len(found):,} pass", min(seconds) * 1e3, "", "ms")]


if __name__ == "__main__":
    main()
