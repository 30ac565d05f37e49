"""A reader written from the page about the format agrees with this project's, about answers and about damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from independent_reader import BrokenIndexError, IndependentReader
from make_golden import unpack
from paired_index import build_paired, captioned

from searcher import Searcher
from storage import IndexStore, StorageError


@pytest.fixture(scope="module", params=["float16", "int8"])
def index(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("read")
    return build_paired(folder, *captioned(300, 2, dim=24, noise=0.8), ann="ivf-pq", vector_dtype=request.param)


def test_it_finds_the_same_with_the_same_scores_and_probabilities(index: Path) -> None:
    reader = IndependentReader(index)
    rng = np.random.default_rng(0)
    with Searcher.open(index) as searcher:
        for direction, into, source in (("text_to_image", "images", "texts"), ("image_to_text", "texts", "images")):
            for row in rng.integers(0, len(reader.vectors[source]), 20):
                query = reader.vectors[source][row] + 0.02 * rng.standard_normal(24).astype(np.float32)
                query /= np.linalg.norm(query)
                hits = getattr(searcher, direction)(query, 10, exact=True)
                found = reader.search(into, query, 10)
                assert [one for one, _ in found] == hits.item_ids.tolist()
                assert [score for _, score in found] == pytest.approx([hit.score for hit in hits], abs=1e-6)
                for hit in hits[:3]:
                    likely = reader.probability(direction, query, hit.item_id)
                    assert likely == pytest.approx(hit.probability, abs=2e-4)


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "v4"])
def test_it_reads_every_golden_index(name: str, tmp_path: Path) -> None:
    unpack(tmp_path, name)
    for index in sorted(tmp_path.iterdir()):
        reader = IndependentReader(index)
        with Searcher.open(index) as searcher:
            query = reader.vectors["images"][7]
            expected = searcher.image_to_image(query, 5, exact=True)
        assert [one for one, _ in reader.search("images", query, 5)] == expected.item_ids.tolist()


@pytest.mark.parametrize("name", ["manifest.json", "catalog.duckdb", "images/vectors.arrow", "texts/words.safetensors"])
def test_both_refuse_a_flipped_bit(index: Path, name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    path = next(copy.glob("versions/*")) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(BrokenIndexError):
        IndependentReader(copy)
    with pytest.raises(StorageError):
        IndexStore.open(copy).open_version()
