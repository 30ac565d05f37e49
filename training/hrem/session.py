"""The parts of a run put together: towers for the data, captions to tokens, a learner."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from encoders.device import Placement
from encoders.regions.bert import Bert, load_bert
from encoders.regions.config import TowersConfig
from encoders.regions.precomp import RegionSplit
from encoders.regions.text_tower import BertStates
from encoders.regions.tokens import Tokens, WordTokens
from encoders.regions.towers import RegionTowers

from ..errors import ExamplesError
from ..trainer import FitProgress, Listener
from .config import HremConfig
from .feed import Feed
from .learner import Learner
from .states import TokenStates, token_states

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
        region_dim=train.region_dim, max_regions=int(train.features.shape[1]), dim=config.dim, word_dim=GRU_WORD_DIM,
        max_tokens=config.max_tokens, fragment_relation=config.fragment_relation,
        residual_weight=config.residual_weight, pooling=config.pooling, heads=config.heads, layers=config.layers,
        dropout=config.dropout,
    )  # fmt: skip


def _states(
    towers: RegionTowers, split: RegionSplit, tokens: list[Tokens], config: HremConfig, placement: Placement,
    cache: Path, listen: Listener,
) -> TokenStates | None:  # fmt: skip
    words = towers.text.words
    if not (config.freeze_bert and isinstance(words, BertStates)):
        return None

    def told(done: int, total: int) -> None:
        listen(FitProgress(stage=f"token states of {split.split}", done=done, total=total))

    return token_states(words, tokens, towers.tokenizer.pad, placement, cache, told)
