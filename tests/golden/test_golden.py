"""Indexes of every format version that was ever released open, verify and answer as they did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from make_golden import answers, unpack

from storage import IndexStore, Manifest
from storage.schema import ANN_KINDS, EncodingInfo

HERE = Path(__file__).parent
FORMATS = ("v1", "v2", "v3", "v4")
ANSWERS = {name: json.loads((HERE / f"{name}.json").read_text("utf-8")) for name in FORMATS}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    for name in FORMATS:
        unpack(folder / name, name)
    return folder


@pytest.mark.parametrize(("name", "index"), [(name, index) for name in FORMATS for index in ANSWERS[name]])
class TestEveryGoldenIndex:
    def test_it_verifies_in_full(self, golden: Path, name: str, index: str) -> None:
        found = IndexStore.open(golden / name / index).verify()
        assert found.problems == []
        assert {rule.outcome for rule in found.structure} == {"ok"}

    def test_it_answers_as_on_the_day_it_was_built(self, golden: Path, name: str, index: str) -> None:
        assert answers(golden / name / index) == ANSWERS[name][index]

    def test_its_manifest_is_read_and_written_byte_for_byte(self, golden: Path, name: str, index: str) -> None:
        data = (golden / name / index / "versions" / "00000001" / "manifest.json").read_bytes()
        assert Manifest.from_json(data, "manifest").to_json() == data

    def test_its_approximate_index_is_searched(self, golden: Path, name: str, index: str) -> None:
        with IndexStore.open(golden / name / index).open_version() as version:
            for collection, info in version.manifest.collections.items():
                stored = version.vectors(collection).gather([0, 5, 20]).astype("float32")  # type: ignore[arg-type]
                ids, scores = version.ann(collection).search(stored, 1, nprobe=info.ann.nlist or 64, oversample=32)
                assert ids[:, 0].tolist() == [0, 5, 20]
                rounding = version.manifest.rounding.get(collection)
                assert scores.min() > 0.999 - (2 * rounding.within if rounding else 0)

    def test_this_release_publishes_after_it(self, golden: Path, name: str, index: str, tmp_path: Path) -> None:
        store = IndexStore.open(shutil.copytree(golden / name / index, tmp_path / index))
        manifest = store.manifest()
        with store.lock():
            draft = store.draft()
            shutil.copytree(store.version_path(1), draft.path, dirs_exist_ok=True)
            (draft.path / "manifest.json").unlink()
            names = ("encoder", "encoding", "corpus", "collections", "counts", "build", "rounding")
            store.publish(draft, **{name: getattr(manifest, name) for name in names})
        assert store.verify().ok
        assert store.rollback() == 1


@pytest.mark.parametrize("name", FORMATS)
def test_every_kind_of_index_is_golden(name: str) -> None:
    kinds = ("ivf-pq4",) if name == "v4" else ANN_KINDS
    assert set(ANSWERS[name]) == {f"{kind}.index" for kind in kinds}


def test_a_golden_index_of_one_byte_a_value_answers_as_near_as_it_says(golden: Path) -> None:
    manifest = IndexStore.open(golden / "v4" / "ivf-pq4.index").manifest()
    assert manifest.vector_dtype == "int8"
    for half in ("images", "texts"):
        plain, rounded = (ANSWERS[name]["ivf-pq4.index"][half] for name in ("v3", "v4"))
        for before, after in zip(plain, rounded, strict=True):
            scores = {item_id: score for item_id, score, _ in before}
            near = [abs(scores[item_id] - score) for item_id, score, _ in after if item_id in scores]
            assert near
            assert max(near) <= manifest.rounding[half].within + 1e-4  # type: ignore[index]


def test_indexes_of_the_same_vectors_answer_the_same_in_every_format() -> None:
    assert ANSWERS["v1"] == ANSWERS["v2"]


@pytest.mark.parametrize(("name", "features"), [("v1", ()), ("v2", ("provenance",))])
def test_every_format_has_the_features_it_was_written_with(golden: Path, name: str, features: tuple[str, ...]) -> None:
    manifest = IndexStore.open(golden / name / "flat.index").manifest()
    assert manifest.reader_features == features
    assert (manifest.encoding, manifest.corpus) == (EncodingInfo(), None)


@pytest.mark.parametrize("name", FORMATS)
def test_the_golden_files_are_small(name: str) -> None:
    assert sum(path.stat().st_size for path in HERE.glob(f"{name}.*")) < 60_000


def test_a_golden_archive_is_never_made_anew(home: Path) -> None:
    before = (HERE / "v1.tar.xz").read_bytes()
    command = [sys.executable, str(HERE / "make_golden.py"), "v1"]
    done = subprocess.run(command, cwd=home, env={"PYTHONPATH": str(home)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a golden archive is never made anew" in done.stderr
    assert (HERE / "v1.tar.xz").read_bytes() == before
