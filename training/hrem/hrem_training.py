"""Training from a `_precomp` folder to a checkpoint.

regions and captions -> towers and instance relation -> steps and evaluations on dev -> best weights -> folder
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.device import Placement
from encoders.transfer import Transfer
from encoders.two_towers import save_weights
from storage.arguments import check_arguments

from ..checkpoint import RunState, publish_folder
from ..errors import ExamplesError, TrainingError
from ..loop import (
    LAST_EVALUATION,
    Clock,
    FitProgress,
    Listener,
    Measurement,
    RunContext,
    Schedule,
    TrainingLoop,
    step_decay,
)
from .config import HremConfig
from .family import PREFIX
from .hrem_evaluation import DIRECTIONS, HremReport, dev_recall
from .hrem_learner import HremLearner
from .region_batches import RegionBatch, RegionBatches, TokenStates, token_states
from .towers.bert import Bert, load_bert
from .towers.region_features import RegionSplit, open_split
from .towers.region_towers import BertStates, RegionTowers, TowersConfig, save_towers
from .towers.tokens import Tokens, WordTokens

BIGRU = "bigru"
GRU_WORD_DIM = 300
# What changes how long a run takes, or where it keeps things, not what comes of it.
_FREE = ("time_limit", "workers", "cache", "device")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A learner and what it is fed."""

    learner: HremLearner
    train: RegionBatches
    dev: RegionBatches
    bert: str


def parts_of(
    splits: tuple[RegionSplit, RegionSplit], config: HremConfig, placement: Placement, cache: Path, listen: Listener
) -> Parts:
    """Return everything that a run needs.

    Raises:
        EncoderError: The text transformer cannot be loaded, or the settings fit no towers.
    """
    train = splits[0]
    words = _words(train, config)
    towers = RegionTowers(_towers_config(train, config), words)
    batches, pin = [], Transfer(placement.device).pin
    for split in splits:
        tokens = towers.tokenizer(split.captions)
        states = _states(towers, split, tokens, config, placement, cache, listen)
        batches.append(
            RegionBatches(split=split, tokens=tokens, tokenizer=towers.tokenizer, states=states, config=config, pin=pin)
        )
    learner = HremLearner(towers, config, placement)
    return Parts(
        learner=learner, train=batches[0], dev=batches[1], bert=words.name if isinstance(words, Bert) else BIGRU
    )


def check_splits(train: RegionSplit, dev: RegionSplit) -> None:
    """Refuse splits that nothing can be learned from, or that do not fit each other.

    Raises:
        ExamplesError: Fewer than two images, or other regions in dev than in train.
    """
    if len(train) < 2:
        raise ExamplesError(f"split {train.split!r} has {len(train)} image, so there is nothing to tell apart")
    one, other = train.features.shape[1:], dev.features.shape[1:]
    if one != other:
        raise ExamplesError(
            f"split {train.split!r} has {one[0]} regions of {one[1]} features and {dev.split!r} {other[0]} of "
            f"{other[1]}; extract both in the same way"
        )


