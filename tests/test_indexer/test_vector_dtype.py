"""An index that stores one byte a value: what it holds, what an update does with it, and what it says of its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint
from damage import flip
from paired_index import build_paired, captioned

from indexer import BuildError, EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from indexer.rebuild_command import rebuild_command
from indexer.repair import repair_index
from searcher import Searcher
from searcher.evaluation.evaluate_index import evaluate_index
from searcher.evaluation.scorecard import scorecard
from searcher.hits import about
from storage import IndexStore, Manifest
from storage.export import ExportOptions, export_index
from twinlens.commands.build import build
from twinlens.commands.info import info


def manifest_of(index: Path) -> Manifest:
    return IndexStore.open(index).manifest()


def vector_bytes(index: Path) -> dict[str, bytes]:
    version = IndexStore.open(index).version_path(manifest_of(index).version)
    return {name: (version / name / "vectors.arrow").read_bytes() for name in ("images", "texts")}


def rows_of(index: Path, collection: str = "images") -> np.ndarray:
    with IndexStore.open(index).open_version() as version:
        table = version.vectors(collection)  # type: ignore[arg-type]
        return table.gather(np.arange(table.rows))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same vectors in both forms."""
    folder, content = tmp_path_factory.mktemp("forms"), captioned(400, 2, dim=64, noise=0.8)
    forms = ("float16", "int8")
    return {form: build_paired(folder / form, *content, ann="ivf-pq4", vector_dtype=form) for form in forms}


def test_scores_are_exact_for_what_is_stored_and_as_near_as_the_manifest_says(pair: dict[str, Path]) -> None:
    said = manifest_of(pair["int8"])
    assert (said.vector_dtype, manifest_of(pair["float16"]).vector_dtype) == ("int8", "float16")
    queries = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    with Searcher.open(pair["int8"]) as searcher:
        for collection in ("images", "texts"):
            stored, given = rows_of(pair["int8"], collection), rows_of(pair["float16"], collection)
            within = said.rounding[collection].within  # type: ignore[index]
            lost = np.linalg.norm(stored.astype(np.float64) - given, axis=1).max()
            assert lost < within < lost + 2e-5
            ids, scores = searcher.search_vectors(collection, queries, 10, exact=True)
            rows = np.array([[int(name.split("-")[1]) for name in line] for line in ids])
            exact = np.einsum("qd,qkd->qk", queries, stored[rows].astype(np.float32))
            np.testing.assert_allclose(scores, exact, atol=1e-6)
            assert np.abs(scores - np.einsum("qd,qkd->qk", queries, given[rows].astype(np.float32))).max() < within
            again = searcher.search_vectors(collection, queries, 10, ann_recall=0.99)[1]
            assert np.isin(again, scores).mean() > 0.9, "the approximate index proposes, and the scores are the same"


def test_the_file_is_half_as_large_and_whole(pair: dict[str, Path]) -> None:
    sizes = {form: len(vector_bytes(index)["texts"]) for form, index in pair.items()}
    assert sizes["int8"] < 0.65 * sizes["float16"]  # with ids and the header
    assert IndexStore.open(pair["int8"]).verify().problems == []


def test_what_was_exported_comes_back_as_the_same_file(pair: dict[str, Path], tmp_path: Path) -> None:
    export_index(pair["int8"], str(tmp_path / "out"), ExportOptions())
    files = {
        name: EmbeddingFiles(vectors=tmp_path / "out" / f"{name}.parquet", vector_column="vector")
        for name in ("images", "texts")
    }
    source = EmbeddingSource(EmbeddingOptions(**files, pairs=tmp_path / "out" / "pairs.parquet"))
    build_index(source, tmp_path / "again", vector_dtype="int8")
    assert vector_bytes(tmp_path / "again") == vector_bytes(pair["int8"])


def test_an_update_keeps_the_bytes_of_what_has_not_changed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_index(photos, out, encoder=ColourEncoder(), vector_dtype="int8", ann="hnsw")
    before, first = rows_of(out), manifest_of(out)
    paint(photos / "zz.png", "red", noise=99)
    encoder = ColourEncoder()
    report = build_index(photos, out, encoder=encoder, update=True)
    assert (report.version, encoder.images_encoded) == (2, 1)
    np.testing.assert_array_equal(rows_of(out)[:40], before)
    second = manifest_of(out)
    assert (second.vector_dtype, second.build["config"]["vector_dtype"]) == ("int8", "int8")
    assert second.rounding["images"].within >= first.rounding["images"].within > 0
    assert not build_index(photos, out, encoder=ColourEncoder(), update=True).published
    (photos / "zz.png").unlink()
    build_index(photos, out, encoder=ColourEncoder(), update=True)
    np.testing.assert_array_equal(rows_of(out), before)
    assert manifest_of(out).rounding["images"] == second.rounding["images"], "a bound once said is kept"


