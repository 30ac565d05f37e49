"""A picture of a run: the loss, and the recall on dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..plot import _figure_type as figure_type
from .measure import DIRECTIONS
from .report import HremReport


def save_plot(report: HremReport, path: Path) -> None:
    """Write loss and dev recall over the epochs as a picture; the ending of the name says which format.

    Raises:
        TrainingError: matplotlib is not installed, or the file cannot be written.
    """
    figure = figure_type()(figsize=(9, 4), layout="constrained")
    loss, recall = figure.subplots(1, 2)
    _draw_loss(loss, report)
    _draw_recall(recall, report)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write the plot {str(path)!r}: {error}") from error


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
