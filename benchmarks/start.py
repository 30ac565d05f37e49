"""What people wait for at a prompt: CPU seconds and memory of commands that start anew, and of a query once started.

CPU seconds are user and system time of the process, memory is the most that it held, each the median of several runs.
Of a query once started it is the CPU time on one core, which is what it takes on a quiet machine. ViT-B-32 has random
weights, which cost what others do. `--install` also makes virtual environments, from whatever index of packages pip
uses, and says how large they are.

This process stays small: what a child holds at most is counted from what its parent held when it was started.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from record import HOME, Figure, record

GOLDEN = HOME / "encoders" / "golden"
IMPORT_TORCH = ["-c", "import torch"]
QUERIES = 60
WARM = 10
COMMAND = "import sys; sys.argv[0] = {name!r}; from {module} import main; main()"
# In one process on one core: milliseconds of each of many new texts, and of one image again and again.
RUNNING = """
import json, sys, time
from pathlib import Path
from searcher import Searcher
texts = [f"a photo of {number} dogs in the snow" for number in range(int(sys.argv[2]))]
with Searcher.open(sys.argv[1]) as searcher:
    def ms(work):
        started = time.process_time()
        work()
        return (time.process_time() - started) * 1e3
    took = [ms(lambda: searcher.text_to_image(text, k=10, columns=[])) for text in texts]
    images = [] if "torch" in sys.modules or sys.argv[3] == "" else [
        ms(lambda: searcher.image_to_image(Path(sys.argv[3]), k=10, columns=[])) for _ in texts
    ]
print(json.dumps([took, images]))
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a program cost, the medians of its runs, also over what `import torch` cost in turn with it."""

    seconds: float
    mib: float
    over_torch: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--install", action="store_true", help="Measure installed sizes too; fetches packages.")
    parser.add_argument("--vit", action=argparse.BooleanOptionalAction, default=True, help="ViT-B-32 as well.")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(Path(scratch), arguments.runs, vit=arguments.vit)
        if arguments.install:
            figures += installed_sizes(Path(scratch))
    notes = (
        f"Medians of {arguments.runs} runs; ViT-B-32 with random weights. The machine was shared: its load average was "
        f"{before:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end, and CPU seconds grow with it."
    )
    record("start", figures, notes)


def measured(scratch: Path, runs: int, *, vit: bool) -> list[Figure]:
    torch = cost(scratch, runs, IMPORT_TORCH)
    figures = rows("python -c 'import torch'", torch)
    lite = built(scratch, "lite", "lite")
    figures += searches(scratch, runs, lite, "lite", ("<= 0.6", "<= 300", "<= 4"))
    if vit:
        index = built(scratch, "ViT-B-32", vit_b_32(scratch))
        figures += searches(scratch, runs, index, "ViT-B-32", ("<= 1.0", "<= 600", "<= 20"))
    figures += rows("twinlens --help", cost(scratch, runs, twinlens("--help")))
    figures += rows("twinlens info", cost(scratch, runs, twinlens("info", lite)))
    figures += rows("twinlens search --server", served(scratch, runs, lite), "<= 0.3")
    update = updated(scratch, runs)
    figures += rows("update, a price changed, nothing to encode", update, "<= 0.8")
    return [
        *figures,
        Figure("update, a price changed, nothing to encode, over import torch", round(update.over_torch, 2)),
    ]


def searches(scratch: Path, runs: int, index: Path, name: str, asked: tuple[str, str, str]) -> list[Figure]:
    text = cost(scratch, runs, twinlens("search", index, "a dog"))
    image = cost(scratch, max(3, runs // 3), twinlens("search", index, "--image", GOLDEN / "chelsea.jpg"))
    took, images = running(scratch, index, GOLDEN / "chelsea.jpg")
    figures = rows(f"search by text, {name}", text, *asked[:2])
    figures.append(Figure(f"search by text, {name}, over import torch", round(text.over_torch, 2), "<= 0.5"))
    figures += rows(f"search by image, {name}", image)
    figures += per_query(f"text query, {name}, started, one core", took, asked[2])
    return figures + (per_query(f"image query, {name}, started, one core", images) if images else [])


def rows(name: str, found: Cost, seconds: str = "", mib: str = "") -> list[Figure]:
    return [Figure(name, round(found.seconds, 2), seconds, "CPU s"), Figure(name, round(found.mib), mib, "MiB")]


def per_query(name: str, took: list[float], asked: str = "") -> list[Figure]:
    settled = took[WARM:]
    return [Figure(f"{name}: p50", round(statistics.median(settled), 2), asked, "CPU ms")]


def environment(scratch: Path) -> dict[str, str]:
    """What each program runs with: modules compiled as an installation has them, and a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(HOME), "TWINLENS_CACHE": str(scratch / "cache")}


