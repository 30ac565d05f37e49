"""Which members of a shard belong together: no pair is lost without a word."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from pathlib import Path

import pytest

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection

Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def entries(corpus: Path, **options: object) -> list[Item | Rejection]:
    return list(open_source(corpus, SourceOptions(**options)).items())  # type: ignore[arg-type]


def images(corpus: Path) -> list[str]:
    return [one.item_id for one in entries(corpus) if isinstance(one, Item) and one.collection == "images"]


def pairs(corpus: Path, **options: object) -> list[tuple[str, tuple[str, ...]]]:
    """Every text with the images that it describes."""
    texts = (one for one in entries(corpus, **options) if isinstance(one, Item) and one.collection == "texts")
    return [(str(text.content), text.image_ids) for text in texts]


def notes(corpus: Path, **options: object) -> str:
    return "\n".join(open_source(corpus, SourceOptions(**options)).notes)  # type: ignore[arg-type]


# --- keys with dots


def test_keys_with_dots_keep_their_pairs(tmp_path: Path) -> None:
    names = ("22.05", "22.06", "23.1", "v1.2.3")
    members = [(f"{name}{suffix}", name.encode()) for name in names for suffix in (".jpg", ".txt")]
    path = write_tar(tmp_path / "a.tar", members)
    assert pairs(path) == [(name, (f"a/{name}",)) for name in names]
    assert images(path) == [f"a/{name}" for name in names]


def test_keys_with_dots_keep_their_metadata(tmp_path: Path) -> None:
    members = [(f"{n}.jpg", b"x") for n in ("2.1", "2.2")] + [
        (f"{n}.json", b'{"n": %s}' % n.encode()) for n in ("2.1", "2.2")
    ]
    found = entries(write_tar(tmp_path / "a.tar", members))
    assert {one.item_id: one.metadata for one in found if isinstance(one, Item)} == {
        "a/2.1": {"n": 2.1},
        "a/2.2": {"n": 2.2},
    }


def test_a_text_that_has_lost_its_image_is_not_given_to_another(tmp_path: Path) -> None:
    members = [
        ("22.05.jpg", b"x"),
        ("22.05.txt", b"five"),
        ("22.06.txt", b"six"),
        ("23.1.jpg", b"x"),
        ("23.2.txt", b"two"),
    ]
    assert pairs(write_tar(tmp_path / "a.tar", members)) == [("five", ("a/22.05",)), ("six", ()), ("two", ())]


def test_several_images_of_a_key_share_its_text(tmp_path: Path) -> None:
    members = [("a.left.jpg", b"x"), ("a.right.jpg", b"y"), ("a.txt", b"both"), ("a.json", b'{"year": 7}')]
    path = write_tar(tmp_path / "s.tar", members)
    assert pairs(path) == [("both", ("s/a#0", "s/a#1"))]


def test_a_text_of_all_images_beside_texts_of_one_stands_once(tmp_path: Path) -> None:
    members = [("a.left.jpg", b"x"), ("a.left.txt", b"left"), ("a.right.jpg", b"y"), ("a.txt", b"both")]
    path = write_tar(tmp_path / "s.tar", members)
    assert pairs(path) == [("left", ("s/a.left",)), ("both", ("s/a.left", "s/a.right"))]


def test_a_text_below_the_image_of_a_key_is_its_caption(tmp_path: Path) -> None:
    members = [("2.1.jpg", b"x"), ("2.1.txt", b"one"), ("2.1.ocr.txt", b"read"), ("3.jpg", b"x"), ("3.alt.txt", b"alt")]
    path = write_tar(tmp_path / "s.tar", members)
    assert pairs(path) == [("one", ("s/2.1",)), ("read", ("s/2.1",)), ("alt", ("s/3",))]


# --- several captions, other places, other spellings


def test_every_text_member_of_a_key_is_a_caption(tmp_path: Path) -> None:
    members = [("a.jpg", b"x"), *((f"a.{n}.txt", f"caption {n}".encode()) for n in range(5)), ("b.jpg", b"y")]
    path = write_tar(tmp_path / "s.tar", members)
    assert pairs(path) == [(f"caption {n}", ("s/a",)) for n in range(5)]
    assert [one.item_id for one in entries(path)] == ["s/a", *(f"s/a#{n}" for n in range(5)), "s/b"]


def test_captions_may_follow_all_images(tmp_path: Path) -> None:
    members = [(f"{n}.jpg", b"x") for n in range(3)] + [(f"{n}.txt", b"text %d" % n) for n in range(3)]
    assert pairs(write_tar(tmp_path / "s.tar", members)) == [(f"text {n}", (f"s/{n}",)) for n in range(3)]


def test_members_in_folders_are_paired_within_their_folder(tmp_path: Path) -> None:
    members = [("x/a.jpg", b"x"), ("y/a.jpg", b"y"), ("y/a.txt", b"of y"), ("x/a.txt", b"of x")]
    assert pairs(write_tar(tmp_path / "s.tar", members)) == [("of x", ("s/x/a",)), ("of y", ("s/y/a",))]


def test_one_key_in_two_shards_is_two_samples(tmp_path: Path) -> None:
    for shard in ("0", "1"):
        write_tar(tmp_path / f"{shard}.tar", [("a.jpg", b"x"), ("a.txt", shard.encode())])
    assert pairs(tmp_path) == [("0", ("0/a",)), ("1", ("1/a",))]


@pytest.mark.parametrize("dotted", ["", ".5"])
def test_names_that_unicode_writes_in_two_ways_are_one_key(tmp_path: Path, dotted: str) -> None:
    nfd, nfc = (unicodedata.normalize(form, f"Genève{dotted}") for form in ("NFD", "NFC"))  # type: ignore[arg-type]
    path = write_tar(tmp_path / "s.tar", [(f"{nfd}.jpg", b"x"), (f"{nfc}.txt", b"the lake")])
    assert pairs(path) == [("the lake", (f"s/{nfc}",))]
    (image, _) = entries(path)
    assert isinstance(image, Item)
    assert image.uri == f"s.tar/{nfd}.jpg"


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    assert pairs(write_tar(tmp_path / "s.tar", [("a.JPG", b"x"), ("a.TXT", b"one")])) == [("one", ("s/a",))]


def test_a_second_json_of_a_key_is_counted(tmp_path: Path) -> None:
    members = [("a.metadata.json", b'{"n": 1}'), ("a.jpg", b"x"), ("a.json", b'{"caption": "one"}')]
    path = write_tar(tmp_path / "s.tar", members)
    assert pairs(path) == [("one", ("s/a",))]
    assert "passed over 1 members that are neither images nor .txt nor .json: 1 .metadata.json" in notes(path)


def test_captions_of_another_suffix_are_counted(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s.tar", [("a.jpg", b"x"), ("a.caption", b"one"), ("b.jpg", b"x"), ("b.caption", b"two")]
    )
    assert "passed over 2 members that are neither images nor .txt nor .json: 2 .caption" in notes(path)


def test_an_empty_text_is_a_rejection(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("a.txt", b""), ("a.more.txt", b"good")])
    assert [(one.item_id, one.reason) for one in entries(path) if isinstance(one, Rejection)] == [
        ("s/a#0", "empty_text")
    ]
    assert pairs(path) == [("good", ("s/a",))]


# --- captions in the JSON


def test_samples_without_a_text_take_the_caption_of_their_json(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", b"x"), ("a.txt", b"of a"), ("a.json", b'{"caption": "not this"}')])
    write_tar(tmp_path / "1.tar", [("b.jpg", b"x"), ("b.json", b'{"caption": "of b"}')])
    assert pairs(tmp_path) == [("of a", ("0/a",)), ("of b", ("1/b",))]
    assert "captions of 1 samples without a .txt are 'caption' of their .json" in notes(tmp_path)
    assert pairs(tmp_path, text="caption") == [("not this", ("0/a",)), ("of b", ("1/b",))]


def test_a_json_without_a_known_key_of_text_is_told(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", b"x"), ("a.json", b'{"alt_text": "one", "n": 1}')])
    assert "no image has a caption" in notes(path)
    assert "--text names another of 'alt_text', 'n'" in notes(path)
    assert notes(path, text="alt_text") == ""
    assert pairs(path, text="alt_text") == [("one", ("s/a",))]


# --- what others write into archives, and beside them


def test_thumbnails_of_a_photo_station_and_a_mac_are_counted(tmp_path: Path) -> None:
    members = [
        ("p.jpg", b"x"),
        ("@eaDir/p.jpg/SYNOPHOTO_THUMB_XL.jpg", b"t"),
        ("__MACOSX/._p.jpg", b"m"),
        (".git/x.png", b"g"),
    ]
    path = write_tar(tmp_path / "s.tar", members)
    assert images(path) == ["s/p"]
    assert "passed over 3 members" in notes(path)


def test_shards_of_img2dataset_tell_what_was_not_fetched(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        members: Members = []
        for number in range(2):
            key = f"{shard}{number:04}"
            meta = {
                "url": "http://x/y.jpg",
                "caption": f"c {key}",
                "key": key,
                "status": "success",
                "error_message": None,
                "exif": "{}",
            }
            members += [
                (f"{key}.jpg", b"x"),
                (f"{key}.txt", f"c {key}".encode()),
                (f"{key}.json", json.dumps(meta, indent=4).encode()),
            ]
        write_tar(tmp_path / f"{shard}.tar", members)
        (tmp_path / f"{shard}.parquet").write_bytes(b"all samples, the failed ones too")
        stats = {
            "count": 5,
            "successes": 2,
            "failed_to_download": 2,
            "failed_to_resize": 1,
            "status_dict": {"success": 2, "HTTP Error 404: Not Found": 2},
        }
        (tmp_path / f"{shard}_stats.json").write_text(json.dumps(stats))
    assert pairs(tmp_path) == [
        (f"c {key}", (f"{key[:5]}/{key}",)) for key in ("000000000", "000000001", "000010000", "000010001")
    ]
    assert "6 of 10 samples are in no shard" in notes(tmp_path)
    assert "4 failed to download, 2 to resize" in notes(tmp_path)
    (tmp_path / "00001_stats.json").write_text("[]")
    assert "3 of 5 samples" in notes(tmp_path)
