"""The loss is CLIP's with one right answer each, and lets right answers be with several."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from training.learner import contrastive_loss


def by_hand(scores: torch.Tensor, positives: torch.Tensor) -> float:
    """One direction, written as the formula is."""
    rows = []
    for row, right in zip(scores.tolist(), positives.tolist(), strict=True):
        wrong = sum(math.exp(score) for score, hit in zip(row, right, strict=True) if not hit)
        hits = [score for score, hit in zip(row, right, strict=True) if hit]
        if hits:
            rows.append(sum(-math.log(math.exp(s) / (math.exp(s) + wrong)) for s in hits) / len(hits))
    return sum(rows) / max(1, len(rows))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), m=st.integers(1, 8), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_it_is_the_formula_of_its_docstring(seed: int, n: int, m: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, m, generator=generator, dtype=torch.float64) * 5
    positives = torch.rand(n, m, generator=generator) < share
    expected = (by_hand(scores, positives) + by_hand(scores.T, positives.T)) / 2
    assert math.isclose(float(contrastive_loss(scores, positives)), expected, rel_tol=1e-6, abs_tol=1e-9)


def test_with_one_right_answer_each_it_is_the_loss_of_clip() -> None:
    scores = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(7)
    clip = (functional.cross_entropy(scores, labels) + functional.cross_entropy(scores.T, labels)) / 2
    assert torch.isclose(contrastive_loss(scores, torch.eye(7, dtype=torch.bool)), clip)
    smooth = functional.cross_entropy(scores, labels, label_smoothing=0.1 * 6 / 7)
    smooth = (smooth + functional.cross_entropy(scores.T, labels, label_smoothing=0.1 * 6 / 7)) / 2
    # PyTorch spreads its share over all answers, the right one included.
    share = 0.1 * 6 / 7
    assert torch.isclose(contrastive_loss(scores, torch.eye(7, dtype=torch.bool), smoothing=share * 6 / 7), smooth)


def test_captions_of_one_image_do_not_push_each_other_away() -> None:
    scores = torch.tensor([[3.0, 3.0, -1.0]], requires_grad=True)
    contrastive_loss(scores, torch.tensor([[True, True, False]])).backward()
    assert scores.grad is not None
    assert (scores.grad[0, :2] < 0).all()
    assert scores.grad[0, 2] > 0


def test_what_is_neither_right_nor_wrong_is_left_alone() -> None:
    scores = torch.randn(4, 5, requires_grad=True)
    positives = torch.eye(4, 5, dtype=torch.bool)
    ignored = torch.zeros(4, 5, dtype=torch.bool)
    ignored[0, 3] = True
    contrastive_loss(scores, positives, ignored).backward()
    assert scores.grad is not None
    assert scores.grad[0, 3] == 0
    assert scores.grad[0, 2] != 0


def test_rows_without_wrong_answers_give_no_gradient_and_no_nan() -> None:
    scores = torch.randn(2, 2, requires_grad=True)
    loss = contrastive_loss(scores, torch.ones(2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
