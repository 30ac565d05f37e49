"""Webdataset tar shards: what they give, and what hostile archives cannot do."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import BuildError, build_index
from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.corpus.webdataset import tar_file
from indexer.corpus.webdataset.shard import find_shards
from indexer.errors import SourceError
from storage import IndexStore
from twinlens.commands.build import build

Members = list[tuple[str | tarfile.TarInfo, bytes]]


def write_tar(path: Path, members: Members, format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name: bytes = b"a.jpg", size: bytes = b"00000000003\0", kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[124:136], block[156:157] = b"0000644\0", size, kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def entries(corpus: Path, **options: object) -> list[Item | Rejection]:
    return list(open_source(corpus, SourceOptions(**options)).items())


def items(corpus: Path, **options: object) -> dict[str, Item]:
    return {entry.item_id: entry for entry in entries(corpus, **options) if isinstance(entry, Item)}


def rejections(corpus: Path) -> list[tuple[str, str]]:
    return [(entry.item_id, entry.reason) for entry in entries(corpus) if isinstance(entry, Rejection)]


def png(colour: str, noise: int, folder: Path) -> bytes:
    return paint(folder / "one.png", colour, noise=noise).read_bytes()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of ten samples, each with a caption and metadata."""
    folder = tmp_path / "shards"
    for shard in range(2):
        members: Members = []
        for number in range(10):
            colour = ("red", "green", "blue")[number % 3]
            key = f"{shard}{number:04}"
            members += [(f"{key}.json", json.dumps({"width": number, "lang": "en"}).encode())]
            members += [(f"{key}.png", png(colour, shard * 10 + number, tmp_path))]
            members += [(f"{key}.txt", f"a {colour} square {key}".encode())]
        write_tar(folder / f"{shard:05}.tar", members)
    return folder


def test_a_sample_is_its_members_of_one_key(tmp_path: Path) -> None:
    meta = b'{"year": 1999, "width": 4}'
    path = write_tar(tmp_path / "s.tar", [("000.jpg", b"\xff\xd8"), ("000.txt", b"a dog\n\na cat"), ("000.json", meta)])
    image, first, second = entries(path)
    assert isinstance(image, Item)
    assert (image.item_id, image.uri) == ("s/000", "s.tar/000.jpg")
    assert image.metadata == {"year": 1999, "width_meta": 4}
    assert isinstance(second, Item)
    assert (first.item_id, second.item_id) == ("s/000#0", "s/000#1")
    assert (second.content, second.image_ids, second.uri) == ("a cat", ("s/000",), "s.tar/000.txt")


def test_bytes_are_read_in_place_by_offset(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"first"), ("b.jpg", b"second" * 500)])
    a, b = (item.content for item in items(path).values())
    assert isinstance(b, tar_file.TarMember)
    assert isinstance(a, tar_file.TarMember)
    assert (a.read(10), b.read(10_000)) == (b"first", b"second" * 500)
    assert path.read_bytes()[b.offset :].startswith(b"second")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_tar_format_are_whole(tmp_path: Path, format: int) -> None:
    folder = "/".join(["part" * 10] * 3)
    path = write_tar(tmp_path / "s.tar", [(f"{folder}/key.jpg", b"x"), ("b.jpg", b"y")], format)
    assert list(items(path)) == [f"s/{folder}/key", "s/b"]


def test_names_may_start_here_and_use_every_script(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("./a.jpg", b"x"), ("./犬/b.jpg", b"y")])
    assert list(items(path)) == ["s/a", "s/犬/b"]


def test_members_of_a_key_need_not_stand_together(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.txt", b"one"), ("b.jpg", b"x"), ("a.jpg", b"y"), ("b.txt", b"two")])
    assert [entry.item_id for entry in entries(path)] == ["s/a", "s/a#0", "s/b", "s/b#0"]


def test_images_without_text_and_texts_without_image_are_indexed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("b.txt", b"lonely words")])
    found = items(path)
    assert [(key, item.collection, item.image_ids) for key, item in found.items()] == [
        ("s/a", "images", ()),
        ("s/b#0", "texts", ()),
    ]


