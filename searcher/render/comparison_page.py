"""Page of a comparison of encoders: recall against speed, tables, and what each alone answers; no other file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.scorecard import DIRECTIONS
from ..evaluation.side_by_side_text import TIE, difference_cell, sample_notes
from ..hits import cut
from .audit_page import check_page
from .html_gallery import as_source, page_template, write_page
from .thumbnails import thumbnail

# Some 6 kB each: a page of 3 MB at most.
MOST_THUMBNAILS = 400
EXAMPLE = "compare.html"
_BOX = (240, 180)
_CAPTION, _NAME = 300, 60
# Told apart with any common colour blindness, on white and on black (Okabe and Ito 2008); one of many is grey.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#8a8f98"
Facts = Mapping[str, Any]
Images = Mapping[str, Path | bytes]


def save_comparison(path: Path, facts: Facts, images: Images) -> None:
    """Write a self-contained page of a comparison; an existing file is replaced.

    Args:
        path: The file.
        facts: As `docs/compare.md` lists them.
        images: By `item_id` the file, or the bytes, of each image in the examples.

    Raises:
        SearchError: The file cannot be written.
    """
    check_page(path, EXAMPLE)
    write_page(path, render_comparison(facts, images), "comparison")


def render_comparison(facts: Facts, images: Images) -> str:
    """Return the page that `save_comparison` writes: 400 thumbnails at most, every text in it escaped."""
    page = _Page(facts, images)
    return page_template("comparison.html").render(
        facts=facts,
        counts=facts["encoders"][0]["counts"],
        level=f"{facts['level']:.0%}",
        rows=page.rows(),
        depths=[f"R@{depth}" for depth in facts["k"]],
        directions=list(DIRECTIONS.items()),
        plot=Scatter.of(page.points(), page.speed_words),
        alone=list(page.alone()),
        about_speed=page.about_speed,
        notes=list(sample_notes(facts)),
    )


class _Page:
    """Turns the facts into what the template shows."""

    def __init__(self, facts: Facts, images: Images) -> None:
        self.facts = facts
        self.images = images
        self.thumbnails_left = MOST_THUMBNAILS
        devices = {one["index"]["computed"]["device"] for one in facts["encoders"]}
        self.rate = "per_cpu_second" if devices == {"cpu"} else "per_second"
        self.speed_words = "images a second of one core" if devices == {"cpu"} else "images a second"
        self.names = _short_names([one["label"] for one in facts["encoders"]])
        self.colors = [_COLORS[at] if at < len(_COLORS) else _GREY for at in range(len(facts["encoders"]))]

    @property
    def about_speed(self) -> str:
        """What the speeds are."""
        unit = "of processor time, all cores added up" if self.rate == "per_cpu_second" else "by the wall clock"
        return f"Speeds are a second {unit}; an image is read, decoded and encoded."

    def rows(self) -> list[dict[str, Any]]:
        """Return the encoders, the best first."""
        order = sorted(range(len(self.facts["encoders"])), key=lambda at: -self.facts["encoders"][at]["rsum"])
        return [self._row(at) for at in order]

    def _row(self, at: int) -> dict[str, Any]:
        one = self.facts["encoders"][at]
        behind = self.facts["differences"][at] if self.facts["differences"] else None
        low, high = one["rsum_interval"]
        computed = one["index"]["computed"]
        return {
            "name": self.names[at],
            "spec": cut(one["label"], _CAPTION),
            "color": self.colors[at],
            "best": at == self.facts["best"],
            "rsum": {"at": one["rsum"] / 6, "low": low / 6, "high": high / 6, "text": f"{one['rsum']:.1f}"},
            "rsum_interval": f"{low:.1f} to {high:.1f}",
            "behind": _gap(behind and behind["rsum"], 1),
            "above": _gap(behind and behind["above"]["rsum"], 1),
            "shares": {name: self._shares(one[name], behind and behind[name]) for name in DIRECTIONS},
            "images": self._rate(one["speed"]["images"]),
            "texts": self._rate(one["speed"]["texts"]),
            "dim": one["dim"],
            "bytes": one["bytes_per_item"]["images"],
            "computed": " ".join(str(computed[name]) for name in ("device", "backend", "precision")),
        }

    def _shares(self, figures: Facts, behind: Facts | None) -> list[dict[str, Any]]:
        return [
            {
                "at": 100 * figures[key],
                "low": 100 * figures["intervals"][key][0],
                "high": 100 * figures["intervals"][key][1],
                "text": f"{100 * figures[key]:.1f}",
                "behind": _gap(behind and behind[key], 100),
            }
            for key in (f"R@{depth}" for depth in self.facts["k"])
        ]

    def _rate(self, speed: Facts | None) -> str:
        return (
            "-"
            if speed is None
            else f"{speed[self.rate]:,.0f}"
            if speed[self.rate] >= 10
            else f"{speed[self.rate]:.1f}"
        )

    def points(self) -> list[dict[str, Any]]:
        """Return the mean of the six recalls and the speed of each encoder that has one."""
        return [
            {
                "name": self.names[at],
                "color": self.colors[at],
                "speed": one["speed"]["images"][self.rate],
                "recall": one["rsum"] / 6,
                "low": one["rsum_interval"][0] / 6,
                "high": one["rsum_interval"][1] / 6,
            }
            for at, one in enumerate(self.facts["encoders"])
            if one["speed"]["images"]
        ]

    def alone(self) -> Iterator[dict[str, Any]]:
        """Yield for each encoder what it alone answers."""
        for at, found in enumerate(self.facts["alone"] or ()):
            sides = [
                {
                    "title": words[0].upper() + words[1:],
                    "count": f"{found[name]['count']:,} of {found[name]['of']:,}",
                    "by_text": name == "text_to_image",
                    "examples": [self._example(one, name) for one in found[name]["examples"]],
                }
                for name, words in DIRECTIONS.items()
            ]
            yield {"name": self.names[at], "color": self.colors[at], "sides": sides}

    def _example(self, one: Facts, direction: str) -> dict[str, Any]:
        by_text = direction == "text_to_image"
        shown = self._image if by_text else _said
        others = [
            {
                "name": self.names[self._position(other["label"])],
                "color": self.colors[self._position(other["label"])],
                "item": shown(other["item"]),
                "rank": f"{other['rank']:,}",
            }
            for other in one["instead"]
        ]
        right = [shown(item) for item in one["right"][: 1 if by_text else None]]
        query = _said(one["query"]) if by_text else self._image(one["query"])
        return {"query": query, "right": right, "instead": others}

    def _position(self, label: str) -> int:
        return next(at for at, one in enumerate(self.facts["encoders"]) if one["label"] == label)

    def _image(self, item: Facts) -> dict[str, Any]:
        if self.thumbnails_left <= 0:
            return {"item_id": item["item_id"], "source": None, "problem": "no room for its image"}
        self.thumbnails_left -= 1
        return {"item_id": item["item_id"], **as_source(thumbnail(self.images.get(item["item_id"]), _BOX))}


def _gap(one: Facts | None, factor: float) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"text": difference_cell(one, factor).rstrip(f" {TIE}"), "tie": not one["tie_excluded"]}


def _short_names(labels: Sequence[str]) -> list[str]:
    """Return what to call encoders where there is little room: without folders of paths, if that tells them apart."""
    short = []
    for label in labels:
        head, _, path = label.partition(":") if label.startswith("local-dir:") else label.partition("/")
        last = path.rstrip("/").rpartition("/")[2]
        short.append(last if head == "local-dir" else f"{head}/{last}" if last else label)
    chosen = short if len(set(short)) == len(labels) else labels
    return [cut(name, _NAME) for name in chosen]


def _said(item: Facts) -> str:
    return cut(item["caption"] or item["item_id"], _CAPTION)


class Scatter:
    """Recall against speed as the parts of an SVG: points with whiskers, labels that do not overlap, and both axes."""

    WIDTH, HEIGHT = 760, 340
    LEFT, RIGHT, TOP, BOTTOM = 52, 24, 30, 58

    def __init__(self, points: Sequence[Facts], words: str) -> None:
        self.words = words
        speeds = [max(float(point["speed"]), 1e-3) for point in points]
        self._x_low, self._x_high = math.log10(min(speeds) / 2.2), math.log10(max(speeds) * 2.2)
        highest = max(point["high"] for point in points)
        self._top = min(100.0, 10 * math.ceil(highest / 10 + 0.2))
        self.points = [self._point(point) for point in points]
        self._spread_labels()
        self.x_ticks = [(self._x(value), f"{value:g}") for value in self._round_speeds()]
        step = 20 if self._top > 50 else 10 if self._top > 20 else 5
        self.y_ticks = [(self._y(value), f"{value:g}") for value in range(0, int(self._top) + 1, step)]

    @classmethod
    def of(cls, points: Sequence[Facts], words: str) -> Scatter | None:
        """Return the plot; None where there is nothing to draw."""
        return cls(points, words) if points else None

    def _x(self, speed: float) -> float:
        share = (math.log10(max(speed, 1e-3)) - self._x_low) / (self._x_high - self._x_low)
        return float(round(self.LEFT + share * (self.WIDTH - self.LEFT - self.RIGHT), 1))

    def _y(self, recall: float) -> float:
        return float(round(self.TOP + (1 - recall / self._top) * (self.HEIGHT - self.TOP - self.BOTTOM), 1))

    def _point(self, point: Facts) -> dict[str, Any]:
        x, y = self._x(point["speed"]), self._y(point["recall"])
        to_left = x > self.WIDTH * 0.6
        return {
            "x": x,
            "y": y,
            "low": self._y(point["low"]),
            "high": self._y(point["high"]),
            "color": point["color"],
            "label": point["name"],
            "label_x": x - 12 if to_left else x + 12,
            "label_y": y + 4,
            "anchor": "end" if to_left else "start",
            "title": f"{point['name']}: mean recall {point['recall']:.1f} [{point['low']:.1f}, {point['high']:.1f}], "
            f"{point['speed']:,.1f} {self.words}",
        }

    def _spread_labels(self) -> None:
        """Move labels down that would lie on the one above."""
        last = -math.inf
        for point in sorted(self.points, key=lambda one: float(one["label_y"])):
            point["label_y"] = last = max(float(point["label_y"]), last + 15)

    def _round_speeds(self) -> list[float]:
        low, high = 10**self._x_low, 10**self._x_high
        found = [base * 10**power for power in range(-3, 6) for base in (1, 2, 5)]
        return [round(value, 6) for value in found if low <= value <= high]
