"""Patterns that name several files, below folders that are called like patterns themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.corpus.file_pattern import matching_files
from indexer.corpus.webdataset.shard import find_shards, is_shard_pattern
from indexer.errors import SourceError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def fitting(root: Path, pattern: str) -> list[str]:
    base, files = matching_files(root / pattern, "shard")
    assert all(path.is_relative_to(base) for path in files)
    return [path.relative_to(root).as_posix() for path in files]


@pytest.mark.parametrize("folder", ["set [2020]", "a{b}c", "what?", "{0..3}", "2*3"])
@pytest.mark.parametrize("pattern", ["*.tar", "{000..001}.tar", "00?.tar", "00[01].tar"])
def test_a_folder_that_is_called_like_a_pattern_is_taken_by_its_name(tmp_path: Path, folder: str, pattern: str) -> None:
    touch(tmp_path, f"{folder}/000.tar", f"{folder}/001.tar", "2/000.tar", "203/000.tar")
    assert fitting(tmp_path, f"{folder}/{pattern}") == [f"{folder}/000.tar", f"{folder}/001.tar"]


def test_a_file_that_is_called_like_a_pattern_is_taken_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "x[1].tar", "x1.tar", "{a,b}.tar", "a.tar", "b.tar")
    for name in ("x[1].tar", "{a,b}.tar"):
        assert not is_shard_pattern(tmp_path / name)
        assert find_shards(tmp_path / name) == (tmp_path, [tmp_path / name])


def test_a_name_wins_in_the_middle_of_a_pattern_too(tmp_path: Path) -> None:
    touch(tmp_path, "a/x[1]/0.tar", "a/x1/0.tar", "b/x1/0.tar")
    assert fitting(tmp_path, "*/x[1]/*.tar") == ["a/x[1]/0.tar", "b/x1/0.tar"]


def test_files_come_in_the_order_of_the_braces_each_once(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.tar", "b/0.tar", "a/0.tar")
    assert fitting(tmp_path, "{b,a,b}/*.tar") == ["b/0.tar", "b/1.tar", "a/0.tar"]
    assert fitting(tmp_path, "{b/1,a/0}.tar") == ["b/1.tar", "a/0.tar"]


def test_two_stars_go_into_every_folder(tmp_path: Path) -> None:
    touch(tmp_path, "0.tar", "a/1.tar", "a/b/2.tar", "a/b/3.txt")
    assert fitting(tmp_path, "**/*.tar") == ["0.tar", "a/1.tar", "a/b/2.tar"]


def test_hidden_files_and_folders_do_not_fit_a_wildcard(tmp_path: Path) -> None:
    touch(tmp_path, "0.tar", "._0.tar", ".x/1.tar")
    assert fitting(tmp_path, "*.tar") == ["0.tar"]
    with pytest.raises(SourceError, match="no shard fits"):
        fitting(tmp_path, "*/1.tar")


def test_shards_are_excluded_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "0.tar", "1.tar", "sub/2.tar")
    assert find_shards(tmp_path, ("1.*",))[1] == [tmp_path / "0.tar"]
    assert find_shards(tmp_path / "*.tar", ("0.*",))[1] == [tmp_path / "1.tar"]
    with pytest.raises(SourceError, match=r"2 \.tar files, all hidden or excluded"):
        find_shards(tmp_path / "{0,1}.tar", ("*",))


def test_a_name_that_is_too_long_for_any_file_fits_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no shard fits"):
        fitting(tmp_path, "x" * 300 + "*.tar")
