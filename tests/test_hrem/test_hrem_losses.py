from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from training.hrem.hrem_learner import (
    RankingLoss,
    distance_weighted,
    distances_of,
    divergence,
    draw_negatives,
    hardest_negative,
    log_weights,
)
from training.hrem.region_batches import Matches

ANCHORS = [
    (0.5, 369.93),
    (0.7, 215.16),
    (0.9, 111.32),
    (1.0, 73.22),
    (1.2, 20.60),
    (math.sqrt(2), -0.35),
    (1.6, 20.31),
    (1.7, 55.63),
    (1.9, 265.11),
]


def matches_of(owners: torch.Tensor) -> Matches:
    return Matches.of(owners.unsqueeze(0) == owners.unsqueeze(1))


@pytest.mark.parametrize(("distance", "weight"), ANCHORS)
def test_log_weights_are_those_of_the_distribution_of_distances(distance: float, weight: float) -> None:
    assert float(log_weights(torch.tensor(distance), 512)) == pytest.approx(weight, abs=0.01)


def test_distances_below_a_half_weigh_alike() -> None:
    near = log_weights(torch.tensor([0.0, 0.1, 0.5]), 512)
    assert torch.equal(near, near[:1].expand(3))


def test_the_divergence_of_the_worked_example() -> None:
    guide, relation = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    assert float(divergence(relation, guide)) == pytest.approx(1.15042, abs=1e-5)
    assert float(divergence(guide, guide)) == 0


def test_a_cosine_above_one_by_rounding_is_distance_zero() -> None:
    assert distances_of(torch.tensor([1.0000002])).tolist() == [0.0]


def test_the_nearest_negative_is_practically_always_drawn() -> None:
    scores = torch.tensor([[0.9, 0.6, 0.3]]).expand(200, -1)
    same = torch.tensor([[True, False, False]]).expand(200, -1)
    assert set(draw_negatives(scores, Matches.of(same), 1.7, 512).tolist()) == {1}


def test_very_far_negatives_win_over_medium_ones_unless_cut_off() -> None:
    scores = torch.tensor([[0.9, 0.0, -0.8]]).expand(50, -1)  # distances: -, 1.41, 1.90
    same = torch.tensor([[True, False, False]]).expand(50, -1)
    assert set(draw_negatives(scores, Matches.of(same), 1.95, 512).tolist()) == {2}
    assert set(draw_negatives(scores, Matches.of(same), 1.7, 512).tolist()) == {1}


def test_a_row_without_a_negative_adds_nothing_and_does_not_fail() -> None:
    same = torch.ones(3, 3, dtype=torch.bool)
    scores = torch.eye(3, requires_grad=True)
    loss = distance_weighted(scores, Matches.of(same), 0.2, 1.7, 512)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(scores.grad).all()


def test_all_captions_of_an_image_are_its_matches() -> None:
    owners = torch.tensor([4, 4, 9])
    scores = torch.tensor([[0.5, 0.1, 0.4], [0.5, 0.1, 0.4], [0.3, 0.3, 0.6]])
    # Rows 0 and 1 match columns 0 and 1 and can only draw column 2; row 2 draws 0 or 1, which score alike.
    expected = 2 * ((0.2 + 0.4 - 0.5) + (0.2 + 0.4 - 0.1)) + 0
    assert float(distance_weighted(scores, matches_of(owners), 0.2, 1.7, 512)) == pytest.approx(expected)


def test_the_hardest_negative_and_all_negatives() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.45], [0.0, 0.9, 0.0], [0.8, 0.0, 0.7]])
    same = torch.eye(3, dtype=torch.bool)
    assert float(hardest_negative(scores, same, 0.2, every=False)) == pytest.approx(0.15 + 0 + 0.3)
    assert float(hardest_negative(scores, same, 0.2, every=True)) == pytest.approx(0.1 + 0.15 + 0.3)


def test_captions_of_the_same_image_are_no_negatives_of_the_hardest_either() -> None:
    same = torch.ones(2, 2, dtype=torch.bool)
    assert float(hardest_negative(torch.tensor([[0.1, 0.9], [0.9, 0.1]]), same, 0.2, every=False)) == 0


@given(st.integers(1, 6), st.integers(2, 8), st.sampled_from(["distance", "hardest"]), st.integers(0, 99))
def test_losses_are_finite_and_not_negative(count: int, dim: int, kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    left = functional.normalize(torch.randn(count, dim), dim=1).requires_grad_()
    right = functional.normalize(torch.randn(count, dim), dim=1)
    loss = RankingLoss(kind, 0.2, 1.7, 512)(left, right, matches_of(torch.randint(3, (count,))), False)
    loss.backward()
    assert loss.item() >= 0
    assert torch.isfinite(left.grad).all()


def test_equal_embeddings_have_finite_gradients() -> None:
    left = functional.normalize(torch.ones(4, 8), dim=1).requires_grad_()
    loss = RankingLoss("distance", 0.2, 1.7, 512)(left, left, matches_of(torch.arange(4)), False)
    loss.backward()
    assert torch.isfinite(left.grad).all()
