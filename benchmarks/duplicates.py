"""Near-duplicates: which copies of real photographs are found, what is taken for a copy and is none, and how fast.

    python benchmarks/duplicates.py                  photographs, pages, leaks, the cost of a build, a million images
    python benchmarks/duplicates.py --only million

Thresholds were chosen on every sixth photograph of Flickr8k, from the first on; what is reported are others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, ImageOps
from record import Figure, need_data, record

from encoders import load_encoder
from encoders.perceptual_hash import perceptual_hash
from indexer import build_index
from searcher import EvaluateOptions, Searcher, evaluate_index
from storage import AnnPlan, CollectionInfo, IndexStore
from storage.catalog import IMAGE_COLUMNS, PAIR_COLUMNS, REJECTED_COLUMNS, TEXT_COLUMNS, write_catalog
from storage.duplicates.grades import GRADES
from storage.schema import Counts, EncoderInfo
from storage.vectors import VectorWriter

SAVED, RESIZED = ("q50", "q70", "q90"), ("x0.3", "x0.5", "x2")
ORIENTATION = 0x0112
WORDS = ("a", "the", "dog", "runs", "over", "snow", "with", "red", "ball", "two", "children", "play", "water", "street")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float = 0.1) -> Image.Image:
    left, top = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((left, top, image.width - left, image.height - top))


def marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((width * 0.55, height * 0.82, width * 0.97, height * 0.95), fill=(255, 255, 255, 150))
    draw.text((width * 0.58, height * 0.85), "(c) example", fill=(0, 0, 0, 200))
    return image


def variants(image: Image.Image) -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """Yield name, pixels and how they are saved, for each kind of copy."""
    for name in SAVED:
        yield name, image, {"quality": int(name[1:])}
    for name in RESIZED:
        yield name, scaled(image, float(name[1:])), {"quality": 85}
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    yield "turned by EXIF", image.transpose(Image.Transpose.ROTATE_90), {"quality": 90, "exif": exif}
    yield "cropped 10 %", cropped(image), {"quality": 90}
    yield "mirrored", ImageOps.mirror(image), {"quality": 90}
    yield "watermark", marked(image), {"quality": 90}


LAYOUTS = {"page of text": (620, 877), "chat": (540, 1170), "form": (540, 1170)}


def pages(folder: Path, count: int = 200) -> list[Figure]:
    """Different pages of one layout, and how many of them are taken for another: what a hash tells worst."""
    figures = []
    for layout, size in LAYOUTS.items():
        library = folder / layout.replace(" ", "_")
        library.mkdir()
        for number in range(count):
            drawn(layout, size, np.random.default_rng(number)).save(library / f"{number}.png")
        build_index(library, library.with_suffix(".index"), encoder="lite")
        with Searcher.open(library.with_suffix(".index")) as searcher:
            members = sum(len(group.items) - 1 for group in searcher.duplicates("resaved").groups)
        figures.append(Figure(f"{layout}: of {count} different ones taken for another", members, "stated"))
    return figures


def drawn(layout: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A page of captions, bubbles as wide as their words left and right, or the same boxes with other words."""
    image = Image.new("RGB", size, "white")
    draw, font, top = ImageDraw.Draw(image), ImageFont.load_default(16), 60
    while top < size[1] - 80:
        words = " ".join(rng.choice(WORDS, rng.integers(3, 12)))[: 60 if layout == "page of text" else 44]
        wide = 10 + round(draw.textlength(words, font)) if layout == "chat" else 400
        left = size[0] - wide - 20 if layout == "chat" and rng.random() < 0.5 else 20
        if layout != "page of text":
            draw.rounded_rectangle((left, top, left + wide, top + 34), 12, fill=(215, 225, 240))
        draw.text((left + 8, top + 6), words, "black", font)
        top += 44 if layout != "page of text" else 22 + 22 * int(rng.random() < 0.2)
    return image


def photographs(folder: Path) -> list[Figure]:
    """Copies of 500 photographs of Flickr8k and of 76 of COCO among all that nothing was chosen on."""
    library, kinds = folder / "library", {}
    library.mkdir()
    for number, path in enumerate(sorted((need_data() / "flickr8k" / "images").iterdir())):
        if number % 6:
            kinds |= copies_of(path, library, with_variants=number % 6 == 3)
    for path in sorted((need_data() / "coco_cc" / "images").iterdir()):
        kinds |= copies_of(path, library, with_variants=True)
    build_index(library, folder / "library.index", encoder="lite")
    figures = [Figure("images, copies among them", f"{len(kinds):,}, {sum(kind != '' for kind in kinds.values()):,}")]
    with Searcher.open(folder / "library.index") as searcher:
        for grade in GRADES[1:]:
            figures += found_of(searcher, grade, kinds)
    return figures


