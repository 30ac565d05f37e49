"""An update knows moved content again, and does not mistake files that have swapped their names."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from storage import IndexStore

TIME = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two BMP files of one size and one modification time: only their pixels differ."""
    for name, colour in (("a", "red"), ("b", "blue")):
        os.utime(paint(tmp_path / "pair" / f"{name}.bmp", colour), TIME)
    return tmp_path / "pair"


def swap(left: Path, right: Path) -> None:
    left.rename(left.with_name("t"))
    right.rename(left)
    left.with_name("t").rename(right)


def redness(out: Path) -> dict[str, float]:
    """What each image's vector has of red less blue; the encoder's features are mean colours."""
    with IndexStore.open(out).open_version() as version:
        table = version.vectors("images")
        rows = np.arange(table.rows)
        vectors = table.gather(rows).reshape(len(rows), -1, 3).mean(axis=1)
        return dict(zip(table.item_ids(rows), (vectors[:, 0] - vectors[:, 2]).tolist(), strict=True))


def test_a_renamed_folder_is_not_encoded_anew(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    before = redness(tmp_path / "out")
    (photos / "red").rename(photos / "crimson")
    encoder = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=encoder, update=True)
    assert encoder.images_encoded + encoder.texts_encoded == 0
    assert report.changes is not None
    assert {name: (one["moved"], one["kept"]) for name, one in report.changes.items()} == {
        "images": (5, 35),
        "texts": (10, 70),
    }
    assert redness(tmp_path / "out") == {name.replace("red/", "crimson/"): value for name, value in before.items()}


def test_a_moved_corpus_is_not_decoded_either(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    photos.rename(tmp_path / "elsewhere")
    monkeypatch.delattr("PIL.Image.open")
    report = build_index(tmp_path / "elsewhere", tmp_path / "out", encoder=ColourEncoder(), update=True)
    assert report.manifest.counts.images == 40
    assert report.manifest.corpus is not None
    assert report.manifest.corpus.root == str(tmp_path / "elsewhere")


def test_images_that_went_into_an_archive_are_known_again(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.add(path, path.name)
            archive.add(path.with_suffix(".txt"), f"{path.stem}.txt")
    encoder = ColourEncoder()
    build_index(tmp_path / "shard.tar", tmp_path / "out", encoder=encoder, update=True, allow_shrink=True)
    assert encoder.images_encoded == 0
    assert IndexStore.open(tmp_path / "out").manifest().counts.images == 40


def test_two_equal_files_that_swapped_their_names_keep_their_own_vectors(pair: Path, tmp_path: Path) -> None:
    build_index(pair, tmp_path / "out", encoder=ColourEncoder())
    swap(pair / "a.bmp", pair / "b.bmp")
    encoder = ColourEncoder()
    report = build_index(pair, tmp_path / "out", encoder=encoder, update=True)
    assert (report.published, encoder.images_encoded) == (True, 0)
    found = redness(tmp_path / "out")
    assert found["a.bmp"] < -0.1 < 0.1 < found["b.bmp"]


def test_a_file_written_over_with_its_old_time_is_read_again(pair: Path, tmp_path: Path) -> None:
    build_index(pair, tmp_path / "out", encoder=ColourEncoder())
    os.utime(paint(pair / "a.bmp", "blue", noise=5), TIME)
    encoder = ColourEncoder()
    build_index(pair, tmp_path / "out", encoder=encoder, update=True)
    assert encoder.images_encoded == 1
    assert redness(tmp_path / "out")["a.bmp"] < -0.1


def test_two_archives_that_swapped_their_names(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name, colour in (("0", "red"), ("1", "blue")):
        paint(tmp_path / f"{colour}.bmp", colour)
        with tarfile.open(tmp_path / "shards" / f"{name}.tar", "w") as archive:
            archive.add(tmp_path / f"{colour}.bmp", "x.bmp")
        os.utime(tmp_path / "shards" / f"{name}.tar", TIME)
    build_index(tmp_path / "shards", tmp_path / "out", encoder=ColourEncoder())
    before = redness(tmp_path / "out")
    swap(tmp_path / "shards" / "0.tar", tmp_path / "shards" / "1.tar")
    encoder = ColourEncoder()
    build_index(tmp_path / "shards", tmp_path / "out", encoder=encoder, update=True)
    after = redness(tmp_path / "out")
    assert encoder.images_encoded == 0
    assert list(after) == list(before)
    assert list(after.values()) == list(before.values())[::-1]


def test_a_build_that_goes_on_encodes_swapped_files_again(pair: Path, tmp_path: Path) -> None:
    class Stopped(ColourEncoder):
        def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
            if self.images_encoded:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        build_index(pair, tmp_path / "out", encoder=Stopped(), shard_cost=1, batch_size=1)
    swap(pair / "a.bmp", pair / "b.bmp")
    build_index(pair, tmp_path / "out", encoder=ColourEncoder(), shard_cost=1, batch_size=1)
    found = redness(tmp_path / "out")
    assert found["a.bmp"] < -0.1 < 0.1 < found["b.bmp"]


def test_new_rights_cost_a_look_at_the_bytes_and_no_encoding(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    for path in photos.rglob("*.png"):
        path.chmod(0o600)
    encoder = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=encoder, update=True)
    assert encoder.images_encoded == 0
    assert report.changes is not None
    assert report.changes["images"]["kept"] == 40
    assert not build_index(photos, tmp_path / "out", encoder=encoder, update=True).published


def test_narrower_limits_hold_for_images_that_are_known(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    paint(photos / "large.png", "red", size=(200, 200))
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), update=True)
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder(), update=True, max_pixels=10_000)
    assert report.rejected == {"too_many_pixels": 1}
    assert report.manifest.counts.images == 40
