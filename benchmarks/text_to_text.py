"""145,000 captions asked for their sisters: exact search against IVF-PQ, at every operating point.

Each caption of Flickr30K's 29,000 training images asks for the others of its image, its own place left out.

    python benchmarks/text_to_text.py --plot captions.png
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from record import HOME, RESULTS, Figure, need_data, record

from encoders import Encoder
from evaluation import ann_recall, evaluate_ranking, evaluate_within
from indexer import SourceOptions, build_index
from indexer.ann.plan import minimum_rows
from indexer.progress import console_progress
from searcher import Searcher
from searcher.evaluation.recall_plot import check_plot
from storage import IndexStore, IndexVersion
from storage.errors import TwinlensError

KS = (1, 5, 10)
DEPTH = 10
SAMPLE, TIMED, BLOCK = 5_000, 200, 500
ANN = "ivf-pq4"


def main(argv: Sequence[str] | None = None, encoders: Mapping[str, Encoder] | None = None) -> dict[str, Any]:
    arguments = parsed(argv)
    try:
        if arguments.plot:
            check_plot(arguments.plot)
        index = built(arguments, encoders or {})
        with Searcher.open(index) as searcher, IndexStore.open(index).open_version() as version:
            found = measured(searcher, version)
    except (TwinlensError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    name = "text_to_text" if arguments.limit is None else f"text_to_text_{arguments.limit}"
    record(name, figures(found), notes(found), folder=arguments.results)
    if arguments.plot:
        draw(found, arguments.plot)
    return found


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--encoder", default="lite", metavar="SPEC", help="default: %(default)s")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--work", type=Path, default=HOME / "benchmarks" / "work", metavar="DIR")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw recall against the cost of a query")
    return parser.parse_args(argv)


def built(arguments: argparse.Namespace, encoders: Mapping[str, Encoder]) -> Path:
    """Return the index of the captions; what an earlier run finished is used again, and a killed one goes on."""
    few = "" if arguments.limit is None else f"-{arguments.limit}"
    stem = f"captions-{arguments.encoder.replace('/', '-')}-{arguments.precision}{few}"
    table, out = arguments.work / f"{stem}.jsonl", arguments.work / f"{stem}.index"
    rows = write_captions(table, arguments.limit)
    enough = rows >= minimum_rows(ANN)
    with console_progress(sys.stderr) as progress:
        build_index(
            table,
            out,
            encoder=encoders.get(arguments.encoder, arguments.encoder),
            device=arguments.device,
            precision=arguments.precision,
            ann=ANN if enough else "flat",
            min_ann_recall=0.0,
            progress=progress,
            options=SourceOptions(text="text", id="id"),
            update=out.exists() and IndexStore.open(out).current() is not None,
        )
    return out


def write_captions(table: Path, limit: int | None) -> int:
    """Write one caption a line with its image, and return how many; a table that is there already stays as it is."""
    source = need_data() / "flickr30k" / "captions_karpathy.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        train = islice((row for row in map(json.loads, file) if row["split"] == "train"), limit)
        lines = [json.dumps(line) for number, row in enumerate(train) for line in captions(number, row)]
    text = "\n".join(lines) + "\n"
    if not table.exists() or table.read_text("utf-8") != text:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(text, encoding="utf-8")
    return len(lines)


def captions(number: int, row: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return (
        {"id": f"{row['image']}#{place}", "text": text, "image_number": number}
        for place, text in enumerate(row["captions"])
    )


def measured(searcher: Searcher, version: IndexVersion) -> dict[str, Any]:
    """Return exact figures of all captions, and what a sample of them finds through the index, and at what cost."""
    table = version.catalog.table("texts")
    groups = np.asarray(table.column("image_number"), dtype=np.int64)
    rows = np.arange(version.vectors("texts").rows, dtype=np.int64)
    vectors = version.vectors("texts").gather(rows).astype(np.float32)
    started = time.perf_counter()
    exact = evaluate_within(vectors, groups, KS)
    seconds = time.perf_counter() - started
    sample = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64))
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], [groups[sample], groups[sample] + 1])
    relevant = [
        [row for row in order[start:stop].tolist() if row != own]
        for own, start, stop in zip(sample.tolist(), *bounds.tolist(), strict=True)
    ]
    trial = Trial(searcher, version, vectors, sample, relevant)
    info = version.manifest.collections["texts"]
    points = [point for point in info.tuning["text_to_text"].points if point.k == DEPTH] if info.tuning else []
    return {
        "texts": len(rows),
        "groups": len(np.unique(groups)),
        "dim": version.dim,
        "ann": info.ann.kind,
        "factory": info.ann.factory,
        "encoder": version.manifest.encoder.spec if version.manifest.encoder else None,
        "encode": version.manifest.build["encode"],
        "exact": exact,
        "exact_seconds": round(seconds, 1),
        "sample": len(sample),
        "exact_of_sample": trial.point("exact", {"exact": True}),
        "points": [
            trial.point(
                f"nprobe {point.nprobe}, oversample {point.oversample}",
                {"nprobe": point.nprobe, "oversample": point.oversample},
            )
            for point in points
        ],
    }


class Trial:
    """A sample of captions that ask, each its own vector, and never count themselves."""

    def __init__(
        self, searcher: Searcher, version: IndexVersion, vectors: np.ndarray, sample: np.ndarray, relevant: list[Any]
    ) -> None:
        self.searcher, self.version, self.vectors = searcher, version, vectors
        self.sample, self.relevant = sample, relevant
        self.truth = self.ranked(sample, {"exact": True})

    def point(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return what searches at one setting find, and the median milliseconds of one query at a time."""
        found = self.ranked(self.sample, asked)
        told = evaluate_ranking(found, self.relevant, KS)
        costs = []
        for row in self.sample[np.linspace(0, len(self.sample) - 1, min(TIMED, len(self.sample))).astype(int)]:
            started = time.perf_counter()
            self.search(self.vectors[row : row + 1], asked)
            costs.append((time.perf_counter() - started) * 1000)
        share = ann_recall(found, self.truth)
        return {"setting": name, **asked, **told, "ann_recall@10": share, "ms_per_query": float(np.median(costs))}

    def ranked(self, rows: np.ndarray, asked: Mapping[str, Any]) -> np.ndarray:
        """Return row ids (n, 10) without the rows that ask: one more hit is wanted, and the own one dropped."""
        parts = [self.search(self.vectors[rows[i : i + BLOCK]], asked) for i in range(0, len(rows), BLOCK)]
        ids = np.concatenate(parts)
        found = np.full(ids.shape, -1, dtype=np.int64)
        known = ids != None  # noqa: E711  an elementwise comparison
        found[known] = self.version.vectors("texts").find(ids[known].tolist())
        own = found == rows[:, None]
        # Where equal captions push the own row out, the last hit goes instead.
        own[~own.any(axis=1), -1] = True
        return found[~own].reshape(len(rows), -1)

    def search(self, vectors: np.ndarray, asked: Mapping[str, Any]) -> np.ndarray:
        """Return item ids (n, 11)."""
        return self.searcher.search_vectors("texts", vectors, DEPTH + 1, direction="text_to_text", **asked)[0]


