"""A picture of a run: the loss falling, the recall rising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import TrainingError
from .report import FitReport


def save_plot(report: FitReport, path: Path) -> None:
    """Write loss and validation recall over the epochs as a picture; the ending of the name says which format.

    Raises:
        TrainingError: matplotlib is not installed, nothing was trained, or the file cannot be written.
    """
    if not report.curve:
        raise TrainingError(f"nothing was trained (stopped by {report.stopped_by}), so there is nothing to plot")
    figure_type = _figure_type()
    figure = figure_type(figsize=(11, 4), layout="constrained")
    loss, recall = figure.subplots(1, 2)
    _draw_loss(loss, report.curve)
    _draw_recall(recall, report)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write the plot {str(path)!r}: {error}") from error


def _figure_type() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingError("a plot needs matplotlib; install it: pip install 'twinlens[plot]'") from error
    return Figure


def _draw_loss(axes: Any, curve: list[dict[str, Any]]) -> None:
    axes.plot([row["epoch"] for row in curve], [row["loss"] for row in curve], marker="o", markersize=3)
    axes.set(xlabel="epoch", ylabel="contrastive loss", title="Training loss", ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_recall(axes: Any, report: FitReport) -> None:
    before, curve = report.before, report.curve
    epochs = [0.0, *(row["epoch"] for row in curve)]
    for (side, name), style in zip(report.directions().items(), ("-", "--"), strict=False):
        for number, depth in enumerate(curve[0][side]):
            first = [] if before is None else [getattr(before, side)[depth]]
            values = [*first, *(row[side][depth] for row in curve)]
            axes.plot(epochs[-len(values) :], values, style, color=f"C{number}", label=f"{depth}, {name}")
    if report.after is not None:
        label = f"mean of what was kept: {report.after.mean:.3f}"
        axes.axhline(report.after.mean, color="0.4", linewidth=1, linestyle=":", label=label)
    axes.set(xlabel="epoch", ylabel="R@k", title="Validation recall", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.01, 1))
