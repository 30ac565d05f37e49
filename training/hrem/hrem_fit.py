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
import torch
from safetensors.torch import save_file

from encoders.device import Placement, place
from storage.files import atomic

from ..checkpoint import Checkpoints, Progress
from ..errors import ExamplesError, TrainingError
from ..fit import free_folder, partial_folder
from ..loop import Clock, FitProgress, Listener
from .family import PREFIX
from .hrem_batches import Feed, TokenStates, token_states
from .hrem_config import HremConfig
from .hrem_learner import Learner
from .hrem_loop import DIRECTIONS, HremTrainer, measure
from .hrem_report import HremReport
from .towers.bert import Bert, load_bert
from .towers.region_features import RegionSplit, open_split
from .towers.region_towers import BertStates, RegionTowers, TowersConfig
from .towers.tokens import Tokens, WordTokens
from .towers.tower_checkpoint import save_towers

BIGRU = "bigru"
GRU_WORD_DIM = 300
# What changes how long a run takes, or where it keeps things, not what comes of it.
_FREE = ("time_limit", "workers", "cache", "device")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A learner and what it is fed."""

    learner: Learner
    train: Feed
    dev: Feed
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
    feeds = []
    for split in splits:
        tokens = towers.tokenizer(split.captions)
        states = _states(towers, split, tokens, config, placement, cache, listen)
        feeds.append(Feed(split=split, tokens=tokens, tokenizer=towers.tokenizer, states=states, config=config))
    learner = Learner(towers, config, placement)
    return Parts(learner=learner, train=feeds[0], dev=feeds[1], bert=words.name if isinstance(words, Bert) else BIGRU)


def check_splits(train: RegionSplit, dev: RegionSplit) -> None:
    """Refuse splits that nothing can be learned from, or that do not fit each other.

    Raises:
        ExamplesError: Fewer than two pictures, or other regions in dev than in train.
    """
    if len(train) < 2:
        raise ExamplesError(f"split {train.split!r} has {len(train)} picture, so there is nothing to tell apart")
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

    def told(done: int, total: int) -> None:
        listen(FitProgress(stage=f"token states of {split.split}", done=done, total=total))

    return token_states(words, tokens, towers.tokenizer.pad, placement, cache, told)


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
    splits = _open_splits(source, train, dev, config.dev_images)
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
        trainer = _trainer(parts, clock, checkpoints, listen)
        stopped_by = trainer.run(reached)
    seconds = {"preparing": prepared, "training": clock.seconds - prepared}
    parts.learner.load(checkpoints.tensors("candidate", reached.candidates[0][1]))
    seconds["all"] = clock.seconds
    report = HremReport(
        encoder=f"{PREFIX}{folder}",
        data=str(source.resolve()),
        bert=parts.bert,
        stopped_by=stopped_by,
        seconds=seconds,
        settings={**asdict(config), **asdict(placement)},
        **_outcome(parts, reached),
    )
    _publish(parts, report, folder)
    checkpoints.remove()
    return report


def _open_splits(source: Path, train: str, dev: str, dev_images: int | None) -> tuple[RegionSplit, RegionSplit]:
    learned, chosen = open_split(source, train), open_split(source, dev)
    check_splits(learned, chosen)
    return learned, chosen if dev_images is None else chosen.first(dev_images)


def _trainer(parts: Parts, clock: Clock, checkpoints: Checkpoints, listen: Listener) -> HremTrainer:
    return HremTrainer(
        learner=parts.learner,
        feed=parts.train,
        measure=lambda: measure(parts.learner, parts.dev),
        clock=clock,
        checkpoints=checkpoints,
        listen=listen,
    )


def _outcome(parts: Parts, progress: Progress) -> dict[str, Any]:
    step = progress.candidates[0][1]
    best = next(row for row in progress.curve if row["step"] == step)
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
