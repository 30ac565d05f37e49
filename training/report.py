"""What a fine-tuning run did, for people, for programs and beside the encoder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from storage.errors import install_hint

from .errors import TrainingError
from .examples import Kind, first_few
from .leaks import Leaks
from .selection import Recall

REPORT_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """The outcome of a run; `training.json` in the encoder's folder holds the same.

    Attributes:
        encoder: The spec that opens the result: `local-dir:PATH`.
        base: The spec of the encoder that it started from.
        sides: What the left and the right items are: `image` or `text`.
        before: Validation recall of the untrained encoder; None where there was no time to measure it.
        after: The same of what was saved.
        curve: One row for each evaluation: step, epoch, loss, recall.
        stopped_by: `finished`, `early`, `time_limit` or `interrupted`.
        averaged: The steps whose weights were averaged; empty where the untrained encoder was best.
        alpha: Share of the trained weights in what was saved; the rest are the untrained ones.
        counts: Distinct items and pairs of training and validation.
        seconds: How long each stage took, and all of it.
        settings: All that the run depends on, with device and precision.
        unreadable: Images and captions that were left out, a line each.
        given: Images, or other left items, that were given to learn from and to choose by.
        share: Share of the examples that were learned from: less than 1 where reading all, or the features of all,
            would have taken most of the time limit.
        views: Augmented views of each image that were used; fewer than the settings ask for where the time limit did
            not allow them. They go before any example does.
        leaks: Validation items that are among the training items too, and recall without them; None where nothing was
            measured.
    """

    encoder: str
    base: str
    sides: tuple[Kind, Kind]
    before: Recall | None
    after: Recall | None
    curve: list[dict[str, Any]]
    stopped_by: str
    averaged: tuple[int, ...]
    alpha: float
    counts: dict[str, int]
    seconds: dict[str, float]
    settings: dict[str, Any]
    unreadable: tuple[str, ...] = ()
    given: int = 0
    share: float = 1.0
    views: int = 0
    leaks: Leaks | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        recalls = {name: recall and recall.to_json() for name, recall in self._recalls().items()}
        return {**asdict(replace(self, leaks=None)), **recalls, "leaks": self.leaks and self.leaks.to_json()}

    def to_text(self) -> str:
        """Return a few lines for people."""
        recalls = self._recalls().items()
        lines = [f"{name:<7} {self._line(recall)}" for name, recall in recalls if recall is not None]
        if self.leaks is not None and self.leaks.any:
            without = "" if self.leaks.without is None else f"; without them {self._line(self.leaks.without)}"
            lines.append(f"leaks   {self.leaks.to_text()}{without}")
        kept = "the untrained encoder" if not self.averaged else f"steps {', '.join(map(str, self.averaged))}"
        share = f", {self.alpha:.2f} of it with the untrained weights" if 0 < self.alpha < 1 else ""
        lines.append(f"kept    {kept}{share}; stopped by: {self.stopped_by}; {self.seconds['all']:.0f} s")
        lines += self._used()
        if self.stopped_by == "time_limit" and not self.curve:
            lines.append("nothing was trained: the time limit was over before that; raise it to train")
        if self.unreadable:
            lines.append(f"left out {len(self.unreadable)} images or captions: {first_few(self.unreadable)}")
        return "\n".join([*lines, f"encoder {self.encoder}"])

    def _used(self) -> list[str]:
        fewer = self.views < self.settings["views"]
        if self.share == 1 and not fewer:
            return []
        train, val = self.counts["train_left"], self.counts["val_left"]
        used = f"{train + val:,} of {self.given:,} {self.sides[0]}s, {train:,} to learn from and {val:,} to choose by"
        views = f", {self.views} of {self.settings['views']} augmented views of each image" if fewer else ""
        return [f"used    {used}{views}, as the time limit does not allow features of all"]

    def directions(self) -> dict[str, str]:
        """Return what people call the directions of a recall; where both sides are of one kind there is but one."""
        left, right = self.sides
        both = {"left_to_right": f"{left} to {right}", "right_to_left": f"{right} to {left}"}
        return both if left != right else {"left_to_right": both["left_to_right"]}

    def write(self, folder: Path) -> None:
        """Write `training.json` into the encoder's folder; encoders ignore it."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")

    def _line(self, recall: Recall) -> str:
        sides = [
            f"{name} {' / '.join(f'{value:.3f}' for value in getattr(recall, side).values())}"
            for side, name in self.directions().items()
        ]
        depths = "/".join(name.removeprefix("R@") for name in recall.left_to_right)
        return f"validation R@{depths}: {', '.join(sides)}; mean {recall.mean:.3f}"

    def _recalls(self) -> dict[str, Recall | None]:
        return {"before": self.before, "after": self.after}


def save_plot(report: FitReport, path: Path) -> None:
    """Write loss and validation recall over the epochs as an image; the ending of the name says which format.

    Raises:
        TrainingError: matplotlib is not installed, nothing was trained, or the file cannot be written.
    """
    if not report.curve:
        raise TrainingError(f"nothing was trained (stopped by {report.stopped_by}), so there is nothing to plot")
    figure = new_figure(11, 4)
    loss, recall = figure.subplots(1, 2)
    _draw_loss(loss, report.curve)
    _draw_recall(recall, report)
    write_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of so many inches.

    Raises:
        TrainingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingError(f"a plot needs matplotlib; {install_hint('plot')}") from error
    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure as an image file; the ending of the name says which format.

    Raises:
        TrainingError: The file cannot be written.
    """
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write the plot {str(path)!r}: {error}") from error


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
