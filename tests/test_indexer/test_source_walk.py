"""What is read below a folder and what is left out: links, unreadable folders, system folders, `--exclude`."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import SourceOptions, open_source
from indexer.corpus.item import Item, Rejection
from indexer.errors import BuildError, SourceError
from storage import IndexStore
from twinlens.commands.build import build


def touch(root: Path, *names: str, text: str = "") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def found(root: Path, **options: object) -> tuple[list[str], list[tuple[str, str]], str]:
    """The ids of the items, id and reason of each rejection, and the notes."""
    source = open_source(root, SourceOptions(**options))  # type: ignore[arg-type]
    entries = list(source.items())
    rejected = [(entry.item_id, entry.reason) for entry in entries if isinstance(entry, Rejection)]
    return [entry.item_id for entry in entries if isinstance(entry, Item)], rejected, "\n".join(source.notes)


def captions(root: Path) -> dict[str, tuple[str, ...]]:
    """Each caption with its id and the images that it describes."""
    texts = (entry for entry in open_source(root).items() if isinstance(entry, Item) and entry.collection == "texts")
    return {f"{item.item_id} {item.content}": item.image_ids for item in texts}


# --- links, and folders that cannot be read


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[str]:
    """A folder in `photos` of folders so deep that their path is too long: not even root can read the last."""
    root, name = tmp_path / "photos", "d" * 200
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    yield name
    shutil.rmtree(root / name)


def test_a_link_to_itself_is_an_item_that_cannot_be_read(tmp_path: Path, encoder: ColourEncoder) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    (tmp_path / "photos" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "photos" / "one").symlink_to("two")
    (tmp_path / "photos" / "two").symlink_to("one")
    report = build_index(tmp_path / "photos", tmp_path / "photos.index", encoder=encoder)
    assert (report.manifest.counts.images, dict(report.rejected)) == (1, {"unreadable": 1})


def test_a_folder_that_cannot_be_read_is_one_rejection(tmp_path: Path, deep: str) -> None:
    touch(tmp_path / "photos", "a.jpg", "z/b.jpg")
    ids, rejected, _ = found(tmp_path / "photos")
    assert ids == ["a.jpg", "z/b.jpg"]
    ((name, reason),) = rejected
    assert reason == "unreadable_folder"
    assert name.startswith(deep)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_one_rejection(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    ids, rejected, _ = found(tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert (ids, rejected) == (["a.jpg"], [("locked/", "unreadable_folder")])


@pytest.mark.usefixtures("deep")
def test_nothing_but_an_unreadable_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds nothing to index.*cannot be read \(File name too long\)"):
        open_source(tmp_path / "photos")


def test_captions_that_links_lead_out_of_the_corpus_are_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "secret.txt", "private/diary.txt", text="a secret\n")
    touch(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/texts/mine.txt", text="mine\n")
    photos = tmp_path / "photos"
    (photos / "a.txt").symlink_to("../secret.txt")
    (photos / "b.txt").symlink_to("texts/mine.txt")
    (photos / "more").symlink_to(tmp_path / "private", target_is_directory=True)
    ids, rejected, _ = found(photos)
    assert ids == ["a.jpg", "b.jpg", "b.jpg#0", "texts/mine.txt#0"]
    assert rejected == [("a.jpg", "outside_corpus"), ("more/diary.txt", "outside_corpus")]


def test_a_corpus_that_is_itself_a_link_keeps_its_captions(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/a.txt", text="a cat\n")
    (tmp_path / "link").symlink_to("photos", target_is_directory=True)
    assert captions(tmp_path / "link") == {"a.jpg#0 a cat": ("a.jpg",)}


# --- sidecars


@pytest.mark.parametrize("sidecar", ["p.txt", "p.TXT", "p.jpg.txt", "p.JPG.txt"])
def test_sidecars_are_named_with_and_without_the_suffix_of_the_image(tmp_path: Path, sidecar: str) -> None:
    image = "p.JPG" if "JPG" in sidecar else "p.jpg"
    touch(tmp_path, f"x/{image}")
    touch(tmp_path, f"x/{sidecar}", text="a red card\n")
    assert captions(tmp_path) == {f"x/{image}#0 a red card": (f"x/{image}",)}


def test_two_sidecars_of_one_image_are_numbered_through(tmp_path: Path) -> None:
    touch(tmp_path, "p.jpg", "q.jpg", "q.png")
    touch(tmp_path, "p.txt", "p.jpg.txt", "q.png.txt", text="one\ntwo\n")
    assert list(captions(tmp_path)) == [
        "p.jpg#0 one",
        "p.jpg#1 two",
        "p.jpg#2 one",
        "p.jpg#3 two",
        "q.png#0 one",
        "q.png#1 two",
    ]


@pytest.mark.parametrize(("image", "text"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_that_unicode_writes_in_two_ways_are_one(tmp_path: Path, image: str, text: str) -> None:
    photo, sidecar = (unicodedata.normalize(form, "Gärten/Genève") for form in (image, text))  # type: ignore[arg-type]
    touch(tmp_path, f"{photo}.jpg")
    (tmp_path / sidecar).parent.mkdir(exist_ok=True)
    touch(tmp_path, f"{sidecar}.txt", text="the lake\n")
    assert captions(tmp_path) == {f"{photo}.jpg#0 the lake": (f"{photo}.jpg",)}


def test_a_name_that_is_equal_letter_by_letter_comes_first(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for form in forms:
        touch(tmp_path, f"{form}.jpg")
        touch(tmp_path, f"{form}.txt", text=f"{len(form)} letters\n")
    assert captions(tmp_path) == {
        f"{forms[0]}.jpg#0 1 letters": (f"{forms[0]}.jpg",),
        f"{forms[1]}.jpg#0 2 letters": (f"{forms[1]}.jpg",),
    }


def test_text_files_beside_images_that_none_is_named_after_are_left_out_with_a_note(tmp_path: Path) -> None:
    touch(tmp_path, "p.jpg")
    touch(tmp_path, "p.txt", "README.txt", "q.txt", "License-CC.txt", text="words\n")
    ids, _, notes = found(tmp_path)
    assert ids == ["p.jpg", "p.jpg#0"]
    assert "left out 3 .txt files that no image is named after, first 'License-CC.txt'" in notes


def test_texts_in_a_folder_of_their_own_stay_texts_but_for_a_readme(tmp_path: Path) -> None:
    touch(tmp_path, "images/p.jpg")
    touch(tmp_path, "README.txt", "texts/readme_en.txt", "texts/a.txt", "texts/readmission.txt", text="words\n")
    ids, _, notes = found(tmp_path)
    assert ids == ["images/p.jpg", "texts/a.txt#0", "texts/readmission.txt#0"]
    assert "left out 2 .txt files" in notes
    assert "2 .txt files are texts of their own, of no image, first 'texts/a.txt'" in notes


def test_a_folder_of_texts_alone_is_read_whole(tmp_path: Path) -> None:
    touch(tmp_path, "README.txt", "b/a.txt", text="words\n")
    assert found(tmp_path) == (["README.txt#0", "b/a.txt#0"], [], "")


# --- what systems put beside photographs


def test_folders_of_thumbnails_and_system_files_are_left_out_and_counted(tmp_path: Path) -> None:
    thumbs = ("@eaDir/p.jpg/SYNOPHOTO_THUMB_XL.jpg", "#recycle/q.jpg", "__MACOSX/p.jpg", "x/$RECYCLE.BIN/r.jpg")
    touch(tmp_path, "x/p.jpg", *thumbs, "lost+found/s.jpg", "Thumbs.db", "desktop.ini")
    touch(tmp_path, ".thumbnails/p.jpg", "x/._p.jpg", ".git/logo.png", ".DS_Store")
    ids, rejected, notes = found(tmp_path)
    assert (ids, rejected) == (["x/p.jpg"], [])
    assert "left out 7 files or folders of systems and thumbnails, first '#recycle'" in notes
    assert "left out 4 hidden files or folders, first '.DS_Store'" in notes


def test_a_system_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "#recycle/q.jpg", "#recycle/@eaDir/q.jpg")
    assert found(tmp_path / "#recycle")[0] == ["q.jpg"]


# --- --exclude


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*_thumb.jpg", ["a.jpg", "d/a.jpg", "d/e/b.jpg"]),
        ("d", ["a.jpg", "a_thumb.jpg"]),
        ("d/", ["a.jpg", "a_thumb.jpg"]),
        ("./d/e", ["a.jpg", "a_thumb.jpg", "d/a.jpg", "d/a_thumb.jpg"]),
        ("d/*.jpg", ["a.jpg", "a_thumb.jpg"]),
        ("a.jpg", ["a_thumb.jpg", "d/a_thumb.jpg", "d/e/b.jpg"]),
    ],
)
def test_a_pattern_fits_a_name_or_a_whole_path(tmp_path: Path, pattern: str, left: list[str]) -> None:
    touch(tmp_path, "a.jpg", "a_thumb.jpg", "d/a.jpg", "d/a_thumb.jpg", "d/e/b.jpg")
    ids, _, notes = found(tmp_path, exclude=(pattern,))
    assert ids == left
    assert "by --exclude, first" in notes


def test_a_pattern_that_fits_nothing_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    ids, _, notes = found(tmp_path, exclude=("b.*", "c.*"))
    assert ids == ["a.jpg"]
    assert "--exclude 'c.*' fits no file or folder" in notes


def test_a_folder_that_is_excluded_whole_says_why_nothing_is_left(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match="left out 1 files or folders by --exclude"):
        open_source(tmp_path, SourceOptions(exclude=("*",)))


def test_a_corpus_that_is_not_walked_refuses_the_option(tmp_path: Path) -> None:
    touch(tmp_path, "t.csv", text="image,caption\na.jpg,one\n")
    touch(tmp_path, "results.csv", text="image_name| comment_number| comment\na.jpg| 0| one\n")
    for corpus in (tmp_path / "t.csv", tmp_path):
        with pytest.raises(SourceError, match="--exclude 'x' leaves out files of a folder that is walked"):
            open_source(corpus, SourceOptions(exclude=("x",)))


def test_an_update_keeps_the_exclusion_and_takes_a_new_one(tmp_path: Path, encoder: ColourEncoder) -> None:
    photos, out = tmp_path / "photos", tmp_path / "photos.index"
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("t/a.png", "green"), ("u/b.png", "yellow")):
        paint(photos / name, colour)
    assert built(photos, out, encoder, exclude=("t",)) == ["a.png", "b.png", "u/b.png"]
    paint(photos / "t" / "c.png", "black")
    paint(photos / "c.png", "white")
    assert built(photos, out, encoder, update=True) == ["a.png", "b.png", "c.png", "u/b.png"]
    assert built(photos, out, encoder, update=True, exclude=("u",)) == ["a.png", "b.png", "c.png", "t/a.png", "t/c.png"]


def built(
    photos: Path, out: Path, encoder: ColourEncoder, *, exclude: tuple[str, ...] = (), update: bool = False
) -> list[str]:
    build_index(
        photos, out, encoder=encoder, options=SourceOptions(exclude=exclude) if exclude else None, update=update
    )
    with IndexStore(out).open_version() as version:
        return sorted(version.catalog.table("images")["item_id"].to_pylist())


def test_the_command_takes_several_patterns(
    tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "t/c.png"):
        paint(tmp_path / "photos" / name, "red")
    monkeypatch.setattr("indexer.encode.build_encoder.load_encoder", lambda *_: encoder)
    out = tmp_path / "photos.index"
    arguments = [str(tmp_path / "photos"), "--out", str(out), "--exclude", "t", "--exclude", "b.*", "-q"]
    done = CliRunner().invoke(build, [*arguments, "--output", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 1
    assert "left out 2 files or folders by --exclude, first 'b.png'" in json.loads(done.stdout)["notes"]
    refused = CliRunner().invoke(build, ["--image-embeddings", "x.npy", "--exclude", "x", "--out", str(out)])
    assert "--exclude goes with a corpus, not with ready-made embeddings" in refused.output


def test_parquet_shards_are_excluded_as_well(tmp_path: Path) -> None:
    for name in ("data/train-0.parquet", "data/old/train-1.parquet", "@eaDir/thumb.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [f"{name}.jpg"], "text": ["one"]}), tmp_path / name)
    assert [one for one in found(tmp_path, exclude=("old",))[0] if "#" not in one] == ["data/train-0.parquet.jpg"]
    assert [one for one in found(tmp_path / "data" / "**" / "*.parquet", exclude=("*-0.*",))[0] if "#" not in one] == [
        "data/old/train-1.parquet.jpg"
    ]


@pytest.mark.parametrize("path", ["x" * 300, "y/" * 3000 + "z", "/etc/passwd/x"])
def test_a_path_that_cannot_be_is_not_there(path: str, encoder: ColourEncoder, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no corpus at"):
        build_index(path, tmp_path / "out", encoder=encoder)
    assert not (tmp_path / "out").exists()


def test_a_path_with_a_nul_is_none(encoder: ColourEncoder, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^source is 'a\\x00b', of type str; give a path, as a text without NUL"):
        build_index("a\0b", tmp_path / "out", encoder=encoder)
    assert not (tmp_path / "out").exists()
