"""How the product is cut into files, and through how many of them one query and one photograph run.

A file counts where one of its functions is executed; what an import executes is a module's body, which does not count.
Each walk has a process of its own, and every thread in it is watched.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from record import HOME, RESULTS, hardware

PACKAGES = ("encoders", "evaluation", "indexer", "matcher", "searcher", "storage", "training", "twinlens")
NOT_FOR_INDEXES = ("torch", "torchvision", "open_clip")
FEW_LINES = 50
TEXT = "a cat looks into the camera"

# At the commit before the files were regrouped, counted alike, and what was asked for.
ASKED: dict[str, tuple[str, str]] = {
    "product files": ("292", "200 or fewer"),
    "median lines of a file": ("99", "150 to 200"),
    f"files under {FEW_LINES} lines": ("49", "12 or fewer"),
    "product lines": ("33,841; 34,329 once no call is packed by hand", "fewer"),
    "`# fmt: skip`": ("91", "0"),
    "files that one text query runs through: Python, `Searcher` open": ("18", "12 or fewer"),
    "files that one text query runs through: `twinlens search`, cold": ("42", "25 or fewer"),
    "files that one text query runs through: `GET /search`, server running": ("28", "18 or fewer"),
    "files that one photograph runs through, into a published index": ("59", "40 or fewer"),
    "`import twinlens, storage, searcher` loads torch, torchvision or open_clip": ("no", "no"),
}

# Counted by this script when the files had been regrouped and did what they did before; the rest has been built since.
REGROUPED = dict(zip(ASKED, ("183", "169", "9", "33,980", "0", "11", "32", "18", "35", "no"), strict=True))

SPEED = """
Regrouped: with the features of before. Now: with what has been built since, each file of which is a chapter of its own:
processes for filters, towers without torch, backends of a CPU, guards for every file that is opened, composed queries,
probabilities, words, pages, clients.

The walks are longer than when the files were regrouped because a photograph now also meets the readers of its own facts
and hash, the layouts that might be its own (films, remote corpora, shards), words, calibration and towers, and a query
meets sorting, pages, probabilities and, on a server, callers, cursors, the access log and the recall that is measured.

Speed on 2026-11-28 over that of the code before, whole processes run in turn on these two cores, median ratio of three
pairs (asked: 0.97 or more): 5,500 single queries and 20 batches of 1,000 over 100,000 vectors 0.99; 600 photographs
with 3,000 captions through `lite` into an index 0.99. Vectors, catalog, hits, evaluation and match probabilities of 120
photographs are the same to the last digit.
"""
# The files counted are those of this checkout, whatever is installed.
CHECKOUT = {**os.environ, "PYTHONPATH": str(HOME)}
# Measured by hand: each change was made on a branch, and the product files that it touched are listed.
BY_HAND: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "files to change for a search option on every surface": (
        "9 to 10",
        "4 or fewer",
        ("searcher/request.py", "searcher/searcher.py"),
    ),
    "files to change for a catalog column": ("9", "3 or fewer", ("encoders/images.py", "storage/schema.py")),
}


class FunctionFiles:
    """The product's files whose functions are executed while `watching`, in all threads started after it was made."""

    def __init__(self) -> None:
        self.watching = False
        self.files: set[str] = set()
        threading.setprofile(self._called)
        sys.setprofile(self._called)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        # Bodies of modules and of classes have no fast local variables; functions have.
        if self.watching and event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            name = frame.f_code.co_filename
            if name.startswith(str(HOME)) and name not in self.files and not is_importing(frame):
                self.files.add(name)

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.watching = True
        try:
            yield
        finally:
            self.watching = False

    def product(self) -> list[str]:
        """Return the files of the product, relative to its root, sorted; `__init__.py` is left out."""
        paths = [Path(name) for name in self.files if name.startswith(str(HOME))]
        known = (path.relative_to(HOME) for path in paths if path.name != "__init__.py")
        return sorted(str(path) for path in known if path.parts[0] in PACKAGES)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module of the product is being imported further up, so that all that runs belongs to its body."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if frame.f_code.co_name == "<module>" and path.is_relative_to(HOME) and path.parent != RESULTS.parent:
            return True
        frame = frame.f_back
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walk", choices=sorted(WALKS), help="Count one walk in this process and print its files.")
    parser.add_argument("--folder", type=Path, help="Where the corpus and its index are.")
    parser.add_argument("--list", action="store_true", help="Print the files of each walk too.")
    arguments = parser.parse_args()
    if arguments.walk:
        files = FunctionFiles()
        WALKS[arguments.walk](files, arguments.folder)
        (arguments.folder / f"{arguments.walk}.json").write_text(json.dumps(files.product()), encoding="utf-8")
        return
    counts = {**source_counts(), **walk_counts(arguments.list), **import_counts()}
    write(counts)


