"""Progress counts images and texts apart, and what it says of the time left comes true."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from colour import ColourEncoder, paint_folder

from indexer import build_index
from indexer.encode.pipeline import IMAGES, TEXTS, WAITING, EncodeProgress
from indexer.encode.shards import Corpus
from indexer.progress import LineProgress, SilentProgress, duration


class Heard(SilentProgress):
    """Keeps what it is told, each with the moment."""

    def __init__(self) -> None:
        self.units, self.told = 0, list[tuple[float, int, str, float | None]]()

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        self.units += units
        self.told.append((time.monotonic(), self.units, hint, left))


def meter(images: int, texts: int, waited: float = 0.0, encoding_texts: float = 0.0) -> tuple[EncodeProgress, Heard]:
    heard = Heard()
    corpus = Corpus(digest="", images=images, texts=texts, unreadable=1)
    stages = {WAITING: 0.0, IMAGES: waited, TEXTS: encoding_texts}
    one = EncodeProgress(progress=heard, corpus=corpus, stages=stages)
    one.begin()
    return one, heard


def left(one: EncodeProgress, seconds: float) -> float | None:
    return one.left(one._began + seconds)


def test_images_and_texts_are_counted_apart() -> None:
    one, heard = meter(1000, 5000)
    one.add(images=16, hint="limit: encoding images")
    one.add(texts=1024)
    one.add(unreadable=1)
    hints = [hint for _, _, hint, _ in heard.told]
    assert hints[:2] == [
        "16 of 1,000 images, 0 of 5,000 texts, limit: encoding images",
        "16 of 1,000 images, 1,024 of 5,000 texts",
    ]
    assert heard.units == 16 + 1024 + 1


def test_a_corpus_of_one_kind_needs_no_second_count() -> None:
    one, heard = meter(1000, 0)
    one.add(images=16, hint="limit: encoding images")
    assert heard.told[0][2] == "limit: encoding images"


def test_before_any_text_is_encoded_one_counts_as_an_eighth_of_an_image() -> None:
    one, _ = meter(100, 800)
    assert left(one, 5.0) is None
    one.add(images=50)
    assert left(one, 10.0) == pytest.approx(10.0 / 50 * (50 + 800 / 8))


def test_then_it_counts_as_what_it_takes() -> None:
    one, _ = meter(100, 800, waited=10.0, encoding_texts=5.0)
    one.add(images=50, texts=50)  # 0.2 s an image, 0.1 s a text
    assert left(one, 15.0) == pytest.approx(50 * 0.2 + 750 * 0.1)


def test_what_an_earlier_run_finished_says_nothing_of_the_rate() -> None:
    one, _ = meter(100, 0)
    one.add_shard(pa.table({"collection": ["images"] * 60}), "finished before", resumed=True)
    assert left(one, 0.5) is None
    one.add(images=10)
    assert left(one, 3.0) == pytest.approx(9.0)


def test_a_shard_from_elsewhere_is_counted_by_its_rows() -> None:
    one, heard = meter(4, 6)
    one.add_shard(pa.table({"collection": ["images", "texts", "texts", "images"]}), "2 workers")
    assert heard.told[0][2] == "2 of 4 images, 2 of 6 texts, 2 workers"


def test_the_first_line_of_a_stage_does_not_wait_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("indexer.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.stage("encode", 1000)
    for _ in range(30):
        now[0] += 1
        progress.advance(10, "a hint", 12_000.0)
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"encode: {done} of 1" for done in (20, 120, 220)]
    assert lines[0] == "encode: 20 of 1,000, 10 a second, 3.3 h left, a hint"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations_are_in_the_unit_that_one_thinks_in(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class Slow(ColourEncoder):
    """Takes a set time for each image and a fourth of it for each text."""

    def encode_pixels(self, pixels: Any) -> np.ndarray:
        time.sleep(0.02 * len(pixels))
        return super().encode_pixels(pixels)

    def encode_texts(self, texts: Any) -> np.ndarray:
        time.sleep(0.005 * len(texts))
        return super().encode_texts(texts)


def test_after_the_first_shard_the_time_left_is_about_right(tmp_path: Path) -> None:
    """40 images and 80 texts in shards of ten images' work: images and texts come in turns."""
    photos, heard = paint_folder(tmp_path / "photos"), Heard()
    build_index(photos, tmp_path / "out", encoder=Slow(), progress=heard, batch_size=4, shard_cost=10)
    encoded = [one for one in heard.told if one[3] is not None]
    ended = next(moment for moment, units, _, _ in encoded if units == 120)
    told = [(moment, said) for moment, units, _, said in encoded if 24 < units <= 90 and said is not None]
    assert len(told) > 6
    assert 0.4 < np.median([said / (ended - moment) for moment, said in told]) < 2.5
