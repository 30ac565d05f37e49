"""An index written before the manifest had `encoding` and `corpus` is searched, updated and repaired as before."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from colour import ColourEncoder

from indexer import build_index
from indexer.repair import repair_index
from searcher import Searcher
from storage import IndexStore
from storage.files.canonical_json import canonical
from storage.files.layout import sha256_of
from storage.schema import LATER_COLUMNS

PROMPT = "a photo of {}"


def write_as_before(index: Path) -> None:
    """Write the current manifest anew as releases without the feature `provenance` did, with CURRENT to fit."""
    store = IndexStore.open(index)
    path = store.version_path(store.current() or 0) / "manifest.json"
    plain = json.loads(path.read_bytes())
    encoding, corpus = plain.pop("encoding"), plain.pop("corpus")
    assert plain["build"]["config"]["prompt"] == encoding["prompt"]
    plain["build"] |= {"root": corpus["root"], "corpus_digest": corpus["digest"], "staging": corpus["staging"]}
    for name in [name for name in plain["files"] if name.endswith("words.safetensors")]:
        del plain["files"][name]
        (path.parent / name).unlink()
    plain = {name: value for name, value in plain.items() if name != "checksum"} | {"reader_features": []}
    drop_later_columns(path.parent / "catalog.duckdb")
    plain["files"]["catalog.duckdb"] = {
        "bytes": (path.parent / "catalog.duckdb").stat().st_size,
        "sha256": sha256_of((path.parent / "catalog.duckdb").read_bytes()),
    }
    data = canonical({**plain, "checksum": sha256_of(canonical(plain))})
    path.write_bytes(data)
    (index / "CURRENT").write_text(f"{path.parent.name} {sha256_of(data)}\n")


def drop_later_columns(catalog: Path) -> None:
    with duckdb.connect(str(catalog)) as connection:
        for name in LATER_COLUMNS:
            connection.execute(f"ALTER TABLE images DROP COLUMN {name}")


@pytest.fixture
def older(photos: Path, tmp_path: Path) -> Path:
    index = tmp_path / "older.index"
    build_index(photos, index, encoder=ColourEncoder(), prompt=PROMPT)
    write_as_before(index)
    return index


def answers(index: Path) -> list[tuple[str, float]]:
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        return [(hit.item_id, hit.score) for hit in searcher.text_to_text("something red", k=5)]


def test_its_manifest_has_what_a_new_one_has(older: Path, photos: Path, tmp_path: Path) -> None:
    new = build_index(photos, tmp_path / "new.index", encoder=ColourEncoder(), prompt=PROMPT).manifest
    manifest = IndexStore.open(older).manifest()
    assert manifest.reader_features == ()
    assert manifest.corpus == new.corpus
    assert manifest.encoding.prompt == PROMPT
    assert (new.encoding.device, new.encoding.precision) == ("cpu", "fp32")
    # What `auto` had come to was not written down.
    assert (manifest.encoding.device, manifest.encoding.precision) == (None, None)


def test_it_answers_as_a_new_one(older: Path, photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "new.index", encoder=ColourEncoder(), prompt=PROMPT)
    assert answers(older) == answers(tmp_path / "new.index")
    assert answers(older)[0][1] == pytest.approx(1, abs=1e-3)


def test_an_update_without_changes_adds_the_lexical_index_once_and_encodes_nothing(older: Path, photos: Path) -> None:
    encoder = ColourEncoder()
    report = build_index(photos, older, encoder=encoder, update=True)
    assert report.published
    assert report.manifest.has_words
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 0)
    assert not build_index(photos, older, encoder=ColourEncoder(), update=True).published


def test_an_update_reads_files_again_for_columns_that_came_later(older: Path, photos: Path, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    changes = build_index(photos, older, encoder=encoder, update=True).manifest.build["changes"]
    assert encoder.images_encoded == 0
    assert changes["images"]["kept"]
    assert not changes["images"]["relabelled"]
    build_index(photos, tmp_path / "new.index", encoder=ColourEncoder(), prompt=PROMPT)
    tables = []
    for index in (older, tmp_path / "new.index"):
        with IndexStore.open(index).open_version() as version:
            tables.append(version.catalog.table("images"))
    assert tables[0].equals(tables[1])


def test_an_update_encodes_what_changed_alone_and_writes_the_new_form(older: Path, photos: Path) -> None:
    (photos / "red" / "0000.txt").write_text("another red thing\n", encoding="utf-8")
    encoder = ColourEncoder()
    report = build_index(photos, older, encoder=encoder, update=True)
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 1)
    assert report.manifest.reader_features == ("provenance", "words")
    assert report.manifest.encoding.prompt == PROMPT
    assert IndexStore.open(older).verify().ok


def test_a_build_that_was_killed_while_it_tidied_up_is_still_known(older: Path, photos: Path) -> None:
    store = IndexStore.open(older)
    corpus = store.manifest().corpus
    assert corpus is not None
    assert corpus.staging is not None
    store.staging(corpus.staging)
    report = build_index(photos, older, encoder=ColourEncoder(), prompt=PROMPT)
    assert not report.published
    assert not store.is_staged(corpus.staging)


def test_a_repair_writes_what_it_knew_in_the_new_form(older: Path) -> None:
    store = IndexStore.open(older)
    before = store.manifest()
    (store.version_path(1) / "left-over.tmp").write_bytes(b"x")
    assert repair_index(older).published == 2
    after = store.manifest()
    assert (after.encoding, after.corpus) == (before.encoding, before.corpus)
    assert after.reader_features == ("provenance",)
