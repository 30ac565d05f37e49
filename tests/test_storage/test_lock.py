from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage import IndexStore
from storage.errors import IndexLockedError, StorageError

HOLD = """
import sys
from storage import IndexStore
with IndexStore.open(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def empty(tmp_path: Path) -> IndexStore:
    return IndexStore.create(tmp_path / "index")


def holder(path: Path, home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=home, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_builder_is_told_who_holds_the_lock_until_that_one_dies(empty: IndexStore, home: Path) -> None:
    with holder(empty.path, home) as process:
        message = rf"is being built by process {process.pid} on {socket.gethostname()} since 20\d\d-.*; wait until"
        with pytest.raises(IndexLockedError, match=message), empty.lock():
            pass
        with pytest.raises(IndexLockedError, match=message):
            empty.vacuum()
        process.kill()
    with empty.lock():
        pass


def test_two_stores_of_one_process_exclude_each_other(empty: IndexStore) -> None:
    other = IndexStore.open(empty.path)
    with empty.lock(), pytest.raises(IndexLockedError, match=f"process {os.getpid()} on"), other.lock():
        pass
    with other.lock():
        pass


def test_the_holder_may_take_it_again(empty: IndexStore) -> None:
    with empty.lock():
        with empty.lock():
            empty.drop_staging()
        assert empty.draft().number == 1
    with pytest.raises(StorageError, match="without its lock"):
        empty.draft()


def test_another_thread_with_the_same_store_is_kept_out(empty: IndexStore) -> None:
    errors: list[Exception] = []

    def try_it() -> None:
        try:
            empty.vacuum()
        except IndexLockedError as error:
            errors.append(error)

    with empty.lock():
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert "is being built by another thread" in str(errors[0])


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"null"])
def test_a_lock_file_without_a_holder_still_locks(empty: IndexStore, content: bytes) -> None:
    with empty.lock():
        (empty.path / "LOCK").write_bytes(content)
        with pytest.raises(IndexLockedError, match="is being built by another process"):
            IndexStore.open(empty.path).vacuum()


def test_a_lock_that_cannot_be_opened_is_named(empty: IndexStore, tmp_path: Path) -> None:
    (empty.path / "LOCK").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"cannot lock .*LOCK"), empty.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_cannot_be_written_is_let_go(empty: IndexStore) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot lock .*LOCK: File too large"), empty.lock():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with IndexStore.open(empty.path).lock():
        pass


def test_readers_take_no_lock(store: IndexStore) -> None:
    with store.lock():
        IndexStore.open(store.path).open_version().close()
