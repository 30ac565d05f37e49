"""Two small real indexes: coloured pictures with captions, and many vectors with an approximate index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from encoders import decode_image
from indexer.lexical import write_words
from indexer.progress import SilentProgress
from searcher import Searcher
from storage.catalog import IMAGE_COLUMNS, PAIR_COLUMNS, REJECTED_COLUMNS, TEXT_COLUMNS, write_catalog
from storage.faiss_file import write_ann
from storage.schema import AnnPlan, CollectionInfo, CorpusInfo, Counts, EncoderInfo, OperatingPoint, Tuning
from storage.store import IndexStore
from storage.vectors import VectorWriter

DIM = 64
PALETTE = {
    "red": (200, 30, 30),
    "green": (30, 160, 40),
    "blue": (40, 60, 200),
    "yellow": (230, 210, 40),
    "purple": (140, 40, 160),
    "white": (240, 240, 240),
    "black": (15, 15, 15),
    "orange": (240, 140, 20),
}
PLACES = ("field", "sky", "wall", "door", "dress", "boat")


class ColourEncoder:
    """Words are hashed to directions; a picture is the mixture of the colour words nearest to its pixels."""

    spec = "test-colours"
    dim = DIM
    device = "cpu"
    precision = "fp32"
    batch_size = 32

    def __init__(self, fingerprint: str = "c" * 64) -> None:
        self.fingerprint = fingerprint
        self.encoded = 0

    @property
    def info(self) -> EncoderInfo:
        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.convert("RGB").resize((8, 8)), dtype=np.float32) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def encode_pixels(self, pixels: Any) -> np.ndarray:
        flat = np.asarray(pixels, dtype=np.float32).transpose(0, 2, 3, 1).reshape(len(pixels), -1, 3)
        colours = np.array(list(PALETTE.values()), dtype=np.float32) / 255
        distance = np.square(flat[:, :, None, :] - colours).sum(axis=-1)
        weights = np.exp(-distance * 20).mean(axis=1)
        return unit(weights @ np.stack([direction(word) for word in PALETTE]))

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        self.encoded += len(images)
        return self.encode_pixels(np.stack([self.preprocess(decode_image(image).pixels) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += len(texts)
        return unit(np.stack([sum((direction(word) for word in text.split()), np.zeros(DIM)) for text in texts]))


def direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIM)


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Oracle:
    """What must be found, by comparing every vector in double precision."""

    def scores(self, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
        query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
        return np.clip(vectors.astype(np.float16).astype(np.float64) @ query, -1, 1)

    def check(self, hits: Any, vectors: np.ndarray, query: np.ndarray, k: int, rows: Any = None) -> None:
        """The hits are the k best rows, with their cosines; rows that differ by rounding alone may change places."""
        rows = np.arange(len(vectors)) if rows is None else np.asarray(rows, dtype=np.int64)
        scores = self.scores(vectors, query)
        best = np.sort(scores[rows])[::-1][:k]
        assert len(hits) == len(best)
        assert len(set(hits.row_ids.tolist())) == len(best)
        assert np.isin(hits.row_ids, rows).all()
        np.testing.assert_allclose(hits.scores, best, atol=2e-6)
        np.testing.assert_allclose(hits.scores, scores[hits.row_ids], atol=2e-6)


def table(columns: dict[str, list[Any]], schema: Any) -> pa.Table:
    """Columns of the catalog, with null where a column of the format is not given."""
    rows = len(next(iter(columns.values())))
    own = {name: pa.array(columns.get(name, [None] * rows), type=kind) for name, kind in schema.items()}
    return pa.table({**own, **{name: pa.array(v) for name, v in columns.items() if name not in schema}})


def empty(schema: Any) -> pa.Table:
    return pa.table({name: pa.array([], type=kind) for name, kind in schema.items()})


def publish(path: Path, tables: dict[str, pa.Table], vectors: dict[str, np.ndarray], **said: Any) -> Path:
    """Publish one version through the real store."""
    store = IndexStore.create(path)
    with store.lock():
        draft = store.draft()
        for name, rows in vectors.items():
            (draft.path / name).mkdir(exist_ok=True)
            with VectorWriter(draft.path / name / "vectors.arrow", rows.shape[1]) as writer:
                writer.append(tables[name].column("item_id").to_pylist(), rows)
            if name in said["ann"]:
                write_ann(said["ann"][name], draft.path / name / "ann.faiss")
        every = {"images": IMAGE_COLUMNS, "texts": TEXT_COLUMNS, "pairs": PAIR_COLUMNS, "rejected": REJECTED_COLUMNS}
        filled = {name: tables.get(name, empty(schema)) for name, schema in every.items()}
        write_catalog(draft.path / "catalog.duckdb", **filled)
        if said.get("words", True):
            write_words(draft.path, ["owner"] if "owner" in tables["images"].column_names else [], SilentProgress())
        sizes = {name: filled[name].num_rows for name in every}
        counts = Counts(
            items=sizes["images"] + sizes["texts"],
            indexed=sizes["images"] + sizes["texts"],
            rejected=0,
            images=sizes["images"],
            texts=sizes["texts"],
            pairs=sizes["pairs"],
        )
        infos = {name: said["infos"][name] for name in vectors}
        store.publish(
            draft, encoder=said["encoder"], collections=infos, counts=counts, build={}, corpus=said.get("corpus")
        )
    return path


def paint(folder: Path, count: int) -> list[dict[str, Any]]:
    """Pictures of one main colour with a patch of another, of many shapes."""
    rng = np.random.default_rng(7)
    names = list(PALETTE)
    found = []
    for number in range(count):
        main, patch = names[number % len(names)], names[int(rng.integers(len(names)))]
        size = (int(rng.integers(40, 120)), int(rng.integers(40, 120)))
        image = Image.new("RGB", size, PALETTE[main])
        image.paste(PALETTE[patch], (0, 0, size[0] // int(rng.integers(2, 5)), size[1] // 3))
        image.save(folder / f"{number:04d}.png")
        caption = f"a {main} {PLACES[number % len(PLACES)]} with {patch} number {number}"
        found.append({"uri": f"{number:04d}.png", "caption": caption, "width": size[0], "height": size[1]})
    return found


class Corpus:
    """Pictures and captions, their vectors, and the index of them that was published."""

    def __init__(self, folder: Path, count: int = 320) -> None:
        self.root = folder / "photos"
        self.root.mkdir()
        self.rows = paint(self.root, count)
        self.encoder = ColourEncoder()
        self.images = self.encoder.encode_images([self.root / row["uri"] for row in self.rows])
        self.texts = self.encoder.encode_texts([row["caption"] for row in self.rows])
        self.index = folder / "photos.index"
        self.publish_again(count)

    def publish_again(self, count: int) -> None:
        """Publish a version of the first `count` items."""
        names = ("images", "texts")
        publish(
            self.index,
            {"images": self._images(count), "texts": self._texts(count)},
            {"images": self.images[:count], "texts": self.texts[:count]},
            ann={},
            infos={name: CollectionInfo(rows=count, ann=AnnPlan(kind="flat")) for name in names},
            encoder=self.encoder.info,
            corpus=CorpusInfo(root=str(self.root), digest="d" * 64),
        )

    def picture(self, number: int) -> Path:
        return self.root / self.rows[number]["uri"]

    def _images(self, count: int) -> pa.Table:
        rows = range(count)
        columns = {name: [row[name] for row in self.rows[:count]] for name in self.rows[0]}
        columns |= {"row_id": list(rows), "item_id": [f"img-{n}" for n in rows]}
        columns |= {"stars": [n % 6 for n in rows], "owner": [f"O'Neil {n % 3}" if n % 5 else None for n in rows]}
        return table(columns, IMAGE_COLUMNS)

    def _texts(self, count: int) -> pa.Table:
        captions = [row["caption"] for row in self.rows[:count]]
        columns = {"row_id": list(range(count)), "item_id": [f"txt-{n}" for n in range(count)], "caption": captions}
        return table(columns, TEXT_COLUMNS)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def other_encoder() -> ColourEncoder:
    return ColourEncoder(fingerprint="d" * 64)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def searcher(corpus: Corpus, encoder: ColourEncoder) -> Iterator[Searcher]:
    with Searcher.open(corpus.index, encoder=encoder) as searcher:
        yield searcher


WIDE_ROWS, WIDE_DIM = 12_000, 16


@pytest.fixture(scope="session")
def wide_vectors() -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, WIDE_DIM))
    return unit(centres[rng.integers(40, size=WIDE_ROWS)] + 0.6 * rng.standard_normal((WIDE_ROWS, WIDE_DIM)))


@pytest.fixture(scope="session")
def wide_index(tmp_path_factory: pytest.TempPathFactory, wide_vectors: np.ndarray) -> Path:
    """12,000 images without an encoder, an IVF index, and points measured for text queries only."""
    index = faiss.index_factory(WIDE_DIM, "IVF32,SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(wide_vectors)
    index.add(wide_vectors)
    points = [
        OperatingPoint(k=k, nprobe=nprobe, oversample=2, ann_recall=recall, ms_per_query=nprobe / 10)
        for k in (10, 100)
        for nprobe, recall in ((2, 0.8), (8, 0.96), (20, 0.995))
    ]
    tuning = {"text_to_image": Tuning(query_source="given", queries=1000, points=tuple(points))}
    plan = AnnPlan(kind="ivf-flat", factory="IVF32,SQfp16", nlist=32, train_rows=WIDE_ROWS)
    count = range(WIDE_ROWS)
    columns = {"row_id": list(count), "item_id": [f"v{n}" for n in count], "part": [n % 10 for n in count]}
    return publish(
        tmp_path_factory.mktemp("wide") / "wide.index",
        {"images": table(columns, IMAGE_COLUMNS)},
        {"images": wide_vectors},
        ann={"images": index},
        infos={"images": CollectionInfo(rows=WIDE_ROWS, ann=plan, tuning=tuning)},
        encoder=None,
        words=False,
    )


@pytest.fixture
def wide(wide_index: Path) -> Iterator[Searcher]:
    with Searcher.open(wide_index) as searcher:
        yield searcher
