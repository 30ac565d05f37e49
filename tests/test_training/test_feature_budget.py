"""Features of frozen blocks never take the whole time limit, and one hears of them meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from two_tone import save_tiny, two_tone

from training import CaptionedImages, FitConfig, fit_encoder, loop
from training import examples as example_module
from training import features as feature_module
from training.batches import pair_captions, pair_pairs
from training.examples import PairSet
from training.features import HiddenCache
from training.loop import FitProgress
from training.time_budget import validation_count
from twinlens.commands import fit as command

LIMIT = 6.0


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> CaptionedImages:
    """156 images, each under several names that differ in a byte."""
    paths, captions = two_tone(tmp_path_factory.mktemp("images"), 999)
    copies = [path.with_stem(f"{path.stem}_{number}") for number in range(3) for path in paths]
    for number, copy in enumerate(copies):
        copy.write_bytes(copy.with_stem(copy.stem.rpartition("_")[0]).read_bytes() + bytes([number // len(paths)]))
    return CaptionedImages(copies, captions * 3)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that come from far away: a fiftieth of a second each, in two threads."""
    real = feature_module.decode

    def decode(content: object) -> object:
        time.sleep(0.04)
        return real(content)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_module, "decode", decode)
    monkeypatch.setattr(feature_module.os, "cpu_count", lambda: 2)


@pytest.fixture
def config(quick: FitConfig) -> FitConfig:
    return replace(quick, mode="head", views=1, epochs=4)


@pytest.mark.usefixtures("slow")
def test_where_features_would_take_most_of_the_time_fewer_images_are_used(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path
) -> None:
    seen: list[FitProgress] = []
    report = fit_encoder(tiny, many, None, tmp_path / "out", replace(config, time_limit=LIMIT), seen.append)
    assert 0 < report.share < 1
    train, val = report.counts["train_left"], report.counts["val_left"]
    assert 32 <= train < 0.9 * len(many)
    assert train == pytest.approx(report.share * 0.9 * len(many), abs=2)
    assert val == round(0.1 * len(many))  # so few are not cut by the same share
    assert report.curve  # there was time to train
    assert report.seconds["features"] < LIMIT
    (said,) = [one.text for one in seen if "of the time limit are left" in one.text]
    assert f"{report.share:.0%} of the examples are used" in said
    # They go on until their half of the time is over, or another batch would take them past it.
    assert report.seconds["features"] > 0.2 * LIMIT
    # Augmented views go before examples.
    assert "no augmented views of each image" in said
    assert report.views == 0
    assert f"used    {train + val} of {len(many)} images, {train} to learn from" in report.to_text()
    assert "0 of 1 augmented views of each image" in report.to_text()


def test_without_a_limit_and_with_a_wide_one_every_image_is_used(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path
) -> None:
    for number, limit in enumerate((None, 1000.0)):
        report = fit_encoder(tiny, many, None, tmp_path / str(number), replace(config, epochs=1, time_limit=limit))
        assert (report.share, report.views) == (1.0, 1)
        assert "used" not in report.to_text()
        assert report.counts["train_left"] + report.counts["val_left"] == len(many)


@pytest.mark.usefixtures("slow")
def test_a_run_that_was_killed_goes_on_with_the_examples_that_it_began_with(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path
) -> None:
    def kill(progress: FitProgress) -> None:
        if progress.stage == "evaluate":
            raise Killed

    with pytest.raises(Killed):
        fit_encoder(tiny, many, None, tmp_path / "out", replace(config, time_limit=LIMIT), kill)
    state = json.loads((tmp_path / "out.fit" / "state.json").read_text("utf-8"))
    assert 0 < state["share"] < 1
    again = fit_encoder(tiny, many, None, tmp_path / "out", config)
    assert (again.share, again.views) == (state["share"], state["views"]) == (state["share"], 0)


def test_where_reading_would_take_long_fewer_images_are_read_and_a_killed_run_reads_the_same(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = example_module.decode

    def decode(content: object) -> object:
        time.sleep(0.04)
        return real(content)  # type: ignore[arg-type]

    def kill(progress: FitProgress) -> None:
        seen.append(progress.text)
        if progress.stage == "evaluate":
            raise Killed

    seen: list[str] = []
    monkeypatch.setattr(example_module, "decode", decode)
    monkeypatch.setattr(example_module.os, "cpu_count", lambda: 2)
    with pytest.raises(Killed):
        fit_encoder(tiny, many, None, tmp_path / "out", replace(config, time_limit=LIMIT), kill)
    assert any(f"of the {len(many)}, as the time limit does not allow all" in text for text in seen)
    read = json.loads((tmp_path / "out.fit" / "state.json").read_text("utf-8"))["read"]
    assert 0 < read < 1
    report = fit_encoder(tiny, many, None, tmp_path / "out", config)
    assert report.share == pytest.approx(read)
    assert report.counts["train_left"] + report.counts["val_left"] == int(read * len(many))


def test_augmented_views_are_left_out_before_any_example(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = feature_module.ImageFeed.add_view

    def add_view(feed: feature_module.ImageFeed, batch: int) -> Iterator[int]:
        clock.now += 1.0  # so that the time for features is over with the second one
        yield from real(feed, batch)

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(feature_module.ImageFeed, "add_view", add_view)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 500 * clock.now))
    settings = replace(config, views=3, epochs=1, time_limit=1900.0)
    report = fit_encoder(tiny, many, None, tmp_path / "out", settings)
    assert (report.views, report.share) == (2, 1.0)
    assert "2 of 3 augmented views of each image" in report.to_text()


