from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import CorruptIndexError, StorageError
from storage.files import atomic
from storage.files.layout import (
    check,
    file_names,
    measure,
    number_in,
    open_regular,
    unexpected_files,
    version_name,
    version_number,
)


@given(number=st.integers(1, 99_999_999))
def test_the_name_of_a_version_is_its_number(number: int) -> None:
    assert version_number(version_name(number)) == number
    assert number_in(f".draft-{version_name(number)}") == number
    assert number_in(f".trash-{version_name(number)}") == number


@pytest.mark.parametrize("name", ["", "1", "00000000", "000000001", "0000001x", ".draft-00000001", "0000000١", "notes"])
def test_no_other_name_is_a_version(name: str) -> None:
    assert version_number(name) is None


@pytest.mark.parametrize("name", ["notes", ".draft-", ".draft-1", "000000001"])
def test_a_name_without_a_number_mentions_none(name: str) -> None:
    assert number_in(name) == 0


def test_a_file_is_measured_and_compared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"hello")
    entry = measure(tmp_path, "a/b", from_disk=True)
    assert (entry.bytes, entry.sha256[:8]) == (5, "2cf24dba")
    check(tmp_path, "a/b", entry, "full")
    (tmp_path / "a" / "b").write_bytes(b"hallo")
    check(tmp_path, "a/b", entry, "size")
    with pytest.raises(CorruptIndexError, match=r"a/b has SHA-256 .* and the manifest says 2cf24dba"):
        check(tmp_path, "a/b", entry, "full")


def test_a_folder_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(CorruptIndexError, match="a is not a regular file"):
        open_regular(tmp_path, "a")


def test_stray_files_are_found_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("a", "b", ".hidden"):
        (tmp_path / name).touch()
    assert file_names(tmp_path) == {"a", "b", ".hidden"}
    assert unexpected_files(tmp_path, {"a"}) == ["b"]


def test_an_operating_system_error_names_action_path_reason_and_next_step(tmp_path: Path) -> None:
    path = tmp_path / "x"
    message = r"cannot read .*x: No such file or directory; fix that and run"
    with pytest.raises(StorageError, match=message), atomic.explained("read", path):
        path.read_bytes()
    message = r"cannot try .*x: Read-only file system; the file system is read-only"
    with pytest.raises(StorageError, match=message), atomic.explained("try", path):
        raise OSError(30, "Read-only file system")
    with pytest.raises(StorageError, match=r"cannot try .*x: no reason; fix"), atomic.explained("try", path):
        raise OSError("no reason")
