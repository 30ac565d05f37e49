"""The ANN build: an approximate index for each collection, measured with real queries before it is published.

An update that leaves every vector as it was keeps those of the version before.
"""

from __future__ import annotations

import ctypes
import math
import resource
import shutil
import sys
from collections.abc import Callable, Mapping
from collections.abc import Collection as Names
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import AnnPlan, CollectionInfo, VectorTable
from storage.ann import AnnIndex
from storage.exact_search import to_float32
from storage.files.layout import ann_name, measure, vectors_name
from storage.manifest import Manifest
from storage.schema import SIDES, TARGETS, Collection, Direction, Tuning
from storage.vectors import BATCH_ROWS
from storage.version import IndexVersion

from ..config import BuildConfig
from ..errors import BuildError
from ..progress import Progress
from .plan import plan_ann
from .train import build_ann, estimate_memory, fit_memory
from .tune import tune

SUBJECTS = (
    "a man in a red jacket",
    "two children",
    "a woman with a bicycle",
    "a group of friends",
    "a brown dog",
    "a small cat",
    "a white horse",
    "several birds",
    "a yellow car",
    "an old train",
    "a sailing boat",
    "a tall tree",
    "a bunch of flowers",
    "a plate of food",
    "a cup of coffee",
    "a wooden chair",
    "a football player",
    "a crowd",
)
PLACES = (
    "on a beach",
    "in the snow",
    "on a busy street",
    "in a green field",
    "near a lake",
    "in a kitchen",
    "in front of a building",
    "at night",
    "on a mountain",
    "in a garden",
    "under a bridge",
    "in a living room",
    "at a market",
    "close up",
)


def generic_captions() -> list[str]:
    """Return 252 captions of everyday scenes, always the same."""
    return [f"{subject} {place}" for subject, place in product(SUBJECTS, PLACES)]