def test_several_images_of_a_key_are_numbered(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.left.jpg", b"x"), ("a.right.jpg", b"y"), ("a.txt", b"both")])
    *images, text = entries(path)
    assert [image.item_id for image in images] == ["s/a#0", "s/a#1"]
    assert isinstance(text, Item)
    assert (text.collection, text.item_id, text.image_ids) == ("texts", "s/a#0", ("s/a#0", "s/a#1"))


def test_captions_may_stand_in_the_json(tmp_path: Path) -> None:
    rows = [("a.jpg", b"x"), ("a.json", b'{"caption": "a dog", "alt": ["one", "two"]}')]
    path = write_tar(tmp_path / "s.tar", rows)
    assert items(path)["s/a#0"].content == "a dog"
    assert [item.content for item in items(path, text="alt").values()][1:] == ["one", "two"]
    assert items(path, text="alt", metadata=())["s/a"].metadata == {}


def test_a_split_of_the_json_is_picked(tmp_path: Path) -> None:
    rows = [
        (f"{n}.{kind}", data)
        for n, split in enumerate(("train", "test"))
        for kind, data in (("jpg", b"x"), ("json", json.dumps({"split": split}).encode()))
    ]
    path = write_tar(tmp_path / "s.tar", rows)
    assert [(item.item_id, item.split) for item in items(path, splits=("test",)).values()] == [("s/1", "test")]
    with pytest.raises(SourceError, match=r"no samples of split 'dev'; its splits: train \(1\), test \(1\)"):
        entries(path, splits=("dev",))


def test_a_json_that_cannot_be_read_is_counted_and_its_image_kept(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("a.json", b"{not json"), ("b.json", b'{"n": 1}')])
    assert rejections(path) == [("s.tar/a.json", "not_json"), ("s/b", "missing_value")]
    assert list(items(path)) == ["s/a"]


@pytest.mark.parametrize(
    ("text", "reason"), [(b" \n", "empty_text"), (b"caf\xe9", "not_utf8"), (b"x" * 2**21, "too_large")]
)
def test_a_text_without_words_is_a_rejection(tmp_path: Path, text: bytes, reason: str) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("a.txt", text)])
    assert [why for _, why in rejections(path)] == [reason]
    assert list(items(path)) == ["s/a"]


def test_other_members_are_counted_in_a_note(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("a.cls", b"1"), ("._a.jpg", b"mac"), ("README", b"")])
    assert "passed over 3 members" in open_source(path).notes[0]


# --- which shards


def test_a_folder_a_range_a_list_and_a_glob_name_the_same_shards(shards: Path) -> None:
    whole = list(items(shards))
    assert whole[0] == "00000/00000"
    assert len(whole) == 40
    for pattern in ("{00000..00001}.tar", "{00000,00001}.tar", "*.tar", "0000?.tar", "0000[01].tar"):
        assert list(items(shards / pattern)) == whole


def test_a_pattern_over_folders_keeps_the_folders_in_the_ids(tmp_path: Path) -> None:
    for part in "ab":
        write_tar(tmp_path / part / "0.tar", [("k.jpg", b"x")])
    assert list(items(tmp_path / "{a,b}" / "0.tar")) == ["a/0/k", "b/0/k"]


