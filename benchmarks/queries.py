"""Composed queries on captioned photographs: "A with B", "A without B" as a sentence, by plain subtraction, as parts.

Pairs of things that captions name. An image counts as showing a thing if one of its five captions has a word for it, so
that what nobody mentioned counts as absent. Train photographs of Flickr8k chose how much an unwanted part takes away
(`searcher.compose.UNWANTED`); the dev photographs report. What composed queries take is in `hybrid.py`.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from record import Figure, need_data, record

from encoders import Encoder, load_encoder
from indexer import build_index
from searcher import Query, Searcher

K = 10
THINGS = {
    "a dog": "dogs?",
    "a man": "m[ea]n|guys?",
    "a boy": "boys?",
    "a girl": "girls?",
    "a woman": "wom[ea]n|lad(?:y|ies)",
    "children": "child(?:ren)?|kids?",
    "people": "people",
    "a bike": "bikes?|bicycles?|biker",
    "a baby": "bab(?:y|ies)|toddlers?",
    "a crowd": "crowds?",
}
COMPANY = {
    "water": r"water|ocean|sea|lake|pool|river|waves?|surf\w*|swim\w*",
    "snow": r"snow\w*|ski\w*",
    "grass": r"grass\w*|field|lawn",
    "a beach": r"beach|sand\w*|shore",
    "a ball": "balls?|football|basketball|soccer|baseball|tennis",
    "a street": "streets?|roads?|sidewalk|city",
    "a helmet": "helmets?",
    "a hat": "hats?|caps?",
    "red clothes": "red",
    "a toy": "toys?|frisbee|stick",
    "rocks": r"rock\w*|mountain\w*|cliff|climb\w*",
    "a bicycle": r"bikes?|bicycles?|bik\w+",
    "trees": "trees?|woods|forest",
    "a dog": "dogs?",
    "a child": "child(?:ren)?|kids?|boys?|girls?|bab(?:y|ies)|toddlers?",
    "a man": "m[ea]n|guys?",
}
# Fewer images of a kind say nothing of ten hits; where hardly any A has B, leaving B out is no task.
_FEWEST, _SHARE = 10, 0.15

Way = Callable[[Searcher, str, str], Any]
WITH: Mapping[str, Way] = {
    "sentence": lambda searcher, a, b: searcher.text_to_image(f"{a} with {b}", K),
    "A, B": lambda searcher, a, b: searcher.text_to_image(f"{a}, {b}", K),
    "A + B": lambda searcher, a, b: searcher.search(Query.text(a) + Query.text(b), k=K, into="images"),
}
WITHOUT: Mapping[str, Way] = {
    "sentence": lambda searcher, a, b: searcher.text_to_image(f"{a} without {b}", K),
    "A alone": lambda searcher, a, b: searcher.text_to_image(a, K),
    "vector of A less vector of B": lambda searcher, a, b: searcher.text_to_image(_subtracted(a, b), K),
    "A - B": lambda searcher, a, b: searcher.search(Query.text(a) - Query.text(b), k=K, into="images"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="dev", choices=["train", "dev"])
    arguments = parser.parse_args()
    data = need_data() / "flickr8k"
    lines = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == arguments.split]
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.csv"
        corpus.write_text("image\n" + "".join(f"{data / row['image']}\n" for row in rows), encoding="utf-8")
        build_index(corpus, Path(scratch) / "index", encoder="lite")
        with Searcher.open(Path(scratch) / "index") as searcher:
            figures = measured(searcher, rows)
    record(
        "queries",
        figures,
        f"`lite` on the {len(rows)} photographs of Flickr8k {arguments.split}; intervals: 95 %, bootstrap over pairs "
        "of things. Ratios: mean of the parts over the mean of the other way, over the same pairs.",
    )


def measured(searcher: Searcher, rows: list[dict[str, Any]]) -> list[Figure]:
    names = {str(Path(row["image"]).name): position for position, row in enumerate(rows)}
    texts = [" ".join(row["captions"]).lower() for row in rows]
    has = {
        thing: np.array([re.search(rf"\b(?:{words})\b", text) is not None for text in texts])
        for thing, words in {**COMPANY, **THINGS}.items()
    }
    figures = []
    for kind, ways in (("A with B", WITH), ("A without B", WITHOUT)):
        pairs = [
            (a, b) for a in THINGS for b in COMPANY if a.split()[-1] != b.split()[-1] and _counts(kind, has[a], has[b])
        ]
        scores = {name: np.zeros(len(pairs)) for name in ways}
        for number, (a, b) in enumerate(pairs):
            right = has[a] & (has[b] if kind == "A with B" else ~has[b])
            for name, way in ways.items():
                found = [names[Path(hit.uri).name] for hit in way(searcher, a, b)]
                scores[name][number] = right[found].mean()
        figures += _figures(kind, scores, len(pairs))
    return figures


def _counts(kind: str, a: np.ndarray, b: np.ndarray) -> bool:
    both, alone = int((a & b).sum()), int((a & ~b).sum())
    if kind == "A with B":
        return both >= _FEWEST
    return min(both, alone) >= _FEWEST and both >= _SHARE * int(a.sum())


def _figures(kind: str, scores: Mapping[str, np.ndarray], pairs: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, pairs, (2000, pairs))
    figures = [Figure(f"{kind}: pairs of things", pairs)]
    for name, values in scores.items():
        low, high = np.percentile(values[samples].mean(axis=1), [2.5, 97.5])
        figures.append(Figure(f"{kind}: precision@{K}, {name}", f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"))
    ours = scores[next(reversed(scores))]
    asked = {"sentence": ">= 2", "vector of A less vector of B": ">= 1.2"}
    for name, values in list(scores.items())[:-1]:
        ratios = ours[samples].mean(axis=1) / values[samples].mean(axis=1)
        low, high = np.percentile(ratios, [2.5, 97.5])
        ratio = f"{ours.mean() / values.mean():.2f} [{low:.2f}, {high:.2f}]"
        figures.append(Figure(f"{kind}: parts over {name}", ratio, asked.get(name, "")))
    return figures


def _subtracted(a: str, b: str) -> np.ndarray:
    one, two = encoded(a), encoded(b)
    return one - two


@functools.cache
def _lite() -> Encoder:
    return load_encoder("lite", device="cpu")


@functools.cache
def encoded(text: str) -> np.ndarray:
    vector: np.ndarray = _lite().encode_texts([text])[0]
    return vector


if __name__ == "__main__":
    main()
