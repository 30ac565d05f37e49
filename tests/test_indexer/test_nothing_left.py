"""A command that fails before it has kept anything leaves nothing where nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder

from encoders import EncoderError
from indexer import BuildError, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource
from storage import IndexStore
from storage.errors import IndexLockedError, StorageError
from training.checkpoint import publish_folder


class Failing(ColourEncoder):
    """Raises an error once it has encoded so many images."""

    def __init__(self, error: BaseException, after: int = 0) -> None:
        super().__init__()
        self.error, self.after = error, after

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        if self.images_encoded >= self.after:
            raise self.error
        return super().encode_pixels(pixels)


@pytest.mark.parametrize("spec", ["ViT-B-32/no-such-tag", "local-dir:no-such-folder", "ViT-B-32/no-weights.pt"])
def test_an_encoder_that_cannot_be_loaded_leaves_no_folder(photos: Path, tmp_path: Path, spec: str) -> None:
    with pytest.raises(EncoderError):
        build_index(photos, tmp_path / "deep" / "out", encoder=spec)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_what_fails_before_a_shard_is_finished_leaves_no_folder(
    photos: Path, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        build_index(photos, tmp_path / "deep" / "out", encoder=Failing(error))
    assert not (tmp_path / "deep").exists()


def test_vectors_of_another_encoder_leave_no_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(16, dtype=np.float32))
    source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=tmp_path / "v.npy")))
    with pytest.raises(BuildError, match="48 dimensions"):
        build_index(source, tmp_path / "out", encoder=ColourEncoder())
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_the_user_stays_and_stays_empty(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(MemoryError):
        build_index(photos, tmp_path / "out", encoder=Failing(MemoryError()))
    assert list((tmp_path / "out").iterdir()) == []


def test_finished_shards_stay_for_the_next_build(photos: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"shard_cost": 8}
    with pytest.raises(MemoryError):
        build_index(photos, tmp_path / "out", encoder=Failing(MemoryError(), after=16), **settings)
    again = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=again, **settings)
    assert again.images_encoded < report.manifest.counts.images


def test_a_failed_build_leaves_a_version_that_was_there(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    with pytest.raises(EncoderError):
        build_index(photos, tmp_path / "out", encoder="ViT-B-32/no-such-tag")
    assert IndexStore.open(tmp_path / "out").current() == 1


def test_who_is_kept_out_by_the_lock_removes_nothing(tmp_path: Path) -> None:
    with IndexStore.building(tmp_path / "out") as store:
        with pytest.raises(IndexLockedError), IndexStore.building(tmp_path / "out"):
            pass
        assert store.draft().path.is_dir()


def test_a_lock_that_is_removed_while_it_is_waited_for_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    store = IndexStore.create(tmp_path / "out")
    take = fcntl.flock

    def removed_meanwhile(descriptor: int, how: int) -> None:
        (store.path / "LOCK").unlink()
        take(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(StorageError, match=r"cannot lock .*LOCK"), store.lock():
        pass


def test_a_folder_that_is_filled_in_part_is_removed(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_folder(tmp_path / "encoder", "encoder", write)
    assert list(tmp_path.iterdir()) == []
