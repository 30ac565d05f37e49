"""The contrastive loss with any number of positives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def contrastive_loss(
    scores: torch.Tensor, positives: torch.Tensor, ignored: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the symmetric InfoNCE loss in which a row may have several right columns, and the other way about.

    For a positive p of a row: -log(exp(s_p) / (exp(s_p) + sum of exp(s_n) over the negatives n)), averaged over
    the positives of the row, then over rows; the same over columns; the mean of both (van den Oord et al. 2018,
    in CLIP's symmetric form). The other positives are not part of the sum, so captions of one image never push
    each other away. With one positive each it is CLIP's loss.

    Args:
        scores: (n, m) similarities times the logit scale.
        positives: (n, m) bool, what belongs together. Rows and columns without any only serve as negatives.
        ignored: (n, m) bool, pairs that are neither positive nor negative, such as two copies of one image.
        smoothing: Share of the target that goes evenly to the negatives; 0 to 0.1. It holds back
            over-confidence on small sets.
    """
    negatives = ~positives if ignored is None else ~(positives | ignored)
    rows = _one_way(scores, positives, negatives, smoothing)
    return (rows + _one_way(scores.T, positives.T, negatives.T, smoothing)) / 2


def _one_way(scores: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, smoothing: float) -> torch.Tensor:
    # The lowest finite number and not -inf, whose gradient would be NaN in a row without negatives.
    lowest = torch.finfo(scores.dtype).min
    against = torch.logsumexp(scores.masked_fill(~negatives, lowest), dim=1, keepdim=True)
    whole = torch.logaddexp(scores, against)
    losses = whole - scores
    if smoothing:
        negative_mean = (scores * negatives).sum(1, keepdim=True) / negatives.sum(1, keepdim=True).clamp(min=1)
        losses = (1 - smoothing) * losses + smoothing * (whole - negative_mean)
    counts = positives.sum(1)
    means = (losses * positives).sum(1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


Chunk = Callable[[], torch.Tensor]
"""Computes the vectors of one chunk; must give the same values each time it is called."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def backward(left: Sequence[Chunk], right: Sequence[Chunk], loss: Loss) -> torch.Tensor:
    """Add the gradients of a loss over all left and right vectors to the parameters; return the loss, detached.

    With one chunk a side this is the plain backward pass, without the second forward pass.

    Args:
        left: Chunks whose vectors, joined, are the rows of one side.
        right: Chunks of the other side.
        loss: A scalar of all (n, dim) left and all (m, dim) right vectors; it may use parameters of its own.
    """
    if len(left) == 1 and len(right) == 1:
        value = loss(left[0](), right[0]())
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    with torch.no_grad():
        parts = [[chunk() for chunk in side] for side in (left, right)]
    vectors = [torch.cat(side).requires_grad_() for side in parts]
    value = loss(*vectors)
    value.backward()  # type: ignore[no-untyped-call]
    for side, known, whole in zip((left, right), parts, vectors, strict=True):
        _second_pass(side, [len(part) for part in known], whole)
    return value.detach()


def _second_pass(chunks: Sequence[Chunk], sizes: list[int], whole: torch.Tensor) -> None:
    if whole.grad is None:
        return
    for chunk, gradient in zip(chunks, torch.split(whole.grad, sizes), strict=True):
        vectors = chunk()
        if vectors.requires_grad:
            vectors.backward(gradient)  # type: ignore[no-untyped-call]
