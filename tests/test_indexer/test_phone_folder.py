"""A folder as a phone leaves it, and films as many images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder
from phone_files import HAS_PHOTOS, dng, exif_of, film, heic
from PIL import Image

from encoders import images
from encoders.formats import films
from indexer import build_index
from indexer.corpus import SourceError, SourceOptions, open_source
from indexer.encode import known_films
from searcher import Searcher
from searcher.render.thumbnails import hit_thumbnail, missing_images
from storage import IndexStore
from twinlens.commands.build import build

data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")
pytest.importorskip("av", reason="films need the extra video")

TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((160, 120))


def lying(turn: int) -> Image.Image:
    """The photograph as a camera that was held otherwise stores it."""
    return photograph().transpose(TURNS[turn]) if turn in TURNS else photograph()


def saved(path: Path, image: Image.Image, **options: object) -> bytes:
    image.save(path, **options)
    return path.read_bytes()


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Photographs that are all the same when they are upright, and films of them."""
    folder = tmp_path / "DCIM"
    folder.mkdir()
    for turn in (1, 3, 6, 8):
        (folder / f"IMG_000{turn}.HEIC").write_bytes(heic(lying(turn), turn))
        saved(folder / f"IMG_E000{turn}.JPG", lying(turn), exif=exif_of(turn), quality=95)
    (folder / "IMG_0020.DNG").write_bytes(dng(lying(6), 6))
    saved(folder / "IMG_0021.PNG", photograph())
    motion = saved(folder / "MVIMG_1.jpg", lying(8), exif=exif_of(8), quality=95)
    # The film of a live photo, of a motion photo, and one by itself, which was held upright.
    film(folder / "IMG_0001.MOV", [(0, photograph())], seconds=1)
    (folder / "MVIMG_1.jpg").write_bytes(motion + (folder / "IMG_0001.MOV").read_bytes())
    told = {
        "com.apple.quicktime.creationdate": "2024-07-01T12:30:43+0200",
        "com.apple.quicktime.location.ISO6709": "+48.2000+016.3667+171.3/",
    }
    film(folder / "IMG_0030.MOV", [(0, lying(6))], seconds=3, turn=-90, told=told)
    return folder


@pytest.mark.skipif(not HAS_PHOTOS, reason="needs the extra photos")
def test_nothing_of_a_phone_is_rejected_and_all_of_it_is_upright(phone: Path, tmp_path: Path) -> None:
    report = build_index(phone, tmp_path / "p.index", encoder=ColourEncoder(), options=SourceOptions(frames="1s"))
    assert (report.manifest.counts.rejected, report.manifest.counts.images) == (0, 11 + 3)
    notes = " ".join(open_source(phone).notes)
    assert "passed over 1 films of live photos, which their photographs stand for, first 'IMG_0001.MOV'" in notes
    assert "passed over 1 films: 1 .mov; --frames 2s or --frames scenes" in notes
    expected = np.asarray(photograph(), dtype=int)
    with Searcher.open(tmp_path / "p.index", encoder=ColourEncoder()) as searcher:
        hits = searcher.image_to_image(str(phone / "IMG_0006.HEIC"), k=20)
        assert len(hits) == 14
        assert missing_images([hits], phone) == []
        for hit in hits:
            assert (hit.metadata["width"], hit.metadata["height"]) == (160, 120), hit.item_id
            small = hit_thumbnail(hit, None, (160, 120)).image
            for image in (hit.open(), small):
                assert image is not None
                assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 8, hit.item_id
        where = (
            "taken_at BETWEEN TIMESTAMP '2024-07-01 12:30:43' AND TIMESTAMP '2024-07-01 12:30:45' "
            "AND taken_at_offset = 120 AND within_km(latitude, longitude, 48.2, 16.3667, 0.1)"
        )
        dated = {hit.item_id for hit in searcher.image_to_image(str(phone / "IMG_0006.HEIC"), k=20, where=where)}
        # A screenshot knows neither; the RAW file of this test has its turn alone.
        assert {hit.item_id for hit in hits} - dated == {"IMG_0021.PNG", "IMG_0020.DNG"}


