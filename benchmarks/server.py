"""The server under load, while versions are published, when there is too much, and the page in a browser.

100,000 vectors of `lite`'s dimension, made of the Flickr8k photographs as in `text_query.py`, served by the command in
a process of its own on the loopback interface; the clients are one more process on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from record import HOME, Figure, need_data, record
from server_clients import Crowd, K, Seen, all_well, post, text_request

CLIENTS = (1, 8, 64)
ROWS, NOISE = 100_000, 0.7
CHROMIUM = "/usr/bin/chromium"
SERVE = "from twinlens.commands.serve import serve; from twinlens.console import run; run(serve)"


def main() -> None:
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "load": load,
        "overload": overload,
        "page": page,
        "publish": publish,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=[*parts, "build"], action="append", help="Only these.")
    parser.add_argument("--work", type=Path, default=HOME / "benchmarks" / "work" / "server")
    parser.add_argument("--seconds", type=float, default=6.0, help="Of each measurement under load.")
    parser.add_argument(
        "--requests", type=int, default=100_000, help="While versions are published; runs in one --work add up."
    )
    parser.add_argument("--versions", type=int, default=20, help="Published meanwhile.")
    parser.add_argument("--at-most", type=float, default=1e9, help="Seconds of requests while versions are published.")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    build(arguments.work)
    for name, part in parts.items():
        if arguments.part is None or name in arguments.part:
            part(arguments)


# --- what is served -------------------------------------------------------------------------------------------------


def build(work: Path) -> Path:
    """Return the index of 100,000 vectors, built where it is not there yet; its pictures are the photographs."""
    index = work / "large.index"
    if index.exists():
        return index
    from encoders import load_encoder
    from indexer import build_index
    from indexer.corpus.embeddings.embedding_source import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    encoder = load_encoder("lite", device="cpu")
    paths = sorted((need_data() / "flickr8k" / "images").iterdir())[:1000]
    known = encoder.encode_images(paths)
    noise = np.random.default_rng(0).standard_normal((ROWS, encoder.dim), dtype=np.float32) * (NOISE / encoder.dim**0.5)
    np.save(work / "vectors.npy", unit(known[np.arange(ROWS) % len(known)] + noise))
    names = [f"images/{paths[row % len(paths)].name}" for row in range(ROWS)]
    texts = captions()
    table = {"path": names, "title": [texts[row % len(texts)] for row in range(ROWS)]}
    table |= {"part": [str(row % 10) for row in range(ROWS)]}
    pa.parquet.write_table(pa.table(table), work / "images.parquet")
    files = EmbeddingFiles(vectors=work / "vectors.npy", table=work / "images.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), index, encoder=encoder, ann="ivf-pq4")
    return index


def publish_small(work: Path, number: int, rows: int = 5_000) -> Path:
    """Publish a version whose item ids begin with its number, and return the index."""
    from indexer import build_index
    from indexer.corpus.embeddings.embedding_source import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    vectors = np.load(work / "vectors.npy", mmap_mode="r")[number * 100 : number * 100 + rows]
    np.save(work / "small.npy", vectors)
    table = {"item_id": [f"{number}:{row}" for row in range(rows)], "part": [row % 10 for row in range(rows)]}
    pa.parquet.write_table(pa.table(table), work / "small.parquet")
    files = EmbeddingFiles(vectors=work / "small.npy", table=work / "small.parquet", id_column="item_id")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), work / "small.index")
    return work / "small.index"


def captions() -> list[str]:
    lines = (need_data() / "flickr8k" / "captions.jsonl").read_text("utf-8").splitlines()
    return list(dict.fromkeys(text for line in lines for text in json.loads(line)["captions"]))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def serving(index: Path, *options: object) -> Iterator[str]:
    """Run the server in a process of its own, and yield its address."""
    with served(index, *options) as (url, _):
        yield url


@contextmanager
def served(index: Path, *options: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the server in a process of its own, and yield its address and the process."""
    command = [sys.executable, "-c", SERVE, str(index), "--port", "0", "--output", "json", *map(str, options)]
    process = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        said = ""
        while not said.endswith("\n}\n"):
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit(f"the server did not start: exit code {process.wait()}")
            said += line
        yield json.loads(said)["url"], process
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        sys.exit(f"the server ended with exit code {code}")


