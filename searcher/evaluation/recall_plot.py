"""Plot of an evaluation: recall as bars beside published figures, and recall against the cost of a search."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.protocol import Protocol
from evaluation.published import PublishedRow
from storage.errors import install_hint

from ..errors import EvaluationError
from .scorecard import DIRECTIONS, searched_exactly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people who cannot tell red from green can tell apart; no text stands in them.
_EXACT, _APPROXIMATE = "#0072B2", "#E69F00"
_PUBLISHED = ("#009E73", "#CC79A7", "#56B4E9", "#999999")
_DEPTHS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "osD^vP"
_PUBLISHED_DEPTHS = (1, 5, 10)
_INK, _MUTED, _GRID = "#1d2430", "#69727f", "#dcdfe4"
_LOG_FROM = 4  # the largest cost over the smallest
_WIDE, _NARROW, _HEIGHT, _DPI = 12.0, 8.0, 7.6, 150
_TITLE = 175
_GROUP, _WIDEST_BAR = 0.84, 0.3  # of the distance of two depths

Series = tuple[str, str, Mapping[int, float]]
"""Name, colour, and the percentage for each k."""


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be drawn, before the work rather than after it.

    Raises:
        EvaluationError: No PNG, no such folder, not writable, or matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise EvaluationError(f"the plot {str(path)!r} would be no PNG; name a file that ends in .png")
    if not path.parent.is_dir():
        raise EvaluationError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EvaluationError(f"cannot write {str(path)!r}: it is a folder or write-protected; name another file")
    if find_spec("matplotlib") is None:
        raise EvaluationError(f"plots need matplotlib, which is not installed; {install_hint('plot')}")


def save_recall_plot(path: Path, result: Mapping[str, Any], rows: Sequence[PublishedRow] = ()) -> None:
    """Draw a result of `evaluate_index` as a PNG, 1800 pixels wide and legible at 1200 (two thirds of it where nothing
    went through an index).

    Args:
        path: Where to; an existing file is replaced.
        result: What `evaluate_index` returned.
        rows: Published rows, of which the first four stand beside the bars.

    Raises:
        EvaluationError: See `check_plot`; or the file cannot be written.
    """
    check_plot(path)
    figure = _figure(result, rows[: len(_PUBLISHED)])
    try:
        with warnings.catch_warnings():
            # A split in a script that the font lacks shows as boxes; the figures do not suffer.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(path, dpi=_DPI, format="png")
    except OSError as error:
        raise EvaluationError(f"cannot write {str(path)!r}: {error.strerror}; name another file") from error


def _figure(result: Mapping[str, Any], rows: Sequence[PublishedRow]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    through = "ann" in result
    figure = Figure(figsize=(_WIDE if through else _NARROW, _HEIGHT), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(result, through), fontsize=8.5, color=_INK, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(len(DIRECTIONS), 2 if through else 1, squeeze=False)
    for line, (direction, words) in zip(axes, DIRECTIONS.items(), strict=True):
        _bars(line[0], words, _series(result, direction, rows))
        if through:
            _curves(line[1], words, result["ann"][direction])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3 if through else 2, fontsize=8, frameon=False)
    return figure


def _title(result: Mapping[str, Any], through: bool) -> str:
    index = result["index"]
    encoder = f", encoder {index['encoder']}" if index["encoder"] else ""
    first = f"Recall of {Path(index['path']).name}, version {index['version']}{encoder}"
    sentence = Protocol.from_json(result["protocol"]).sentence()
    return f"{first}\n{textwrap.fill(sentence, _TITLE if through else _TITLE * 2 // 3)}"


def _series(result: Mapping[str, Any], direction: str, rows: Sequence[PublishedRow]) -> list[Series]:
    series: list[Series] = [("this index, exact search", _EXACT, _percentages(result[direction]))]
    if not searched_exactly(result):
        kind = result["ann"][direction]["choice"]["kind"]
        series.append((f"this index, through {kind}", _APPROXIMATE, _percentages(result["ann"][direction])))
    for row, color in zip(rows, _PUBLISHED, strict=False):
        values = row.text_to_image if direction == "text_to_image" else row.image_to_text
        known = {k: value for k, value in zip(_PUBLISHED_DEPTHS, values, strict=True) if value is not None}
        series.append((f"published: {row.model} ({row.kind})", color, known))
    return series


def _percentages(figures: Mapping[str, Any]) -> dict[int, float]:
    return {int(key[2:]): 100 * value for key, value in figures.items() if key.startswith("R@")}


def _bars(axes: Axes, words: str, series: Sequence[Series]) -> None:
    depths = list(series[0][2])
    width = min(_WIDEST_BAR, _GROUP / len(series))
    for number, (name, color, values) in enumerate(series):
        positions = [position + (number - (len(series) - 1) / 2) * width for position in range(len(depths))]
        heights = [values.get(k, 0.0) for k in depths]
        axes.bar(positions, heights, width * 0.92, color=color, label=name)
        for position, k in zip(positions, depths, strict=True):
            shown = _short(values[k]) if k in values else "-" if k in _PUBLISHED_DEPTHS else ""
            size = 8 if len(series) <= 4 else 7
            axes.text(position, values.get(k, 0.0) + 1, shown, ha="center", va="bottom", fontsize=size, color=_INK)
    axes.set_xticks(range(len(depths)), [f"R@{k}" for k in depths])
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))
    _dress(axes, f"{words}: queries with any relevant item in the first k, %")
    axes.grid(axis="x", visible=False)


def _short(percentage: float) -> str:
    return "100" if percentage >= 99.95 else f"{percentage:.1f}"


def _curves(axes: Axes, words: str, figures: Mapping[str, Any]) -> None:
    """R@k and ann_recall@10 of every operating point; where all was exact, the one point that there is.

    The lines go through those that no cheaper one equals in ann_recall, the others stand beside them.
    """
    points = sorted(figures["operating_points"] or [figures], key=lambda point: float(point["ms_per_query"]))
    exact = figures.get("curve_exact", figures)
    for number, k in enumerate(list(_percentages(points[0]))[: len(_DEPTHS)]):
        axes.axhline(100 * exact[f"R@{k}"], color=_DEPTHS[number], linewidth=0.9, linestyle=":")
        _curve(axes, points, f"R@{k}", color=_DEPTHS[number], marker=_MARKERS[number], markersize=5)
    _curve(axes, points, "ann_recall@10", color=_INK, marker="x", markersize=6, linestyle="--")
    _mark_chosen(axes, figures)
    _cost_axis(axes, [point["ms_per_query"] for point in points])
    how = "its operating points" if figures["operating_points"] else "every vector compared"
    _dress(axes, f"{words}: % against cost; {figures['choice']['kind']}, {how}; dotted: exact search")
    axes.legend(fontsize=8, loc="best", framealpha=0.9)


def _curve(axes: Axes, points: Sequence[Mapping[str, Any]], name: str, **look: Any) -> None:
    cost, values = [point["ms_per_query"] for point in points], [100 * point[name] for point in points]
    axes.plot(cost, values, **{**look, "linestyle": "", "alpha": 0.45})
    front = _front(points)
    axes.plot([cost[i] for i in front], [values[i] for i in front], linewidth=1.6, label=name, **look)


def _front(points: Sequence[Mapping[str, Any]]) -> list[int]:
    """The points with more ann_recall than every cheaper one; they come cheapest first."""
    front: list[int] = []
    for position, point in enumerate(points):
        if not front or point["ann_recall@10"] > points[front[-1]]["ann_recall@10"]:
            front.append(position)
    return front


def _mark_chosen(axes: Axes, figures: Mapping[str, Any]) -> None:
    """A grey line at the operating point that a search takes by itself."""
    setting = [figures["choice"][name] for name in ("nprobe", "oversample")]
    for point in figures["operating_points"]:
        if [point["nprobe"], point["oversample"]] == setting:
            axes.axvline(
                point["ms_per_query"], color=_MUTED, linewidth=5, alpha=0.3, zorder=0, label="what a search takes"
            )


def _cost_axis(axes: Axes, cost: Sequence[float]) -> None:
    log = cost[-1] > _LOG_FROM * cost[0]
    axes.set_xlabel("milliseconds a query, one at a time" + (" (log)" if log else ""), fontsize=8.5)
    if len(cost) == 1:
        axes.set_xlim(0, 2 * cost[0])
    if not log:
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
    axes.tick_params(labelsize=8.5, colors=_INK)
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
