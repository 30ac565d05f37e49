"""What a server says of its own recall: beside the truth, where operating points promise too much, and its cost.

300,000 CLIP-like vectors under IVF-PQ (`clip_like.py`), served by the command in a process of its own, asked by vector
with queries that no setting was chosen by; the clients are one more process on the same cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from clip_like import write_vectors
from record import HOME, Figure, record
from server import fetched, served, serving
from server_clients import Crowd, K, Seen, post

from searcher import Searcher
from storage.manifest import Manifest

ROWS, TEXTS, QUERIES = 300_000, 20_000, 8_000
# Direction, file of its queries, and the recall that is asked for.
KINDS = (
    ("text_to_image", "text_queries", 0.95),
    ("text_to_image", "text_queries", 0.99),
    ("image_to_image", "image_queries", 0.95),
)
FORCED_DOWN = 8  # lists are so many times fewer than the manifest was measured with
EVERY = (0, 20)
WARM_UP = 3  # rounds that are not counted


def main() -> None:
    parts = {"truth": truth, "drift": drift, "cost": cost}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=parts, action="append", help="Only these; figures of the others are kept.")
    parser.add_argument("--work", type=Path, default=HOME / "benchmarks" / "work" / "serving_trust")
    parser.add_argument("--seconds", type=float, default=200.0, help="Of asking, for the truth.")
    parser.add_argument("--runs", type=int, default=5, help="Servers whose operating points promise too much.")
    parser.add_argument("--rounds", type=int, default=120, help="In which servers are asked in turn, for the cost.")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    build(arguments.work)
    load = os.getloadavg()[0]
    for name, part in parts.items():
        if arguments.part is None or name in arguments.part:
            figures, notes = part(arguments)
            record(f"serving_trust_{name}", figures, f"{notes} Load of the machine before: {load:.1f} on two cores.")


def build(work: Path) -> None:
    """Write the vectors and build the index, where they are not there yet."""
    if (work / "large.index" / "CURRENT").exists():
        return
    from indexer import EmbeddingSource, build_index
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions

    (work / "vectors").mkdir(exist_ok=True)
    write_vectors(work / "vectors", ROWS, texts=TEXTS, queries=QUERIES)
    images, texts = (EmbeddingFiles(vectors=work / "vectors" / f"{name}.npy") for name in ("images", "texts"))
    build_index(EmbeddingSource(EmbeddingOptions(images=images, texts=texts)), work / "large.index")


def queries_of(work: Path, name: str) -> np.ndarray:
    """Return query vectors as they go over the wire."""
    return np.load(work / "vectors" / f"{name}.npy").round(6)


def request(vector: np.ndarray, direction: str, ann_recall: float = 0.95) -> bytes:
    digits = [round(value, 6) for value in vector.tolist()]
    return post({"vector": digits, "direction": direction, "ann_recall": ann_recall, "k": K, "columns": []})


def figure(text: str, name: str, **labels: object) -> float | None:
    """Return a figure of the metrics, None where it is not shown."""
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            return float(found[2])
    return None


def own_share(before: str, text: str) -> Figure:
    """Return the processor time of comparing, and its share of all that the server used between two readings."""
    names = ("twinlens_comparing_seconds_total", "process_cpu_seconds_total")
    comparing, process = ((figure(text, name) or 0.0) - (figure(before, name) or 0.0) for name in names)
    name = "processor time of comparing, and its share of the server's own"
    return Figure(name, f"{comparing:.2f}, {comparing / process:.4f}", "0.02", "s")


# --- beside the truth -----------------------------------------------------------------------------------------------


def truth(arguments: argparse.Namespace) -> tuple[list[Figure], str]:
    vectors = {name: queries_of(arguments.work, name) for _, name, _ in KINDS}
    requests = [request(vectors[name][row], *kind) for row in range(QUERIES) for *kind, name in turned(KINDS)]
    with serving(arguments.work / "large.index") as url:
        before = fetched(url, "metrics")
        crowd = Crowd(url=url, requests=requests, clients=8, seconds=arguments.seconds, pause=0.1)
        seen = well(crowd.run())
        time.sleep(15)  # what waits is compared
        text = fetched(url, "metrics")
    figures = [Figure("searches asked, a second", f"{len(seen.costs)}, {seen.rate:.0f}")]
    with Searcher.open(arguments.work / "large.index") as searcher:
        exact = {name: found(searcher, vectors[name], None, None) for name in vectors}
        for direction, name, asked in KINDS:
            figures.append(beside_truth(text, searcher, vectors[name], exact[name], direction, asked))
    outcomes = [figure(text, "twinlens_compared_searches_total", outcome=one) or 0 for one in ("measured", "dropped")]
    figures.append(Figure("searches compared; dropped", "; ".join(f"{one:.0f}" for one in outcomes)))
    figures.append(own_share(before, text))
    notes = (
        f"{ROWS:,} vectors of 512 dimensions; three kinds of search in turn, 8 clients that pause for 0.1 s in the "
        f"mean, one search in 20 put aside, which is the default. Truth: all {QUERIES:,} queries of a kind, of which "
        "those that were asked are a part, at the operating point in force at the end. Intervals of level 0.99."
    )
    return figures, notes


def turned(kinds: Sequence[tuple[str, str, float]]) -> Iterator[tuple[str, float, str]]:
    for direction, name, asked in kinds:
        yield direction, asked, name


def beside_truth(
    text: str, searcher: Searcher, vectors: np.ndarray, exact: np.ndarray, direction: str, asked: float
) -> Figure:
    steps = int(figure(text, "twinlens_operating_point_fallback", direction=direction) or 0)
    labels: dict[str, object] = {"direction": direction, "ann_recall": f"{asked:g}", "k": K}
    names = ("", "_low", "_high", "_queries")
    mean, low, high, count = (
        figure(text, f"twinlens_measured_ann_recall{name}", **labels) or float("nan") for name in names
    )
    with Searcher.open(searcher._location, verify="size") as own:
        for _ in range(steps):
            own.widen(direction)
        recall = agreement(found(own, vectors, direction, asked), exact)
    return Figure(
        f"{direction}, asked for {asked:g}: measured, its interval, compared searches; truth; steps wider",
        f"{mean:.4f}, {low:.4f} to {high:.4f}, {count:.0f}; {recall:.4f}; {steps}",
        f"truth inside: {'yes' if low <= recall <= high else 'no'}",
    )


def found(searcher: Searcher, vectors: np.ndarray, direction: Any, asked: float | None) -> np.ndarray:
    parts = np.split(vectors, range(1000, len(vectors), 1000))
    options: dict[str, Any] = {"exact": True} if asked is None else {"ann_recall": asked}
    return np.concatenate(
        [searcher.search_vectors("images", part, K, direction=direction, **options)[0] for part in parts]
    )


def agreement(ids: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(set(one) & set(other)) / K for one, other in zip(ids, exact, strict=True)]))


def well(seen: Seen) -> Seen:
    if seen.wrong:
        sys.exit(f"{len(seen.wrong)} requests went wrong, the first: {seen.wrong[0]}")
    return seen


# --- operating points that promise too much -------------------------------------------------------------------------


def drift(arguments: argparse.Namespace) -> tuple[list[Figure], str]:
    index = overstated(arguments.work)
    vectors = queries_of(arguments.work, "text_queries")
    first: list[str] = []
    runs = [one_drift(index, vectors[run * 1000 : (run + 1) * 1000], run, first) for run in range(arguments.runs)]
    vectors = vectors[:2000]
    with Searcher.open(index) as searcher:
        exact = found(searcher, vectors, None, None)
        before = agreement(found(searcher, vectors, "text_to_image", 0.95), exact)
        steps = max(len(run) for run in runs)
        after = []
        for _ in range(steps):
            searcher.widen("text_to_image")
            after.append(agreement(found(searcher, vectors, "text_to_image", 0.95), exact))
    figures = [
        Figure("recall asked for, and what the forced-down point finds", f"0.95, {before:.3f}"),
        Figure("queries until the drift was found, by run", ", ".join(first), "1,000 at most"),
        Figure("queries until each step wider, by run", "; ".join(", ".join(map(str, run)) for run in runs)),
        Figure("what is found after each step wider", ", ".join(f"{one:.3f}" for one in after)),
    ]
    notes = (
        f"A copy of the index whose manifest divides the lists of every operating point by {FORCED_DOWN} and keeps the "
        "recall that was measured with all of them. Text queries, 4 clients that pause for 0.25 s in the mean, one "
        f"search in 20 put aside; {arguments.runs} servers, each asked up to 1,000 queries of its own in up to 150 s."
    )
    return figures, notes


def overstated(work: Path) -> Path:
    """Return a copy of the index whose operating points find much less than its manifest says."""
    index = work / "overstated.index"
    shutil.rmtree(index, ignore_errors=True)
    shutil.copytree(work / "large.index", index, copy_function=os.link)
    (file,) = index.glob("versions/*/manifest.json")
    manifest = Manifest.from_json(file.read_bytes(), str(file))
    images = manifest.collections["images"]
    tuning = {
        direction: replace(
            one, points=tuple(replace(point, nprobe=max(1, point.nprobe // FORCED_DOWN)) for point in one.points)
        )
        for direction, one in images.tuning.items()
    }
    collections = {**manifest.collections, "images": replace(images, tuning=tuning)}
    data = replace(manifest, collections=collections).to_json()
    for path, content in (
        (file, data),
        (index / "CURRENT", f"{file.parent.name} {hashlib.sha256(data).hexdigest()}\n".encode()),
    ):
        path.unlink()  # the original keeps its own
        path.write_bytes(content)
    return index


def one_drift(index: Path, vectors: np.ndarray, run: int, first: list[str]) -> list[int]:
    """Return how many queries were answered when each step wider was taken."""
    requests = [request(vector, "text_to_image") for vector in vectors]
    taken: list[int] = []
    ended = threading.Event()

    def watch(url: str) -> None:
        while not ended.wait(0.25):
            text = fetched(url, "metrics")
            steps = figure(text, "twinlens_operating_point_fallback", direction="text_to_image") or 0
            answered = figure(text, "twinlens_requests_total", route="/search", status=200) or 0
            taken.extend([int(answered)] * (int(steps) - len(taken)))

    with serving(index) as url:
        watcher = threading.Thread(target=watch, args=(url,))
        watcher.start()
        seen = well(Crowd(url=url, requests=requests, clients=4, most=len(requests), seconds=150, pause=0.25).run())
        ended.set()
        watcher.join()
    print(f"run {run}: steps wider after {taken} of {len(seen.costs)} queries", flush=True)
    first.append(str(taken[0]) if taken else f"not within {len(seen.costs)}")
    return taken


# --- what it costs --------------------------------------------------------------------------------------------------


def cost(arguments: argparse.Namespace) -> tuple[list[Figure], str]:
    vectors = queries_of(arguments.work, "text_queries")
    requests = [request(vector, "text_to_image") for vector in vectors[:4000]]
    turns = {(clients, every): list[Turn]() for clients in (1, 8) for every in EVERY}
    with ExitStack() as stack:
        servers = {every: stack.enter_context(stoppable(arguments.work / "large.index", every)) for every in EVERY}
        servers[20][1].send_signal(signal.SIGCONT)
        before = fetched(servers[20][0], "metrics")
        for number in range(-WARM_UP, arguments.rounds):
            for every in EVERY if number % 2 else EVERY[::-1]:
                for clients in (1, 8):
                    turn = one_turn(*servers[every], requests, clients)
                    if number >= 0:
                        turns[clients, every].append(turn)
        servers[20][1].send_signal(signal.SIGCONT)
        text = fetched(servers[20][0], "metrics")
    compared = figure(text, "twinlens_compared_searches_total", outcome="measured")
    figures = [one for clients in (1, 8) for one in ratios(clients, turns[clients, 20], turns[clients, 0])]
    for clients in (1, 8):
        plain, measuring = (np.concatenate([one.costs for one in turns[clients, every]]) for every in EVERY)
        times = [f"{np.percentile(one, 50):.2f} / {np.percentile(one, 99):.2f}" for one in (plain, measuring)]
        figures.append(Figure(f"{who(clients)}: p50 / p99 without; with", "; ".join(times), unit="ms"))
    figures.append(Figure("searches compared meanwhile", compared or 0.0))
    figures.append(own_share(before, text))
    notes = (
        "Two servers of one index, with --measure-every 0 and with the default of 20, asked in turn for half a second "
        f"by one client and by 8, none of which pauses, {arguments.rounds} rounds. The one that is not asked is "
        "stopped by SIGSTOP; the time that it rests between exact searches goes on meanwhile, so that it does twice "
        "its share. A ratio is of sums over all rounds; its 95 % interval is a bootstrap over rounds."
    )
    return figures, notes


class Turn(NamedTuple):
    """Half a second of one server: queries answered, seconds, seconds of processor time, milliseconds an answer."""

    queries: int
    seconds: float
    processor: float
    costs: list[float]


def one_turn(url: str, process: subprocess.Popen[str], requests: Sequence[bytes], clients: int) -> Turn:
    process.send_signal(signal.SIGCONT)
    before = processor_seconds(process.pid)
    seen = well(Crowd(url=url, requests=requests, clients=clients, seconds=0.5).run())
    processor = processor_seconds(process.pid) - before
    process.send_signal(signal.SIGSTOP)
    return Turn(len(seen.costs), seen.seconds, processor, seen.costs)


def processor_seconds(process: int) -> float:
    """Return what a process has used of the processors, to the nanosecond, its children left out."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text("ascii").split()[0]) for task in tasks) / 1e9


