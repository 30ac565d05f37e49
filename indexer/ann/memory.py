"""Memory that the approximate indexes of a build will need, stated before it starts."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

from storage.schema import Collection
from storage.vectors import BATCH_ROWS

from ..config import BuildConfig
from ..errors import BuildError
from ..progress import Progress
from .plan import plan_ann
from .train import estimate_memory, fit_memory

# Arrow's and DuckDB's room for one row of the catalog, its ids and paths of ordinary length.
CATALOG_BYTES_A_ROW = 400
MIB = 2**20


def used_bytes() -> int:
    """Return the memory that this process holds of its own, mapped files left out."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "RssAnon" in lines:
            return int(lines["RssAnon"].split()[0]) * 1024
    # Without Linux's figures: the highest so far, which is too much rather than too little.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def say_memory(rows: Mapping[Collection, int], dim: int, config: BuildConfig, progress: Progress) -> None:
    """Say which approximate indexes will be built and about how much memory that takes.

    Raises:
        BuildError: There are too few items for the kind asked for, or `memory_bytes` is too small for it: better told
            now than after hours of encoding.
    """
    need = 0
    for collection, count in rows.items():
        plan = plan_ann(config.ann, count, dim, seed=config.seed)
        if plan.kind != "flat":
            progress.note(f"{collection}: {plan.factory} over {count:,} vectors, trained on {plan.train_rows:,}")
            need = max(need, estimate_memory(plan, count, dim))
            fit_memory(plan, count, dim, ann_budget(config))
    if need:
        merging = sum(min(count, BATCH_ROWS) * dim * 4 + count * CATALOG_BYTES_A_ROW for count in rows.values())
        stated = used_bytes() + max(need, merging)
        if config.memory_bytes:
            stated = min(stated, config.memory_bytes)
        mapped = max(rows.values()) * dim * 2
        progress.note(
            f"memory: at most about {stated / MIB:,.0f} MiB of its own, and {mapped / MIB:,.0f} MiB of mapped vectors "
            "that the system takes back when it needs them"
        )


def ann_budget(config: BuildConfig) -> int | None:
    """Return what is left of `memory_bytes` for one approximate index; None where there is no limit.

    Raises:
        BuildError: Nothing is left of it.
    """
    if config.memory_bytes is None:
        return None
    left = config.memory_bytes - used_bytes()
    if left <= 0:
        raise BuildError(
            f"--memory {config.memory_bytes / MIB:,.0f}M is less than the {used_bytes() / MIB:,.0f} MiB that the "
            "program holds before it builds the approximate index; give more, or take --ann flat"
        )
    return left
