"""Builds the golden indexes of the current format: one for each kind of approximate index, packed into one archive.

Run once by each release that changes what is written, be it the format version or a feature of it:
`python tests/golden/make_golden.py v3`. An archive that is there is never made anew, since what it holds is what that
release wrote. Later releases open it for ever. v1: format 1; v2: with the feature `provenance`; v3: with `words` and
`calibrations`; v4: with `int8`, of one kind alone (`v4 --kind ivf-pq4 --vector-dtype int8`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer import EmbeddingSource, build_index
from indexer.corpus.embeddings.embedding_source import EmbeddingFiles, EmbeddingOptions
from searcher import Hit, Searcher
from storage import EncoderInfo
from storage.schema import ANN_KINDS

DIM = 4
ROWS = 256  # what an 8-bit quantiser needs
HNSW_ROWS = 64  # a graph packs badly
REJECTED = 9
HERE = Path(__file__).parent
QUERIES = np.array([[1, 0, 0, 0], [0.5, -0.5, 0.5, 0.5], [-0.1, 0.2, 0.3, -0.9]], np.float32)


class GoldenEncoder:
    """What an index needs to know of an encoder; the vectors come ready-made."""

    spec = "golden"
    dim = DIM
    device = "cpu"
    precision = "fp32"
    fingerprint = hashlib.sha256(b"golden").hexdigest()
    info = EncoderInfo(spec=spec, dim=DIM, fingerprint=fingerprint, details={"family": "golden"})

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Never asked, since the texts come with their vectors."""
        raise NotImplementedError(f"{len(texts)} texts")


def golden_vectors(seed: int, rows: int) -> NDArray[np.float32]:
    """Return (rows, DIM) unit rows that depend on the seed alone; fewer rows are the first of more."""
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def source(folder: Path, rows: int) -> EmbeddingSource:
    """Write a corpus of `rows` images with metadata and as many captioned texts, pairs, and an image to reject."""
    images, texts = golden_vectors(0, rows + 1), golden_vectors(1, rows)
    images[REJECTED] = np.nan
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", texts)
    _write(folder / "facts.csv", ["item,year,place", *(f"i{n},{1990 + n % 30},plaça {n % 7}" for n in range(rows + 1))])
    _write(folder / "captions.txt", [f"caption number {n}, ünïcode 猫" for n in range(rows)])
    _write(folder / "pairs.csv", ["image_row,text_row", *(f"{n},{n}" for n in range(0, rows, 2))])
    return EmbeddingSource(
        EmbeddingOptions(
            images=EmbeddingFiles(vectors=folder / "images.npy", table=folder / "facts.csv", id_column="item"),
            texts=EmbeddingFiles(vectors=folder / "texts.npy", table=folder / "captions.txt"),
            pairs=folder / "pairs.csv",
        )
    )


def build_all(folder: Path, kinds: Sequence[str] = ANN_KINDS, **settings: Any) -> list[Path]:
    """Build `folder/KIND.index` for every kind and return the paths."""
    made = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as scratch:
            corpus = source(Path(scratch), HNSW_ROWS if kind == "hnsw" else ROWS)
            made.append(folder / f"{kind}.index")
            settings |= {"ann": kind, "min_ann_recall": 0}
            build_index(corpus, made[-1], encoder=GoldenEncoder(), **settings)  # type: ignore[arg-type]
    return made


def pack(folder: Path, archive: Path) -> None:
    """Pack the indexes with nothing of this machine in the archive: no times, no owners."""
    with tarfile.open(archive, "x:xz", preset=9) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "LOCK":
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)


def unpack(folder: Path, name: str = "v1") -> list[Path]:
    """Unpack a golden archive into `folder` and return the index folders in it."""
    with tarfile.open(HERE / f"{name}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return sorted(folder.glob("*.index"))


def answers(index: Path) -> dict[str, Any]:
    """Return what a searcher says of a golden index, as JSON values; scores to four places."""
    with Searcher.open(index) as searcher:
        told: dict[str, Any] = {"counts": asdict(searcher.manifest.counts)}
        for query in QUERIES:
            images = searcher.text_to_image(query, 3, where="year >= 2000", exact=True)
            texts = searcher.image_to_text(query, 3, exact=True)
            told.setdefault("images", []).append([(hit.item_id, round(hit.score, 4), _known(hit)) for hit in images])
            told.setdefault("texts", []).append([(hit.item_id, round(hit.score, 4), hit.caption) for hit in texts])
        return json.loads(json.dumps(told))  # type: ignore[no-any-return]


def _lines(told: dict[str, Any]) -> str:
    """One index a line, so that a change is seen in a comparison."""
    rows = [f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in told.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def _known(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in hit.metadata.items() if value is not None}


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Make the archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="v and the number after that of the newest archive")
    parser.add_argument("--kind", choices=ANN_KINDS, action="append", help="One kind of approximate index, not all.")
    parser.add_argument("--vector-dtype", default="float16", help="How vectors are stored.")
    given = parser.parse_args()
    archive = HERE / f"{given.name}.tar.xz"
    if archive.exists():
        sys.exit(f"error: {archive} exists, and a golden archive is never made anew; name the next number")
    with tempfile.TemporaryDirectory() as scratch:
        made = build_all(Path(scratch), given.kind or ANN_KINDS, vector_dtype=given.vector_dtype)
        told = {index.name: answers(index) for index in made}
        pack(Path(scratch), archive)
        archive.with_name(f"{given.name}.json").write_text(_lines(told) + "\n", encoding="utf-8")
    print(f"{archive}: {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