def who(clients: int) -> str:
    return f"{clients} client{'s' if clients > 1 else ''} without a pause"


def ratios(clients: int, measuring: list[Turn], plain: list[Turn]) -> list[Figure]:
    """Figures of queries a second, and of processor time a query, with measuring over those without."""
    table = np.array([[*one[:3], *other[:3]] for one, other in zip(measuring, plain, strict=True)])

    def both(rows: np.ndarray) -> tuple[float, float]:
        queries, seconds, processor, others, other_seconds, other_processor = rows.sum(axis=0)
        return queries / seconds / (others / other_seconds), processor / queries / (other_processor / others)

    random = np.random.default_rng(0)
    drawn = np.array([both(table[random.integers(0, len(table), len(table))]) for _ in range(2000)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    rate, processor = both(table)
    totals = table.sum(axis=0)
    return [
        Figure(
            f"{who(clients)}: queries a second, of {totals[3] / totals[4]:.0f} without measuring",
            f"{rate:.4f} ({low[0]:.4f} to {high[0]:.4f})",
            "0.98",
        ),
        Figure(
            f"{who(clients)}: processor time a query, of {1e3 * totals[5] / totals[3]:.2f} ms without measuring",
            f"{processor:.4f} ({low[1]:.4f} to {high[1]:.4f})",
            "1.02",
        ),
    ]


@contextmanager
def stoppable(index: Path, every: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve an index in a process that is stopped until it is let go on, and yield its address and the process."""
    with served(index, "--measure-every", every) as (url, process):
        process.send_signal(signal.SIGSTOP)
        try:
            yield url, process
        finally:
            process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    main()