def test_an_update_may_round_and_cannot_take_it_back(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_index(photos, out, encoder=ColourEncoder())
    encoder = ColourEncoder()
    assert build_index(photos, out, encoder=encoder, update=True, vector_dtype="int8").published
    assert (manifest_of(out).vector_dtype, encoder.images_encoded) == ("int8", 0)
    build_index(photos, tmp_path / "direct", encoder=ColourEncoder(), vector_dtype="int8")
    assert vector_bytes(out) == vector_bytes(tmp_path / "direct")
    assert manifest_of(out).rounding == manifest_of(tmp_path / "direct").rounding
    with pytest.raises(BuildError, match="--vector-dtype float16: version 2 stores one byte a value, and the vectors"):
        build_index(photos, out, encoder=ColourEncoder(), update=True, vector_dtype="float16")
    assert manifest_of(out).version == 2
    build_index(photos, out, encoder=ColourEncoder(), vector_dtype="float16")
    assert manifest_of(out).rounding == {}


class Stops(ColourEncoder):
    """Is interrupted after some images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        if self.images_encoded >= self.most:
            raise KeyboardInterrupt
        return super().encode_pixels(pixels)


def test_a_stopped_build_goes_on_in_the_other_form(photos: Path, tmp_path: Path) -> None:
    out, sizes = tmp_path / "out", {"shard_cost": 4, "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        build_index(photos, out, encoder=Stops(20), **sizes)
    encoder = ColourEncoder()
    build_index(photos, out, encoder=encoder, vector_dtype="int8", **sizes)
    assert encoder.images_encoded < 40, "what was encoded is taken over"
    build_index(photos, tmp_path / "fresh", encoder=ColourEncoder(), vector_dtype="int8", **sizes)
    assert vector_bytes(out) == vector_bytes(tmp_path / "fresh")


def test_shards_of_a_stopped_update_do_not_end_in_another_form(photos: Path, tmp_path: Path) -> None:
    """They hold vectors that were rounded already, which a build of float16 may not take for its own."""
    out = tmp_path / "out"
    sizes: dict[str, Any] = {"shard_cost": 4, "batch_size": 2}
    build_index(photos, out, encoder=ColourEncoder(), vector_dtype="int8", **sizes)
    paint(photos / "zz.png", "red", noise=99)
    with pytest.raises(KeyboardInterrupt):
        build_index(photos, out, encoder=Stops(0), update=True, **sizes)
    assert list((out / "staging").glob("*/*.arrow")), "it left shards behind"
    build_index(photos, out, encoder=ColourEncoder(), vector_dtype="float16", **sizes)
    build_index(photos, tmp_path / "fresh", encoder=ColourEncoder(), **sizes)
    assert vector_bytes(out) == vector_bytes(tmp_path / "fresh")


def test_a_repair_keeps_what_is_said_of_the_vectors(pair: dict[str, Path], tmp_path: Path) -> None:
    index = build_paired(tmp_path, *captioned(60, 2, dim=64), ann="ivf-flat", vector_dtype="int8")
    before = manifest_of(index)
    flip(index / "versions" / "00000001" / "images" / "ann.faiss")
    assert repair_index(index).rebuilt == ("images/ann.faiss",)
    assert manifest_of(index).rounding == before.rounding
    assert IndexStore.open(index).verify().problems == []


def test_the_build_and_info_say_how_near_scores_are(photos: Path, tmp_path: Path) -> None:
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder(), vector_dtype="int8")
    within = report.manifest.rounding["images"].within
    said = f"one byte a value: scores are within {within:.3f} (images) and"
    assert f"vectors at {said}" in report.to_text()
    assert report.to_json()["rounding"]["images"] == {"within": within}
    assert said in CliRunner().invoke(info, [str(tmp_path / "out")]).output
    assert "--vector-dtype int8" in rebuild_command(report.manifest, tmp_path / "out")
    build_index(photos, tmp_path / "plain", encoder=ColourEncoder())
    assert "one byte" not in CliRunner().invoke(info, [str(tmp_path / "plain")]).output
    assert "--vector-dtype" not in rebuild_command(manifest_of(tmp_path / "plain"), tmp_path / "plain")


def test_a_search_and_an_evaluation_say_it_too(pair: dict[str, Path]) -> None:
    query = np.eye(1, 64)[0]
    for form, index in pair.items():
        rounding = manifest_of(index).rounding
        within = rounding["images"].within if rounding else None
        told = f", scores within {within or 0:.3f} of float16's"
        assert (within is None) == (form == "float16")
        with Searcher.open(index) as searcher:
            for exact in (True, False):
                hits = searcher.text_to_image(query, 3, exact=exact)
                assert hits.ann.get("score_within") == within
                assert about(hits).endswith(told) == (within is not None)
        result = evaluate_index(index)
        assert result["index"].get("score_within") == (
            {name: one.within for name, one in rounding.items()} if rounding else None
        )
        assert ("one byte a value; its scores are within" in scorecard(result)) == (within is not None)


def test_an_unknown_form_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="vector_dtype is 'int4'"):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), vector_dtype="int4")
    outcome = CliRunner().invoke(build, [str(photos), "--out", str(tmp_path / "out"), "--vector-dtype", "int4"])
    assert outcome.exit_code == 2
    assert "'float16', 'int8'" in outcome.output
    assert not (tmp_path / "out").exists()
