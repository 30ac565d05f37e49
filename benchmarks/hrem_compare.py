"""HREM's variants seed by seed: mean, spread, and paired differences.

    python benchmarks/hrem_compare.py flickr8k --seeds 5          b, c, c-stopped, d on grid features of `lite`'s trunk
    python benchmarks/hrem_compare.py planted --seeds 5           a, c, c-stopped, d where instances share concepts
    python benchmarks/hrem_compare.py planted --variants a d d-stopped

A seed gives every variant the same towers to begin with and the same batches in the same order, so a difference is
taken seed by seed. Weights are chosen on dev. Flickr8k is measured on dev too, as in `hrem.py`; planted data on test.
Runs are kept: with `--seconds` a call stops in time, and the next one goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from hrem import (
    DESIGNS,
    FLICKR8K,
    PLANTED,
    PLANTED_SEED,
    VARIANTS,
    all_runs,
    flickr8k_data,
    planted_data,
    report,
    settings_of,
    spread,
)
from record import RESULTS, Figure, record

from training.hrem import HremConfig, evaluate_hrem
from training.hrem.hrem_evaluation import EvaluateHremOptions


def main() -> None:
    options = arguments()
    deadline = None if options.finished else time.monotonic() + options.seconds
    load = os.getloadavg()[0]
    figures, first = [], None
    for words, data, config in settings(options):
        runs = runs_of(data, config, options, deadline)
        sums = {variant: [measured(folder, options.on) for folder in folders] for variant, folders in runs.items()}
        figures += [replace(figure, name=f"{words}{figure.name}") for figure in compared(sums)]
        first = first or next(folder for folders in runs.values() for folder in folders)
    drawn = f"planted data drawn by seed {options.data_seed}; " if options.on == "planted" else ""
    notes = f"Seeds 0 to {options.seeds - 1}; {drawn}load of the machine at the start {load:.1f}. "
    notes += settings_of(first, "the first run") if first else "No run is finished."
    record(f"hrem_compare_{options.on}", figures, notes, folder=options.results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("on", choices=["flickr8k", "planted"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="[default: b or a, c, c-stopped, d]")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--data-seed", type=int, default=PLANTED_SEED, help="planted data drawn anew by another seed")
    parser.add_argument("--settings", type=json.loads, default={}, help="of every run, e.g. '{\"epochs\": 12}'")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--finished", action="store_true", help="train nothing; compare the runs that are there")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop in time; the next call goes on")
    found = parser.parse_args()
    plain = "b" if found.on == "flickr8k" else "a"
    found.variants = found.variants or [plain, "c", "c-stopped", "d"]
    if found.on == "planted" and "b" in found.variants:
        parser.error("there is no fragment relation in planted data, so (b) is (a); name a")
    return found


def settings(options: argparse.Namespace) -> list[tuple[str, Path, HremConfig]]:
    """Return what stands before the names of figures, the data, and the settings, of each set of data."""
    if options.on == "flickr8k":
        return [("", flickr8k_data(), replace(FLICKR8K, **options.settings))]
    torch.set_num_threads(1)  # two cores only get in each other's way at this size
    config = replace(PLANTED, **options.settings)
    return [(f"{words}: ", planted_data(number, options.data_seed), config) for number, words in enumerate(DESIGNS)]


def runs_of(
    data: Path, config: HremConfig, options: argparse.Namespace, deadline: float | None
) -> dict[str, list[Path]]:
    variants = {name: VARIANTS[name][1] for name in options.variants}
    if options.on == "planted":  # a bag of concepts has no use for attention among fragments
        variants = {name: {**chosen, "fragment_relation": False} for name, chosen in variants.items()}
    short = "".join(f"-{name}={value}" for name, value in sorted(options.settings.items()))
    return all_runs(data, f"compare-{data.name}{short}", config, deadline, variants, range(options.seeds))


def measured(folder: Path, on: str) -> float:
    """Return rsum: on the split that weights were chosen by, or on test where there is one."""
    if on == "flickr8k":
        return float(report(folder)["dev"]["rsum"])
    return float(evaluate_hrem([folder], EvaluateHremOptions(split="test", device="cpu"))["rsum"])


def compared(sums: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Return rsum of each variant, and of each two of them the differences seed by seed."""
    figures = [Figure(f"({name}) {VARIANTS[name][0]}: rsum", spread(found)) for name, found in sums.items()]
    return figures + [
        Figure(f"({other}) minus ({one}), seed by seed", difference(sums[one], sums[other]))
        for one, other in combinations(sums, 2)
    ]


def difference(one: Sequence[float], other: Sequence[float]) -> Any:
    """Return mean, standard deviation and standard error of the differences seed by seed, and how many are above 0."""
    gains = [above - below for below, above in zip(one, other, strict=False)]
    told = ", ".join(f"{gain:+.1f}" for gain in gains)
    if len(gains) < 2:
        return told or "not measured"
    deviation = stdev(gains)
    above = sum(gain > 0 for gain in gains)
    return (
        f"{mean(gains):+.1f} +- {deviation:.1f} (standard error {deviation / sqrt(len(gains)):.1f}; "
        f"above 0 in {above} of {len(gains)}: {told})"
    )


if __name__ == "__main__":
    main()
