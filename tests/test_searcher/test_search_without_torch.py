"""Searches need no torch: the index carries the towers of the encoder, or the user's cache has them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from encoders import EncoderError, load_encoder
from encoders.tower_files import cache_folder
from indexer import build_index
from indexer.errors import BuildError
from searcher import Searcher
from storage import IndexStore, Manifest
from storage.errors import CorruptIndexError
from storage.files.layout import TOWER_FILES, tower_names
from twinlens.commands.search import search

TOWER_NAMES = frozenset().union(*map(tower_names, TOWER_FILES))
HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "huggingface_hub", "safetensors")
IMAGES = ["photos/sea.png", "photos/fire.png"]
QUERIES = ["a green meadow", "red", "l'été à la plage 🏖️", "Fish &amp; chips"]

# Prints the hits of the queries; with BLOCK the heavy packages cannot be imported, and in any case none of them is.
SEARCH = f"""
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

if BLOCK:
    sys.meta_path.insert(0, Absent())
from searcher import Searcher
with Searcher.open("it.index") as searcher:
    found = searcher.text_to_image({QUERIES}, k=3) + searcher.image_to_image({IMAGES}, k=3)
print(json.dumps([[[hit.item_id, hit.score] for hit in hits] for hits in found]))
print(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))
"""


def python(home: Path, folder: Path, code: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(home)}
    if cache is not None:
        environment["TWINLENS_CACHE"] = str(cache)
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def twinlens(home: Path, folder: Path, *arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.argv[1:] = {list(arguments)}; from twinlens.console import main; main()"
    return python(home, folder, code, cache)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "photos"
    folder.mkdir()
    for name, colour in {"meadow": (60, 170, 60), "sea": (30, 80, 200), "fire": (220, 60, 20)}.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def portable(photos: Path) -> Path:
    """A folder with a portable index."""
    folder = photos.parent
    build_index(photos, folder / "it.index", encoder="lite", portable=True)
    return folder


def scores(answer: str) -> np.ndarray:
    return np.array([[score for _, score in hits] for hits in json.loads(answer)])


def test_a_portable_index_is_searched_where_torch_cannot_be_imported(
    home: Path, portable: Path, tmp_path: Path
) -> None:
    done = python(home, portable, SEARCH.replace("BLOCK", "True"), cache=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [*tmp_path.iterdir()] == []
    with Searcher.open(portable / "it.index", encoder="lite") as searcher:
        images = [portable / name for name in IMAGES]
        expected = searcher.text_to_image(QUERIES, k=3) + searcher.image_to_image(images, k=3)
    found = json.loads(done.stdout.splitlines()[0])
    assert [[item for item, _ in hits] for hits in found] == [[hit.item_id for hit in hits] for hits in expected]
    exact = [[hit.score for hit in hits] for hits in expected]
    assert np.abs(scores(done.stdout.splitlines()[0]) - exact).max() < 1e-4
    assert [hits[0][0] for hits in found[-2:]] == ["sea.png", "fire.png"]


def test_a_build_leaves_the_towers_for_the_searches_of_this_machine(home: Path, photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    built = twinlens(home, tmp_path, "build", str(photos), "--out", "it.index", "--encoder", "lite", cache=cache)
    assert built.returncode == 0, built.stderr
    for kind in ("text", "image"):
        assert f"exporting the {kind} tower, once for this encoder, to " in built.stderr
    shutil.copytree(photos, tmp_path / "photos")
    done = python(home, tmp_path, SEARCH.replace("BLOCK", "False"), cache=cache)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[1]) == []
    manifest = IndexStore.open(tmp_path / "it.index").manifest()
    assert manifest.reader_features == ("provenance", "words")
    assert not TOWER_NAMES & manifest.files.keys()


class TestWithoutATower:
    """An index that was built elsewhere, and a cache that does not know its encoder."""

    @pytest.fixture
    def index(self, portable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))
        images = np.eye(3, 384, dtype=np.float32)
        np.save(tmp_path / "images.npy", images)
        from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

        files = EmbeddingFiles(vectors=tmp_path / "images.npy", ids=None, table=None)
        build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "it.index", encoder="lite")
        shutil.rmtree(tmp_path / "cache")
        return tmp_path / "it.index"

    def test_torch_encodes_and_one_line_says_how_to_do_without(self, index: Path) -> None:
        def run(*arguments: str) -> str:
            done = CliRunner().invoke(search, [str(index), "a dog", *arguments], catch_exceptions=False)
            assert done.exit_code == 0
            return done.stderr

        note = run()
        assert note.count("\n") == 1
        assert "so that torch encodes the texts" in note
        assert "`twinlens encoders export lite`" in note
        # Who chooses an encoder or a device gets it, and no advice.
        assert run("--encoder", "lite") == ""
        assert run("--device", "cpu") == ""

    def test_the_command_exports_it_for_the_searches_that_follow(self, index: Path, home: Path) -> None:
        done = twinlens(home, index.parent, "encoders", "export", "lite", "--output", "json")
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        fingerprint = load_encoder("lite", device="cpu").fingerprint
        assert summary["fingerprint"] == fingerprint
        assert summary["folder"] == str(cache_folder("text", fingerprint))
        assert summary["lowest_cosine"] > 0.99999
        assert summary["image"]["folder"] == str(cache_folder("image", fingerprint))
        assert summary["image"]["lowest_cosine"] > 0.9999
        with Searcher.open(index) as searcher:
            searcher.text_to_image("a dog")
            searcher.image_to_image(Image.new("RGB", (64, 64)))
            assert searcher.encoder_note is None
            assert searcher._encoder._encoder is None  # the encoder itself was not loaded

    def test_a_damaged_tower_is_not_used(self, index: Path) -> None:
        fingerprint = load_encoder("lite", device="cpu").fingerprint
        black = Image.new("RGB", (64, 64))
        for kind in ("text", "image"):
            folder = cache_folder(kind, fingerprint)
            folder.mkdir(parents=True)
            (folder / "tower.json").write_text("{}")
            with Searcher.open(index) as searcher, Searcher.open(index, encoder="lite") as exact:
                ask = Searcher.text_to_image if kind == "text" else Searcher.image_to_image
                query = "a dog" if kind == "text" else black
                assert ask(searcher, query).scores == pytest.approx(ask(exact, query).scores)  # type: ignore[operator]
                assert searcher.encoder_note is not None
                assert f"torch encodes the {kind}s: " in searcher.encoder_note
                assert "tower.json is damaged" in searcher.encoder_note

    def test_where_torch_is_absent_too_the_error_says_both(self, index: Path, home: Path) -> None:
        done = python(home, index.parent, SEARCH.replace("BLOCK", "True"))
        assert done.returncode != 0
        assert "run `twinlens encoders export lite` once; encoders need torch" in done.stderr


def test_an_update_keeps_an_index_portable(portable: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(portable / "it.index", tmp_path / "it.index")
    shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (64, 64), (255, 255, 0)).save(tmp_path / "photos" / "sun.png")
    manifest = build_index(tmp_path / "photos", tmp_path / "it.index", update=True).manifest
    assert (manifest.version, manifest.counts.images) == (2, 4)
    assert manifest.files.keys() >= TOWER_NAMES
    assert IndexStore.open(tmp_path / "it.index").verify().problems == []
    # Nothing but the option differs: that is an update too.
    manifest = build_index(tmp_path / "photos", tmp_path / "it.index", update=True, portable=False).manifest
    assert (manifest.version, manifest.reader_features) == (3, ("provenance", "words"))


def test_a_searcher_keeps_the_towers_of_its_version_when_that_is_vacuumed(
    portable: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(portable / "it.index", tmp_path / "it.index")
    with Searcher.open(tmp_path / "it.index") as searcher:
        build_index(photos, tmp_path / "it.index", update=True, portable=False)
        assert IndexStore.open(tmp_path / "it.index").vacuum(1) == [1]
        monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))
        assert len(searcher.text_to_image("red", k=3)) == 3
        assert searcher.encoder_note is None, "the tower is read for the first time after it was removed"


def test_a_tower_needs_an_encoder_that_has_one(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.eye(3, 4, dtype=np.float32))
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    files = EmbeddingFiles(vectors=tmp_path / "images.npy", ids=None, table=None)
    with pytest.raises(BuildError, match="the encoder is not known; leave --portable out"):
        build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "it.index", portable=True)


class TestTheFilesOfAPortableIndex:
    @pytest.fixture
    def index(self, portable: Path, tmp_path: Path) -> Path:
        return shutil.copytree(portable / "it.index", tmp_path / "it.index")

    def test_they_stand_in_the_manifest(self, index: Path) -> None:
        manifest = IndexStore.open(index).manifest()
        assert manifest.reader_features == ("provenance", "words", "text_tower", "image_tower")
        assert manifest.files.keys() >= TOWER_NAMES
        assert Manifest.from_json(manifest.to_json(), "manifest") == manifest
        rules = {rule.name: rule.outcome for rule in IndexStore.open(index).verify().structure}
        assert rules["fingerprint of the text tower against the encoder"] == "ok"

    @pytest.mark.parametrize("name", sorted(TOWER_NAMES))
    def test_damage_is_found_when_the_index_is_opened(self, index: Path, name: str) -> None:
        path = next((index / "versions").iterdir()) / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptIndexError, match="SHA-256"):
            Searcher.open(index)
        assert any(name in problem for problem in IndexStore.open(index).verify().problems)

    def test_the_tower_of_another_encoder_is_refused(self, index: Path) -> None:
        """What a forged index would hold: files that fit its manifest, and a tower of another encoder."""
        store = IndexStore.open(index)
        manifest = store.manifest()
        with store.lock():
            draft = store.draft()
            shutil.copytree(store.version_path(1), draft.path, dirs_exist_ok=True)
            (draft.path / "manifest.json").unlink()
            tower = draft.path / "text_tower" / "tower.json"
            tower.write_text(tower.read_text().replace(manifest.encoder.fingerprint, "0" * 64))  # type: ignore[union-attr]
            names = ("encoder", "encoding", "corpus", "collections", "counts", "build")
            store.publish(draft, **{name: getattr(manifest, name) for name in names})
        assert [problem for problem in store.verify().problems if "is that of the encoder 000" in problem]
        with Searcher.open(index) as searcher:
            try:
                searcher.text_to_image("a dog")
            except EncoderError:
                pytest.fail("the encoder itself is there")
            assert searcher.encoder_note is not None
            assert "damaged" in searcher.encoder_note