def source_counts() -> dict[str, str]:
    sources = {path: path.read_text("utf-8") for package in PACKAGES for path in (HOME / package).rglob("*.py")}
    lines = [len(text.splitlines()) for path, text in sources.items() if path.name != "__init__.py"]
    return {
        "product files": str(len(lines)),
        "median lines of a file": f"{statistics.median(lines):g}",
        f"files under {FEW_LINES} lines": str(sum(count < FEW_LINES for count in lines)),
        "product lines": f"{sum(len(text.splitlines()) for text in sources.values()):,}",
        "`# fmt: skip`": str(sum(text.count("# fmt: skip") for text in sources.values())),
    }


def walk_counts(listed: bool) -> dict[str, str]:
    names = [name for name in ASKED if "runs through" in name]
    counts = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lay_out(folder)
        # The photograph comes first: its index is what the queries search.
        for name, walk in zip([names[-1], *names[:-1]], ("photograph", "python", "command", "http"), strict=True):
            script = [sys.executable, str(Path(__file__)), "--walk", walk, "--folder", scratch]
            done = subprocess.run(script, env=CHECKOUT, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"error: the walk {walk!r} failed:\n{done.stderr}")
            files = json.loads((folder / f"{walk}.json").read_text("utf-8"))
            counts[name] = str(len(files))
            if listed:
                print(f"{walk}: {len(files)}", *files, sep="\n  ")
    return counts


def import_counts() -> dict[str, str]:
    code = f"import sys, twinlens, storage, searcher; print(*sorted(set(sys.modules) & set({NOT_FOR_INDEXES})))"
    done = subprocess.run([sys.executable, "-c", code], env=CHECKOUT, capture_output=True, text=True, check=True)
    loaded = done.stdout.strip()
    return {next(name for name in ASKED if name.startswith("`import")): f"yes: {loaded}" if loaded else "no"}


def write(counts: dict[str, str]) -> None:
    machine = hardware()
    rows = [(name, *ASKED[name], REGROUPED[name], counts[name]) for name in ASKED]
    for name, (before, asked, files) in BY_HAND.items():
        now = f"{len(files)}: {', '.join(f'`{file}`' for file in files)}" if files else "not measured yet"
        rows.append((name, before, asked, now, now))
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB; Python {machine['python']}"
    packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
    lines = [f"# The house in figures, {date.today().isoformat()}", "", f"{where}; {packages}.", "", __doc__ or "", ""]
    lines += ["| | before | asked for | regrouped | now |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    table = "\n".join(lines).replace("\n\n\n", "\n\n") + "\n" + SPEED
    (RESULTS / "house.md").write_text(table, encoding="utf-8")
    print(table)


def lay_out(folder: Path) -> None:
    """Copy one photograph of scikit-image, with a caption beside it, to `folder/photos`."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        sys.exit("error: the photographs of scikit-image are needed; install the extra demo")
    (folder / "photos").mkdir()
    photograph = Path(spec.origin).parent / "data" / "chelsea.png"
    (folder / "photos" / "chelsea.png").write_bytes(photograph.read_bytes())
    (folder / "photos" / "chelsea.txt").write_text("a tabby cat\n", encoding="utf-8")


def photograph(files: FunctionFiles, folder: Path) -> None:
    from encoders import load_encoder
    from indexer import build_index

    encoder = load_encoder("lite", device="cpu")
    with files.watch():
        build_index(folder / "photos", folder / "photos.index", encoder=encoder)


def python(files: FunctionFiles, folder: Path) -> None:
    from encoders import load_encoder
    from searcher import Searcher

    with Searcher.open(folder / "photos.index", encoder=load_encoder("lite", device="cpu")) as searcher:
        searcher.text_to_image("what comes first pays for what is loaded once", k=1)
        with files.watch():
            searcher.text_to_image(TEXT, k=1)


def command(files: FunctionFiles, folder: Path) -> None:
    sys.argv = ["twinlens", "search", str(folder / "photos.index"), "--text", TEXT, "-k", "1"]
    with files.watch():
        from twinlens.console import main as twinlens

        try:
            twinlens()
        except SystemExit as done:
            if done.code:
                raise


def http(files: FunctionFiles, folder: Path) -> None:
    from starlette.testclient import TestClient

    from encoders import load_encoder
    from searcher.server import create_app

    app = create_app(folder / "photos.index", encoder=load_encoder("lite", device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        parameters = {"k": 1, "text": "what comes first pays for what is loaded once"}
        client.get("/search", params=parameters).raise_for_status()
        with files.watch():
            client.get("/search", params={**parameters, "text": TEXT}).raise_for_status()


WALKS: dict[str, Callable[[FunctionFiles, Path], None]] = {
    "command": command,
    "http": http,
    "photograph": photograph,
    "python": python,
}

if __name__ == "__main__":
    main()
