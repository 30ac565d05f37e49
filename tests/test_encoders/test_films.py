"""Films: which frames stand for one, each frame upright and at its second, and what damaged films cost."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("av", reason="films need the extra video")

from phone_files import film

from encoders import DecodeLimits, ImageError, decode_image
from encoders.formats import films
from encoders.formats.films import film_of, frame_name, plan_frames, step_of
from encoders.images import DEFAULT_LIMITS

MOST = DEFAULT_LIMITS.max_pixels
COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 220, 40))
STARTS = (0.0, 3.0, 6.2, 9.0)


def shown(colour: int) -> Image.Image:
    """One colour, its upper left corner white."""
    image = Image.new("RGB", (96, 64), COLOURS[colour])
    image.paste((255, 255, 255), (0, 0, 24, 16))
    return image


SCENES = [(start, shown(number)) for number, start in enumerate(STARTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    """Four colours in twelve seconds, a key frame every two."""
    return film(folder / "a.mp4", SCENES, seconds=12)


def colour_at(path: Path, seconds: float) -> int:
    image = decode_image(Path(frame_name(str(path), seconds))).pixels
    red, green, blue = image.getpixel((image.width // 2, image.height // 2))  # type: ignore[misc]
    return min(
        range(4), key=lambda n: abs(red - COLOURS[n][0]) + abs(green - COLOURS[n][1]) + abs(blue - COLOURS[n][2])
    )


def test_frames_every_so_many_seconds_and_at_scene_changes(path: Path) -> None:
    plan = plan_frames(path, "2.5s", MOST)
    assert (plan.times, plan.duration, plan.reason) == ((0, 2.5, 5, 7.5, 10), 12.0, None)
    assert plan_frames(path, "scenes", MOST).times == STARTS
    assert [colour_at(path, seconds) for seconds in STARTS] == [0, 1, 2, 3]


def test_a_frame_is_the_same_in_whatever_order_frames_are_asked_for(path: Path) -> None:
    times = [round(number * 0.3, 1) for number in range(40)]
    expected = [max(n for n in range(4) if STARTS[n] <= time + 1e-6) for time in times]
    assert [colour_at(path, time) for time in times] == expected
    for position in random.Random(1).sample(range(40), 15):
        assert colour_at(path, times[position]) == expected[position]
    assert colour_at(path, 99) == 3


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mts", ".mov"])
def test_frames_are_found_in_every_container(folder: Path, suffix: str) -> None:
    path = film(folder / f"found{suffix}", SCENES, seconds=12)
    assert plan_frames(path, "4s", MOST).times == (0, 4, 8)
    # Far apart, back and forth: some containers find no frame by its time.
    for seconds in (11.5, 0, 8, 3.5, 7.5, 1):
        assert colour_at(path, seconds) == max(n for n in range(4) if STARTS[n] <= seconds), seconds


def test_frames_of_varying_length_stand_once_and_at_their_time(folder: Path) -> None:
    path = film(folder / "slides.mkv", [(0, shown(0)), (7.3, shown(1)), (41.5, shown(2))], seconds=60, variable=True)
    assert plan_frames(path, "2s", MOST).times == (0, 8, 42, 60)
    assert [colour_at(path, seconds) for seconds in (0, 7.2, 8, 41, 42, 59)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("turn", [0, 90, -90, 180])
def test_a_film_is_turned_as_it_says(folder: Path, turn: int) -> None:
    path = film(folder / f"turned{turn}.mov", [(0, shown(0))], seconds=1, turn=turn)
    image = decode_image(Path(f"{path}#t=0.5"))
    expected = shown(0).rotate(turn, expand=True)
    assert (image.info.width, image.info.height) == expected.size
    for corner in ((4, 4), (-4, 4), (4, -4), (-4, -4)):
        place = (corner[0] % expected.width, corner[1] % expected.height)
        assert max(abs(a - b) for a, b in zip(image.pixels.getpixel(place), expected.getpixel(place), strict=True)) < 12  # type: ignore[arg-type]


def test_a_film_that_is_cut_short_keeps_what_can_be_read(folder: Path) -> None:
    whole = film(folder / "whole.mkv", SCENES, seconds=12).read_bytes()
    cut = folder / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    for frames, times in (("2s", (0, 2, 4, 6, 8)), ("scenes", STARTS)):
        plan = plan_frames(cut, frames, MOST)
        assert plan.reason == "corrupt"
        assert "seconds on" in plan.problem
        assert plan.times == times[: len(plan.times)]
        assert 2 <= len(plan.times) < len(times)
        assert [colour_at(cut, seconds) for seconds in plan.times[:2]] == [0, 0 if frames == "2s" else 1]


def test_what_is_no_film_or_too_large_is_an_image_error(folder: Path, path: Path) -> None:
    (folder / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {path}\n")
    (folder / "noise.mp4").write_bytes(os.urandom(4000))
    (folder / "empty.mp4").write_bytes(b"")
    for name in ("list.mp4", "concat.mp4", "noise.mp4", "empty.mp4"):
        with pytest.raises(ImageError, match="corrupt"):
            plan_frames(folder / name, "1s", MOST)
    with pytest.raises(ImageError, match="missing"):
        decode_image(Path(f"{folder}/none.mp4#t=1"))
    with pytest.raises(ImageError, match="too_many_pixels: 96 x 64"):
        plan_frames(path, "1s", 96 * 64 - 1)
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode_image(Path(f"{path}#t=1"), DecodeLimits(max_pixels=1000))
    # Made smaller so that it keeps the limit of bytes.
    small = decode_image(Path(f"{path}#t=1"), DecodeLimits(max_bytes=5000)).info
    assert 4000 < small.width * small.height * 3 <= 5000  # type: ignore[operator]


def test_damaged_films_give_frames_or_an_image_error(folder: Path, path: Path) -> None:
    whole, chance = path.read_bytes(), random.Random(2)
    for number in range(40):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 8, 60))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        broken = folder / f"damaged{number}.mp4"
        broken.write_bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))])
        with suppress(ImageError):
            plan = plan_frames(broken, "3s", MOST)
            assert all(a < b for a, b in pairwise(plan.times))
            for seconds in plan.times[:2]:
                assert decode_image(Path(frame_name(str(broken), seconds))).pixels.mode == "RGB"


def test_scenes_of_a_film_are_looked_for_once_wherever_it_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = film(folder / "kept.mp4", [(0, shown(2)), (2, shown(1))], seconds=4)
    looked: list[Path] = []
    look = films._scenes
    monkeypatch.setattr(films, "_scenes", lambda path, most: (looked.append(path), look(path, most))[1])
    assert plan_frames(kept, "scenes", MOST) == plan_frames(kept, "scenes", MOST)
    assert looked == [kept]
    plan_frames(kept.rename(folder / "moved.mp4"), "scenes", MOST)
    assert looked == [kept]
    film(kept, [(0, shown(0))], seconds=3)
    assert plan_frames(kept, "scenes", MOST).times == (0,)
    assert looked == [kept, kept]


def test_names_of_frames() -> None:
    assert [frame_name("a.mp4", seconds) for seconds in (0, 12.5, 3.25, 10.0, 1.2345)] == [
        "a.mp4#t=0",
        "a.mp4#t=12.5",
        "a.mp4#t=3.25",
        "a.mp4#t=10",
        "a.mp4#t=1.234",
    ]
    assert film_of("x/a.MOV#t=12.5") == ("x/a.MOV", 12.5)
    assert [film_of(name) for name in ("a.jpg#t=1", "a.mp4", "a.mp4#t=", "#t=1")] == [None] * 4
    assert (step_of("2s"), step_of("0.5s"), step_of("scenes")) == (2, 0.5, None)
    for wrong in ("2", "0s", "0.001s", "-1s", "scene", "2 s", ""):
        with pytest.raises(ValueError, match="neither seconds"):
            step_of(wrong)
