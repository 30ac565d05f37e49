"""Averages and interpolations are kept only where they score better, and the untrained weights are never forgotten."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from training import FitConfig, TrainingError
from training.loop import Clock, warmup_cosine
from training.selection import blend, greedy_soup, interpolated


def point(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([value])}


def near(target: float) -> object:
    """A score that is best at the target."""
    return lambda weights: 1 - abs(float(weights["w"]) - target)


def test_a_soup_takes_what_helps_and_leaves_what_does_not() -> None:
    score = near(2.0)
    candidates = [(score(point(value)), step, point(value)) for step, value in ((30, 1.5), (10, 2.6), (20, 9.0))]
    chosen = greedy_soup(sorted(candidates, key=lambda candidate: -candidate[0]), score)
    assert chosen.steps == (30, 10)
    assert float(chosen.weights["w"]) == pytest.approx(2.05)
    assert chosen.score == pytest.approx(0.95)


def test_a_soup_is_the_plain_mean_of_its_parts() -> None:
    chosen = greedy_soup([(0.0, step, point(value)) for step, value in ((1, 1.0), (2, 2.0), (3, 6.0))], lambda _: 0.0)
    assert float(chosen.weights["w"]) == pytest.approx(3.0)


@pytest.mark.parametrize(("target", "alpha"), [(10.0, 1.0), (8.1, 0.8), (5.2, 0.5), (0.1, 0.0)])
def test_interpolation_finds_the_best_point_between_untrained_and_trained(target: float, alpha: float) -> None:
    score = near(target)
    trained = greedy_soup([(score(point(10.0)), 7, point(10.0))], score)
    chosen = interpolated(point(0.0), trained, score(point(0.0)), score)
    assert chosen.alpha == alpha
    assert chosen.steps == (() if alpha == 0 else (7,))
    assert float(chosen.weights["w"]) == pytest.approx(10 * alpha)


def test_blending_keeps_the_type_and_loses_no_precision() -> None:
    mixed = blend({"w": torch.tensor([1.0])}, {"w": torch.tensor([1.0 + 2**-20])}, 0.5)
    assert mixed["w"].dtype == torch.float32
    assert float(mixed["w"]) == 1.0 + 2**-21


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    assert [warmup_cosine(share, 0.1) for share in (0.0, 0.05, 0.1, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 0.0])
    assert warmup_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.0, 0.0) == 1.0
    shares = [warmup_cosine(step / 100, 0.1) for step in range(10, 101)]
    assert shares == sorted(shares, reverse=True)


def test_a_clock_knows_what_is_left_and_what_is_kept_back() -> None:
    assert Clock(None).share == 0.0
    assert math.isinf(Clock(None).left)
    assert Clock(0).over
    clock = Clock(100)
    clock.keep_back("saving", 60)
    clock.keep_back("saving", 20)
    assert not clock.over
    clock.keep_back("evaluation", 41)
    assert clock.over
    clock.let_go("saving")
    assert not clock.over
    assert (clock.kept_back("saving"), clock.kept_back("evaluation")) == (0.0, 41.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "half"}, "mode is 'half'; choose one of auto, full, upper, head, lora"),
        ({"epochs": 0}, "epochs is 0; give 1 or more"),
        ({"batch_size": 1}, "batch_size is 1, so nothing in a step could be told apart; give 2 or more"),
        ({"lr": -1.0}, "lr is -1.0; give 0 or more"),
        ({"lr": float("nan")}, "lr is nan; give 0 or more"),
        ({"val_share": 1.0}, "val_share is 1.0; give a share from 0 to below 1"),
        ({"val_share": 0.0}, "val_share is 0; give a share above 0, or val of your own"),
        ({"time_limit": -5.0}, "time_limit is -5.0; give 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        FitConfig(**settings)


def test_fp16_is_refused(tiny: str, examples: object, tmp_path: Path) -> None:
    from training import fit_encoder

    with pytest.raises(TrainingError, match="precision 'fp16' overflows in training; choose bf16 or fp32"):
        fit_encoder(tiny, examples, None, tmp_path / "encoder", FitConfig(precision="fp16"))
