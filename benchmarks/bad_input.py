"""Everything wrong that a corpus or a command line can hold: a counted rejection, or one clear line and exit code 1."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import Figure, record

Arguments = list[str]
INDEXED = "indexed"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        figures = [*ugly_images(folder), *ugly_tables(folder), *ugly_vectors(folder), *wrong_searches(folder)]
    failed = sum(not str(figure.measured).startswith(("ok", "error: ")) for figure in figures)
    figures.append(Figure("cases, and those that were lost, silent or a traceback", f"{len(figures)}, {failed}", "0"))
    record("bad_input", figures, "One folder of ugly images in one build; every other case is one run of a program.")


def ugly_images(folder: Path) -> list[Figure]:
    photos = folder / "photos"
    photos.mkdir()
    expected = {name: (make(photos / name), outcome)[1] for name, (make, outcome) in IMAGES.items()}
    (photos / "plain.txt").write_bytes(b"a good caption\n\xff\xfe not UTF-8\n")
    run("build-index", str(photos), "--out", str(folder / "photos.index"), "--encoder", "lite")
    info = json.loads(run("twinlens", "info", str(folder / "photos.index"), "--rejected", "--output", "json").stdout)
    found = {row["item_id"]: row["reason"] for row in info["rejected_items"]}
    figures = [judged(f"image {name}", found.get(name, INDEXED), outcome) for name, outcome in expected.items()]
    figures.append(judged("caption that is not UTF-8", found.get("plain.png#1", INDEXED), "not_utf8"))
    total = info["images"] + info["texts"] + info["rejected"]
    return [*figures, judged("items = indexed + rejected", total, len(IMAGES) + 2)]


def ugly_tables(folder: Path) -> list[Figure]:
    (folder / "empty").mkdir()
    table, twice = folder / "shop.csv", folder / "twice.csv"
    table.write_text("photo,title\nphotos/plain.png,hello\n", encoding="utf-8")
    twice.write_text("sku,photo\n7,photos/plain.png\n7,photos/misnamed.jpg\n", encoding="utf-8")
    cases: dict[str, Arguments] = {
        "no such corpus": ["nowhere"],
        "empty corpus": [str(folder / "empty")],
        "wrong column name": [str(table), "--image", "foto"],
        "one id twice": [str(twice), "--image", "photo", "--id", "sku"],
        "unknown encoder": [str(folder / "photos"), "--encoder", "ViT-B-23/openai"],
        "weights that cannot be fetched": [str(folder / "photos"), "--encoder", "ViT-B-32/laion2b_s34b_b79k"],
        "no such device": [str(folder / "photos"), "--device", "cuda:99"],
        "more rejected than allowed": [str(folder / "photos"), "--max-rejected", "1"],
        "too few to train": [str(folder / "photos"), "--ann", "ivf-pq"],
    }
    out = ["--out", str(folder / "out.index")]
    # An option given twice counts as given last.
    return [failure(name, ["build-index", "--encoder", "lite", *a, *out]) for name, a in cases.items()]


def ugly_vectors(folder: Path) -> list[Figure]:
    vectors = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spoiled = {
        "unnormalised embeddings": vectors * 2,
        "embeddings of three dimensions": vectors[None],
        "pickled embeddings": np.array([{"a": 1}], dtype=object),
    }
    figures = []
    for name, value in spoiled.items():
        np.save(folder / "vectors.npy", value)
        figures.append(failure(name, embedding_build(folder)))
    vectors[7, 3] = np.nan
    np.save(folder / "vectors.npy", vectors)
    report = json.loads(run(*embedding_build(folder), "--output", "json").stdout)
    figures.append(judged("NaN in one row of 50", f"{report['images']} + {report['rejected']}", "49 + 1"))
    return figures


def embedding_build(folder: Path) -> Arguments:
    return ["build-index", "--image-embeddings", str(folder / "vectors.npy"), "--out", str(folder / "vectors.index")]


def wrong_searches(folder: Path) -> list[Figure]:
    cases: dict[str, Arguments] = {
        "typo in a filter": ["--text", "a cat", "--where", "widht > 3"],
        "filter that is no SQL": ["--text", "a cat", "--where", "width >"],
        "filter that reads a file": ["--text", "a cat", "--where", "1 = (SELECT count(*) FROM '/etc/passwd')"],
        "empty query": ["--text", " "],
        "query image that is none": ["--image", str(folder / "shop.csv")],
        "k of 0": ["--text", "a cat", "-k", "0"],
        "unknown option": ["--txt", "a cat"],
    }
    index = str(folder / "photos.index")
    figures = [failure(name, ["twinlens", "search", index, *a]) for name, a in cases.items()]
    vectors = next((folder / "photos.index" / "versions").glob("*/images/vectors.arrow"))
    vectors.write_bytes(vectors.read_bytes()[:-1])
    return [*figures, failure("a byte missing in the index", ["twinlens", "search", index, "--text", "a cat"])]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def failure(name: str, command: Arguments) -> Figure:
    """The run's one line of error, or what it did instead."""
    done = run(*command)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    good = done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr and not done.stdout
    if not good:
        return Figure(name, f"WRONG: exit {done.returncode}, {done.stderr[-300:]!r}", "one line, exit 1")
    said = re.sub(r"/\S*/tmp\w+/|https://\S+", "", lines[0].replace("|", "/"))
    return Figure(name, said, "one line, exit 1")


def judged(name: str, found: Any, expected: Any) -> Figure:
    return Figure(name, f"ok: {found}" if found == expected else f"WRONG: {found}", str(expected))


def picture(mode: str = "RGB", size: tuple[int, int] = (120, 90), **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, **options)

    return make


def sixteen_bit(path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 10_000).reshape(100, 100).astype(np.uint16)).save(path)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), (50 * number, 0, 0)) for number in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "blue").save(path, exif=exif)


def truncated(path: Path) -> None:
    picture(size=(300, 300))(path)
    path.write_bytes(path.read_bytes()[:5000])


IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "plain.png": (picture(), INDEXED),
    "cmyk.jpg": (picture("CMYK"), INDEXED),
    "sixteen_bit.png": (sixteen_bit, INDEXED),
    "animated.gif": (animated, INDEXED),
    "exif_rotated.jpg": (rotated, INDEXED),
    "transparent.png": (picture("RGBA"), INDEXED),
    "misnamed.jpg": (picture(format="WEBP"), INDEXED),
    "corrupt.jpg": (truncated, "corrupt"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "words.png": (lambda path: path.write_text("hello", encoding="utf-8"), "not_an_image"),
    "missing.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "missing"),
    "bomb.png": (lambda path: Image.new("1", (30_000, 30_000)).save(path), "too_many_pixels"),
}


if __name__ == "__main__":
    main()