def run_digest(splits: tuple[RegionSplit, RegionSplit], config: HremConfig) -> str:
    """Return what tells runs apart: settings, captions, and the files of features."""
    settings = {name: value for name, value in asdict(config).items() if name not in _FREE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for split in splits:
        state = (split.folder / f"{split.split}_ims.npy").stat()
        facts = [list(split.features.shape), state.st_size, state.st_mtime_ns, len(split), list(split.captions)]
        digest.update(json.dumps(facts).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(split.owners).tobytes())
    return digest.hexdigest()


def _words(train: RegionSplit, config: HremConfig) -> Bert | WordTokens:
    if config.bert == BIGRU:
        return WordTokens.of(train.captions, config.max_tokens)
    return load_bert(config.bert, config.max_tokens)


def _towers_config(train: RegionSplit, config: HremConfig) -> TowersConfig:
    return TowersConfig(
        region_dim=train.region_dim,
        max_regions=int(train.features.shape[1]),
        dim=config.dim,
        word_dim=GRU_WORD_DIM,
        max_tokens=config.max_tokens,
        fragment_relation=config.fragment_relation,
        residual_weight=config.residual_weight,
        pooling=config.pooling,
        heads=config.heads,
        layers=config.layers,
        dropout=config.dropout,
    )


def _states(
    towers: RegionTowers,
    split: RegionSplit,
    tokens: list[Tokens],
    config: HremConfig,
    placement: Placement,
    cache: Path,
    listen: Listener,
) -> TokenStates | None:
    words = towers.text.words
    if not (config.freeze_bert and isinstance(words, BertStates)):
        return None

    def advance(done: int, total: int) -> None:
        listen(FitProgress(stage=f"token states of {split.split}", done=done, total=total))

    return token_states(words, tokens, towers.tokenizer.pad, placement, cache, advance)


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
    check_arguments(fit_hrem, locals(), TrainingError)
    precision = "fp32" if config.precision == "auto" else config.precision
    context = RunContext.begin(out, progress, device=config.device, precision=precision, time_limit=config.time_limit)
    source = Path(data).expanduser()
    splits = _open_splits(source, train, dev, config.dev_images)
    state = context.checkpoints.load(run_digest(splits, config))
    cache = Path(config.cache).expanduser() if config.cache else context.folder.with_name("token-states")
    with context.seeded(config.seed):
        parts = parts_of(splits, config, context.placement, cache, context.listen)
        context.listen(FitProgress(stage="train", done=0, total=0, text=_plan(parts, context.placement)))
        context.keep_back_saving(parts.learner.towers)
        if config.time_limit:
            _keep_back_evaluation(parts, context.clock)
        prepared = context.clock.seconds
        loop = _loop(parts, context, state)
        stopped_by = loop.run()
        if not state.candidates:
            loop.evaluate()
    seconds = {"preparing": prepared, "training": context.clock.seconds - prepared}
    parts.learner.load(context.checkpoints.tensors("candidate", state.candidates[0][1]))
    seconds["all"] = context.clock.seconds
    report = HremReport(
        encoder=f"{PREFIX}{context.folder}",
        data=str(source.resolve()),
        bert=parts.bert,
        stopped_by=stopped_by,
        seconds=seconds,
        settings={**asdict(config), **asdict(context.placement)},
        **_outcome(parts, state),
    )
    _publish(parts, report, context)
    return report


def _open_splits(source: Path, train: str, dev: str, dev_images: int | None) -> tuple[RegionSplit, RegionSplit]:
    learned, chosen = open_split(source, train), open_split(source, dev)
    check_splits(learned, chosen)
    return learned, chosen if dev_images is None else chosen.first(dev_images)


def _loop(parts: Parts, context: RunContext, state: RunState) -> TrainingLoop[RegionBatch]:
    learner, config, steps = parts.learner, parts.learner.config, parts.train.steps
    schedule = Schedule(
        epochs=config.epochs,
        evaluate_every=steps,
        rate=lambda step: step_decay(step // steps, config.steps, config.lr_decay),
        clip_norm=config.clip_norm,
        patience=config.patience,
        # Before the instance relations are at work, a standstill says nothing.
        patient_until=0.0 if config.interaction == "none" else config.warmup_epochs * steps,
    )
    return TrainingLoop(
        learner=learner,
        batches=parts.train,
        backward=lambda batch, step: learner.backward(batch, step, step / steps),
        measure=lambda: _measured(learner, parts.dev),
        schedule=schedule,
        context=context,
        state=state,
    )


def _measured(learner: HremLearner, dev: RegionBatches) -> Measurement:
    recall = dev_recall(learner, dev)
    t2i, i2t = (" / ".join(f"{value:.3f}" for value in recall[name].values()) for name in DIRECTIONS)
    text = f"dev rsum {recall['rsum']:.1f}  (t2i {t2i}; i2t {i2t})"
    return Measurement(score=recall["rsum"], figures=recall, text=text)


def _keep_back_evaluation(parts: Parts, clock: Clock) -> None:
    """Reserve what an evaluation takes, as the untrained towers show: the first epoch may be longer than the limit."""
    began = clock.seconds
    dev_recall(parts.learner, parts.dev)
    clock.keep_back(LAST_EVALUATION, clock.seconds - began)


def _outcome(parts: Parts, state: RunState) -> dict[str, Any]:
    step = state.candidates[0][1]
    best = next(row for row in state.curve if row["step"] == step)
    relation = parts.learner.relation
    counts = {
        "train_images": len(parts.train.split),
        "train_captions": len(parts.train.tokens),
        "dev_images": len(parts.dev.split),
        "dev_captions": len(parts.dev.tokens),
        "tower_parameters": sum(value.numel() for value in parts.learner.towers.parameters()),
        "relation_parameters": 0 if relation is None else sum(value.numel() for value in relation.parameters()),
    }
    dev = {name: best[name] for name in (*DIRECTIONS, "rsum")}
    return {"dev": dev, "kept_epoch": best["epoch"], "curve": state.curve, "counts": counts}


def _plan(parts: Parts, placement: Placement) -> str:
    train, learner = parts.train, parts.learner
    trained = sum(value.numel() for value in learner.trained.values())
    return (
        f"{len(train.split):,} images and {len(train.tokens):,} captions, {train.steps} steps an epoch; text encoder "
        f"{parts.bert}{' (frozen)' if learner.frozen else ''}; {trained / 1e6:.1f} M parameters in training; "
        f"interaction {_interaction(learner.config)}; {placement.device} in {placement.precision}"
    )


def _interaction(config: HremConfig) -> str:
    return config.interaction if config.interaction == "none" else f"{config.interaction}, {config.relation_gradient}"


def _publish(parts: Parts, report: HremReport, context: RunContext) -> None:
    """Save towers, relation and report."""
    learner = parts.learner.cpu().eval()

    def write(folder: Path) -> None:
        save_towers(learner.towers, folder)
        if learner.relation is not None:
            weights = {name: value.contiguous() for name, value in learner.relation.state_dict().items()}
            save_weights(weights, folder / RELATION_FILE)
        report.write(folder)

    publish_folder(context.folder, "towers", write)
    context.checkpoints.remove()
