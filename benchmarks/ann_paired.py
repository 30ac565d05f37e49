"""Two engines that `ann.py` has built and measured, asked in turns: a ratio that the machine's moods do not change.

    python benchmarks/ann_paired.py --rows 300000 --work FOLDER --engines twinlens scann

One query at a time on one core, by the settings that `ann.py` chose on other queries for each recall. A round asks both
all queries; what counts is the median of the rounds' ratios, but for a first one that counts for nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
from ann import KINDS, K, file_of, folder_of, read, timed
from ann_engines import ENGINES
from clip_like import DIM
from record import RESULTS, Figure, record

TARGETS = ("0.95", "0.99")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--work", type=Path, required=True, help="the folder that ann.py was given")
    parser.add_argument("--engines", nargs=2, default=["twinlens", "scann"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the report")
    options = parser.parse_args()
    folder = folder_of(options)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    engines = {name: opened(name, folder) for name in options.engines}
    settings = {name: read(file_of(folder, name, "measured"))["one"]["kinds"] for name in engines}
    figures = []
    for kind in KINDS:
        queries, exact = (np.load(folder / f"test_{kind}{end}.npy") for end in ("", "_truth"))
        for target in TARGETS:
            chosen = {name: settings[name][kind]["targets"].get(target) for name in engines}
            if all(chosen.values()):
                runs = in_turns(
                    engines, {name: one["setting"] for name, one in chosen.items()}, kind, queries, exact, options
                )
                figures += compared(runs, f"{kind} queries, ann_recall@{K} {target}")
    name = "_".join(["ann_paired", *options.engines, folder.name.removeprefix("clip-like-")]).replace(" ", "-")
    notes = f"{options.rows:,} CLIP-like vectors of {options.dim} dimensions; "
    notes += f"{options.rounds} rounds of {len(queries):,} queries each."
    record(name, figures, notes, folder=options.out)


def opened(name: str, folder: Path) -> Any:
    engine = ENGINES[name]()
    engine.open(folder / f"{name.replace(' ', '-')}.index", folder)
    return engine


def in_turns(
    engines: dict[str, Any],
    settings: dict[str, Any],
    kind: str,
    queries: np.ndarray,
    exact: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, list[dict[str, float]]]:
    runs = {name: list[dict[str, float]]() for name in engines}
    for round_number in range(options.rounds + 1):
        for name, engine in engines.items():

            def ask(asked: np.ndarray, setting: Any, engine: Any = engine) -> list[np.ndarray]:
                return [engine.search(query[None], K, setting, kind) for query in asked]

            measured = timed(ask, queries, exact, settings[name])
            if round_number:  # the first brings the files to memory
                runs[name].append(measured)
    return runs


def compared(runs: dict[str, list[dict[str, float]]], what: str) -> list[Figure]:
    rates = {name: [run["qps"] for run in own] for name, own in runs.items()}
    shown = [
        Figure(f"{name}: {what}, QPS", f"{median(own):,.0f} at {runs[name][0]['recall']:.3f}")
        for name, own in rates.items()
    ]
    one, other = rates.values()
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return [*shown, Figure(f"{' over '.join(rates)}: {what}", f"{median(ratios):.2f} ({spread})")]


if __name__ == "__main__":
    main()