def test_ids_do_not_depend_on_where_the_shards_lie(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [(item.item_id, item.uri) for item in items(shards).values()]
    shards.rename(shards.parent / "moved")
    monkeypatch.chdir(shards.parent / "moved")
    assert [(item.item_id, item.uri) for item in items(Path("{00000..00001}.tar")).values()] == before


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{00000..00002}.tar", "there is no shard"),
        ("x*.tar", "no shard fits"),
        ("{3..1}.tar", "is empty or too long"),
        ("{0..999999999}.tar", "is empty or too long"),
        ("{abc}.tar", "no range like"),
        ("{00..99}{00..99}{00..99}.tar", "names 1000000 files"),
    ],
)
def test_a_pattern_that_names_nothing_says_why(shards: Path, pattern: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        find_shards(shards / pattern)


def test_a_compressed_archive_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"is compressed.*unpack it to \.tar"):
        open_source(tmp_path / "s.tar.gz")
    (tmp_path / "s.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(SourceError, match="compressed archive is to be unpacked"):
        open_source(tmp_path / "s.tar")


def test_a_folder_of_pictures_with_an_archive_beside_them_stays_one(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    write_tar(tmp_path / "backup.tar", [("old.jpg", b"x")])
    assert list(items(tmp_path)) == ["a.png"]
    assert list(items(tmp_path, layout="webdataset")) == ["backup/old"]


def test_columns_that_a_webdataset_cannot_have_are_refused(shards: Path) -> None:
    for options in ({"image": "url"}, {"id": "key"}, {"delimiter": ";"}):
        with pytest.raises(SourceError, match="a webdataset has no"):
            open_source(shards, SourceOptions(**options))


# --- hostile archives

HOSTILE_NAMES = [
    "/etc/passwd.jpg",
    "../up.jpg",
    "a/../../up.jpg",
    "a\\..\\b.jpg",
    "..\\x.jpg",
    "x" * 1001 + ".jpg",
    "//host/share.jpg",
    "a/..",
    "/..",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_name_that_leaves_the_archive_is_a_rejection(tmp_path: Path, name: str, format: int) -> None:
    path = write_tar(tmp_path / "s.tar", [(name, b"x"), ("good.jpg", b"y")], format)
    assert [reason for _, reason in rejections(path)] == ["unsafe_name"]
    assert list(items(path)) == ["s/good"]


LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]


@pytest.mark.parametrize("kind", LINKS)
def test_links_devices_and_unknown_kinds_are_rejections(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "s.tar", [(special("a.jpg", kind, "/etc/passwd"), b""), ("good.jpg", b"y")])
    assert rejections(path) == [("s.tar/a.jpg", "not_a_file")]
    assert list(items(path)) == ["s/good"]


def test_sparse_members_of_both_formats_are_rejections(tmp_path: Path) -> None:
    first = bytearray(header(kind=b"S"))
    first[482] = 1
    first[148:156] = b"        "
    first[148:156] = b"%06o\0 " % sum(first)
    following = bytes(504) + b"\0" * 8
    body = bytes(first) + following + b"abc".ljust(512, b"\0")
    (tmp_path / "gnu.tar").write_bytes(body + header(b"b.jpg") + b"abc".ljust(512, b"\0") + bytes(1024))
    assert rejections(tmp_path / "gnu.tar") == [("gnu.tar/a.jpg", "not_a_file")]
    assert list(items(tmp_path / "gnu.tar")) == ["gnu/b"]
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99999999999"}
    path = write_tar(tmp_path / "pax.tar", [(info, b"x"), ("b.jpg", b"y")])
    assert rejections(path) == [("pax.tar/a.jpg", "not_a_file")]


def test_a_member_that_claims_more_than_the_archive_holds_is_one_rejection(tmp_path: Path) -> None:
    good = header(b"a.jpg") + b"abc".ljust(512, b"\0")
    for size in (b"77777777777\0", b"\x80" + struct.pack(">QI", 0, 2**31)[1:], b"\x80" + b"\x7f" * 11):
        (tmp_path / "s.tar").write_bytes(good + header(b"big.jpg", size) + b"abc")
        assert rejections(tmp_path / "s.tar") == [("s.tar", "truncated")]
        assert list(items(tmp_path / "s.tar")) == ["s/a"]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"notanumber\0\0", b"9999\0\0\0\0\0\0\0\0", b"-0000000001\0"])
def test_a_size_that_is_none_ends_the_archive_with_a_rejection(tmp_path: Path, size: bytes) -> None:
    good = header(b"a.jpg") + b"abc".ljust(512, b"\0")
    (tmp_path / "s.tar").write_bytes(good + header(b"b.jpg", size) + bytes(2048))
    assert rejections(tmp_path / "s.tar") == [("s.tar", "damaged")]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_gigantic_long_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    good = header(b"a.jpg") + b"abc".ljust(512, b"\0")
    with (tmp_path / "s.tar").open("wb") as file:
        file.write(good + header(b"long", b"%011o\0" % (2**32), kind))
        file.truncate(2**32 + 4096)
    assert rejections(tmp_path / "s.tar") == [("s.tar", "header_too_large")]


@pytest.mark.parametrize(
    "data", [b"9 path=x", b"99999 path=x\n", b"x path=y\n", b"0 path=\n", b"11 path=abc\n", b"6 size\n"]
)
def test_a_pax_header_that_lies_is_a_rejection(tmp_path: Path, data: bytes) -> None:
    block = header(b"pax", b"%011o\0" % len(data), b"x") + data.ljust(512, b"\0")
    (tmp_path / "s.tar").write_bytes(header() + b"abc".ljust(512, b"\0") + block + header(b"b.jpg") + bytes(2048))
    assert rejections(tmp_path / "s.tar") == [("s.tar", "damaged")]


