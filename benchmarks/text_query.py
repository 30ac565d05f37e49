"""One text query at a time through `Searcher` with `lite` on the CPU: where its milliseconds go.

100,000 vectors of lite's dimension: those of the Flickr8k photographs, each many times with noise, under an IVF index;
then captions of Flickr8k, each asked once, so that nothing comes from the cache of texts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from record import Figure, need_data, record

from encoders import Encoder, load_encoder
from searcher import Searcher

K = 10
WARM = 30
NOISE = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--photographs", type=int, default=1000)
    arguments = parser.parse_args()
    encoder = load_encoder("lite", device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        index = built(Path(scratch), encoder, arguments.rows, arguments.photographs)
        texts = captions()[: arguments.queries + WARM]
        with Searcher.open(index, encoder=encoder) as searcher:
            figures = measured(searcher, encoder, texts)
    record("text_query", figures, f"{arguments.rows:,} vectors of {encoder.dim} dimensions, `lite` in fp32, k = {K}.")


def built(scratch: Path, encoder: Encoder, rows: int, photographs: int) -> Path:
    from indexer import build_index
    from indexer.corpus.embeddings.embedding_source import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    paths = sorted((need_data() / "flickr8k" / "images").iterdir())[:photographs]
    known = encoder.encode_images(paths)
    random = np.random.default_rng(0)
    noise = random.standard_normal((rows, encoder.dim), dtype=np.float32) * (NOISE / encoder.dim**0.5)
    vectors = known[np.arange(rows) % len(known)] + noise
    np.save(scratch / "images.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    table = {"item_id": [f"photo-{row}" for row in range(rows)], "path": [f"photos/{row}.jpg" for row in range(rows)]}
    table["width"] = random.integers(200, 4000, rows).tolist()
    pa.parquet.write_table(pa.table(table), scratch / "images.parquet")
    files = EmbeddingFiles(vectors=scratch / "images.npy", table=scratch / "images.parquet")
    source = EmbeddingSource(EmbeddingOptions(images=files))
    build_index(source, scratch / "index", encoder=encoder, ann="ivf-pq4")
    return scratch / "index"


def captions() -> list[str]:
    lines = (need_data() / "flickr8k" / "captions.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["captions"][0] for line in lines]
    return list(dict.fromkeys(texts))[::-1]


def measured(searcher: Searcher, encoder: Any, texts: list[str]) -> list[Figure]:
    version = searcher._version
    vectors, ann = encoder.encode_texts(texts), version.ann("images")
    choice = searcher.text_to_image(texts[0], k=K).ann
    setting = {"nprobe": choice["nprobe"], "oversample": choice["oversample"]}
    found = [ann.search(vector[None], K, **setting)[0][0] for vector in vectors]
    columns = ["row_id", "item_id", "uri", "caption"]
    count, nprobe = K * setting["oversample"], setting["nprobe"]
    parts: dict[str, Callable[[int], Any]] = {
        "tokenise": lambda i: encoder._tokenize([texts[i]]),
        "tokenise and encode": lambda i: encoder.encode_texts([texts[i]]),
        "ANN candidates": lambda i: ann.candidates(vectors[i][None], count, nprobe=nprobe, k=10),
        "ANN candidates and re-rank": lambda i: ann.search(vectors[i][None], K, **setting),
        "metadata": lambda i: version.catalog.rows("images", np.unique(found[i]), columns),
        "whole query": lambda i: searcher.text_to_image(texts[i], k=K, columns=[]),
        "whole query, asked before": lambda i: searcher.text_to_image(texts[i], k=K, columns=[]),
        "whole query, every column": lambda i: searcher.text_to_image(f"{texts[i]} ", k=K),
    }
    ms = {name: milliseconds(part, len(texts)) for name, part in parts.items()}
    ms["encode"] = ms["tokenise and encode"] - ms["tokenise"]
    ms["re-rank"] = ms["ANN candidates and re-rank"] - ms["ANN candidates"]
    ms["around all of these"] = ms["whole query"] - (
        ms["tokenise and encode"] + ms["ANN candidates and re-rank"] + ms["metadata"]
    )
    order = (
        "whole query",
        "tokenise",
        "encode",
        "ANN candidates",
        "re-rank",
        "metadata",
        "around all of these",
        "whole query, asked before",
        "whole query, every column",
    )
    figures = [figure for name in order for figure in percentiles(name, ms[name])]
    return [*figures, Figure("operating point: nprobe, oversample", f"{nprobe}, {setting['oversample']}")]


def milliseconds(work: Callable[[int], Any], count: int) -> np.ndarray:
    """Return what each call took, the first ones left out."""
    costs = []
    for number in range(count):
        started = time.perf_counter()
        work(number)
        costs.append((time.perf_counter() - started) * 1e3)
    return np.array(costs[WARM:])


def percentiles(name: str, costs: np.ndarray) -> list[Figure]:
    return [Figure(f"{name}: p{point}", round(float(np.percentile(costs, point)), 3), unit="ms") for point in (50, 95)]


if __name__ == "__main__":
    main()
