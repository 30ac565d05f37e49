"""One byte a value beside float16: recall, what an approximate index finds, how far scores change, size and time.

    python benchmarks/one_byte.py --rows 100000 [--at-scale]

Both are real indexes, built, opened and searched like any: `lite` on Flickr8k, judged by its split `dev`; the real
CLIP ViT-B/32 vectors, 500 captions among 600 images; and CLIP-like vectors, for time and size at scale. The index of
one byte a value of Flickr8k is made by an update of the other, which encodes nothing. `--at-scale` measures the last
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from clip_like import write_vectors
from numpy.typing import NDArray
from record import Figure, need_data, record

from encoders import load_encoder
from evaluation import ann_recall
from indexer import EmbeddingSource, SourceOptions, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher import Searcher
from searcher.evaluation.evaluate_index import EvaluateOptions, evaluate_index
from storage import IndexStore, IndexVersion, VectorTable
from storage.compiled import scan_lanes
from storage.exact_search import exact_search, to_float32
from storage.schema import COLLECTIONS, Collection

FORMS = ("float16", "int8")
DEPTH = 10
CAPTIONS = 1000
Call = Callable[[NDArray[Any]], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="CLIP-like images.")
    parser.add_argument("--at-scale", action="store_true", help="CLIP-like vectors alone.")
    arguments = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        real = (("lite, Flickr8k dev", of_lite, "dev"), ("CLIP ViT-B/32", of_clip, None))
        for name, built, split in () if arguments.at_scale else real:
            indexes = built(folder)
            figures += recalls(name, indexes, split) + differences(name, indexes)
        name, indexes = f"{arguments.rows:,} CLIP-like images", of_clip_like(folder, arguments.rows)
        figures += differences(name, indexes) + found(name, indexes) + sizes(name, indexes) + times(name, indexes)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    notes = (
        f"Load averages at the end {load}: other programs shared the two cores, so that times say how the two forms "
        f"compare rather than what they cost. Differences are those of {CAPTIONS:,} captions, and of as many images, "
        "with every image; `within` is what the manifest says that none exceeds. Searches at the default point."
    )
    lanes = scan_lanes()
    notes += f" Inverted lists are scanned by {f'compiled code of {lanes} bits' if lanes else 'FAISS'}."
    record("one_byte_at_scale" if arguments.at_scale else "one_byte", figures, notes)


def of_lite(folder: Path) -> dict[str, Path]:
    indexes = {form: folder / f"lite-{form}.index" for form in FORMS}
    options = SourceOptions(image="image", text="captions", id="image")
    table = need_data() / "flickr8k" / "captions.jsonl"
    encoder = load_encoder("lite")
    build_index(table, indexes["float16"], encoder=encoder, options=options, ann="ivf-pq4")
    shutil.copytree(indexes["float16"], indexes["int8"])
    build_index(table, indexes["int8"], encoder=encoder, options=options, update=True, vector_dtype="int8")
    return indexes


def of_clip(folder: Path) -> dict[str, Path]:
    data = need_data() / "clip_vit_b32"
    lines = (data / "flickr8k_captions.jsonl").read_text("utf-8").splitlines()
    pairs = "".join(f"{json.loads(line)['image_row']},{text}\n" for text, line in enumerate(lines))
    (folder / "pairs.csv").write_text(f"image_row,text_row\n{pairs}", "utf-8")
    names = ("flickr8k_images", "distractor_images")
    np.save(folder / "images.npy", np.concatenate([np.load(data / f"{name}.npy") for name in names]))
    return embedded(folder, "clip", folder / "images.npy", data / "flickr8k_captions.npy", folder / "pairs.csv")


def of_clip_like(folder: Path, rows: int) -> dict[str, Path]:
    (folder / "like").mkdir()
    write_vectors(folder / "like", rows)
    return embedded(folder, "like", folder / "like" / "images.npy", folder / "like" / "texts.npy", None)


def embedded(folder: Path, name: str, images: Path, texts: Path, pairs: Path | None) -> dict[str, Path]:
    """Build both forms of ready-made vectors, under an approximate index."""
    files = {"images": EmbeddingFiles(vectors=images), "texts": EmbeddingFiles(vectors=texts)}
    indexes = {form: folder / f"{name}-{form}.index" for form in FORMS}
    for form, index in indexes.items():
        source = EmbeddingSource(EmbeddingOptions(**files, pairs=pairs, normalize=True))
        build_index(source, index, ann="ivf-pq4", vector_dtype=form)
    return indexes


def recalls(name: str, indexes: dict[str, Path], split: str | None) -> list[Figure]:
    figures = []
    for form, index in indexes.items():
        result = evaluate_index(index, EvaluateOptions(split=split))
        for what in ("R@1", "R@10", "ann_recall@10"):
            sides = result if what in result["text_to_image"] else result["ann"]
            said = ", ".join(f"{sides[way][what]:.4f}" for way in ("text_to_image", "image_to_text"))
            figures.append(Figure(f"{name}, {form}: {what} text to image, image to text", said))
        figures.append(Figure(f"{name}, {form}: rsum", round(result["rsum"], 2)))
    return figures


def differences(name: str, indexes: dict[str, Path]) -> list[Figure]:
    """What the manifest says that scores differ by at most, and what they do; and the ten nearest that stay."""
    with opened(indexes) as (versions, _):
        stored = {form: [rows_of(version, half) for half in COLLECTIONS] for form, version in versions.items()}
        some = np.linspace(0, len(stored["int8"][1]) - 1, CAPTIONS).astype(int)
        captions = {form: texts[some] for form, (_, texts) in stored.items()}
        rounding = versions["int8"].manifest.rounding
        tables = {form: version.vectors("images") for form, version in versions.items()}
        exact = exact_search(tables["float16"], captions["float16"], DEPTH)[0]
        nearest = [exact_search(tables["int8"], captions[form], DEPTH)[0] for form in FORMS]
    images = stored["float16"][0]
    off = stored["int8"][0] - images
    to_texts, to_images = captions["float16"] @ off.T, images[:CAPTIONS] @ off.T
    lengths = np.abs(np.linalg.norm(stored["int8"][0], axis=1) - 1).max()
    return [
        Figure(f"{name}: within (images, texts)", f"{rounding['images'].within:.4f}, {rounding['texts'].within:.4f}"),
        Figure(f"{name}: largest difference of a score, text with image", round(float(np.abs(to_texts).max()), 5)),
        Figure(f"{name}: usual difference (root mean square)", round(float(np.sqrt((to_texts**2).mean())), 6)),
        Figure(f"{name}: largest difference of a score, image with image", round(float(np.abs(to_images).max()), 5)),
        Figure(f"{name}: largest distance of a length from 1", round(float(lengths), 5)),
        Figure(f"{name}: of the ten nearest, texts in float16", round(ann_recall(nearest[0], exact), 4)),
        Figure(f"{name}: of the ten nearest, both in one byte", round(ann_recall(nearest[1], exact), 4)),
    ]


def found(name: str, indexes: dict[str, Path]) -> list[Figure]:
    """What searches at the default operating point find of the exact ten nearest of their own index."""
    figures = []
    with opened(indexes) as (versions, searchers):
        for form, searcher in searchers.items():
            queries = list(rows_of(versions[form], "texts")[:CAPTIONS])
            exact = [hits.row_ids for hits in searcher.text_to_image(queries, DEPTH, exact=True)]
            through = searcher.text_to_image(queries, DEPTH)
            share = ann_recall(np.stack([hits.row_ids for hits in through]), np.stack(exact))
            point = f"nprobe {through[0].choice.nprobe}, oversample {through[0].choice.oversample}"
            figures.append(Figure(f"{name}, {form}: ann_recall@10 of texts ({point})", round(share, 4)))
    return figures


def sizes(name: str, indexes: dict[str, Path]) -> list[Figure]:
    figures = []
    for form, index in indexes.items():
        files = IndexStore.open(index).manifest().files
        said = [files[file].bytes for file in ("images/vectors.arrow", "images/ann.faiss")]
        said.append(sum(entry.bytes for entry in files.values()))
        figures.append(Figure(f"{name}, {form}: vectors, ann.faiss, all files", ", ".join(f"{one:,}" for one in said)))
    return figures


def times(name: str, indexes: dict[str, Path]) -> list[Figure]:
    """Medians of both forms in turns, so that what else the machine does falls on both."""
    figures = []
    with opened(indexes) as (versions, searchers):
        queries = [query[None] for query in rows_of(versions["float16"], "texts")[:200]]
        tables = {form: version.vectors("images") for form, version in versions.items()}
        chance = np.random.default_rng(0)
        for count in (60, 600):
            ids = [np.sort(chance.integers(0, tables["int8"].rows, count)) for _ in range(500)]
            figures.append(in_turns(f"{name}: {count} rows as float16", ids, calls(tables, "gather")))
            figures.append(in_turns(f"{name}: {count} rows as float32", ids, calls(tables, "gather_float32")))
        for what, exact, turns in (("approximate", False, 500), ("exact", True, 20)):
            searches = {form: search(searcher, exact) for form, searcher in searchers.items()}
            figures.append(in_turns(f"{name}: one {what} search", (queries * 3)[:turns], searches))
    return figures


def calls(tables: dict[str, VectorTable], method: str) -> dict[str, Call]:
    return {form: getattr(table, method) for form, table in tables.items()}


def search(searcher: Searcher, exact: bool) -> Call:
    return lambda query: searcher.search_vectors("images", query, DEPTH, direction="text_to_image", exact=exact)


def in_turns(what: str, given: Sequence[NDArray[Any]], call: dict[str, Call]) -> Figure:
    spent: dict[str, list[float]] = {form: [] for form in FORMS}
    for turn, one in enumerate(given):
        for form in FORMS if turn % 2 else FORMS[::-1]:
            started = time.perf_counter()
            call[form](one)
            spent[form].append(time.perf_counter() - started)
    half, byte = (float(np.median(spent[form])) * 1e3 for form in FORMS)
    return Figure(f"{what}, median, float16 and int8", f"{half:.3f}, {byte:.3f} ms ({byte / half:.2f} x)")


@contextmanager
def opened(indexes: dict[str, Path]) -> Iterator[tuple[dict[str, IndexVersion], dict[str, Searcher]]]:
    """The open versions and searchers of both forms."""
    with ExitStack() as stack:
        versions = {form: stack.enter_context(IndexStore.open(index).open_version()) for form, index in indexes.items()}
        yield versions, {form: stack.enter_context(Searcher.open(index)) for form, index in indexes.items()}


def rows_of(version: IndexVersion, half: Collection) -> NDArray[np.float32]:
    table = version.vectors(half)
    return to_float32(table.gather(np.arange(table.rows)))


if __name__ == "__main__":
    main()