# --- load -----------------------------------------------------------------------------------------------------------


def load(arguments: argparse.Namespace) -> None:
    index, seconds = build(arguments.work), arguments.seconds
    texts = captions()
    vectors = np.load(arguments.work / "vectors.npy", mmap_mode="r")[:: ROWS // 2000].astype(np.float32)
    figures: list[Figure] = []
    inside = in_process(index, texts, vectors, seconds)
    with serving(index) as url:
        asked_before = [text_request(text) for text in texts[:1000]]
        Crowd(url=url, requests=asked_before, clients=8, most=1000).run()
        lots = {
            "text asked before": [asked_before] * 3,
            "vector": [
                [post({"vector": one.round(5).tolist(), "direction": "text_to_image", "k": K}) for one in vectors]
            ]
            * 3,
            "new text": [[text_request(text) for text in texts[start::3]] for start in (1000, 1001, 1002)],
        }
        for kind, requests in lots.items():
            for clients, lot in zip(CLIENTS, requests, strict=True):
                most = len(lot) if kind == "new text" else 10**9
                seen = Crowd(url=url, requests=lot, clients=clients, seconds=seconds, most=most).run()
                figures += compared(kind, clients, seen, inside[kind, clients])
        figures.append(Figure("queries a call of the index, mean over all", mean_batch(url)))
    notes = (
        f"{ROWS:,} vectors of 384 dimensions under IVF-PQ, `lite` in fp32, k = {K}, every catalog column in each "
        f"answer; {seconds:g} s a figure over HTTP, half of that in the process: the same searches by as many threads "
        "of one program. 'text asked before' finds its vector in the cache of texts (1,000 texts), 'new text' never "
        "does, a vector comes as JSON; the clients, an asyncio program, use the same two cores."
    )
    record("server_load", figures, notes)


def in_process(index: Path, texts: list[str], vectors: np.ndarray, seconds: float) -> dict[tuple[str, int], Seen]:
    from searcher import Searcher

    found: dict[tuple[str, int], Seen] = {}
    with Searcher.open(index) as searcher:
        for text in texts[:1000]:
            searcher.text_to_image(text, k=K)
        fresh = iter(range(len(texts) - 1, 1000, -1))
        kinds: dict[str, Callable[[int], Any]] = {
            "text asked before": lambda turn: searcher.text_to_image(texts[turn % 1000], k=K),
            "vector": lambda turn: searcher.text_to_image(vectors[turn % len(vectors)], k=K),
            "new text": lambda turn: searcher.text_to_image(f"{texts[next(fresh)]} {turn}", k=K),
        }
        for kind, work in kinds.items():  # new texts last: they push others from the cache
            for clients in CLIENTS:
                found[kind, clients] = in_threads(work, clients, seconds / 2)
    return found


def in_threads(work: Callable[[int], Any], clients: int, seconds: float) -> Seen:
    seen, turn, lock = Seen(), iter(range(10**9)), threading.Lock()
    started = time.perf_counter()

    def client() -> None:
        while (begun := time.perf_counter()) < started + seconds:
            with lock:
                number = next(turn)
            work(number)
            seen.costs.append((time.perf_counter() - begun) * 1e3)

    with ThreadPoolExecutor(clients) as pool:
        for one in [pool.submit(client) for _ in range(clients)]:
            one.result()
    seen.seconds = time.perf_counter() - started
    return seen


def compared(kind: str, clients: int, served: Seen, inside: Seen) -> list[Figure]:
    if served.wrong:
        sys.exit(f"{kind}, {clients} clients: {len(served.wrong)} went wrong, the first: {served.wrong[0]}")
    name = f"{kind}, {clients} client{'s' if clients > 1 else ''}"
    rates = f"{served.rate:.0f}; {inside.rate:.0f}"
    times = f"{served.at(50):.2f} / {served.at(99):.2f}; {inside.at(50):.2f} / {inside.at(99):.2f}"
    return [
        Figure(f"{name}: over HTTP; in the process", rates, unit="a second"),
        Figure(f"{name}: p50 / p99 over HTTP; in the process", times, unit="ms"),
    ]


def fetched(url: str, path: str) -> str:
    from urllib.request import urlopen

    with urlopen(url + path, timeout=30) as answer:
        return answer.read().decode()


def mean_batch(url: str) -> float:
    found = {}
    for line in fetched(url, "metrics").splitlines():
        if line.startswith("twinlens_batch_queries_") and 'stage="search"' in line:
            found[line.partition("{")[0].rpartition("_")[2]] = float(line.rpartition(" ")[2])
    return found["sum"] / found["count"]


# --- publishing -----------------------------------------------------------------------------------------------------


def publish(arguments: argparse.Namespace) -> None:
    work = arguments.work
    index = publish_small(work, 1) if not (work / "small.index").exists() else work / "small.index"
    vectors = np.load(work / "vectors.npy", mmap_mode="r")[:500].astype(np.float32)
    requests = [post({"vector": vector.round(5).tolist(), "k": K}) for vector in vectors]
    requests += [post({"vector": vector.round(5).tolist(), "k": K, "where": "part < 5"}) for vector in vectors[:50]]
    seen_versions: set[int] = set()

    def check(status: int, head: bytes, body: bytes) -> str | None:
        if status != 200:
            return f"{status}: {body[:200]!r}"
        answer = json.loads(body)
        seen_versions.add(answer["version"])
        marks = {hit["item_id"].partition(":")[0] for hit in answer["hits"]}
        good = len(answer["hits"]) == K and marks == {str(answer["version"])}
        return None if good else f"version {answer['version']} answered {len(answer['hits'])} hits of {marks}"

    with serving(index) as url:
        first = json.loads(fetched(url, "healthz"))["version"]
        publisher = threading.Thread(target=publish_meanwhile, args=(work, url, arguments.versions))
        publisher.start()
        seen = Crowd(
            url=url, requests=requests, clients=16, most=arguments.requests, seconds=arguments.at_most, check=check
        ).run()
        early = publisher.is_alive()
        publisher.join()
        last = json.loads(fetched(url, "healthz"))["version"]
    run = {
        "costs": np.round(seen.costs, 2).tolist(),
        "wrong": seen.wrong,
        "published": last - first,
        "answered": len(seen_versions),
        "seconds": seen.seconds,
        "early": early,
    }
    file = work / "publish_runs.json"
    runs = [*(json.loads(file.read_text("utf-8")) if file.exists() else []), run]
    file.write_text(json.dumps(runs), "utf-8")
    record_publishing(runs)


def record_publishing(runs: list[dict[str, Any]]) -> None:
    costs = np.concatenate([run["costs"] for run in runs])
    wrong = [line for run in runs for line in run["wrong"]]
    rate = len(costs) / sum(run["seconds"] for run in runs)
    p50, p99 = np.percentile(costs, [50, 99])
    figures = [
        Figure("requests answered, 16 clients", len(costs), "100,000"),
        Figure("errors, lost connections, answers of mixed versions", len(wrong), "0"),
        Figure("versions published and served meanwhile", sum(run["published"] for run in runs), "20"),
        Figure("versions that answered, summed over runs", sum(run["answered"] for run in runs)),
        Figure("requests a second while versions are built on the same cores", rate),
        Figure("p50 / p99 / longest", f"{p50:.1f} / {p99:.1f} / {costs.max():.0f}", unit="ms"),
    ]
    notes = (
        f"{len(runs)} runs, one after another. Vector queries by POST, one in eleven with a filter; no text, so no "
        "cache plays a part. 5,000 vectors a version; its item ids carry its number, and an answer holds ten of one."
    )
    if any(run["early"] for run in runs):
        notes += " The last versions of a run came after its last request."
    record("server_publish", figures, notes + (f" First wrong: {wrong[0]}" if wrong else ""))


def publish_meanwhile(work: Path, url: str, versions: int) -> None:
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); from pathlib import Path; import server;"
        "server.publish_small(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    first = json.loads(fetched(url, "healthz"))["version"]
    for number in range(first + 1, first + versions + 1):
        subprocess.run([sys.executable, "-c", code, str(work), str(number)], cwd=HOME, check=True, capture_output=True)
        while json.loads(fetched(url, "healthz"))["version"] != number:
            time.sleep(0.02)