TUNING_QUERIES = 1000
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
LEARNING_QUERIES = 20_000  # half as many save as many lists less a tenth
EncodeTexts = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Query vectors of one direction: (n, dim) float32, their source, and their row ids where they are stored."""

    vectors: np.ndarray
    source: str
    self_rows: np.ndarray | None = None


def build_approximate(
    folder: Path,
    tables: Mapping[Collection, VectorTable],
    config: BuildConfig,
    progress: Progress,
    encode_texts: EncodeTexts | None,
) -> dict[Collection, CollectionInfo]:
    """Train, fill and measure the approximate index of every collection in a draft's folder.

    Raises:
        BuildError: Too few rows for the kind asked for, too little memory, or a recall under the floor.
    """
    return {name: approximate(folder, name, tables, config, progress, encode_texts) for name in tables}


def approximate(
    folder: Path,
    collection: Collection,
    tables: Mapping[Collection, VectorTable],
    config: BuildConfig,
    progress: Progress,
    encode_texts: EncodeTexts | None,
) -> CollectionInfo:
    """Train, fill and measure the approximate index of one collection; the vectors of the other are its queries.

    Raises:
        BuildError: Too few rows for the kind asked for, too little memory, or a recall under the floor.
    """
    vectors = tables[collection]
    plan = _train(folder, collection, tables, config, progress)
    path = None if plan.kind == "flat" else folder / collection / "ann.faiss"
    ann = AnnIndex.open(path, plan, vectors)
    tuning: dict[Direction, Tuning] = {}
    for direction in (name for name, target in TARGETS.items() if target == collection):
        queries = _queries(direction, tables, config.seed, encode_texts)
        if queries is not None:
            tuning[direction] = _measure(ann, vectors, direction, queries, config, progress)
    return CollectionInfo(rows=vectors.rows, ann=plan, tuning=tuning)


def _train(
    folder: Path,
    collection: Collection,
    tables: Mapping[Collection, VectorTable],
    config: BuildConfig,
    progress: Progress,
) -> AnnPlan:
    vectors = tables[collection]
    plan = plan_ann(config.ann, vectors.rows, vectors.dim, seed=config.seed)
    if plan.kind == "flat":
        return plan
    progress.stage(f"index {collection}", vectors.rows)
    done = 0

    def advance(rows: int, _total: int) -> None:
        nonlocal done
        progress.advance(rows - done)
        done = rows

    built = build_ann(
        vectors,
        plan,
        folder / collection / "ann.faiss",
        memory_bytes=ann_budget(config),
        progress=advance,
        queries=_learned_from(collection, tables, config.seed) if plan.kind == "ivf-pq4" else None,
        device=_gpu(config.device),
    )
    _give_back_memory()
    return built


def _give_back_memory() -> None:
    """Let the allocator return what thousands of lists have freed, before the index is opened from its file."""
    with suppress(AttributeError, OSError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _gpu(device: str) -> str | None:
    """Return the GPU that lists are found on; None for none.

    `auto` imports torch to look for one only where it was imported already or a driver of NVIDIA is there.
    """
    if device == "cpu" or (device == "auto" and "torch" not in sys.modules and not _may_have_gpu()):
        return None
    from encoders.device import choose_device

    chosen = choose_device(device)
    return chosen.device if chosen.kind == "cuda" else None


def _may_have_gpu() -> bool:
    """Whether a driver is there, under Linux or in its guest on Windows, and torch is installed."""
    return any(path.exists() for path in _DRIVERS) and find_spec("torch") is not None


def _learned_from(
    collection: Collection, tables: Mapping[Collection, VectorTable], seed: int
) -> NDArray[np.float32] | None:
    """Vectors of the other half, as queries to spill rows for; None of those that the recall is measured with."""
    other: Collection = "texts" if collection == "images" else "images"
    if other not in tables:
        return None
    rows = np.setdiff1d(np.arange(tables[other].rows), _sample(tables[other].rows, seed), assume_unique=True)
    if len(rows) > LEARNING_QUERIES:
        rows = np.sort(np.random.default_rng([seed, 11]).choice(rows, LEARNING_QUERIES, replace=False))
    return to_float32(tables[other].gather(rows)) if len(rows) else None


def _queries(
    direction: Direction, tables: Mapping[Collection, VectorTable], seed: int, encode_texts: EncodeTexts | None
) -> Queries | None:
    modality, target = SIDES[direction]
    source: Collection = "texts" if modality == "text" else "images"
    if source in tables:
        rows = _sample(tables[source].rows, seed)
        vectors = tables[source].gather(rows).astype(np.float32)
        # A stored vector finds itself first, which would flatter the recall.
        return Queries(vectors=vectors, source="corpus", self_rows=rows if source == target else None)
    if source == "texts" and encode_texts is not None:
        return Queries(vectors=encode_texts(generic_captions()), source="bank")
    return None


def _sample(rows: int, seed: int) -> np.ndarray:
    if rows <= TUNING_QUERIES:
        return np.arange(rows, dtype=np.int64)
    chosen = np.random.default_rng([seed, 7]).choice(rows, TUNING_QUERIES, replace=False)
    return np.sort(chosen).astype(np.int64)


def _rounded_down(share: float) -> str:
    """Three places; 0.9996 is not shown as the 1.000 that it missed."""
    return f"{math.floor(share * 1000) / 1000:.3f}"


def _measure(
    ann: AnnIndex, vectors: VectorTable, direction: Direction, queries: Queries, config: BuildConfig, progress: Progress
) -> Tuning:
    progress.stage(f"measure {direction}", len(queries.vectors))
    source, own = queries.source, queries.self_rows
    device = None if ann.plan.kind == "flat" else _gpu(config.device)
    tuning = tune(ann, vectors, queries.vectors, source=source, self_rows=own, device=device)
    progress.advance(len(queries.vectors))
    smallest = min((point.k for point in tuning.points), default=0)
    best = max((point.ann_recall for point in tuning.points if point.k == smallest), default=1.0)
    if best < config.min_ann_recall:
        raise BuildError(
            f"ann_recall@{smallest} of {direction} reaches {_rounded_down(best)} at best, under the floor of "
            f"{config.min_ann_recall:g}; choose another --ann, such as ivf-flat, or lower --min-ann-recall. "
            "Nothing was published"
        )
    return tuning


# What an approximate index depends on besides the vectors.
_SETTINGS = ("ann", "seed")


def carried_over(
    parent: IndexVersion | None, folder: Path, collections: Names[Collection], config: BuildConfig, progress: Progress
) -> dict[Collection, CollectionInfo] | None:
    """Copy the approximate indexes of the version that is updated into the folder of a draft, with what was measured.

    None, and nothing copied, where any vector, item id or order differs, or a setting of the indexes: also where one
    half alone changed, as each half is measured with the other's vectors.

    Args:
        parent: The version that is updated, open; None for none.
        folder: Of the draft, where the vectors are already.
        collections: The halves that the draft has.
        config: Of this build.
        progress: Told that it is so.
    """
    if parent is None or not _is_alike(parent.manifest, collections, config):
        return None
    before = parent.manifest
    if any(measure(folder, vectors_name(name)) != before.files[vectors_name(name)] for name in collections):
        return None
    files = [ann_name(name) for name in collections if ann_name(name) in before.files]
    for name in files:
        shutil.copyfile(parent.path / name, folder / name)
    if any(measure(folder, name) != before.files[name] for name in files):
        for name in files:
            (folder / name).unlink()
        return None  # damaged since it was opened
    progress.note(f"every vector is as in version {before.version}, whose approximate index and recall are kept")
    return dict(before.collections)


def _is_alike(before: Manifest, collections: Names[Collection], config: BuildConfig) -> bool:
    settings = before.build.get("config")
    if not isinstance(settings, Mapping) or set(before.collections) != set(collections):
        return False
    floor = settings.get("min_ann_recall")
    return (
        isinstance(floor, int | float)
        and floor >= config.min_ann_recall
        and all(settings.get(name) == getattr(config, name) for name in _SETTINGS)
    )


# Arrow's and DuckDB's room for one row of the catalog, its id, path and caption of ordinary length: 237 of 30 million
# images. Texts have checksums besides.
CATALOG_BYTES_A_ROW: Mapping[Collection, int] = {"images": 250, "texts": 400}
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
        merging = sum(
            min(count, BATCH_ROWS) * dim * 4 + count * CATALOG_BYTES_A_ROW[name] for name, count in rows.items()
        )
        used = used_bytes()
        if config.memory_bytes:  # which limits the approximate index, not the catalog
            need = min(need, config.memory_bytes - used)
        stated = used + max(need, merging)
        mapped = max(rows.values()) * dim * (1 if config.vector_dtype == "int8" else 2)
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
