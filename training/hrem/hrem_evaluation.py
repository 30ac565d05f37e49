"""Recall on a split of region features: of a checkpoint, of several as an ensemble, of the towers in training.

`HremReport` is what a training says at its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders import load_encoder
from evaluation import evaluate_embeddings
from evaluation.evaluate import evaluate_folds
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong

from ..errors import TrainingError
from ..report import new_figure, write_figure
from .family import PREFIX
from .hrem_learner import HremLearner
from .region_batches import RegionBatches
from .towers.region_encoder import RegionEncoder
from .towers.region_features import RegionSplit, open_split

REPORT_FILE = "training.json"
DIRECTIONS = ("text_to_image", "image_to_text")


@dataclass(frozen=True, kw_only=True)
class HremReport:
    """The outcome of a run; `training.json` in the checkpoint holds the same.

    Attributes:
        encoder: The spec that opens the result: `hrem:PATH`.
        data: The folder that was learned from.
        bert: Where the text transformer came from, or `bigru`.
        dev: R@k of both directions and rsum on the dev split, of the weights that were kept; they were chosen by it.
        kept_epoch: The epoch that these weights are of.
        curve: One row for each evaluation: step, epoch, loss, recall.
        stopped_by: `finished`, `early`, `time_limit` or `interrupted`.
        counts: Images and captions of training and dev; parameters of the towers and of the relation.
        seconds: How long each stage took, and all of it.
        settings: All that the run depends on, with device and precision.
    """

    encoder: str
    data: str
    bert: str
    dev: dict[str, Any]
    kept_epoch: float
    curve: list[dict[str, Any]]
    stopped_by: str
    counts: dict[str, int]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a few lines for people."""
        sides = (("text to image", "text_to_image"), ("image to text", "image_to_text"))
        figures = ", ".join(f"{word} {' / '.join(f'{x:.3f}' for x in self.dev[name].values())}" for word, name in sides)
        return "\n".join(
            [
                f"dev     {figures}; rsum {self.dev['rsum']:.1f} (weights were chosen by it)",
                f"kept    epoch {self.kept_epoch:.1f}; stopped by: {self.stopped_by}; {self.seconds['all']:.0f} s",
                f"encoder {self.encoder}",
            ]
        )

    def write(self, folder: Path) -> None:
        """Write `training.json`; encoders ignore it."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")


def save_plot(report: HremReport, path: Path) -> None:
    """Write loss and dev recall over the epochs as an image; the ending of the name says which format.

    Raises:
        TrainingError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure(9, 4)
    loss, recall = figure.subplots(1, 2)
    _draw_loss(loss, report)
    _draw_recall(recall, report)
    write_figure(figure, path)