# --- too much -------------------------------------------------------------------------------------------------------


def overload(arguments: argparse.Namespace) -> None:
    index, texts = build(arguments.work), captions()

    def check(status: int, head: bytes, body: bytes) -> str | None:
        if status == 503 and b"retry-after: 1" in head.lower() and set(json.loads(body)) == {"error"}:
            return None
        return all_well(status, head, body)

    health: list[float] = []
    stop = threading.Event()

    def watch(url: str) -> None:
        while not stop.wait(0.1):
            begun = time.perf_counter()
            fetched(url, "healthz")
            health.append((time.perf_counter() - begun) * 1e3)

    with serving(index, "--concurrency", 32) as url:
        quiet = [text_request(text) for text in texts[:200]]
        before = Crowd(url=url, requests=quiet, clients=1, most=200).run()
        watcher = threading.Thread(target=watch, args=(url,))
        watcher.start()
        flood = [text_request(text) for text in texts[1000:]]
        seen = Crowd(url=url, requests=flood, clients=200, seconds=10, check=check).run()
        stop.set()
        watcher.join()
        after = Crowd(url=url, requests=[text_request(f"{text} !") for text in texts[:200]], clients=1, most=200).run()
    figures = [
        Figure("answered 200 under the flood", seen.statuses.get(200, 0)),
        Figure("answered 503 with Retry-After", seen.statuses.get(503, 0)),
        Figure("anything else, lost connections included", len(seen.wrong), "0"),
        Figure("an answer 503 or 200 under the flood, p50 / p99", f"{seen.at(50):.1f} / {seen.at(99):.1f}", unit="ms"),
        Figure("/healthz under the flood, p50 / longest", f"{np.median(health):.1f} / {max(health):.0f}", unit="ms"),
        Figure("one client before, p50", before.at(50), unit="ms"),
        Figure(
            "one client at once after, p50; errors", f"{after.at(50):.2f}; {len(after.wrong)}", "as before; 0", "ms"
        ),
    ]
    record("server_overload", figures, "200 clients that never pause, new texts, a server with --concurrency 32, 10 s.")