def test_an_archive_cut_anywhere_keeps_what_stands_before_and_says_so(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [(f"{n}.jpg", b"x" * 700) for n in range(5)]).read_bytes()
    for length in range(600, 5 * 1536, 97):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        # The last block of a member is padded from byte 1,212 of 1,536 on.
        whole_members = (length + 324) // 1536
        if not whole_members:
            with pytest.raises(SourceError, match=r"cut\.tar"):
                open_source(tmp_path / "cut.tar")
            continue
        assert len(items(tmp_path / "cut.tar")) == whole_members
        assert rejections(tmp_path / "cut.tar") == [("cut.tar", "truncated")]


def test_damage_in_the_middle_is_said_and_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{n}.jpg", b"x") for n in range(4)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 5] ^= 0xFF
    path.write_bytes(data)
    assert list(items(path)) == ["s/0", "s/1"]
    assert rejections(path) == [("s.tar", "damaged")]


def test_joined_archives_are_said(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "a.tar", [("a.jpg", b"x")]).read_bytes()
    (tmp_path / "s.tar").write_bytes(one + one)
    assert rejections(tmp_path / "s.tar") == [("s.tar", "trailing_data")]


def test_a_member_that_stands_twice_is_kept_once_and_counted(tmp_path: Path) -> None:
    rows: Members = [("a.jpg", b"x"), ("a.txt", b"one"), ("a.json", b"{}")]
    path = write_tar(tmp_path / "s.tar", [*rows, *rows])
    assert rejections(path) == [(f"s.tar/a.{kind}", "duplicate_member") for kind in ("jpg", "txt", "json")]
    assert list(items(path)) == ["s/a", "s/a#0"]


def test_the_number_of_members_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{n}.jpg", b"x") for n in range(9)], tarfile.USTAR_FORMAT)
    monkeypatch.setattr(tar_file, "MAX_HEADERS", 5)
    assert rejections(path) == [("s.tar", "too_many_members")]
    assert len(items(path)) == 5


def test_one_broken_shard_does_not_cost_the_others(shards: Path) -> None:
    (shards / "00002.tar").write_bytes(b"no tar" * 200)
    assert len(items(shards)) == 40
    assert rejections(shards) == [("00002.tar", "damaged")]


@pytest.mark.parametrize("data", [b"", b"short", b"no tar at all" * 100, bytes(1024), bytes(10240)])
def test_a_file_that_is_no_tar_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path / "s.tar")


BASE: Members = [("a.jpg", b"x" * 600), ("a.txt", b"a caption"), ("d/b.png", b"y"), ("d/b.json", b'{"n": [1, {}]}')]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    cut=st.integers(0, 10240),
    splices=st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=24)), max_size=4),
)
def test_any_damage_ends_in_items_rejections_or_one_clear_error(
    tmp_path: Path, format: int, cut: int, splices: list[tuple[int, bytes]]
) -> None:
    data = bytearray(write_tar(tmp_path / "s.tar", [("folder/" * 20 + "n.jpg", b"z"), *BASE], format).read_bytes())
    for place, piece in splices:
        data[place : place + len(piece)] = piece
    (tmp_path / "s.tar").write_bytes(data[: len(data) - cut])
    before = sorted(path.name for path in tmp_path.iterdir())
    try:
        for entry in entries(tmp_path / "s.tar"):
            entry.item_id.encode("utf-8")
            entry.uri.encode("utf-8")
            assert ".." not in entry.item_id.split("/") or isinstance(entry, Rejection)
            if isinstance(entry, Item) and isinstance(entry.content, tar_file.TarMember):
                assert len(entry.content.read(2**20)) == entry.content.size
    except SourceError:
        pass  # nothing could be read of it
    assert sorted(path.name for path in tmp_path.iterdir()) == before


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.one_of(NAMES, NAMES.map(lambda name: f"../{name}.jpg"), NAMES.map("{}.jpg".format)), max_size=6)
)
def test_every_file_of_any_name_is_indexed_rejected_or_passed_over(tmp_path: Path, names: list[str]) -> None:
    files = [name for name in names if not name.endswith("/")]
    path = write_tar(tmp_path / "s.tar", [("zzzz/keep.jpg", b"x"), *((name, b"x") for name in files)])
    source = open_source(path)
    found = list(source.items())
    passed = sum(int(note.split()[2]) for note in source.notes if note.startswith("passed over"))
    members = [entry for entry in found if entry.collection == "images" or isinstance(entry, Rejection)]
    assert len(members) + passed >= 1 + len(files) - sum(name.endswith((".txt", ".json")) for name in files)