def _draw_loss(axes: Any, report: HremReport) -> None:
    rows = [row for row in report.curve if row["loss"] is not None]
    warmup = report.settings["warmup_epochs"] if report.settings["interaction"] != "none" else 0
    axes.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], marker="o", markersize=3)
    if 0 < warmup < max((row["epoch"] for row in rows), default=0):
        axes.axvline(
            warmup, color="0.4", linewidth=1, linestyle=":", label="instance relations begin: four losses, not one"
        )
        axes.legend(fontsize="x-small")
    axes.set(xlabel="epoch", ylabel="loss of a batch (sum)", title="Training loss", ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_recall(axes: Any, report: HremReport) -> None:
    epochs = [row["epoch"] for row in report.curve]
    for name, style in zip(DIRECTIONS, ("-", "--"), strict=True):
        for number, depth in enumerate(report.curve[0][name]):
            values = [row[name][depth] for row in report.curve]
            axes.plot(
                epochs, values, style, marker="o", markersize=3, color=f"C{number}", label=f"{depth}, {_words(name)}"
            )
    label = f"kept: rsum {report.dev['rsum']:.1f}"
    axes.axvline(report.kept_epoch, color="0.4", linewidth=1, linestyle=":", label=label)
    axes.set(xlabel="epoch", ylabel="R@k", title="Recall on the dev split", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _words(name: str) -> str:
    return name.replace("_", " ")


BATCH = 512
DEV_BATCH = 256
CUTOFFS = (1, 5, 10)
Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EvaluateHremOptions:
    """How checkpoints are measured.

    Attributes:
        split: Of the data.
        data: The folder; None takes the one that the first checkpoint learned from.
        images: Only the first so many images; None for all.
        folds: Contiguous folds of the images whose figures are averaged; 5 for COCO 1K.
        k: How deep to look.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (16 bits on a GPU), `fp32`, `bf16` or `fp16` (on a GPU only).
        similarities: Write the (images, captions) scores to this `.npy` file.
    """

    split: str = "test"
    data: Path | None = None
    images: int | None = None
    folds: int = 1
    k: tuple[int, ...] = CUTOFFS
    device: str = "auto"
    precision: str = "fp32"
    similarities: Path | None = None

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, TrainingError)


DEFAULTS = EvaluateHremOptions()


def evaluate_hrem(runs: Sequence[str | Path], options: EvaluateHremOptions = DEFAULTS) -> dict[str, Any]:
    """Return every metric of exact search in both directions, rsum, and what was measured.

    Several checkpoints are an ensemble: their similarities are averaged, which is the cosine of their embeddings put
    behind one another.

    Raises:
        RegionError: The data cannot be used.
        EncoderError: A checkpoint cannot be loaded.
        TrainingError: A checkpoint does not fit the data, or the options do not.
    """
    check_arguments(evaluate_hrem, locals(), TrainingError)
    if not runs:
        raise TrainingError("no checkpoint was given; name one or more folders made by twinlens fit-hrem")
    folders = [Path(str(run).removeprefix(PREFIX)).expanduser() for run in runs]
    split = open_split(options.data or _learned_from(folders[0]), options.split)
    if options.images is not None:
        split = split.first(options.images)
    images, texts = _ensemble([_embedded(folder, split, options) for folder in folders])
    if options.similarities is not None:
        np.save(options.similarities, images @ texts.T)
    try:
        figures = _measured(images, texts, split, options)
    except ValueError as error:
        raise TrainingError(f"split {options.split!r} of {len(split)} images cannot be measured so: {error}") from error
    return {
        "runs": [str(folder) for folder in folders],
        "data": str(split.folder),
        "split": options.split,
        "images": len(split),
        "texts": len(split.captions),
        "folds": options.folds,
        **figures,
    }


def embeddings(
    folder: Path, split: RegionSplit, device: str = "auto", precision: str = "fp32"
) -> tuple[Vectors, Vectors]:
    """Return unit rows of all images and captions of a split, as an index of it would hold them.

    Raises:
        TrainingError: The checkpoint takes other regions.
    """
    encoder = load_encoder(f"{PREFIX}{folder}", device, precision)
    if not isinstance(encoder, RegionEncoder):
        raise TrainingError(f"{str(folder)!r} is no HREM checkpoint")
    config, (count, dim) = encoder.config, split.features.shape[1:]
    if dim != config.region_dim or count > config.max_regions:
        raise TrainingError(
            f"{split.split} of {str(split.folder)!r} has {count} regions of {dim} features, and checkpoint "
            f"{str(folder)!r} takes at most {config.max_regions} of {config.region_dim}; extract them as for training"
        )
    parts = []
    for start in range(0, len(split), BATCH):
        rows = np.arange(start, min(start + BATCH, len(split)))
        parts.append(encoder.encode_pixels(np.stack([encoder.preprocess(one) for one in split.regions(rows)])))
    return np.concatenate(parts), encoder.encode_texts(split.captions)


def to_text(result: dict[str, Any]) -> str:
    """Return what `evaluate_hrem` returned as a few lines for people."""
    runs = result["runs"]
    what = f"{len(runs)} checkpoints, similarities averaged" if len(runs) > 1 else runs[0]
    folds = f", mean of {result['folds']} folds" if result["folds"] > 1 else ""
    counts = f"{result['images']} images, {result['texts']} texts"
    lines = [f"{what}: {result['split']} of {result['data']}, {counts}{folds}"]
    for name in ("image_to_text", "text_to_image"):
        side = result[name]
        figures = "  ".join(f"{key} {100 * value:.1f}" for key, value in side.items() if key.startswith("R@"))
        lines.append(f"{name.replace('_', ' '):<14} {figures}  medR {side['medR']:g}")
    return "\n".join([*lines, f"rsum {result['rsum']:.1f}"])


def _measured(images: Vectors, texts: Vectors, split: RegionSplit, options: EvaluateHremOptions) -> dict[str, Any]:
    if options.folds > 1:
        return evaluate_folds(images, texts, split.pairs, options.k, folds=options.folds)
    return evaluate_embeddings(images, texts, split.pairs, options.k)


def _ensemble(runs: list[tuple[Vectors, Vectors]]) -> tuple[Vectors, Vectors]:
    scale = np.float32(1 / np.sqrt(len(runs)))
    images, texts = (np.concatenate(side, axis=1) * scale for side in zip(*runs, strict=True))
    return images, texts


def _embedded(folder: Path, split: RegionSplit, options: EvaluateHremOptions) -> tuple[Vectors, Vectors]:
    return embeddings(folder, split, options.device, options.precision)


def _learned_from(folder: Path) -> Path:
    path = folder / REPORT_FILE
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{str(path)!r} does not say what was learned from; name the folder with --data") from error


def dev_recall(learner: HremLearner, feed: RegionBatches) -> dict[str, Any]:
    """Return R@k of both directions in [0, 1], and rsum."""
    images, texts = embed_split(learner, feed)
    depths = tuple(k for k in CUTOFFS if k <= min(len(images), len(texts)))
    figures = evaluate_embeddings(images, texts, feed.split.pairs, depths)
    sides = {name: {f"R@{k}": figures[name][f"R@{k}"] for k in depths} for name in DIRECTIONS}
    return {**sides, "rsum": figures["rsum"]}


def embed_split(learner: HremLearner, feed: RegionBatches) -> tuple[Vectors, Vectors]:
    """Return unit rows of all images and all captions of a split, nothing augmented."""
    learner.training_mode(False)
    device = learner.placement.device
    images, texts = [], np.empty((len(feed.tokens), learner.config.dim), dtype=np.float32)
    with torch.inference_mode():
        for rows in _parts(np.arange(len(feed.split))):
            regions = torch.from_numpy(feed.split.regions(rows)).to(device)
            mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=device)
            images.append(learner.towers.image(regions, mask).unit.float().cpu().numpy())
        # Neighbours of like length share a batch.
        for rows in _parts(np.argsort([len(one.ids) for one in feed.tokens], kind="stable")):
            texts[rows] = learner.embed_words(*feed.plain_words(rows)).unit.float().cpu().numpy()
    return np.concatenate(images), texts


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + DEV_BATCH] for start in range(0, len(rows), DEV_BATCH)]