# --- the page -------------------------------------------------------------------------------------------------------

TIMES = """() => new Promise((ready) => {
  const first = document.querySelector('.images img');
  const tell = () => requestAnimationFrame(() => {
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    const page = performance.getEntriesByType('navigation')[0];
    ready([page.responseEnd, paint ? paint.startTime : performance.now(), performance.now()]);
  });
  if (first.complete) tell(); else first.addEventListener('load', tell);
})"""


def page(arguments: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    texts = captions()[-50:]
    times = []
    with serving(build(arguments.work), "--root", need_data() / "flickr8k") as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        for text in texts:
            tab.goto(f"{url}?q={quote(text)}", wait_until="commit")
            tab.locator(".images li").first.wait_for(state="attached")
            times.append(tab.evaluate(TIMES))
            tab.wait_for_load_state("networkidle")  # one visitor, who looks at what came
        browser.close()
    measured = np.array(times[10:])
    names = ("answer received", "results painted (first contentful paint)", "first image shown")
    figures = [
        Figure(f"{name}, p50 / p95", f"{np.percentile(column, 50):.0f} / {np.percentile(column, 95):.0f}", asked, "ms")
        for name, column, asked in zip(names, measured.T, ("", "300", ""), strict=True)
    ]
    notes = (
        f"{len(measured)} new texts, each a page of 24 results of {ROWS:,}, `lite` in fp32, headless Chromium on the "
        "same two cores; from the start of the navigation."
    )
    record("server_page", figures, notes)


if __name__ == "__main__":
    main()
