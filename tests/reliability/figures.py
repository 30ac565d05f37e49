"""What is asked of the sweep beside what its last run measured: the table of `docs/promises.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "last_sweep.json"
# A figure of any part that must be 0.
WRONG = ("broken promises", "errors", "differing")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One row: what is counted, in which parts, and how much of it there must be (or, with `below`, less of it)."""

    what: str
    key: str
    parts: str
    least: float
    how: str = "sum"

    def measured(self, parts: Mapping[str, Mapping[str, Any]]) -> float | None:
        """The figure of the last run; None where a part has not been run."""
        found = [
            value
            for name, part in parts.items()
            if fnmatch(name, self.parts)
            for key, value in part.items()
            if fnmatch(key, self.key)
        ]
        if not found:
            return None
        return sum(found) if self.how == "sum" else min(found) if self.how == "least" else max(found)

    def wrong(self, parts: Mapping[str, Mapping[str, Any]]) -> int:
        """What these parts count as broken, in all."""
        chosen = [part for name, part in parts.items() if fnmatch(name, self.parts)]
        return sum(int(part.get(key, 0)) for part in chosen for key in WRONG)

    def reached(self, parts: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether the last run did enough, and nothing broke."""
        value = self.measured(parts)
        enough = value is not None and (value < self.least if self.how == "below" else value >= self.least)
        return enough and self.wrong(parts) == 0


ASKED = (
    Asked(what="named steps, the process ending at each", key="named steps", parts="named-steps", least=24),
    Asked(
        what="calls of one build that change the disk",
        key="calls of the build",
        parts="calls-killed-*",
        least=100,
        how="least",
    ),
    Asked(
        what="builds killed before each such call and after every third, then built again",
        key="kills",
        parts="calls-killed-*",
        least=200,
    ),
    Asked(
        what="calls that fail: ENOSPC, EIO, EDQUOT, EINTR, EROFS, EMFILE, short writes",
        key="faults",
        parts="faults-*",
        least=300,
    ),
    Asked(
        what="rollbacks, vacuums and repairs, killed or failing at a call, then run again",
        key="disturbed",
        parts="upkeep",
        least=80,
    ),
    Asked(what="states of a disk after a power loss", key="states", parts="power-loss-*", least=1000),
    Asked(
        what="kills at random moments, the build run again until it is done",
        key="kills",
        parts="kill-and-resume",
        least=200,
    ),
    Asked(what="two builders of one index at once", key="pairs of builders", parts="two-builders", least=20),
    Asked(
        what="steps of the store against a dict, with kills, damage and repair",
        key="steps of the store",
        parts="store-machine",
        least=500,
    ),
    Asked(what="damaged files of an index", key="damaged files", parts="damage-*", least=10_000),
    Asked(what="hostile images", key="hostile images", parts="images-*", least=20_000),
    Asked(what="random filters against plain Python", key="random filters", parts="filters", least=5000),
    Asked(what="hostile filters, no file opened", key="hostile filters", parts="filters", least=200),
    Asked(what="URL forms, none of which reaches a private address", key="URL forms", parts="urls", least=50),
    Asked(what="hostile tables", key="hostile tables", parts="tables", least=5000),
    Asked(what="hostile tar archives", key="hostile archives", parts="archives", least=5000),
    Asked(what="hostile arrays", key="hostile arrays", parts="arrays", least=5000),
    Asked(what="hostile manifests", key="hostile manifests", parts="manifests", least=5000),
    Asked(
        what="searches by 16 threads with mixed settings, each as by one", key="searches", parts="threads", least=10_000
    ),
    Asked(
        what="versions published under 8 threads and 4 processes of readers",
        key="versions published",
        parts="readers",
        least=50,
    ),
    Asked(
        what="growth of memory over 5,000 searches after a warm-up, percent",
        key="growth, percent",
        parts="memory-*",
        least=2,
        how="below",
    ),
)


def last() -> dict[str, Any]:
    """Return what the last sweep left; its parts may be of several days."""
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"parts": {}}
    return found


def table(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the rows of the table, asked beside measured, as Markdown."""
    rows = ["| what | asked | measured | broken |", "|---|---|---|---|"]
    for asked in ASKED:
        value = asked.measured(parts)
        sign = "<" if asked.how == "below" else "≥"
        shown = "not run" if value is None else f"{value:,}"
        rows.append(f"| {asked.what} | {sign} {asked.least:,} | {shown} | {asked.wrong(parts)} |")
    return rows
