"""Inference on a CPU: a pool that runs one small batch per core, and models folded and cast before they run."""

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


class CorePool:
    """A thread pool in which torch uses one core per thread; its threads start when they are first needed.

    By default torch splits every operation over all cores and waits for the slowest, so that whatever else runs
    (decoding threads, other programs) stalls all of them, and a batch large enough to split leaves the caches. One
    small batch per core avoids both: 1.6 times the images of `lite` on two cores.
    """

    def __init__(self, count: int | None = None) -> None:
        """Use `count` threads; None takes as many as torch uses for one operation (`OMP_NUM_THREADS`)."""
        self.count = count or torch.get_num_threads()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[T], R], parts: Sequence[T], *, small: bool = False) -> list[R]:
        """Return `work` of every part, in order.

        Args:
            work: What to do with a part.
            parts: As a rule several. A single one is computed by the caller, with all of torch's threads.
            small: A single part is so little work that several threads would wait for each other longer than they
                compute: run it on one thread of the pool. On a quiet machine a short text through `lite` is hardly
                slower; on a busy one it takes 15 ms, where it would now and then take 400.

        Raises:
            Exception: The first that `work` raised, in the order of the parts.
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
    """Return a pool of `count` threads in which torch uses one core each; the setting of other threads is restored."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="encoder-core")
    all_started = threading.Barrier(count)

    def use_one_core(_: int) -> None:
        torch.get_num_threads()  # initialises torch in this thread; done later, that would undo the next line
        torch.set_num_threads(1)
        all_started.wait()  # so that each thread of the pool runs this once

    list(pool.map(use_one_core, range(count)))
    # The count is kept per thread, but new threads inherit the one that was set last, by any thread.
    torch.set_num_threads(before)
    return pool


def ready_for_inference(model: nn.Module, placement: Placement) -> Any:
    """Return the model on its device with folded norms and cast weights; vectors are equal up to rounding.

    The model passed in is modified and must not be used again.
    """
    if isinstance(getattr(model.visual, "trunk", None), ConseTrunk):
        model = _with_folded_norms(model)
    if placement.precision != "fp32":
        _cast_weights(model, placement.dtype)
    return model.to(memory_format=torch.channels_last).to(placement.device)


def _with_folded_norms(model: nn.Module) -> nn.Module:
    folded = copy.copy(model)
    folded._modules = {**model._modules, "visual": copy.deepcopy(model._modules["visual"])}
    trunk: Any = folded.visual.trunk  # type: ignore[union-attr]
    fold_batch_norm(trunk.backbone)
    return folded


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast once what autocast would cast in every forward pass: on a CPU those copies cost more than the arithmetic.

    Norms, embeddings and the residual stream stay in fp32, as under autocast.
    """
    kept = {id(part) for trunk in model.modules() if isinstance(trunk, ConseTrunk) for part in trunk.fp32_layers()}
    for part in model.modules():
        if id(part) in kept:
            continue
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            part.to(dtype)
        elif isinstance(part, nn.MultiheadAttention):
            _cast_attention(part, dtype)


def _cast_attention(part: nn.MultiheadAttention, dtype: torch.dtype) -> None:
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
