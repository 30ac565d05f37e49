"""Approximate search beside what a user would pick instead: recall against queries a second, build, memory, bytes.

    python benchmarks/ann.py --rows 1000000

All engines get the same float16 vectors and answer the same queries, one at a time on one core, and in batches on all.
A setting is chosen by its recall on one set of queries and reported on another. Every engine builds and serves in
processes of its own, whose memory is then its alone. Indexes and what was measured stay in the work folder: a run of
one engine (`--engines twinlens`) leaves the figures of the others, and the report is over all that are there;
`--rebuild` builds again. Install the others with the extra `bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ann_engines import ENGINES
from clip_like import CHUNK, DIM, ClipLike
from million import memory
from record import RESULTS, Figure, record

K = 10
KINDS = ("text", "image")
TARGETS = (0.90, 0.95, 0.99)
QUERIES, LEARN, TUNING = 1000, 20_000, 500
GOOD_ENOUGH = 0.998
PATIENCE_MS = 40.0  # settings slower than this a query say nothing more
SLOW_MS, SLOW_QUERIES = 4.0, 200  # asked for so many queries only, and measured once and not three times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=DIM, help="numbers of a vector; 200 as in text-to-image contests")
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated; none (`''`) only reports")
    parser.add_argument("--rebuild", action="store_true", help="build these engines again")
    parser.add_argument("--only-build", action="store_true", help="leave the asking to another run")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one step of an engine may take")
    parser.add_argument("--notes", default="", help="what else the report is to say")
    parser.add_argument("--work", type=Path, required=True, help="a folder for vectors and indexes, kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the report")
    parser.add_argument("--child", nargs=2, metavar=("TASK", "ENGINE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = folder_of(arguments)
    if arguments.child:
        print(json.dumps(work(*arguments.child, folder)))
        return
    prepare(folder, arguments.rows, arguments.dim)
    asked = [name for name in arguments.engines.split(",") if name]
    names = [name for name in asked if importlib.util.find_spec(ENGINES[name].package)]
    for name in names:
        measure(name, arguments, folder)
    found = {name: kept for name in ENGINES if (kept := read(file_of(folder, name, "measured")))}
    report(found, sorted(set(asked) - set(names)), arguments)


# ---- the vectors and the truth


def folder_of(arguments: argparse.Namespace) -> Path:
    """Return where the vectors and indexes of a run are kept."""
    work: Path = arguments.work
    return work / f"clip-like-{arguments.rows}{'' if arguments.dim == DIM else f'x{arguments.dim}'}"


def prepare(folder: Path, rows: int, dim: int) -> None:
    """Write the vectors and the exact neighbours of all queries, unless they are there."""
    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    world = ClipLike(0, dim)
    base = np.lib.format.open_memmap(folder / "images.npy", "w+", "<f2", (rows, dim))
    for start in range(0, rows, CHUNK):
        random = np.random.default_rng([0, 2, start])
        base[start : start + CHUNK] = world.images(world.deviations(min(CHUNK, rows - start), random))
    base.flush()
    random = np.random.default_rng([0, 3])
    for name, count in (("learn", LEARN), ("tune", TUNING), ("test", QUERIES)):
        deviations = world.deviations(count, random)
        np.save(folder / f"{name}_image.npy", world.images(deviations))
        np.save(folder / f"{name}_text.npy", world.captions(deviations, random))
    for name in (f"{part}_{kind}" for part in ("tune", "test") for kind in KINDS):
        np.save(folder / f"{name}_truth.npy", truth(base, np.load(folder / f"{name}.npy")))
    (folder / "ready").touch()


def truth(base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the exact top k of each query, by the scores of the float16 rows."""
    scores = np.full((len(queries), K), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), K), -1, dtype=np.int64)
    for start in range(0, len(base), CHUNK):
        block = queries @ base[start : start + CHUNK].astype(np.float32).T
        best = np.argpartition(-block, K, axis=1)[:, :K]
        scores = np.concatenate([scores, np.take_along_axis(block, best, axis=1)], axis=1)
        ids = np.concatenate([ids, best + start], axis=1)
        order = np.argsort(-scores, axis=1)[:, :K]
        scores, ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return ids