def catalog(index: Path) -> list[dict[str, object]]:
    with IndexStore.open(index).open_version() as version:
        names = ["item_id", "time", "duration", "film", "file_bytes", "width"]
        return version.catalog.table("images", names).to_pylist()


@pytest.fixture
def cinema(tmp_path: Path) -> Path:
    """Two films of two scenes, and an image."""
    folder = tmp_path / "films"
    folder.mkdir()
    colours = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    film(folder / "b.mp4", [(0, colours[0]), (4, colours[1])], seconds=8)
    film(folder / "c.mkv", [(0, colours[1]), (2, colours[0])], seconds=5)
    colours[0].save(folder / "a.png")
    return folder


def build_frames(cinema: Path, tmp_path: Path, **settings: object) -> tuple[ColourEncoder, object]:
    encoder = ColourEncoder()
    return encoder, build_index(cinema, tmp_path / "f.index", encoder=encoder, **settings)


def test_frames_are_images_with_their_second(cinema: Path, tmp_path: Path) -> None:
    build_frames(cinema, tmp_path, options=SourceOptions(frames="2s"))
    rows = catalog(tmp_path / "f.index")
    b, c = [f"b.mp4#t={second}" for second in (0, 2, 4, 6)], [f"c.mkv#t={second}" for second in (0, 2, 4)]
    assert [row["item_id"] for row in rows] == ["a.png", *b, *c]
    assert [(row["time"], row["duration"], row["film"]) for row in rows[:2]] == [(None, None, None), (0, 8, "b.mp4")]
    assert rows[1]["file_bytes"] == (cinema / "b.mp4").stat().st_size
    with Searcher.open(tmp_path / "f.index", encoder=ColourEncoder()) as searcher:
        hits = searcher.text_to_image("blue", k=3, where="time >= 4 AND film = 'b.mp4'")
        assert {hit.item_id for hit in hits} == {"b.mp4#t=4", "b.mp4#t=6"}
        assert hits[0].path == cinema / "b.mp4"
        assert searcher.image_to_image(f"{cinema}/b.mp4#t=4", k=1)[0].score > 0.99


def test_an_update_decodes_only_the_frames_of_films_that_changed(cinema: Path, tmp_path: Path) -> None:
    build_frames(cinema, tmp_path, options=SourceOptions(frames="scenes"))
    encoder, report = build_frames(cinema, tmp_path, update=True)
    assert (report.published, encoder.images_encoded) == (False, 0)  # type: ignore[attr-defined]
    film(cinema / "c.mkv", [(0, Image.new("RGB", (64, 48), "green"))], seconds=3)
    encoder, _ = build_frames(cinema, tmp_path, update=True)
    assert encoder.images_encoded == 1
    assert [row["item_id"] for row in catalog(tmp_path / "f.index")] == ["a.png", "b.mp4#t=0", "b.mp4#t=4", "c.mkv#t=0"]
    encoder, _ = build_frames(cinema, tmp_path, update=True, options=SourceOptions(frames="1s"))
    assert len(catalog(tmp_path / "f.index")) == 1 + 8 + 3


