"""Hybrid search beside vectors alone, on captioned photographs with `lite`, and what the kinds of queries cost.

Plain queries are captions that the index has not: of each photograph the fifth, with the four others, one other, or
that of another photograph indexed. Names and numbers are words that captions have and few photographs. Codes are made
up, one a photograph. Train photographs of Flickr8k chose the weight (`searcher.hybrid.WORDS_WEIGHT`); those of dev
report.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from record import Figure, need_data, record

from indexer import build_index
from indexer.corpus import SourceOptions
from searcher import Query, Searcher
from searcher.collapse import first_copies
from searcher.pages import diverse_order
from storage.lexical.build_inverted import write_inverted_index
from storage.lexical.inverted_index import InvertedIndex

K = 10
_NAME = re.compile(r"[A-Z][a-z]{2,}|[A-Z]{2,}|\d+")
_FEW = 10
Rows = list[dict[str, Any]]
Queries = list[tuple[str, set[str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="dev", choices=["train", "dev"])
    parser.add_argument("--texts", type=int, default=1_000_000, help="Synthetic texts for the lexical index alone.")
    arguments = parser.parse_args()
    data = need_data() / "flickr8k"
    lines = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == arguments.split]
    for number, row in enumerate(rows):
        row |= {"image": str(data / row["image"]), "code": f"SKU-{(number * 7919 + 1234) % 9973:04d}"}
    with tempfile.TemporaryDirectory() as scratch:
        figures = [*found(Path(scratch), rows), *lexical_alone(Path(scratch), rows, arguments.texts)]
    record(
        "hybrid",
        figures,
        f"`lite` on the {len(rows)} photographs of Flickr8k {arguments.split}, R@{K} of text to image; intervals: "
        "95 %, bootstrap over queries, of the difference too. Latencies: the fastest tenth of "
        "200 in turn, texts encoded before.",
    )


def found(folder: Path, rows: Rows) -> list[Figure]:
    """What is found in indexes with these captions, by vectors alone and by both."""
    names = _names(rows)
    some = rows[:: max(1, len(rows) // 200)]
    phrases = [(f"a photo of {one}", right) for one, right in names]
    start = [(f"{' '.join(row['captions'][4].split()[:4])} {row['code']}", {row["code"]}) for row in some]
    with _index(folder, rows, [row["captions"] for row in rows]) as searcher:
        figures = _compared("names and numbers in captions", searcher, names, ">= 20")
        figures += _compared("the same in a phrase", searcher, phrases, ">= 20")
        figures += _compared("codes", searcher, [(row["code"], {row["code"]}) for row in some], ">= 20")
        figures += _compared("four words and a code", searcher, start, ">= 20")
        latencies = _latencies(searcher, some)
    plain = [(row["captions"][4], {row["code"]}) for row in rows]
    shifted = [rows[(number + 371) % len(rows)] for number in range(len(rows))]
    indexed = {
        "captions, 4 others indexed": [row["captions"][:4] for row in rows],
        "captions, 1 other indexed": [row["captions"][:1] for row in rows],
        "captions, that of another photograph indexed": [row["captions"][:1] for row in shifted],
    }
    for name, captions in indexed.items():
        with _index(folder, rows, captions) as searcher:
            figures += _compared(name, searcher, plain, "" if "another" in name else ">= -0.5")
    return figures + latencies


def _index(folder: Path, rows: Rows, captions: Sequence[Sequence[str]]) -> Searcher:
    """Build an index, or update the one that is there, and open it."""
    table = folder / "corpus.jsonl"
    lines = [
        json.dumps({"image": row["image"], "code": row["code"], "captions": own})
        for row, own in zip(rows, captions, strict=True)
    ]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = SourceOptions(image="image", text="captions", id="code")
    known = (folder / "index").exists()
    build_index(table, folder / "index", encoder="lite", options=options, update=known, allow_shrink=known)
    return Searcher.open(folder / "index")


def _names(rows: Rows) -> Queries:
    """Words with capitals inside a sentence, and numbers, of few photographs, with those that have them."""
    has: dict[str, set[str]] = {}
    for row in rows:
        for word in {word.lower() for caption in row["captions"] for word in re.findall(r"\w+", caption)}:
            has.setdefault(word, set()).add(row["code"])
    names = {
        word for row in rows for caption in row["captions"] for word in caption.split()[1:] if _NAME.fullmatch(word)
    }
    return sorted((name, has[name.lower()]) for name in names if 0 < len(has.get(name.lower(), ())) <= _FEW)


def _compared(name: str, searcher: Searcher, queries: Queries, asked: str) -> list[Figure]:
    texts = [text for text, _ in queries]
    ways = {"vectors": searcher.text_to_image(texts, K), "hybrid": searcher.text_to_image(texts, K, hybrid=True)}
    hit = {
        way: np.array([100.0 * bool(right & set(one.item_ids)) for one, (_, right) in zip(hits, queries, strict=True)])
        for way, hits in ways.items()
    }
    hit["hybrid less vectors"] = hit["hybrid"] - hit["vectors"]
    samples = np.random.default_rng(0).integers(0, len(queries), (2000, len(queries)))
    figures = [Figure(f"{name}: queries", len(queries))]
    for way, values in hit.items():
        low, high = np.percentile(values[samples].mean(axis=1), [2.5, 97.5])
        wanted = asked if way.startswith("hybrid less") else ""
        figures.append(Figure(f"{name}: R@{K}, {way}", f"{values.mean():.1f} [{low:.1f}, {high:.1f}]", wanted))
    return figures


def _latencies(searcher: Searcher, some: Rows) -> list[Figure]:
    """What each kind of query takes beside a plain one; exact search for composed ones, which compare every vector."""
    text, code = some[0]["captions"][4], some[0]["code"]
    composed = Query.text("a dog") - Query.text("snow")
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: searcher.text_to_image(text, K),
        "composed": lambda: searcher.search(composed, k=K, into="images"),
        "hybrid": lambda: searcher.text_to_image(text, K, hybrid=True),
        "with a code": lambda: searcher.text_to_image(text, K, words=code),
        "diverse (MMR)": lambda: searcher.text_to_image(text, K, diversity=0.3),
        "collapsed": lambda: searcher.text_to_image(text, K, collapse=True),
    }
    took = _milliseconds(ways)
    figures = [Figure("a plain query", round(took.pop("plain"), 3), unit="ms")]
    plain = figures[0].measured
    figures += [Figure(f"{name}, over plain", round(one / plain, 2), "<= 2") for name, one in took.items()]
    exact = searcher.search(composed, k=K, into="images", exact=True)
    same = set(searcher.search(composed, k=K, into="images").item_ids) & set(exact.item_ids)
    return [*figures, *_kernels(), Figure(f"composed, ann_recall@{K}", len(same) / K, "1")]


def _kernels() -> list[Figure]:
    """What choosing among 200 candidates takes, without finding them and without the catalog."""
    vectors = np.random.default_rng(0).standard_normal((200, 384)) + 2
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    scores = np.linspace(0.4, 0.2, 200, dtype=np.float32)
    took = _milliseconds(
        {
            "MMR of 200 candidates": lambda: diverse_order(scores, vectors, K, 0.3),
            "collapsing 200 candidates": lambda: first_copies(vectors, 0.9, lambda at: [{"sha256": None}] * len(at)),
        }
    )
    return [Figure(name, round(one, 3), "<= 1", "ms") for name, one in took.items()]


def lexical_alone(scratch: Path, rows: Rows, count: int) -> list[Figure]:
    """Building and asking the lexical index of many texts: eleven words in a row of real captions, and a code each."""
    words = [word for row in rows for caption in row["captions"] for word in caption.split()]
    starts = np.random.default_rng(0).integers(0, len(words) - 11, count)
    texts = pa.array([f"SKU-{number:07d} {' '.join(words[at : at + 11])}" for number, at in enumerate(starts)])
    started = time.process_time()
    write_inverted_index(scratch / "words", count, [(np.arange(count), pa.chunked_array([texts]))])
    seconds = time.process_time() - started
    index = InvertedIndex.open(scratch / "words")
    figures = [
        Figure(f"{count:,} texts of 11 words and a code: build", round(seconds, 1), unit="CPU seconds"),
        Figure(f"{count:,} texts: size", round((scratch / "words").stat().st_size / 1e6, 1), unit="MB"),
    ]
    asked = ("SKU-0001234", "frisbee beach", "a man in red shirt", "a man in a red shirt rides a skateboard")
    took = _milliseconds({query: partial(index.search, query) for query in asked})
    return figures + [Figure(f"{count:,} texts: {query!r}", round(one, 2), unit="ms") for query, one in took.items()]


def _milliseconds(ways: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return what the fastest tenth of 200 calls of each takes at most, made in turn: a machine may be busy."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(201):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.percentile(each[1:], 10)) * 1e3 for name, each in seconds.items()}


if __name__ == "__main__":
    main()
