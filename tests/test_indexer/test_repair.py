"""A damaged version is mended as a new version, or refused with one line that says why and what to do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint_folder
from damage import cut, flip, lengthen
from make_golden import unpack

from indexer import BuildError, build_index
from indexer.repair import repair_index
from searcher import Searcher
from storage import IndexStore
from storage.errors import IndexLockedError, IndexNotFoundError
from twinlens.commands.verify import verify

KINDS = ("hnsw", "ivf-flat", "ivf-pq", "ivf-pq4", "ivf-rabitq")
QUERY = np.array([[0.5, 0.5, -0.5, 0.5]], np.float32)


@pytest.fixture(scope="session")
def golden_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    unpack(folder)
    return folder


@pytest.fixture
def golden(golden_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden_once / "ivf-pq4.index", tmp_path / "x.index"))


def version_file(index: Path, name: str, number: int = 1) -> Path:
    return index / "versions" / f"{number:08d}" / name


def found(index: Path, into: str = "images") -> list[str]:
    with Searcher.open(index) as searcher:
        return list(searcher.search_vectors(into, QUERY, 5, nprobe=99, oversample=64)[0][0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "damage"), [*zip(KINDS, [flip, cut, lengthen, Path.unlink, flip], strict=True)])
def test_a_damaged_ann_file_is_rebuilt_from_the_vectors(
    golden_once: Path, tmp_path: Path, kind: str, damage: object
) -> None:
    index = Path(shutil.copytree(golden_once / f"{kind}.index", tmp_path / "x.index"))
    before = found(index)
    bytes_before = {name: version_file(index, name).read_bytes() for name in ("catalog.duckdb", "texts/ann.faiss")}
    damage(version_file(index, "images/ann.faiss"))  # type: ignore[operator]
    report = repair_index(index)
    assert (report.version, report.published, report.rebuilt, report.recovered) == (1, 2, ("images/ann.faiss",), ())
    store = IndexStore.open(index)
    assert store.verify().problems == []
    manifest = store.manifest()
    assert (manifest.version, manifest.parent) == (2, 1)
    assert manifest.build["repair"] == {"of": 1, "rebuilt": ["images/ann.faiss"], "recovered": {}}
    assert manifest.collections["images"].ann.kind == kind
    assert set(manifest.collections["images"].tuning) == {"text_to_image", "image_to_image"}
    assert found(index) == before
    for name, content in bytes_before.items():
        assert version_file(index, name, 2).read_bytes() == content, "what was whole is copied and not made anew"


def test_the_damaged_version_is_not_touched(golden: Path) -> None:
    cut(version_file(golden, "images/ann.faiss"))
    before = {path: path.read_bytes() for path in (golden / "versions" / "00000001").rglob("*") if path.is_file()}
    repair_index(golden)
    assert {path: path.read_bytes() for path in before} == before
    assert not IndexStore.open(golden).verify(1).ok


def test_a_whole_version_is_left_alone(golden: Path) -> None:
    report = repair_index(golden)
    assert (report.published, report.sentence()) == (None, "version 1 is whole, nothing to repair")
    assert IndexStore.open(golden).versions() == [1]


def test_a_damaged_lexical_index_is_made_again_from_the_catalog_and_all_else_is_as_before(tmp_path: Path) -> None:
    paint_folder(tmp_path / "photos", 56)
    index = tmp_path / "x.index"
    build_index(tmp_path / "photos", index, encoder=ColourEncoder(), vector_dtype="int8")
    names = [f"{name}/words.safetensors" for name in ("images", "texts")]
    before = [version_file(index, name).read_bytes() for name in names]
    flip(version_file(index, names[0]))
    report = repair_index(index)
    assert (report.published, report.rebuilt) == (2, (names[0],))
    assert "images/words.safetensors rebuilt from the catalog" in report.sentence()
    assert [version_file(index, name, 2).read_bytes() for name in names] == before
    store = IndexStore.open(index)
    assert store.verify().problems == []
    old, new = store.manifest(1), store.manifest(2)
    assert old.calibrations
    assert old.rounding
    own = {"version": 2, "parent": 1, "created_at": new.created_at, "build": new.build}
    assert replace(old, **own) == new


@pytest.mark.parametrize("name", ["images/vectors.arrow", "texts/vectors.arrow", "catalog.duckdb"])
def test_damage_that_only_the_corpus_can_mend_is_refused_in_one_line(golden: Path, name: str) -> None:
    flip(version_file(golden, name))
    cut(version_file(golden, "images/ann.faiss"))
    told = rf"^{name} cannot be repaired: .*{name} has SHA-256 .*whole versions: none; build again with `build-index"
    with pytest.raises(BuildError, match=told) as caught:
        repair_index(golden)
    assert "\n" not in str(caught.value)
    assert IndexStore.open(golden).versions() == [1]


def test_a_damaged_manifest_is_refused_and_the_whole_versions_are_named(golden: Path) -> None:
    cut(version_file(golden, "images/ann.faiss"))
    repair_index(golden)
    flip(version_file(golden, "manifest.json", 2))
    told = r"manifest.json cannot be repaired: .*nothing else says what the version held; whole versions: none; build"
    with pytest.raises(BuildError, match=told):
        repair_index(golden)


def test_a_damaged_current_is_refused_and_the_way_back_is_named(golden: Path) -> None:
    (golden / "CURRENT").write_bytes(b"x")
    with pytest.raises(BuildError, match=r"CURRENT cannot be repaired: .*whole versions: 1; .*rollback .* --to 1`"):
        repair_index(golden)


@pytest.mark.parametrize("name", ["images/vectors.arrow", "catalog.duckdb"])
def test_a_file_that_another_version_holds_byte_for_byte_is_recovered_from_it(golden: Path, name: str) -> None:
    cut(version_file(golden, "images/ann.faiss"))
    repair_index(golden)
    before = found(golden)
    flip(version_file(golden, name, 2))
    report = repair_index(golden)
    assert (report.version, report.published, report.rebuilt, report.recovered) == (2, 3, (), ((name, 1),))
    assert IndexStore.open(golden).verify().ok
    assert found(golden) == before
    assert report.sentence() == f"version 2 repaired as version 3, now current: {name} recovered from version 1"


def test_a_file_that_does_not_belong_there_is_left_out(golden: Path) -> None:
    version_file(golden, "catalog.duckdb.wal").write_bytes(b"x")
    report = repair_index(golden)
    assert report.left_out == ("versions/00000001/catalog.duckdb.wal",)
    assert IndexStore.open(golden).verify().ok


def test_an_older_version_is_repaired_when_it_is_named(golden: Path) -> None:
    cut(version_file(golden, "images/ann.faiss"))
    repair_index(golden)
    assert repair_index(golden, 1).published == 3
    with pytest.raises(IndexNotFoundError, match="has no version 9"):
        repair_index(golden, 9)


def test_measurements_that_need_the_encoder_are_kept_and_named(tmp_path: Path) -> None:
    index = tmp_path / "x.index"
    build_index(paint_folder(tmp_path / "p", 48, captions=False), index, encoder=ColourEncoder(), ann="ivf-flat")
    before = IndexStore.open(index).manifest().collections["images"].tuning
    cut(version_file(index, "images/ann.faiss"))
    report = repair_index(index)
    after = IndexStore.open(index).manifest().collections["images"].tuning
    assert report.kept_measurements == ("text_to_image",)
    assert set(before) == set(after) == {"text_to_image", "image_to_image"}
    assert after["text_to_image"] == before["text_to_image"]
    assert "operating points of text_to_image kept as they were" in report.sentence()


def test_a_repair_waits_for_no_builder(golden: Path) -> None:
    other = IndexStore.open(golden)
    with other.lock(), pytest.raises(IndexLockedError, match="is being built by process"):
        repair_index(golden)


def test_the_command_reports_every_file_and_every_rule(golden: Path) -> None:
    value = json.loads(CliRunner().invoke(verify, [str(golden), "--output", "json"]).stdout)
    assert (value["ok"], value["version"], len(value["files"])) == (True, 1, 6)
    assert {file["checksum"] for file in value["files"]} == {"ok"}
    assert all(file["bytes"] == (golden / file["name"]).stat().st_size for file in value["files"])
    assert len(value["structure"]) == 10
    assert {rule["outcome"] for rule in value["structure"]} == {"ok"}


def test_an_older_version_is_verified_when_it_is_named(golden: Path) -> None:
    whole = version_file(golden, "images/ann.faiss").stat().st_size
    cut(version_file(golden, "images/ann.faiss"))
    repair_index(golden)
    assert CliRunner().invoke(verify, [str(golden)]).exit_code == 0
    done = CliRunner().invoke(verify, [str(golden), "--version", "1"])
    assert done.exit_code == 3
    assert f"ann.faiss has {whole - 1} bytes and the manifest says {whole}" in done.stdout


def test_the_command_says_what_is_damaged_and_what_was_therefore_not_checked(golden: Path) -> None:
    cut(version_file(golden, "images/vectors.arrow"))
    version_file(golden, "texts/ann.faiss").unlink()
    done = CliRunner().invoke(verify, [str(golden)])
    assert done.exit_code == 3
    assert "checksum bad: " in done.stdout
    assert "checksum missing: " in done.stdout
    assert done.stdout.count("structure not checked") == 5
    assert done.stdout.splitlines()[-1] == f"version 1 of {golden} has 2 problems"


def test_the_command_repairs_and_says_what_it_did(golden: Path) -> None:
    cut(version_file(golden, "texts/ann.faiss"))
    done = CliRunner().invoke(verify, [str(golden), "--repair"], catch_exceptions=False)
    assert done.exit_code == 0
    last = done.stdout.splitlines()[-1]
    assert last == "version 1 repaired as version 2, now current: texts/ann.faiss rebuilt from the vectors"
    value = json.loads(CliRunner().invoke(verify, [str(golden), "--repair", "--output", "json"]).stdout)
    assert value["ok"]
    assert value["repair"]["published"] is None