def test_a_film_larger_than_an_image_may_be_is_decoded_once(
    cinema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [Image.effect_noise((64, 48), 80).convert("RGB") for _ in range(8)]
    size = film(cinema / "d.mp4", list(enumerate(noise)), seconds=8, keys=1).stat().st_size
    limit = 3 * 64 * 48 + 100
    assert size > 3 * limit
    decoded: list[str] = []
    read = images.read_frame
    monkeypatch.setattr(images, "read_frame", lambda path, *rest: (decoded.append(path.name), read(path, *rest))[1])
    build_frames(cinema, tmp_path, options=SourceOptions(frames="2s"), max_file_bytes=limit)
    assert decoded.count("d.mp4") == 4
    Image.new("RGB", (64, 48), "green").save(cinema / "e.png")
    decoded.clear()
    build_frames(cinema, tmp_path, update=True, max_file_bytes=limit)
    assert decoded == []


def test_the_films_of_a_report_leave_room_in_the_manifest(
    cinema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, asked = open_source(cinema, SourceOptions(frames="2s")), SourceOptions(frames="2s")
    assert [*known_films.films_report(source, asked)["films"]] == ["b.mp4", "c.mkv"]
    monkeypatch.setattr(known_films, "_MOST_BYTES", 100)
    assert [*known_films.films_report(source, asked)["films"]] == ["b.mp4"]
    assert known_films.films_report(source, SourceOptions()) == {}


@pytest.mark.parametrize("frames", ["2s", "scenes"])
def test_a_film_that_only_moved_is_not_decoded_again(
    cinema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: str
) -> None:
    build_frames(cinema, tmp_path, options=SourceOptions(frames=frames))
    before = {row["item_id"]: row for row in catalog(tmp_path / "f.index")}
    asked: list[str] = []
    ask = films._ask
    monkeypatch.setattr(
        films, "_ask", lambda path, *rest, want, **more: (asked.append(want), ask(path, *rest, want=want, **more))[1]
    )
    (cinema / "old").mkdir()
    shutil.copy(cinema / "b.mp4", cinema / "old" / "renamed.mp4")
    (cinema / "b.mp4").unlink()
    encoder, report = build_frames(cinema, tmp_path, update=True)
    assert report.published  # type: ignore[attr-defined]
    assert (encoder.images_encoded, set(asked) - {"times"}) == (0, set())
    after = {str(row["item_id"]): row for row in catalog(tmp_path / "f.index")}
    moved = {name.replace("b.mp4", "old/renamed.mp4"): row for name, row in before.items() if "b.mp4" in name}
    assert [*after] == [*(name for name in before if "b.mp4" not in str(name)), *moved]
    assert all(after[name]["width"] == row["width"] for name, row in moved.items())
    with Searcher.open(tmp_path / "f.index", encoder=ColourEncoder()) as searcher:
        assert searcher.text_to_image("blue", k=1, where="film = 'old/renamed.mp4'")[0].item_id == "old/renamed.mp4#t=4"


def test_a_damaged_film_costs_one_rejection_and_keeps_its_frames(cinema: Path, tmp_path: Path) -> None:
    whole = (cinema / "c.mkv").read_bytes()
    film(cinema / "long.mkv", [(0, Image.effect_noise((64, 48), 80).convert("RGB"))], seconds=30)
    cut = (cinema / "long.mkv").read_bytes()
    (cinema / "long.mkv").write_bytes(cut[: len(cut) // 2])
    (cinema / "none.mp4").write_bytes(whole[:40])
    build_frames(cinema, tmp_path, options=SourceOptions(frames="2s"))
    with IndexStore.open(tmp_path / "f.index").open_version() as version:
        rejected = version.catalog.table("rejected").to_pylist()
        frames = [row for row in catalog(tmp_path / "f.index") if row["film"] == "long.mkv"]
    assert {(row["item_id"], row["reason"]) for row in rejected} == {("long.mkv", "corrupt"), ("none.mp4", "corrupt")}
    assert 2 <= len(frames) < 15


def test_films_are_passed_over_with_a_line_that_names_the_way(cinema: Path, tmp_path: Path) -> None:
    (line,) = open_source(cinema).notes
    way = "--frames 2s or --frames scenes takes images from them (extra video)"
    assert line == f"passed over 2 films: 1 .mp4, 1 .mkv; {way}"
    (cinema / "a.png").unlink()
    with pytest.raises(SourceError, match=r"holds nothing to index.* passed over 2 films: .*--frames 2s"):
        open_source(cinema)
    for wrong, words in (("2", "neither seconds"), ("0s", "--frames 2s or --frames scenes")):
        done = CliRunner().invoke(build, [str(cinema), "--out", str(tmp_path / "x"), "--frames", wrong])
        assert isinstance(done.exception, SourceError)
        assert words in str(done.exception)
    table = tmp_path / "t.csv"
    table.write_text("image,text\na.png,x\n")
    with pytest.raises(SourceError, match="--frames 2s is for films in a folder"):
        open_source(table, SourceOptions(frames="2s"))
