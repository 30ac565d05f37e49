"""Whatever step a process dies at, a reader sees the old version or the new one, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_index import publish, rows_found

from storage import IndexStore
from storage.errors import PublishStateUnknownError, StorageError
from storage.files import atomic

SCRIPT = Path(__file__).parents[1] / "support" / "crash_points.py"


def crash_at_every_step(operation: str, index: Path, folder: Path) -> dict[Path, str]:
    """Return the copies of the index that the killed processes left, each with the step it died at."""
    folder.mkdir()
    command = [sys.executable, str(SCRIPT), operation, str(index), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {folder / str(number): name for number, name in enumerate(done.stdout.split())}


def test_a_killed_publish_leaves_the_old_version_or_the_new_one(index: Path, tmp_path: Path) -> None:
    left = crash_at_every_step("publish", index, tmp_path / "crashed")
    assert len(left) >= 20
    found = {name: rows_found(path) for path, name in left.items()}
    assert list(found.values()) == sorted(found.values()), "once the new version is there it stays"
    assert (found["version.directory_synced"], found["current.replaced"]) == (6, 7)
    for path, name in left.items():
        store = IndexStore.open(path)
        before = store.versions()
        assert publish(store, 9).version > max(before), name
        assert [entry.name for entry in (path / "versions").iterdir() if entry.name.startswith(".")] == [], name


def test_a_killed_rollback_leaves_either_version_current(index: Path, tmp_path: Path) -> None:
    left = crash_at_every_step("rollback", index, tmp_path / "crashed")
    assert {rows_found(path) for path in left} == {5, 6}


def test_a_killed_vacuum_never_leaves_half_a_version(index: Path, tmp_path: Path) -> None:
    for path in crash_at_every_step("vacuum", index, tmp_path / "crashed"):
        store = IndexStore.open(path)
        assert rows_found(path) == 6
        for number in store.versions():
            assert store.verify(number).ok
        store.vacuum(1)
        assert [entry.name for entry in (path / "versions").iterdir()] == ["00000002"]


def test_a_shard_is_there_whole_or_not_at_all_after_a_kill(index: Path, tmp_path: Path) -> None:
    for path, name in crash_at_every_step("stage", index, tmp_path / "crashed").items():
        staging = IndexStore.open(path).staging("abc")
        if staging.has(1):
            assert staging.read(1).to_pydict() == {"x": [1, 2, 3]}
        assert staging.has(1) == (name in {"shard.replaced", "shard.syncing_directory", "shard.directory_synced"})


def fail_at(step: str) -> None:
    def hook(name: str) -> None:
        if name == step:
            raise OSError(28, "No space left on device")

    atomic.hook = hook


STEPS = (
    "vectors.written",
    "catalog.written",
    "images/vectors.arrow.synced",
    "draft.read_back",
    "manifest.written",
    "draft.synced",
    "current.opened",
    "current.written",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_any_step_keeps_the_old_version(store: IndexStore, step: str, no_hook: None) -> None:
    fail_at(step)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        publish(store, 7)
    atomic.hook = None
    assert rows_found(store.path) == 6
    publish(store, 8)
    assert rows_found(store.path) == 8


def test_when_only_the_final_sync_fails_the_error_says_that_the_state_is_unknown(
    store: IndexStore, no_hook: None
) -> None:
    fail_at("current.syncing_directory")
    with pytest.raises(PublishStateUnknownError, match=r"version 3 of .* is current, but the last fsync failed"):
        publish(store, 7)
    assert rows_found(store.path) == 7
