"""What every training does with its device: the optimiser, and losses that are read without making the device wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from encoders.device import Placement

from .errors import TrainingError

# Steps that a GPU is given before the loss of the first of them is looked at. Two, so that there is always one to
# compute while another is prepared; with more, memory, the time limit and a loss that is not finite lag further behind.
STEPS_BEHIND = {"cpu": 0, "cuda": 2}


def adamw(groups: Iterable[Mapping[str, Any]], placement: Placement, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """Return AdamW over parameter groups; on a GPU one kernel updates all parameters, on a CPU it is torch's default.

    Args:
        groups: As torch takes them.
        placement: Where the parameters are.
        weight_decay: Of groups without one of their own; 0.01 is torch's default.
    """
    fused = True if placement.kind == "cuda" else None
    return torch.optim.AdamW([dict(group) for group in groups], weight_decay=weight_decay, fused=fused)


@dataclass(frozen=True)
class _Unread:
    step: int
    loss: torch.Tensor
    copied: Any


class Losses:
    """The losses of the steps since the last evaluation.

    A loss is copied to this machine's memory when the device comes to it, and looked at when two later steps have been
    given to the device: reading it at once would leave the device without work until the next step is prepared.

    Args:
        kind: `cpu` or `cuda`: where steps are computed.
        device: The device itself, `cuda:1` for example.
        cuda: The module that knows streams.
    """

    def __init__(self, kind: str, device: str, cuda: Any = torch.cuda) -> None:
        self.behind = STEPS_BEHIND[kind]
        self._device, self._cuda = device, cuda
        self._unread: deque[_Unread] = deque()
        self._read: list[float] = []

    def __bool__(self) -> bool:
        """Return whether there has been a step since the last evaluation."""
        return bool(self._unread or self._read)

    def add(self, step: int, loss: torch.Tensor) -> None:
        """Take the loss of a step, counted from 0; returns once all but the last steps are computed.

        Raises:
            TrainingError: The loss of this step, or of one before, is not finite.
        """
        if not self.behind:
            self._take(step, float(loss))
            return
        host = loss.to("cpu", non_blocking=True)
        self._unread.append(_Unread(step, host, self._cuda.current_stream(self._device).record_event()))
        while len(self._unread) > self.behind:
            self._take_oldest()

    def settle(self) -> None:
        """Wait for the losses of all steps.

        Raises:
            TrainingError: One of them is not finite.
        """
        while self._unread:
            self._take_oldest()

    def pop_mean(self) -> float | None:
        """Return the mean of all losses, None without any, and begin anew.

        Raises:
            TrainingError: One of them is not finite.
        """
        self.settle()
        mean = sum(self._read) / len(self._read) if self._read else None
        self._read.clear()
        return mean

    def _take_oldest(self) -> None:
        oldest = self._unread.popleft()
        oldest.copied.synchronize()
        self._take(oldest.step, float(oldest.loss))

    def _take(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {step + 1}; lower the learning rates, or use precision fp32"
            )
        self._read.append(loss)
