"""Several small batches at once, each on one core."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

from .device import Placement
from .lite import ConseTrunk, fold_batch_norm

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """Threads that compute side by side, each with one core's arithmetic; made when they are first needed.

    Torch cuts every single operation over all cores and waits for the last of them, so that whatever else runs (threads
    that decode, other programs) stops all cores at once, and a batch that is big enough for that leaves the caches.
    One small batch a core needs neither: 1.6 times the pictures of `lite` on two cores.
    """

    def __init__(self, count: int | None = None) -> None:
        """Take `count` lanes; None takes as many as torch would use threads for one operation (`OMP_NUM_THREADS`)."""
        self.count = count or torch.get_num_threads()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[T], R], parts: Sequence[T], *, small: bool = False) -> list[R]:
        """Return `work` of every part, in order.

        Args:
            work: What to do with a part.
            parts: As a rule several. A single one is computed by the caller, with all of torch's threads.
            small: A single part is so little work that threads would wait for each other longer than they work: it
                takes a lane too. One short text through `lite` is hardly slower so on a quiet machine, and on a busy
                one it takes 15 ms where now and then it would take 400.

        Raises:
            Exception: What `work` raises first, in the order of the parts.
        """
        if self.count == 1 or len(parts) < (1 if small else 2):
            return [work(part) for part in parts]
        return list(self._started().map(work, parts))

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = _single_threaded(self.count)
            return self._pool


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads in each of which torch uses one thread, elsewhere as many as before."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="lane")
    everyone = threading.Barrier(count)

    def settle(_: int) -> None:
        torch.get_num_threads()  # else torch's own set-up of this thread would come later and undo the next line
        torch.set_num_threads(1)
        everyone.wait()  # so that each thread of the pool takes part once

    list(pool.map(settle, range(count)))
    # Torch keeps the count for each thread, but new threads take the one that was set last, by whomever.
    torch.set_num_threads(before)
    return pool


def ready_for_inference(model: nn.Module, placement: Placement) -> Any:
    """Return the model on its device, faster and with vectors equal up to rounding; the model given is used up."""
    if isinstance(getattr(model.visual, "trunk", None), ConseTrunk):
        model = _with_folded_norms(model)
    if placement.precision != "fp32":
        _cast_weights(model, placement.dtype)
    return model.to(memory_format=torch.channels_last).to(placement.device)


def _with_folded_norms(model: nn.Module) -> nn.Module:
    lean = copy.copy(model)
    lean._modules = {**model._modules, "visual": copy.deepcopy(model._modules["visual"])}
    trunk: Any = lean.visual.trunk  # type: ignore[union-attr]
    fold_batch_norm(trunk.backbone)
    return lean


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast what autocast would cast in each forward pass: on a CPU those copies cost more than the arithmetic.

    Norms, embeddings and the residual stream stay in fp32, as under autocast.
    """
    kept = {id(part) for trunk in model.modules() if isinstance(trunk, ConseTrunk) for part in trunk.exact_parts()}
    for part in model.modules():
        if id(part) in kept:
            continue
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            part.to(dtype)
        elif isinstance(part, nn.MultiheadAttention):
            _cast_own(part, dtype)


def _cast_own(part: nn.MultiheadAttention, dtype: torch.dtype) -> None:
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
