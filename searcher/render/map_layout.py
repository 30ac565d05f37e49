"""Where the images, dots and names of a map stand on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..hits import cut

# An image stands in each cell that has items, so that none covers another.
COLUMNS, ROWS = 20, 13
_NAME, _CAPTION = 60, 200
_MARGIN = 0.03
_TURN = 137.5  # degrees between the hues of one cluster and the next: the golden angle, so that neighbors differ


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """What a page draws; `left` and `top` are percent of the map, `hue` is that of the cluster, in degrees.

    Attributes:
        thumbnails: `item`, `caption`, `left`, `top`, `hue`, `side` (which way it grows: where it is far from the edge).
        dots: `title`, `left`, `top`, `hue`.
        clusters: `name`, `count`, `percent` of the largest, `hue`, and `anchor`, the thumbnail nearest to its centre.
    """

    thumbnails: list[dict[str, Any]]
    dots: list[dict[str, Any]]
    clusters: list[dict[str, Any]]


def lay_out(facts: Mapping[str, Any], *, images: bool) -> MapLayout:
    """Return the layout of a map as an audit tells it; with `images` one item of each cell is shown as an image."""
    cells: dict[tuple[int, int], tuple[float, int]] = {}
    for number, point in enumerate(facts["points"] if images else ()):
        column, row = (min(int(point[axis] * count), count - 1) for axis, count in (("x", COLUMNS), ("y", ROWS)))
        away = (point["x"] * COLUMNS - column - 0.5) ** 2 + (point["y"] * ROWS - row - 0.5) ** 2
        cells[column, row] = min(cells.get((column, row), (2.0, number)), (away, number))
    chosen = {number: cell for cell, (_, number) in cells.items()}
    dots = [
        {"title": cut(point["caption"] or point["item_id"], _CAPTION), "hue": _hue(point["cluster"]), **_percent(point)}
        for number, point in enumerate(facts["points"])
        if number not in chosen
    ]
    thumbnails = []
    for number, (column, row) in sorted(chosen.items(), key=lambda one: (one[1][1], one[1][0])):
        point = facts["points"][number]
        at = {"x": (column + 0.5) / COLUMNS, "y": (row + 0.5) / ROWS}
        thumbnails.append(
            {
                "item": point,
                "cluster": point["cluster"],
                "caption": cut(point["caption"] or "", _CAPTION),
                "hue": _hue(point["cluster"]),
                "side": f"{'right' if column >= COLUMNS / 2 else 'left'} {'low' if row >= ROWS / 2 else 'high'}",
                **_percent(at),
            }
        )
    return MapLayout(thumbnails=thumbnails, dots=dots, clusters=_clusters(facts, thumbnails))


def _clusters(facts: Mapping[str, Any], thumbnails: list[dict[str, Any]]) -> list[dict[str, Any]]:
    largest = max(one["count"] for one in facts["clusters"])
    clusters = []
    for number, one in enumerate(facts["clusters"]):
        centre = _percent(one)
        own = [at for at, shown in enumerate(thumbnails) if shown["cluster"] == number]
        nearest = min(own, default=None, key=lambda at: _apart(thumbnails[at], centre))
        clusters.append(
            {
                "name": cut(one["name"], _NAME) or "(nothing names it)",
                "count": one["count"],
                "percent": round(100 * one["count"] / largest),
                "hue": _hue(number),
                "anchor": nearest,
            }
        )
    return clusters


def _apart(shown: Mapping[str, Any], centre: Mapping[str, float]) -> float:
    return float((shown["left"] - centre["left"]) ** 2 + (shown["top"] - centre["top"]) ** 2)


def _percent(at: Mapping[str, Any]) -> dict[str, float]:
    room = 1 - 2 * _MARGIN
    return {"left": round(100 * (_MARGIN + room * at["x"]), 2), "top": round(100 * (_MARGIN + room * at["y"]), 2)}


def _hue(cluster: int) -> int:
    return round(cluster * _TURN) % 360