# ---- one engine, in processes of its own


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Build the index unless it is there, ask it, and keep what came out in the work folder."""
    kept = file_of(folder, name, "build")
    if arguments.rebuild or not kept.exists():
        for path in files_of(folder, name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        built = child("build", name, arguments)
        if "error" not in built:
            built["bytes"] = sum(size_of(path) for path in files_of(folder, name))
            write(kept, built)
    if arguments.only_build:
        return
    out = {"build": read(kept) or built}
    for task in ("one", "batch") if kept.exists() else ():
        out[task] = child(task, name, arguments)
    write(file_of(folder, name, "measured"), out)


def file_of(folder: Path, name: str, what: str) -> Path:
    return folder / f"{name.replace(' ', '-')}.{what}.json"


def files_of(folder: Path, name: str) -> list[Path]:
    """Return what an engine left on the disk; some add an ending to the name that they were given."""
    kept = {file_of(folder, name, what) for what in ("build", "measured")}
    return [path for path in folder.glob(f"{name.replace(' ', '-')}.*") if path not in kept]


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def child(task: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one step in a process of its own: `one` on one core alone, the others on all."""
    pinned = task == "one" and getattr(ENGINES[name], "pinned", True)
    command = ["taskset", "-c", "0"] if pinned else []
    command += [sys.executable, __file__, "--work", str(arguments.work)]
    command += ["--rows", str(arguments.rows), "--dim", str(arguments.dim)]
    env = {**os.environ, "OMP_NUM_THREADS": "1" if task == "one" else str(os.cpu_count())}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen([*command, "--child", task, name], stdout=said, stderr=errors, env=env) as process:
            peak, late = watched(process, time.monotonic() + arguments.limit)
        said.seek(0), errors.seek(0)
        lines, complaints = said.read().strip().splitlines(), errors.read().strip().splitlines()
    if late or process.returncode:
        reason = f"stopped after {arguments.limit:.0f} s" if late else f"exit {process.returncode}"
        result: dict[str, Any] = {"error": reason if late else (complaints or [reason])[-1][:200]}
    else:
        result = {**json.loads(lines[-1]), "peak_mib": peak}
    print(name, task, json.dumps(result)[:300], file=sys.stderr, flush=True)
    return result


def watched(process: subprocess.Popen[bytes], end: float) -> tuple[int, bool]:
    """Return the highest resident MiB of a process, and whether it had to be stopped."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid).get("VmHWM", 0))
        if time.monotonic() > end:
            process.kill()
            return peak, True
        time.sleep(0.1)
    return peak, False


def work(task: str, name: str, folder: Path) -> dict[str, Any]:
    engine, out = ENGINES[name](), folder / f"{name.replace(' ', '-')}.index"
    if task == "build":
        return build(engine, folder, out)
    import faiss  # several engines search through it, and its threads are set in the process

    faiss.omp_set_num_threads(1 if task == "one" else os.cpu_count() or 1)
    before = resident()["anonymous"]
    engine.open(out, folder)
    serve = one_at_a_time if task == "one" else in_batches
    kinds = {kind: serve(engine, folder, kind) for kind in KINDS}
    return {"kinds": kinds, "memory": {**resident(), "before": before}}


def build(engine: Any, folder: Path, out: Path) -> dict[str, Any]:
    started = time.perf_counter()
    engine.build(folder, out)
    return {"seconds": round(time.perf_counter() - started, 1)}


def size_of(path: Path) -> int:
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())


def resident() -> dict[str, int]:
    """Return MiB now: all, and what is not a mapped file."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    values = {
        line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))
    }
    return {"all": values["VmRSS"], "anonymous": values["RssAnon"]}


def one_at_a_time(engine: Any, folder: Path, kind: str) -> dict[str, Any]:
    return curve(
        engine,
        folder,
        kind,
        lambda queries, setting: [
            engine.search(queries[row : row + 1], K, setting, kind) for row in range(len(queries))
        ],
    )


def in_batches(engine: Any, folder: Path, kind: str) -> dict[str, Any]:
    return curve(engine, folder, kind, lambda queries, setting: [engine.search(queries, K, setting, kind)])