# --- builds


def digest(out: Path) -> dict[str, str]:
    manifest = IndexStore.open(out).open_version().manifest
    return {name: entry.sha256 for name, entry in manifest.files.items() if name.endswith("vectors.arrow")}


def test_shards_give_the_vectors_of_the_same_pictures_in_a_folder(shards: Path, tmp_path: Path) -> None:
    report = build_index(shards, tmp_path / "out", encoder=ColourEncoder(), shard_cost=4)
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (20, 20, 20, 0)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        row = version.catalog.rows("images", [3])[0]
    assert (row["item_id"], row["uri"], row["width"], row["width_meta"], row["lang"]) == (
        "00000/00003",
        "00000.tar/00003.png",
        40,
        3,
        "en",
    )


def test_a_killed_build_of_shards_goes_on(shards: Path, tmp_path: Path) -> None:
    class Failing(ColourEncoder):
        def encode_pixels(self, pixels):  # type: ignore[no-untyped-def]
            if self.images_encoded >= 12:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    settings_ = {"shard_cost": 4, "batch_size": 4}
    with pytest.raises(KeyboardInterrupt):
        build_index(shards, tmp_path / "out", encoder=Failing(), **settings_)
    encoder = ColourEncoder()
    report = build_index(shards, tmp_path / "out", encoder=encoder, **settings_)
    assert report.manifest.build["encode"]["resumed"] > 0
    assert encoder.images_encoded < 20
    build_index(shards, tmp_path / "whole", encoder=ColourEncoder(), **settings_)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_an_update_encodes_only_what_changed_in_a_shard(shards: Path, tmp_path: Path) -> None:
    build_index(shards, tmp_path / "out", encoder=ColourEncoder())
    same = build_index(shards, tmp_path / "out", encoder=(encoder := ColourEncoder()), update=True)
    assert (same.published, encoder.images_encoded) == (False, 0)
    with tarfile.open(shards / "00001.tar", "a") as tar:
        data = png("yellow", 99, tmp_path)
        info = tarfile.TarInfo("new.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    report = build_index(shards, tmp_path / "out", encoder=encoder, update=True)
    assert (encoder.images_encoded, encoder.texts_encoded) == (1, 0)
    assert report.manifest.counts.images == 21


def test_pictures_of_a_shard_that_cannot_be_decoded_are_counted(shards: Path, tmp_path: Path) -> None:
    write_tar(shards / "00002.tar", [("bad.jpg", b"no picture"), ("big.jpg", b"x" * 5000), ("empty.jpg", b"")])
    report = build_index(shards, tmp_path / "out", encoder=ColourEncoder(), max_file_bytes=4000)
    assert report.rejected == {"not_an_image": 1, "too_large": 1, "empty": 1}


def test_nothing_is_unpacked(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    write_tar(shards / "00002.tar", [("../planted.png", png("red", 1, tmp_path)), ("/planted.png", b"x")])
    report = build_index(shards, tmp_path / "out", encoder=ColourEncoder())
    assert report.rejected == {"unsafe_name": 2}
    assert list(work.iterdir()) == []
    assert not list(tmp_path.rglob("planted*"))
    assert not [
        path
        for path in (tmp_path / "out").rglob("*")
        if path.suffix in (".png", ".txt", ".json") and path.name != "manifest.json"
    ]


def test_the_command_takes_a_quoted_pattern(shards: Path, tmp_path: Path) -> None:
    arguments = [str(shards / "{00000..00007}.tar"), "--out", str(tmp_path / "out"), "--quiet"]
    result = CliRunner().invoke(build, arguments)
    assert isinstance(result.exception, BuildError)
    assert "there is no shard" in str(result.exception)
