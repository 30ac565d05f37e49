"""The smallest model that the training loop trains."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from training.checkpoint import Weights


class Line(nn.Module):
    """One number that learns to be 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.trained = {"weight": self.weight}

    def optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW([{"params": [self.weight], "peak": 0.1}])

    def training_mode(self, on: bool) -> None:
        self.train(on)

    def state(self) -> Weights:
        return {"weight": self.weight.detach().clone()}

    def restore(self, state: Weights) -> None:
        with torch.no_grad():
            self.weight.copy_(state["weight"])

    def backward(self, batch: int, step: int) -> torch.Tensor:
        loss: torch.Tensor = (self.weight - 1).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def weights(self) -> Weights:
        return {"weight": self.weight.detach().clone()}


class Steps:
    """So many steps an epoch; a batch is its number."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def epoch(self, number: int, start: int = 0) -> Iterator[int]:
        yield from range(start, self.steps)
