"""Small indexes of ready-made vectors with pairs, to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions

Splits = Sequence[str | None]


def build_paired(
    folder: Path,
    images: np.ndarray,
    texts: np.ndarray | None,
    pairs: Sequence[tuple[int, int]] = (),
    splits: tuple[Splits, Splits] | None = None,
    **settings: Any,
) -> Path:
    """Build `folder/it.index` and return its path; `splits` names one for each image and for each text."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"images": images} | ({} if texts is None else {"texts": texts})
    files = {}
    for place, (name, vectors) in enumerate(sides.items()):
        table = {"item_id": [f"{name}-{row}" for row in range(len(vectors))], "vector": list(np.float32(vectors))}
        table |= {} if splits is None else {"split": list(splits[place])}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        files[name] = EmbeddingFiles(vectors=folder / f"{name}.parquet", vector_column="vector")
    if pairs:
        lines = [f"{image},{text}\n" for image, text in pairs]
        (folder / "pairs.csv").write_text("image_row,text_row\n" + "".join(lines), "utf-8")
    source = EmbeddingSource(EmbeddingOptions(**files, pairs=folder / "pairs.csv" if pairs else None))
    build_index(source, folder / "it.index", **settings)
    return folder / "it.index"


def captioned(
    images: int, captions: int, dim: int = 32, noise: float = 2.0
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Unit vectors of images and of their captions near them, and the pairs of both."""
    rng = np.random.default_rng([images, captions, dim])
    pictures = rng.standard_normal((images, dim))
    texts = np.repeat(pictures, captions, axis=0) + noise * rng.standard_normal((images * captions, dim))
    pairs = [(image, image * captions + number) for image in range(images) for number in range(captions)]
    return unit(pictures), unit(texts), pairs


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at unit length, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
