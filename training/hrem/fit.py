"""Training from a `_precomp` folder to a checkpoint.

regions and captions -> towers and instance relation -> steps and evaluations on dev -> best weights -> folder
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from encoders.device import Placement, place
from encoders.regions.checkpoint import save_towers
from encoders.regions.precomp import open_split
from encoders.regions.spec import PREFIX
from storage import atomic

from ..checkpoint import Checkpoints, Progress
from ..clock import Clock
from ..errors import TrainingError
from ..output import free_folder, partial_folder
from ..trainer import FitProgress, Listener
from .config import HremConfig
from .measure import DIRECTIONS, measure
from .report import HremReport
from .session import Parts, check_splits, parts_of, run_digest
from .trainer import HremTrainer

RELATION_FILE = "relation.safetensors"
TRAIN, DEV = "train", "dev"
DEFAULTS = HremConfig()


def fit_hrem(
    data: str | Path,
    out: str | Path,
    config: HremConfig = DEFAULTS,
    progress: Listener | None = None,
    *,
    train: str = TRAIN,
    dev: str = DEV,
) -> HremReport:
    """Train HREM's towers and save them as a folder that `hrem:OUT` opens.

    Weights are chosen by rsum on the dev split; the test split is never opened. A run that was killed goes on from its
    last epoch when it is called again with the same arguments; an interrupt (Ctrl-C) or the time limit ends it with the
    best weights so far. The folder appears whole or not at all.

    Args:
        data: A folder of region features and captions, as `twinlens regions` makes it.
        out: A new or an empty folder.
        config: Settings.
        progress: Called as the run goes on.
        train: The split to learn from.
        dev: The split to choose weights by.

    Raises:
        RegionError: The data cannot be used.
        TrainingError: The settings or the folder do not allow it; no checkpoint is left behind.
        EncoderError: The text transformer cannot be loaded.
    """
    folder, clock, listen = free_folder(Path(out)), Clock(config.time_limit), progress or _ignore
    placement = _placement(config)
    source = Path(data).expanduser()
    splits = open_split(source, train), open_split(source, dev)
    check_splits(*splits)
    if config.dev_images is not None:
        splits = splits[0], splits[1].first(config.dev_images)
    checkpoints = Checkpoints(folder.with_name(f"{folder.name}.fit"))
    digest = run_digest(splits, config)
    reached = checkpoints.load(digest) or Progress(run=digest)
    devices = [torch.device(placement.device)] if placement.kind == "cuda" else []
    cache = Path(config.cache).expanduser() if config.cache else folder.with_name("token-states")
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        parts = parts_of(splits, config, placement, cache, listen)
        listen(FitProgress(stage="train", done=0, total=0, text=_plan(parts, placement)))
        prepared = clock.seconds
        trainer = HremTrainer(
            learner=parts.learner, feed=parts.train, measure=lambda: measure(parts.learner, parts.dev), clock=clock,
            checkpoints=checkpoints, listen=listen,
        )  # fmt: skip
        stopped_by = trainer.run(reached)
    seconds = {"preparing": prepared, "training": clock.seconds - prepared}
    parts.learner.load(checkpoints.tensors("candidate", reached.candidates[0][1]))
    seconds["all"] = clock.seconds
    report = HremReport(
        encoder=f"{PREFIX}{folder}", data=str(source.resolve()), bert=parts.bert, stopped_by=stopped_by,
        seconds=seconds, settings={**asdict(config), **asdict(placement)}, **_outcome(parts, reached),
    )  # fmt: skip
    _publish(parts, report, folder)
    checkpoints.remove()
    return report


def _outcome(parts: Parts, progress: Progress) -> dict[str, Any]:
    step = progress.candidates[0][1]
    best = next(row for row in progress.curve if row["step"] == step)
    relation = parts.learner.relation
    counts = {
        "train_images": len(parts.train.split), "train_captions": len(parts.train.tokens),
        "dev_images": len(parts.dev.split), "dev_captions": len(parts.dev.tokens),
        "tower_parameters": sum(value.numel() for value in parts.learner.towers.parameters()),
        "relation_parameters": 0 if relation is None else sum(value.numel() for value in relation.parameters()),
    }  # fmt: skip
    dev = {name: best[name] for name in (*DIRECTIONS, "rsum")}
    return {"dev": dev, "kept_epoch": best["epoch"], "curve": progress.curve, "counts": counts}


def _placement(config: HremConfig) -> Placement:
    if config.precision == "fp16":
        raise TrainingError("precision 'fp16' overflows in training; choose bf16 or fp32")
    return place(config.device, "fp32" if config.precision == "auto" else config.precision)


def _plan(parts: Parts, placement: Placement) -> str:
    train, learner = parts.train, parts.learner
    trained = sum(value.numel() for value in learner.trained.values())
    return (
        f"{len(train.split):,} pictures and {len(train.tokens):,} captions, {train.steps} steps an epoch; text encoder "
        f"{parts.bert}{' (frozen)' if learner.frozen else ''}; {trained / 1e6:.1f} M parameters in training; "
        f"interaction {learner.config.interaction}; {placement.device} in {placement.precision}"
    )


def _publish(parts: Parts, report: HremReport, folder: Path) -> None:
    """Save towers, relation and report durably, and give the folder its name as the last step."""
    partial = partial_folder(folder)
    with atomic.explained("save the towers to", folder):
        atomic.remove_folder(partial)
        atomic.make_folder(partial)
        learner = parts.learner.cpu().eval()
        save_towers(learner.towers, partial)
        if learner.relation is not None:
            weights = {name: value.contiguous() for name, value in learner.relation.state_dict().items()}
            save_file(weights, partial / RELATION_FILE)
        report.write(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                atomic.sync_file(path)
        atomic.sync_directory(partial)
        atomic.rename(partial, folder, "towers")


def _ignore(progress: FitProgress) -> None:
    """Tell nobody."""