def twinlens(*arguments: object) -> list[str]:
    return ["-c", COMMAND.format(name="twinlens", module="twinlens.console"), *map(str, arguments)]


def build_index(*arguments: object) -> list[str]:
    return ["-c", COMMAND.format(name="build-index", module="twinlens.commands.build"), *map(str, arguments)]


def cost(scratch: Path, runs: int, command: list[str], prepare: Callable[[int], object] = lambda run: None) -> Cost:
    """Return the medians over runs of a program in turn with `import torch`, after one that warms the disk's cache.

    A shared machine is now fast and now slow: what is done in turn can be compared.
    """
    seconds, mib, over = [], [], []
    for run in range(-1, runs):
        prepare(run)
        used, beside = used_by(scratch, command), used_by(scratch, IMPORT_TORCH)
        if run >= 0:
            seconds.append(used.ru_utime + used.ru_stime)
            mib.append(used.ru_maxrss / 1024)
            over.append(seconds[-1] / (beside.ru_utime + beside.ru_stime))
    return Cost(seconds=statistics.median(seconds), mib=statistics.median(mib), over_torch=statistics.median(over))


def used_by(scratch: Path, command: list[str]) -> resource.struct_rusage:
    with (scratch / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=scratch,
            env=environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {command[-3:]} ended with {process.returncode}: {(scratch / 'errors').read_text()}")
    return used


def run(scratch: Path, command: list[str], **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=scratch, env=environment(scratch) | variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"error: {command[-3:]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def built(scratch: Path, name: str, encoder: str) -> Path:
    """Return an index of the golden photographs."""
    index = scratch / f"{name}.index"
    run(scratch, build_index(GOLDEN, "--out", index, "--encoder", encoder, "--quiet"))
    return index


def vit_b_32(scratch: Path) -> str:
    """Return the spec of a ViT-B-32 with random weights."""
    path = scratch / "vit.safetensors"
    code = (
        "import open_clip; from safetensors.torch import save_file; "
        f"save_file(open_clip.create_model('ViT-B-32', pretrained=None).state_dict(), {str(path)!r})"
    )
    run(scratch, ["-c", code])
    return f"ViT-B-32/{path}"


def running(scratch: Path, index: Path, image: Path) -> tuple[list[float], list[float]]:
    """Return the milliseconds of text queries and, where they need no torch, of image queries."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    shown = str(image) if (index.parent / "cache" / "image-towers").is_dir() and "lite" in index.name else ""
    took, images = json.loads(run(scratch, ["-c", RUNNING, str(index), str(QUERIES), shown], **threads))
    return took, images


def served(scratch: Path, runs: int, index: Path) -> Cost:
    command = [sys.executable, *twinlens("serve", index, "--port", 0)]
    with subprocess.Popen(command, env=environment(scratch), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[0]
        try:
            return cost(scratch, runs, twinlens("search", "--server", url, "a dog"))
        finally:
            server.terminate()


def updated(scratch: Path, runs: int) -> Cost:
    """Return what an update costs when one column of a table has changed and no image has."""
    table, index = scratch / "photos.csv", scratch / "priced.index"
    images = sorted(GOLDEN.glob("*.jpg"))

    def price(run: int) -> None:
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "price"])
            writer.writerows([path, 100 + run + number] for number, path in enumerate(images))

    price(-2)
    options = (table, "--image", "image", "--out", index, "--quiet")
    run(scratch, build_index(*options, "--encoder", "lite"))
    return cost(scratch, runs, build_index(*options, "--update"), price)


def installed_sizes(scratch: Path) -> list[Figure]:
    """Return the size of a virtual environment that can search, as pip makes it and trimmed."""
    figures = []
    bare = {name: value for name, value in environment(scratch).items() if name != "PYTHONPATH"}
    for extras, asked in (("search", "<= 350"), ("search,server", "")):
        folder = scratch / "installed"
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", f"{HOME}[{extras}]"]
        subprocess.run(pip, env=bare, check=True)
        figures.append(Figure(f"installed, {extras}", megabytes(folder), asked, "MB"))
        subprocess.run(["sh", HOME / "docs" / "deploy" / "trim.sh", folder], env=bare, check=True)
        figures.append(Figure(f"installed, {extras}, trimmed by docs/deploy/trim.sh", megabytes(folder), asked, "MB"))
        shutil.rmtree(folder)
    return figures


def megabytes(folder: Path) -> int:
    done = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    main()