def test_validation_has_a_share_of_its_own() -> None:
    assert validation_count(26_000, 26_000, 2_900) == 2_900
    assert validation_count(13_000, 26_000, 2_900) == 1_450
    assert validation_count(3_000, 26_000, 2_900) == 500
    assert validation_count(800, 26_000, 2_900) == 200
    assert validation_count(40, 26_000, 2_900) == 32
    assert validation_count(3_000, 26_000, 60) == 60


def test_where_memory_does_not_hold_all_features_it_is_those_that_fit_which_are_learned_from() -> None:
    hidden = torch.arange(12.0).reshape(3, 2, 2)  # 8 bytes an item
    cache = HiddenCache(np.full(3, 2), 16, partly=True)
    cache.keep(np.array([2, 0]), hidden[[2, 0]])
    assert not cache.full
    assert torch.equal(cache.get(np.array([0, 2])), hidden[[0, 2]])
    cache.keep(np.array([1]), hidden[[1]])
    assert cache.full
    whole = HiddenCache(np.full(3, 2), 16, partly=False)
    whole.keep(np.array([2, 0]), hidden[[2, 0]])
    assert whole.off
    large = HiddenCache(np.full(3, 2), 1000, partly=True)
    large.keep(np.array([0]), 1e5 + hidden[[0]])  # more than float16 holds
    assert large.off


@pytest.mark.parametrize("limit", [None, 60.0])
def test_without_memory_for_features_everything_is_computed_when_it_is_needed(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path, limit: float | None
) -> None:
    settings = replace(config, epochs=1, cache_bytes=100, time_limit=limit)
    report = fit_encoder(tiny, many, None, tmp_path / "out", settings)
    assert (report.share, report.views, report.stopped_by) == (1.0, 1, "finished")


def test_a_limit_that_ends_before_training_is_said(
    tiny: str, many: CaptionedImages, config: FitConfig, tmp_path: Path
) -> None:
    seen: list[FitProgress] = []
    report = fit_encoder(tiny, many, None, tmp_path / "out", replace(config, time_limit=0.0), seen.append)
    assert any("nothing is trained: the time limit was over" in one.text for one in seen)
    assert "nothing was trained" in report.to_text()
    assert report.counts["train_left"] + report.counts["val_left"] == report.given == len(many)


def test_a_part_keeps_what_belongs_together(many: CaptionedImages) -> None:
    pairing = pair_captions(many)
    order = pairing.groups(seed=3)
    chosen = np.concatenate(order[: len(order) // 2])
    part, rows = pairing.part(chosen)
    assert len(part.left) == len(many) // 2
    assert rows[0].tolist() == sorted(chosen.tolist())
    assert list(part.left.keys) == [pairing.left.keys[row] for row in rows[0]]
    assert list(part.right.keys) == [pairing.right.keys[row] for row in rows[1]]
    assert rows[1].tolist() == pairing.companions(chosen).tolist()
    words = dict(zip(pairing.left.keys, pairing.partners, strict=True))
    for key, partners in zip(part.left.keys, part.partners, strict=True):
        expected = {pairing.right.contents[row] for row in words[key]}
        assert {part.right.contents[row] for row in partners} == expected
    again = pairing.groups(seed=3)
    assert [group.tolist() for group in again] == [group.tolist() for group in order]


def test_a_part_of_one_kind_keeps_families_whole() -> None:
    texts = [f"text {number}" for number in range(200)]
    pairs = PairSet(left_kind="text", right_kind="text", left=texts[::2], right=texts[1::2])
    pairing = pair_pairs(pairs)
    part, _ = pairing.part(np.concatenate(pairing.groups(seed=0)[:50]))
    assert len(part.left) == 100
    assert all(len(rows) == 1 for rows in part.partners)


def test_one_hears_of_features_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FIRST_LINE_AFTER", 0.05)
    listen = command.line_listener()
    listen(FitProgress(stage="features", done=0, total=400, text="features of 400 images"))
    listen(FitProgress(stage="features", done=10, total=400))
    time.sleep(0.1)
    for done in (200, 300):
        listen(FitProgress(stage="features", done=done, total=400))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["features of 400 images", "features 200/400, 0 s left"]


def test_pairs_too_few_to_measure_are_all_used(tiny: str, quick: FitConfig, tmp_path: Path) -> None:
    paths, captions = two_tone(tmp_path / "few", 40)
    spec = save_tiny(tmp_path / "model")
    report = fit_encoder(
        spec, CaptionedImages(paths, captions), None, tmp_path / "out", replace(quick, mode="head", time_limit=20.0)
    )
    assert (report.share, np.sum([report.counts["train_left"], report.counts["val_left"]])) == (1.0, 40)
