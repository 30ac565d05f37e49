"""One large contrastive step in little memory.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (RepL4NLP 2021): all vectors of a
batch are computed without a graph, the loss is taken back to the vectors only, then each chunk is computed once more
and its vectors' gradients are taken back to the weights. The gradients are those of the plain large batch; the cost is
one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

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
