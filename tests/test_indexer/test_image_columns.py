"""What image files say of themselves becomes columns, of any source, unless the user has such a column."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder
from stamped import TAKEN, exif, saved, xmp

from indexer import build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource
from storage import IndexStore
from storage.files.canonical_json import canonical
from storage.files.layout import sha256_of


def images(index: Path) -> dict[str, dict[str, Any]]:
    with IndexStore.open(index).open_version() as version:
        return {row["item_id"]: row for row in version.catalog.table("images").to_pylist()}


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A photograph that says what it is, and one that says nothing."""
    folder = tmp_path / "album"
    folder.mkdir()
    words = xmp(
        'xmp:Rating="4"', "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
    )
    (folder / "a.jpg").write_bytes(saved(exif=exif(), xmp=words))
    (folder / "b.png").write_bytes(saved("PNG", (10, 20, 200)))
    return folder


def forget(index: Path) -> None:
    """Make the current version one of a release that knew no such columns."""
    import duckdb

    store = IndexStore.open(index)
    folder = store.version_path(store.current() or 0)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    with duckdb.connect(str(folder / "catalog.duckdb")) as connection:
        for name in manifest["build"].pop("image_columns"):
            connection.execute(f"ALTER TABLE images DROP COLUMN {name}")
    data = (folder / "catalog.duckdb").read_bytes()
    manifest["files"]["catalog.duckdb"] = {"bytes": len(data), "sha256": sha256_of(data)}
    del manifest["checksum"]
    written = canonical({**manifest, "checksum": sha256_of(canonical(manifest))})
    (folder / "manifest.json").write_bytes(written)
    (index / "CURRENT").write_text(f"{folder.name} {sha256_of(written)}\n")


def test_a_folder_gives_columns_that_hold_what_the_files_say(album: Path, tmp_path: Path) -> None:
    build_index(album, tmp_path / "i", encoder=ColourEncoder())
    rows = images(tmp_path / "i")
    assert (rows["a.jpg"]["taken_at"], rows["a.jpg"]["taken_at_offset"]) == (TAKEN, 120)
    assert (rows["a.jpg"]["rating"], rows["a.jpg"]["keywords"]) == (4, ["dog", "snow"])
    assert rows["b.png"]["taken_at"] is rows["b.png"]["keywords"] is None
    with IndexStore.open(tmp_path / "i").open_version() as version:
        kinds = dict(version.catalog.columns("images"))
        assert (kinds["taken_at"], kinds["latitude"], kinds["keywords"]) == ("TIMESTAMP", "DOUBLE", "VARCHAR[]")
        found = version.catalog.filter_rows("images", "list_contains(keywords, 'dog') AND taken_at > DATE '2024-06-01'")
        assert found.tolist() == [0]


def test_images_within_archives_and_tables_say_the_same(album: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(album.iterdir()):
            archive.add(path, path.name)
    data = [path.read_bytes() for path in sorted(album.iterdir())]
    pq.write_table(pa.table({"image": data, "shop": ["x", "y"]}), tmp_path / "t.parquet")
    for source in ("shard.tar", "t.parquet"):
        build_index(tmp_path / source, tmp_path / f"{source}.index", encoder=ColourEncoder())
        taken = [row["taken_at"] for row in images(tmp_path / f"{source}.index").values()]
        assert taken == [TAKEN, None]


def test_columns_of_the_user_count_for_more_than_those_of_files(album: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,Rating,taken_at,reason\nalbum/a.jpg,fine,once,because\nalbum/b.png,bad,never,so\n")
    report = build_index(table, tmp_path / "i", encoder=ColourEncoder())
    assert any("rating, taken_at: the corpus has its own" in note for note in report.notes)
    row = images(tmp_path / "i")["album/a.jpg"]
    assert (row["Rating"], row["taken_at"], row["reason"], row["camera"]) == ("fine", "once", "because", "NIKON D750")
    assert "rating" not in row
    encoder = ColourEncoder()
    assert not build_index(table, tmp_path / "i", encoder=encoder, update=True).published
    # Where they go, the files count again, and nothing is encoded for it.
    table.write_text("image\nalbum/a.jpg\nalbum/b.png\n")
    report = build_index(table, tmp_path / "i", encoder=encoder, update=True)
    row = images(tmp_path / "i")["album/a.jpg"]
    assert (row["rating"], row["taken_at"], encoder.images_encoded) == (4, TAKEN, 0)
    assert report.manifest.build["changes"]["images"]["relabelled"] == 2


def test_an_update_of_an_older_index_fills_them_once_and_encodes_nothing(album: Path, tmp_path: Path) -> None:
    build_index(album, tmp_path / "i", encoder=ColourEncoder())
    before = images(tmp_path / "i")
    forget(tmp_path / "i")
    assert "taken_at" not in images(tmp_path / "i")["a.jpg"]
    encoder = ColourEncoder()
    report = build_index(album, tmp_path / "i", encoder=encoder, update=True)
    assert (report.published, encoder.images_encoded) == (True, 0)
    changes = report.manifest.build["changes"]["images"]
    assert (changes["kept"], changes["relabelled"]) == (2, 0)
    assert images(tmp_path / "i") == before
    assert not build_index(album, tmp_path / "i", encoder=encoder, update=True).published


def test_ready_made_vectors_take_places_and_dates_from_their_table(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, 4, dtype=np.float32))
    (tmp_path / "t.csv").write_text(
        "uri,title,latitude,longitude,taken_at\n"
        "a.jpg,one,48.2,16.4,2024-06-02\nb.jpg,two,-33.9,151.2,2024-07-01\nc.jpg,three,,,\n"
    )
    files = EmbeddingFiles(vectors=tmp_path / "v.npy", table=tmp_path / "t.csv")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), tmp_path / "i")
    with IndexStore.open(tmp_path / "i").open_version() as version:
        where = "taken_at >= DATE '2024-06-01' AND within_km(latitude, longitude, 48.2, 16.4, 5)"
        assert version.catalog.filter_rows("images", where).tolist() == [0]
        assert [row["title"] for row in version.catalog.table("images").to_pylist()] == ["one", "two", "three"]


def test_keywords_are_words_that_images_are_found_by(album: Path, tmp_path: Path) -> None:
    build_index(album, tmp_path / "i", encoder=ColourEncoder(), words_columns=("keywords", "camera"))
    with IndexStore.open(tmp_path / "i").open_version() as version:
        words = version.words("images")
        assert words is not None
        assert [words.search(text).rows.tolist() for text in ("snow", "D750", "beach")] == [[0], [0], []]


def test_an_update_takes_what_is_known_of_unchanged_images(album: Path, tmp_path: Path) -> None:
    build_index(album, tmp_path / "i", encoder=ColourEncoder())
    (album / "c.png").write_bytes(saved("PNG", (0, 90, 0)))
    encoder = ColourEncoder()
    build_index(album, tmp_path / "i", encoder=encoder, update=True)
    row = images(tmp_path / "i")["a.jpg"]
    assert (row["keywords"], row["taken_at"], encoder.images_encoded) == (["dog", "snow"], TAKEN, 1)