def copies_of(path: Path, library: Path, *, with_variants: bool) -> dict[str, str]:
    """Put a photograph and its copies into the library; return the kind of each file by name, '' for an original."""
    (library / path.name).write_bytes(path.read_bytes())
    kinds = {path.name: ""}
    if not with_variants:
        return kinds
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for kind, pixels, how in variants(image):
        name = f"{path.stem}={kind.replace(' ', '_').replace('%', '')}.jpg"
        pixels.save(library / name, "JPEG", **how)
        kinds[name] = kind
    return kinds


def found_of(searcher: Searcher, grade: str, kinds: dict[str, str]) -> list[Figure]:
    """Of each kind of copy the share that is in one group with its photograph, and the share of members that belong."""
    found: Counter[str] = Counter()
    right = wrong = 0
    for group in searcher.duplicates(grade).groups:  # type: ignore[arg-type]
        families: dict[str, list[str]] = defaultdict(list)
        for item in group.items:
            families[item.item_id.split("=")[0].removesuffix(".jpg")].append(item.item_id)
        best = group.best.item_id.split("=")[0].removesuffix(".jpg")
        right += len(families[best]) - 1
        wrong += len(group.items) - len(families[best])
        for names in families.values():
            if any(kinds[name] == "" for name in names):
                found.update(kinds[name] for name in names)
    totals = Counter(kinds.values())
    asked = {**dict.fromkeys((*SAVED, *RESIZED, "turned by EXIF"), ">= .98")}
    figures = [
        Figure(f"{grade}: recall of {kind}", found[kind] / count, asked.get(kind, "stated"))
        for kind, count in totals.items()
        if kind
    ]
    precision = right / max(1, right + wrong)
    return [*figures, Figure(f"{grade}: precision of members ({wrong} wrong of {right + wrong})", precision, ">= .99")]


