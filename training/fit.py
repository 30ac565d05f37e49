"""Fine-tuning from examples to a saved encoder.

examples -> distinct items -> features of frozen blocks -> steps and evaluations -> best weights -> folder
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from encoders.checkpoints import load_towers, save_local_dir
from encoders.device import Placement, place
from encoders.lite import MAPPED_POOLER, WIDE_TRUNK, ConseTrunk, mapped, widened
from encoders.two_towers import TwoTowers
from storage.files import atomic

from .batches import Pairing, pair_captions, pair_pairs
from .checkpoint import Checkpoints
from .config import FitConfig, recipe_for
from .errors import TrainingError
from .examples import CaptionedImages, PairSet
from .fit_run import Session
from .learner import Learner
from .loop import Clock, FitProgress, Listener
from .report import FitReport
from .tower_split import ConseTower, image_tower


def free_folder(out: Path) -> Path:
    """Return the absolute path of a folder that an encoder can be saved to.

    Raises:
        TrainingError: Something is there already.
    """
    folder = out.expanduser().absolute()
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    if folder.exists() or folder.is_symlink():
        what = "is not empty" if folder.is_dir() else "is a file"
        raise TrainingError(f"output folder {str(out)!r} {what}; give a new one")
    return folder


def partial_folder(folder: Path) -> Path:
    """Return where the folder is written before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def publish(towers: TwoTowers, model: Any, report: FitReport, partial: Path, folder: Path) -> None:
    """Save the encoder and its report, durably, and give the folder its name as the last step.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    with atomic.explained("save the encoder to", folder):
        atomic.remove_folder(partial)
        atomic.make_folder(folder.parent)
        save_local_dir(replace(towers, model=model.cpu().eval()), partial)
        report.write(partial)
        for path in partial.iterdir():
            atomic.sync_file(path)
        atomic.sync_directory(partial)
        atomic.rename(partial, folder, "encoder")


def widened_lite(towers: TwoTowers) -> TwoTowers:
    """Return the untrained `lite` with the wide heads, and any other model as it is."""
    model: Any = towers.model
    trunk = getattr(model.visual, "trunk", None)
    if type(trunk) is not ConseTrunk or trunk.residual.weight.count_nonzero():
        return towers
    model.visual.trunk = widened(trunk).eval()
    model.text.pooler = mapped(model.text.pooler).eval()
    vision = {**towers.config["vision_cfg"], "timm_model_name": WIDE_TRUNK}
    text = {**towers.config["text_cfg"], "hf_pooler_type": MAPPED_POOLER}
    return replace(towers, config={**towers.config, "vision_cfg": vision, "text_cfg": text})


DEFAULTS = FitConfig()


def fit_encoder(
    spec: str,
    train: CaptionedImages,
    val: CaptionedImages | None,
    out: str | Path,
    config: FitConfig = DEFAULTS,
    progress: Listener | None = None,
) -> FitReport:
    """Fine-tune an encoder on images and their captions, and save it as a folder that `local-dir:OUT` opens.

    Weights are chosen by ranking recall on `val`, and the untrained ones are among the choices. A run that was killed
    goes on from its last evaluation when it is called again with the same arguments; an interrupt (Ctrl-C) or the time
    limit ends it with the best weights so far. The folder appears whole or not at all.

    Args:
        spec: The encoder to start from, as `encoders.load_encoder` takes it.
        train: What to learn from.
        val: What to choose by; None holds back `config.val_share` of the images.
        out: A new or an empty folder.
        config: Settings.
        progress: Called as the run goes on.

    Raises:
        TrainingError: The settings, the examples or the folder do not allow it; no encoder is left behind.
        EncoderError: The encoder cannot be loaded.
    """
    folder, run = free_folder(Path(out)), _started(config, progress)
    held = None if val is None else pair_captions(val, "val")
    return _fit(spec, (pair_captions(train), held), folder, run)


def fit_pairs(
    spec: str,
    train: PairSet,
    val: PairSet | None,
    out: str | Path,
    config: FitConfig = DEFAULTS,
    progress: Listener | None = None,
) -> FitReport:
    """Fine-tune an encoder on pairs of any two kinds, matching or not; otherwise as `fit_encoder`.

    Pairs labelled 1 are right answers to each other among all others of a step. Pairs labelled 0 meet in the same
    step, so that they are told apart even where chance would hardly let them meet.
    """
    folder, run = free_folder(Path(out)), _started(config, progress)
    held = None if val is None else pair_pairs(val, "val")
    return _fit(spec, (pair_pairs(train), held), folder, run)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What stays the same through a run."""

    config: FitConfig
    placement: Placement
    clock: Clock
    listen: Listener


def _started(config: FitConfig, listen: Listener | None) -> _Run:
    placement, clock = training_placement(config), Clock(config.time_limit)
    return _Run(config=config, placement=placement, clock=clock, listen=listen or _ignore)


def _ignore(progress: FitProgress) -> None:
    """Tell nobody."""


def training_placement(config: FitConfig) -> Placement:
    """Return device and precision of a run; 16 bits without an exponent to spare (fp16) are not trained in.

    Raises:
        EncoderError: The device is not there.
        TrainingError: fp16 was asked for.
    """
    if config.precision == "fp16":
        raise TrainingError("precision 'fp16' overflows in training; choose bf16 or fp32")
    found = place(config.device, config.precision)
    return Placement(device=found.device, precision="fp32") if found.precision == "fp16" else found


def _fit(spec: str, pairings: tuple[Pairing, Pairing | None], folder: Path, run: _Run) -> FitReport:
    train, val = pairings
    unreadable = train.unreadable + (val.unreadable if val else ())
    if val is None:
        train, val = train.split(run.config.val_share, run.config.seed)
    check_enough(train)
    towers = widened_lite(load_towers(spec))
    family = "lite" if isinstance(image_tower(towers.model), ConseTower) else "open_clip"
    recipe = recipe_for(run.config, family, run.placement, len(train.askable))
    devices = [torch.device(run.placement.device)] if run.placement.kind == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(run.config.seed)
        kinds = {train.left.kind, train.right.kind}
        learner = Learner(towers, recipe, run.placement, kinds)
        session = Session(
            towers=towers,
            learner=learner,
            train=train,
            val=val,
            config=run.config,
            clock=run.clock,
            listen=run.listen,
            checkpoints=Checkpoints(folder.with_name(f"{folder.name}.fit")),
        )
        outcome = session.run()
    report = session.report(outcome, folder, unreadable)
    publish(towers, learner.model, report, partial_folder(folder), folder)
    session.checkpoints.remove()
    return report


def check_enough(train: Pairing) -> None:
    """Refuse examples from which nothing can be learned.

    Raises:
        TrainingError: Fewer than two distinct items on a side, so that there is nothing to tell apart.
    """
    for items in (train.left, train.right):
        if len(items) < 2:
            only = f"the {items.kind} {items.contents[0]!r:.60}" if items.kind == "text" else f"one {items.kind}"
            raise TrainingError(f"all training pairs hold {only}, so there is nothing to tell apart; give more")