def curve(engine: Any, folder: Path, kind: str, ask: Any) -> dict[str, Any]:
    """Return every setting on the tuning queries, and for each target the fastest that reached it, on the others."""
    tuning, tuning_truth = np.load(folder / f"tune_{kind}.npy"), np.load(folder / f"tune_{kind}_truth.npy")
    test, test_truth = np.load(folder / f"test_{kind}.npy"), np.load(folder / f"test_{kind}_truth.npy")
    points = []
    for setting in engine.grid:
        slow = 1000 / timed(ask, tuning[:20], tuning_truth[:20], setting)["qps"] > SLOW_MS
        few = slice(SLOW_QUERIES if slow else None)
        points.append({"setting": setting, **timed(ask, tuning[few], tuning_truth[few], setting)})
        if points[-1]["recall"] >= GOOD_ENOUGH or 1000 / points[-1]["qps"] > PATIENCE_MS:
            break
    targets, known = {}, dict[str, dict[str, float]]()
    for target in TARGETS:
        reached = [point for point in points if point["recall"] >= target]
        if reached:
            best = max(reached, key=rate)
            setting = best["setting"]
            if repr(setting) not in known:
                repeats = 3 if 1000 / best["qps"] < SLOW_MS else 1
                runs = [timed(ask, test, test_truth, setting) for _ in range(repeats)]
                known[repr(setting)] = sorted(runs, key=rate)[repeats // 2]
            targets[str(target)] = {"setting": setting, **known[repr(setting)]}
    return {"points": points, "targets": targets}


def rate(run: dict[str, Any]) -> float:
    return float(run["qps"])


def timed(ask: Any, queries: np.ndarray, exact: np.ndarray, setting: Any) -> dict[str, float]:
    started = time.perf_counter()
    found = np.concatenate(ask(queries, setting))
    seconds = time.perf_counter() - started
    found = found.astype(np.int64)  # an engine may name rows by strings, which to read is no part of a search
    shares = [len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(found, exact, strict=True)]
    return {"recall": round(float(np.mean(shares)), 4), "qps": round(len(queries) / seconds, 1)}


# ---- the report


def report(found: dict[str, dict[str, Any]], missing: list[str], arguments: argparse.Namespace) -> None:
    figures, rows = [], arguments.rows
    for name, engine in found.items():
        if "error" in engine["build"]:
            figures.append(Figure(f"{name}: build failed", engine["build"]["error"]))
            continue
        figures.append(Figure(f"{name}: build", engine["build"]["seconds"], unit="s"))
        figures.append(
            Figure(f"{name}: peak memory of the build", engine["build"].get("peak_mib", "not known"), unit="MiB")
        )
        figures.append(Figure(f"{name}: on disk", round(engine["build"]["bytes"] / rows), unit="bytes a vector"))
        figures += [figure for task in ("one", "batch") for figure in serving(name, task, engine.get(task, {}))]
    figures += ratios(found, rows)
    note = f"{rows:,} CLIP-like vectors of {arguments.dim} dimensions (`clip_like.py`), k {K}; "
    note += "QPS one query at a time on one core, "
    note += f"and in one batch of {QUERIES} on all. Settings chosen on {TUNING} queries, reported on {QUERIES} others."
    note += f" {arguments.notes}" if arguments.notes else ""
    if missing:
        note += f" Not installed: {', '.join(missing)}."
    table = record(folder_of(arguments).name.replace("clip-like-", "ann_"), figures, note, folder=arguments.out)
    table.with_suffix(".curves.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    plot(found, rows, table.with_suffix(".png"))


def serving(name: str, task: str, served: dict[str, Any]) -> list[Figure]:
    if "error" in served:
        return [Figure(f"{name}: {task} failed", served["error"])]
    figures = []
    for kind, one in served.get("kinds", {}).items():
        for target in map(str, TARGETS):
            point = one["targets"].get(target)
            shown = f"{point['qps']:,.0f} at {point['recall']:.3f}" if point else "not reached"
            figures.append(Figure(f"{name}: {kind} queries, {task}, ann_recall@10 {target}, QPS", shown))
    if task == "one" and served:
        held = {"before": 0, **served["memory"]}
        label = f"{name}: resident; of it anonymous; of these before the index was opened"
        figures.append(Figure(label, "{all}; {anonymous}; {before}".format(**held), unit="MiB"))
    return figures


def ratios(found: dict[str, dict[str, Any]], rows: int) -> list[Figure]:
    """Ours over the best of the others, for each kind, target and way of asking."""
    figures = []
    many = rows >= 1_000_000
    asked = {
        ("text", "one", "0.95"): ">= 3" if many else ">= 2",
        ("text", "one", "0.99"): ">= 5" if many else ">= 3",
        ("text", "batch", "0.95"): ">= 1.7",
        ("text", "batch", "0.99"): ">= 2",
        ("image", "one", "0.95"): ">= 0.6",
        ("image", "one", "0.99"): ">= 0.6",
    }
    for task in ("one", "batch"):
        for kind in KINDS:
            for target in map(str, TARGETS):
                rates = {name: rate for name, engine in found.items() if (rate := qps(engine, task, kind, target))}
                others = {name: rate for name, rate in rates.items() if name != "twinlens"}
                if "twinlens" in rates and others:
                    best = max(others, key=lambda name: others[name])
                    label = f"{kind} queries, {task}, at {target}: over the best other ({best})"
                    figures.append(
                        Figure(label, round(rates["twinlens"] / others[best], 2), asked.get((kind, task, target), ""))
                    )
    return figures


def qps(engine: dict[str, Any], task: str, kind: str, target: str) -> float | None:
    point = engine.get(task, {}).get("kinds", {}).get(kind, {}).get("targets", {}).get(target)
    return point["qps"] if point else None


def plot(found: dict[str, dict[str, Any]], rows: int, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(picture)
    for place, kind in enumerate(KINDS, 1):
        axes = picture.add_subplot(1, 2, place)
        for name, engine in found.items():
            points = engine.get("one", {}).get("kinds", {}).get(kind, {}).get("points", [])
            if not points:
                continue
            axes.plot(
                [p["recall"] for p in points],
                [p["qps"] for p in points],
                "o-",
                label=name,
                markersize=4,
                linewidth=3 if name == "twinlens" else 1.2,
            )
        axes.set(
            xlim=(0.7, 1.002),
            yscale="log" if axes.lines else "linear",
            xlabel="ann_recall@10",
            ylabel="queries a second, one core",
            title=f"{kind} queries, {rows:,} CLIP-like vectors",
        )
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