def figures(found: Mapping[str, Any]) -> list[Figure]:
    exact = found["exact"]
    rows = [
        Figure("captions, dimensions", f"{found['texts']:,}, {found['dim']}"),
        Figure("encode", found["encode"]["items_per_second"], unit="texts/s"),
        *(Figure(f"exact, all captions: {name}@1/5/10", shown(exact, name)) for name in ("R", "recall")),
        Figure("exact, all captions: map@R", round(exact["map@R"], 4)),
        Figure("exact evaluation of all captions", found["exact_seconds"], unit="s"),
    ]
    for point in [found["exact_of_sample"], *found["points"]]:
        share = f"ann_recall@10 {point['ann_recall@10']:.4f}, {point['ms_per_query']:.3g} ms a query"
        rows.append(Figure(f"{point['setting']}: R@1/5/10", f"{shown(point, 'R')}; {share}"))
    return rows


def shown(found: Mapping[str, Any], name: str) -> str:
    return " / ".join(f"{found[f'{name}@{k}']:.4f}" for k in KS)


def notes(found: Mapping[str, Any]) -> str:
    return (
        f"Flickr30K's training captions in the Karpathy split, encoder {found['encoder']}: each asks for the other "
        f"captions of its image among all {found['texts']:,}, itself left out. R@k counts queries with any of them "
        "among the first k, recall@k the found share of them. Exact figures are those of all captions; the "
        f"operating points of {found['ann']} ({found['factory']}) are measured on {found['sample']:,} evenly spaced "
        "ones, as is the exact search to compare them with; costs are medians of one query at a time."
    )


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw R@k and ann_recall@10 against the milliseconds of a query."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.5, 4.6), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    points = front(found["points"])
    costs = [point["ms_per_query"] for point in points]
    for name, colour in zip(("ann_recall@10", "R@10", "R@5", "R@1"), ("#D55E00", *BLUES), strict=True):
        axes.plot(costs, [100 * point[name] for point in points], marker="o", markersize=4, color=colour, label=name)
        if name != "ann_recall@10":
            axes.axhline(100 * found["exact_of_sample"][name], color=colour, linewidth=0.8, linestyle=":")
    exact = found["exact_of_sample"]["ms_per_query"]
    axes.set(xlabel="milliseconds a query, one at a time", ylabel="percent")
    if costs and costs[-1] > 4 * costs[0]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    title = f"{found['texts']:,} captions, {found['ann']}; dotted: exact search, {exact:.3g} ms a query"
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(color="#dcdfe4", linewidth=0.6)
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    canvas.savefig(path, dpi=150)


def front(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points that no cheaper one equals, cheapest first: the others would only make a line go back."""
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: point["ms_per_query"]):
        if not kept or point["ann_recall@10"] > kept[-1]["ann_recall@10"]:
            kept.append(point)
    return kept


BLUES = ("#08306b", "#2171b5", "#6baed6")


if __name__ == "__main__":
    main()