def leaks(folder: Path) -> list[Figure]:
    """Flickr8k as it is, and with 2 % of dev replaced by images saved again, and by captions retyped, of train."""
    source = need_data() / "flickr8k"
    lines = (source / "captions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    (folder / "images").mkdir()
    for row in rows:
        (folder / row["image"]).write_bytes((source / row["image"]).read_bytes())
    known = measured_leaks(folder, rows, update=False)
    rng = np.random.default_rng(0)
    dev, train = ([row for row in rows if row["split"] == split] for split in ("dev", "train"))
    dev_rows, train_rows = rng.permutation(len(dev))[:20], rng.permutation(len(train))[:120]
    for number, (here, there) in enumerate(zip(dev_rows, train_rows, strict=False)):
        with Image.open(folder / train[there]["image"]) as opened:
            copies = list(variants(opened.convert("RGB")))[: len(SAVED) + len(RESIZED)]
        _, pixels, how = copies[number % len(copies)]
        pixels.save(folder / dev[here]["image"], "JPEG", **how)
    others = [row for number, row in enumerate(dev) if number not in dev_rows]
    for row, there in zip(others, train_rows[20:], strict=False):
        row["captions"][0] = f" {train[there]['captions'][0].upper().rstrip('. ')} !"
    planted = measured_leaks(folder, rows, update=True)
    figures = []
    for name, count in (("images", 20), ("texts", 100)):
        before, after = known[name]["count"], planted[name]["count"]
        of = planted[name]["of"]
        figures += [
            Figure(f"{name} of dev that stand in train as they are, of {of:,}", before, "as it is"),
            Figure(f"{name}: share of {count} planted ones found", (after - before) / count, ">= .98"),
        ]
    alarms = Figure("images: false alarms, of those not planted", known["images"]["count"] / 980, "<= .001")
    without = planted["without"]
    recall = Figure("R@1 text to image without them", without["text_to_image"]["R@1"])
    return [*figures, alarms, recall]


def measured_leaks(folder: Path, rows: list[dict[str, Any]], *, update: bool) -> dict[str, Any]:
    table, index = folder / "captions.jsonl", folder / "flickr8k.index"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    build_index(table, index, encoder="lite", update=update)
    found: dict[str, Any] = evaluate_index(index, EvaluateOptions(split="dev", exact=True))["leaks"]
    return found


def build_cost(folder: Path) -> list[Figure]:
    """CPU time that the hash takes within builds, beside that of all else; whole builds differ more by themselves."""
    import encoders.images

    spent: list[float] = []

    def timed(image: Image.Image) -> int | None:
        started = time.thread_time()
        hashed = perceptual_hash(image)
        spent.append(time.thread_time() - started)
        return hashed

    encoders.images.perceptual_hash = timed
    source, library = need_data() / "coco_cc" / "images", folder / "many"
    library.mkdir()
    for number in range(3):
        for path in source.iterdir():
            (library / f"{number}_{path.name}").write_bytes(path.read_bytes() + bytes([number]))
    encoder, shares, each = load_encoder("lite", device="cpu"), [], []
    for turn in range(6):
        spent.clear()
        started = time.process_time()
        build_index(library, folder / f"cost{turn}.index", encoder=encoder)
        seconds = time.process_time() - started
        if turn:  # the first one warms up
            shares.append(100 * sum(spent) / (seconds - sum(spent)))
            each.append(1000 * sum(spent) / len(spent))
    return [
        Figure("CPU time of the hash of a photograph of 640 x 480", float(np.median(each)), unit="ms"),
        Figure("build with `lite` slower by", float(np.median(shares)), "<= 3", "%"),
    ]


def million(folder: Path, rows: int, dim: int = 512) -> list[Figure]:
    """Random hashes and vectors with a tenth of copies among them, grouped in a process of its own."""
    planted = write_synthetic(folder / "million.index", rows, dim)
    answer = subprocess.run(
        [sys.executable, __file__, "--grouping", str(folder / "million.index")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    told = json.loads(answer.stdout.splitlines()[-1])
    return [
        Figure(f"{rows:,} images: grouped in", told["seconds"], "<= 120", "s"),
        Figure("memory at its peak, files that are mapped included", told["gib"], "<= 2", "GiB"),
        Figure(f"found of {planted:,} planted copies", told["members"] / planted, ">= .98"),
    ]


def write_synthetic(path: Path, rows: int, dim: int) -> int:
    """Publish an index of images alone; every tenth is a copy of the one before. Returns how many copies there are."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, rows, dtype=np.uint64)
    copies = np.arange(1, rows, 10)
    changed = np.array([np.bitwise_or.reduce(np.uint64(1) << bits) for bits in picked(rng, len(copies))])
    hashes[copies] = hashes[copies - 1] ^ changed
    names = pa.array([f"{row:08}.jpg" for row in range(rows)])
    columns: dict[str, pa.Array] = {name: pa.nulls(rows, kind) for name, kind in IMAGE_COLUMNS.items()}
    columns |= {"row_id": pa.array(np.arange(rows)), "item_id": names, "uri": names, "sha256": names}
    columns |= {"width": pa.array(np.full(rows, 640, np.int32)), "height": pa.array(np.full(rows, 480, np.int32))}
    columns["perceptual_hash"] = pa.array(hashes.view(np.int64))
    store = IndexStore.create(path)
    with store.lock():
        draft = store.draft()
        (draft.path / "images").mkdir()
        with VectorWriter(draft.path / "images" / "vectors.arrow", dim) as writer:
            for start in range(0, rows, 20_000):
                stop = min(rows, start + 20_000)
                writer.append(names[start:stop].to_pylist(), vectors(rng, start, stop, dim))
        empty = {
            name: pa.table({column: pa.nulls(0, kind) for column, kind in kinds.items()})
            for name, kinds in (("texts", TEXT_COLUMNS), ("pairs", PAIR_COLUMNS), ("rejected", REJECTED_COLUMNS))
        }
        write_catalog(draft.path / "catalog.duckdb", images=pa.table(columns), **empty)
        store.publish(
            draft,
            encoder=EncoderInfo(spec="synthetic", dim=dim, fingerprint=None),
            collections={"images": CollectionInfo(rows=rows, ann=AnnPlan(kind="flat"))},
            counts=Counts(items=rows, indexed=rows, rejected=0, images=rows, texts=0, pairs=0),
            build={},
        )
    return len(copies)


def picked(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yield 1 to 8 different bits, count times."""
    for many in rng.integers(1, 9, count):
        yield rng.choice(64, many, replace=False).astype(np.uint64)


def vectors(rng: np.random.Generator, start: int, stop: int, dim: int) -> np.ndarray:
    """Unit rows; the copies have a cosine of 0.95 to the row before."""
    rows = rng.standard_normal((stop - start, dim), dtype=np.float32)
    copies = np.flatnonzero(np.arange(start, stop) % 10 == 1)
    rows[copies] = rows[copies - 1] + 0.33 * rows[copies]
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def grouping(index: Path) -> None:
    with Searcher.open(index, verify="size") as searcher:
        started = time.perf_counter()
        found = searcher.duplicates("resaved")
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    members = sum(len(group.items) - 1 for group in found.groups)
    print(json.dumps({"seconds": round(seconds, 1), "gib": round(peak, 2), "members": members}))


PARTS = ("photographs", "pages", "leaks", "build_cost", "million")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="leave the other parts out")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--grouping", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grouping is not None:
        grouping(options.grouping)
        return
    for part in (options.only,) if options.only else PARTS:
        with tempfile.TemporaryDirectory() as folder:
            args = (options.rows,) if part == "million" else ()
            figures = globals()[part](Path(folder), *args)
        load = f"Load of the machine when it ended: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores."
        record(f"duplicates_{part}", figures, load)


if __name__ == "__main__":
    main()
