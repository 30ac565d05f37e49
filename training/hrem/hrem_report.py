"""What a training run did, for people, for programs and beside the towers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..report import new_figure, write_figure

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
