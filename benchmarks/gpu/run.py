"""Run the steps one after the other, each with its own time limit; none stops the others.

python benchmarks/gpu/run.py                              all steps in order, as far as the time goes
python benchmarks/gpu/run.py --only pipeline hrem         some of them
python benchmarks/gpu/run.py --device cpu --small --slow 5    a rehearsal without a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import DATA, HOME, Figure, record

from gpu.notes import nothing, shown
from gpu.photographs import CAPTIONS, collect
from gpu.steps import STEPS

BENCHMARKS = HOME / "benchmarks"
LEAST = 12.0  # seconds that a step is worth starting with
PREPARED = HOME / ".gpu" / "photographs"  # by prepare.sh
WORK = BENCHMARKS / "work" / "gpu"
NAME = "gpu_kit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), metavar="STEP", help="These steps, in this order.")
    parser.add_argument("--without", nargs="+", choices=list(STEPS), default=[], metavar="STEP")
    parser.add_argument("--limit", type=float, default=1200.0, help="Seconds for everything.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu.")
    parser.add_argument("--small", action="store_true", help="The sizes of a rehearsal.")
    parser.add_argument("--slow", type=float, default=1.0, help="What the time limit of each step is multiplied with.")
    parser.add_argument("--photographs", type=Path, help="A folder that photographs.py made.")
    parser.add_argument("--work", type=Path, default=WORK, help="A folder for models, vectors and indexes.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", WORK / "out")),
        help="Where report.json, summary.txt and log.txt go; $OUT where that is set.",
    )
    parser.add_argument("--results", type=Path, help="Where the dated result goes; --out where it is not named.")
    options = parser.parse_args()
    if options.device != "cpu" and not has_gpu():
        sys.exit(
            "error: nvidia-smi sees no GPU here; run this where there is one, or rehearse it: --device cpu --small"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    options.photographs = options.photographs or found_photographs(options.work)
    over = time.monotonic() + options.limit
    found: dict[str, Any] = {}
    for step in options.only or list(STEPS):
        if step in options.without:
            continue
        left = over - time.monotonic()
        if left < LEAST:
            found[step] = {**nothing(), "ended": "not started: no time left"}
        else:
            found[step] = run(step, min(options.slow * STEPS[step].seconds, left), options)
        write(found, options)
    print((options.out / "summary.txt").read_text("utf-8")[-11000:], flush=True)
    failed = sum(len(value["failures"]) + (not value["finished"]) for value in found.values())
    if failed:
        sys.exit(f"error: {failed} steps or parts failed; {options.out / 'report.json'} holds their tracebacks")


def has_gpu() -> bool:
    """Whether the driver lists a GPU; asking torch would take seconds of the machine."""
    program = shutil.which("nvidia-smi")
    return program is not None and subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0


def found_photographs(work: Path) -> Path:
    """Return the folder that prepare.sh made, else one copied from the real data where these are at hand."""
    if PREPARED.is_dir():
        return PREPARED
    folder = work / "photographs"
    if DATA.is_dir() and not (folder / CAPTIONS).is_file():
        collect(DATA, folder)
    return folder


def run(step: str, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Run a step in a process of its own group, which is ended when its time is over."""
    result = options.work.resolve() / f"{step}.json"
    result.unlink(missing_ok=True)
    began, ended = time.monotonic(), "by itself"
    with (options.out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"\n===== {step}, at most {seconds:.0f} s\n")
        log.flush()
        process = subprocess.Popen(
            command(step, result, seconds, options),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=HOME,
            env=environment(),
        )
        try:
            code = process.wait(seconds)
            ended = "by itself" if code == 0 else f"with exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
        finally:
            end(process)
    value = json.loads(result.read_text("utf-8")) if result.is_file() else nothing()
    value |= {"ended": ended, "seconds": round(time.monotonic() - began, 1)}
    counts = f"{len(value['figures'])} figures, {len(value['failures'])} failures"
    print(f"{step}: {value['seconds']} s, ended {ended}, {counts}", flush=True)
    return value


def command(step: str, result: Path, seconds: float, options: argparse.Namespace) -> list[str]:
    folders = ["--work", str(options.work.resolve()), "--photographs", str(options.photographs.resolve())]
    small = ["--small"] if options.small else []
    ours = [sys.executable, "-m", "gpu.steps", step, "--result", str(result), *folders]
    return [*ours, "--device", options.device, "--seconds", str(seconds), *small]


def environment() -> dict[str, str]:
    """The steps find the project and its benchmarks wherever they lie, and ask no hub for anything."""
    paths = [str(BENCHMARKS), str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **own, "PYTHONPATH": os.pathsep.join(paths)}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a step and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def write(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Write everything, a summary for people, and a dated result as the benchmarks have it."""
    text = json.dumps(found, indent=1, default=str)
    (options.out / "report.json").write_text(text, encoding="utf-8")
    lines = []
    for step, value in found.items():
        lines.append(f"\n{step}: {value.get('seconds', 0)} s, ended {value['ended']}")
        lines += [f"  {shown(one)}" for one in value["figures"]]
    lines.append("\nFAILURES")
    for step, value in found.items():
        if not value["finished"]:
            lines.append(f"  {step}: did not finish, ended {value['ended']}")
        lines += [f"  {step} / {one['part']}: {one['error'][:300]}" for one in value["failures"]]
    (options.out / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result(found, options)


def result(found: dict[str, Any], options: argparse.Namespace) -> None:
    figures = [
        Figure(one["name"], one["measured"], one["asked"], one["unit"])
        for value in found.values()
        for one in value["figures"]
    ]
    failed = [
        f"{step} / {one['part']}: {one['error'].splitlines()[0][:120]}"
        for step, value in found.items()
        for one in value["failures"]
    ]
    sizes = ", a rehearsal at small sizes" if options.small else ""
    notes = f"Random weights; {options.device}{sizes}. Failures: {'; '.join(failed) or 'none'}."
    # Known from the first step: asking torch would take memory of the card.
    card = found.get("machine", {}).get("facts", {}).get("device", {}).get("name")
    record(NAME, figures, notes, folder=options.results or options.out, show=False, gpu=card)


if __name__ == "__main__":
    main()
