"""Fine-tuning from examples to a saved encoder: `fit_encoder` on captioned images, `fit_pairs` on labelled pairs.

examples -> distinct items -> features of frozen blocks -> steps and evaluations -> best weights -> folder
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from encoders.catalogue import resolve_preset
from encoders.checkpoints import load_towers, save_local_dir
from encoders.lite import MAPPED_POOLER, WIDE_TRUNK, ConseTrunk, add_map, widen
from encoders.two_towers import TwoTowers
from storage.arguments import check_arguments

from .batches import FEWEST_TO_MEASURE, Pairing, pair_captions, pair_pairs
from .checkpoint import publish_folder
from .config import FitConfig, recipe_for
from .errors import TrainingError
from .examples import CaptionedImages, PairSet
from .fine_tuning import FineTuning
from .learner import Learner
from .loop import FitProgress, Listener, RunContext
from .report import FitReport
from .time_budget import VALIDATION, readable_share, taken
from .tower_split import ConseTower, image_tower

DEFAULTS = FitConfig()
# Images that are read in any case: to learn from, and to choose by.
FEWEST = (FEWEST_TO_MEASURE, VALIDATION)


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
    resumes from its last evaluation when it is called again with the same arguments; an interrupt (Ctrl-C) or the time
    limit ends it with the best weights so far. The folder appears whole or not at all. Where the limit is short for the
    images, augmented views are left out first, then examples, and the report says how many.

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
    check_arguments(fit_encoder, locals(), TrainingError)
    spec = resolve_preset(spec, config.device)
    context = _context(out, config, progress)
    given = [train, *([val] if val is not None else [])]
    share = context.checkpoints.read_share()
    if share is None:
        share = readable_share(given, context.clock.left)
    read = [taken(examples, share, config.seed, fewest) for examples, fewest in zip(given, FEWEST, strict=False)]
    count = sum(map(len, read))
    of = "" if share == 1 else f" of the {sum(map(len, given)):,}, as the time limit does not allow all"
    context.listen(FitProgress(stage="read", done=0, total=count, text=f"reading {count:,} images{of}"))
    val_pairing = None if val is None else pair_captions(read[1], "val")
    return _fit(spec, pair_captions(read[0]), val_pairing, config, context, (share, sum(map(len, given))))


def fit_pairs(
    spec: str,
    train: PairSet,
    val: PairSet | None,
    out: str | Path,
    config: FitConfig = DEFAULTS,
    progress: Listener | None = None,
) -> FitReport:
    """Fine-tune an encoder on pairs of any two kinds, matching or not; otherwise as `fit_encoder`.

    Pairs labelled 1 are positives among all others of a step. Pairs labelled 0 are drawn into the same step as
    negatives, so that they are told apart even where chance would hardly bring them together.
    """
    check_arguments(fit_pairs, locals(), TrainingError)
    spec = resolve_preset(spec, config.device)
    context = _context(out, config, progress)
    val_pairing = None if val is None else pair_pairs(val, "val")
    return _fit(spec, pair_pairs(train), val_pairing, config, context)


def _context(out: str | Path, config: FitConfig, listen: Listener | None) -> RunContext:
    return RunContext.begin(out, listen, device=config.device, precision=config.precision, time_limit=config.time_limit)


def _fit(
    spec: str,
    train: Pairing,
    val: Pairing | None,
    config: FitConfig,
    context: RunContext,
    read: tuple[float, int] | None = None,
) -> FitReport:
    share, given = read or (1.0, len(train.left) + (len(val.left) if val else 0))
    unreadable = train.unreadable + (val.unreadable if val else ())
    if val is None:
        train, val = train.split(config.val_share, config.seed)
    else:
        check_enough(val, "validation")
    check_enough(train, "training")
    check_negatives(train)
    towers = widened_lite(load_towers(spec))
    family = "lite" if isinstance(image_tower(towers.model), ConseTower) else "open_clip"
    recipe = recipe_for(config, family, context.placement, len(train.with_partners))
    with context.seeded(recipe.seed):
        learner = Learner(towers, recipe, context.placement, {train.left.kind, train.right.kind})
        report = FineTuning(
            towers=towers,
            learner=learner,
            train=train,
            val=val,
            unreadable=unreadable,
            read=share,
            given=given,
            context=context,
        ).run()
    _publish(towers, report, context)
    return report


def check_enough(pairing: Pairing, role: str) -> None:
    """Refuse examples from which nothing can be learned, or by which nothing can be chosen.

    Raises:
        TrainingError: Fewer than two distinct items on a side.
    """
    for items in (pairing.left, pairing.right):
        if len(items) < 2:
            only = f"the {items.kind} {items.contents[0]!r:.60}" if items.kind == "text" else f"one {items.kind}"
            raise TrainingError(f"all {role} pairs hold {only}, so there is nothing to tell apart; give more")


def check_negatives(train: Pairing) -> None:
    """Refuse examples none of which is a wrong answer to any other.

    Raises:
        TrainingError: Each item of one side matches all of the other, or matches connect all items of one kind.
    """
    if train.tells_apart:
        return
    what = f"{len(train.left)} {train.left.kind}s"
    others = f" and {len(train.right)} {train.right.kind}s" if train.families is None else ""
    raise TrainingError(
        f"the {what}{others} of the training pairs all match each other, so there is nothing to tell apart; give pairs "
        "of other items too"
    )


def widened_lite(towers: TwoTowers) -> TwoTowers:
    """Return the untrained `lite` with the wide heads that training needs, and any other model as it is."""
    model: Any = towers.model
    trunk = getattr(model.visual, "trunk", None)
    if type(trunk) is not ConseTrunk or trunk.residual.weight.count_nonzero():
        return towers
    model.visual.trunk = widen(trunk).eval()
    model.text.pooler = add_map(model.text.pooler).eval()
    vision = {**towers.config["vision_cfg"], "timm_model_name": WIDE_TRUNK}
    text = {**towers.config["text_cfg"], "hf_pooler_type": MAPPED_POOLER}
    return replace(towers, config={**towers.config, "vision_cfg": vision, "text_cfg": text})


def _publish(towers: TwoTowers, report: FitReport, context: RunContext) -> None:
    def write(folder: Path) -> None:
        save_local_dir(replace(towers, model=towers.model.cpu().eval()), folder)
        report.write(folder)

    publish_folder(context.folder, "encoder", write)
    context.checkpoints.remove()
