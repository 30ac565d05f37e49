"""5,000 queries against 5,000 responses: how often each is encoded, and the search beside sentence-transformers'."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from record import Figure, need_data, record
from sentence_transformers.util import semantic_search

from encoders import Encoder, load_encoder
from matcher import Matcher

SIZE, DIM, K, ROUNDS = 5000, 512, 10, 5


class Counting:
    """An encoder that counts the texts that reach it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.texts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Count and encode."""
        self.texts += len(texts)
        return self._encoder.encode_texts(texts)


def main() -> None:
    captions = dev_captions(need_data())
    encoder: Any = Counting(load_encoder("lite"))
    matcher = Matcher("asked", "found", encoder, query_type="text", response_type="text")
    # Queries are the captions as they stand, responses the same in lower case: other texts of like meaning.
    lower = [text.lower() for text in captions]
    started = time.perf_counter()
    hits = matcher.semantic_search(captions, lower, top_k=K)
    from_data = time.perf_counter() - started
    distinct = len({*captions, *lower})
    encoded = encoder.texts
    queries, responses = encoder.encode_texts(captions), encoder.encode_texts(lower)
    figures = [
        Figure("texts given, both sides", 2 * len(captions)),
        Figure("distinct texts among them", distinct),
        Figure("texts encoded", encoded, "each once"),
        Figure("search from data, encoding included", round(from_data, 2), unit="s"),
        Figure("largest difference to hits from embeddings", difference(hits, search(matcher, queries, responses))),
        *compare("captions as lite vectors, 384", matcher, queries, responses),
        *compare("random unit vectors, 512", matcher, unit(0), unit(1)),
    ]
    record(
        "semantic_search",
        figures,
        f"{SIZE} queries, {SIZE} responses, top {K}; median of {ROUNDS} runs, taken in turns, both from numpy arrays "
        "to lists of dicts. sentence_transformers.util.semantic_search at its defaults.",
    )


def dev_captions(data: Path) -> list[str]:
    lines = (data / "flickr8k" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "dev"]
    return [text for row in rows for text in row["captions"]][:SIZE]


def unit(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((SIZE, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def search(matcher: Matcher, queries: np.ndarray, responses: np.ndarray) -> Any:
    return matcher.semantic_search(query_embeddings=queries, response_embeddings=responses, top_k=K)


def compare(name: str, matcher: Matcher, queries: np.ndarray, responses: np.ndarray) -> list[Figure]:
    ours, theirs = [], []
    found = search(matcher, queries, responses)
    reference = semantic_search(queries, responses, top_k=K)
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: search(matcher, queries, responses)))
        theirs.append(seconds(lambda: semantic_search(queries, responses, top_k=K)))
    return [
        Figure(f"{name}: search", round(median(ours), 3), "at most theirs", "s"),
        Figure(f"{name}: sentence-transformers", round(median(theirs), 3), unit="s"),
        Figure(f"{name}: theirs / ours", round(median(theirs) / median(ours), 2), ">= 1"),
        Figure(f"{name}: largest difference of a score", difference(found, reference)),
    ]


def difference(found: list[list[Any]], reference: list[list[Any]]) -> float:
    """Of the scores at the same rank; the ids of near-equal ones may change places."""
    lines = zip(found, reference, strict=True)
    return max(abs(a["score"] - b["score"]) for one, other in lines for a, b in zip(one, other, strict=True))


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
