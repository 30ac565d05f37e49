from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from searcher.originals import image_source, member_bytes
from searcher.render.thumbnails import thumbnail


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("./one.png", png("red")), ("deep/two.png", png("blue"))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_a_picture_in_a_shard_is_shown(shard: Path) -> None:
    source = image_source("a.tar/deep/two.png", shard.parent)
    assert source == png("blue")
    image = thumbnail(source, (8, 6)).image
    assert image is not None
    assert image.getpixel((2, 2)) == (0, 0, 255)
    assert image_source("a.tar/one.png", shard.parent) == png("red")


@pytest.mark.parametrize("name", ["link.png", "absent.png", "deep", "one.png/more"])
def test_what_is_no_picture_in_the_shard_has_no_bytes(shard: Path, name: str) -> None:
    assert member_bytes(shard / name, 1 << 20) is None


def test_a_member_above_the_limit_is_not_read(shard: Path) -> None:
    assert member_bytes(shard / "one.png", 10) is None


def test_a_shard_that_was_written_anew_is_read_anew(shard: Path) -> None:
    assert member_bytes(shard / "one.png", 1 << 20) == png("red")
    with tarfile.open(shard, "w") as archive:
        data = png("green")
        member = tarfile.TarInfo("one.png")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    os.utime(shard, ns=(1, 1))
    assert member_bytes(shard / "one.png", 1 << 20) == png("green")


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100])
def test_a_file_that_is_no_archive_has_no_members(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(data)
    assert member_bytes(path / "one.png", 1 << 20) is None


def test_a_path_out_of_the_corpus_names_nothing(shard: Path) -> None:
    assert image_source("../a.tar/one.png", shard.parent / "below") is None
    assert image_source("plain.png", shard.parent) == shard.parent / "plain.png"
