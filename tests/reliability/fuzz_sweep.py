"""The parts of the sweep in which what comes in is hostile, and those in which the store is played against a dict."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "test_indexer"))

from corpus_fuzz import KINDS, fuzz, fuzz_manifests
from filter_fuzz import attacked, build, differing
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from picture_server import serving
from store_machine import StoreMachine
from warm import Warm

Figures = dict[str, Any]
MACHINE_SECONDS = 120
MACHINE_STEPS = 40


def images(number: int, count: int) -> Callable[[Path], Figures]:
    """Hostile images, decoded in a process of their own with a bound on its memory."""

    def part(_scratch: Path) -> Figures:
        command = [sys.executable, "-W", "error", str(Path(__file__).parent / "image_fuzz.py"), str(count), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = json.loads(done.stdout)
        broken = len(told["unexpected"]) + len(told["slow"]) + (told["grown"] > told["most_allowed"])
        return {
            "hostile images": told["hostile images"],
            "decoded": told["outcomes"]["decoded"],
            "refused": told["hostile images"] - told["outcomes"]["decoded"],
            "broken promises": broken,
        }

    return part


def filters(scratch: Path) -> Figures:
    """Random filters against plain Python, then hostile ones in a process that records every file it opens."""
    scratch.mkdir(exist_ok=True)
    index = build(scratch)
    wrong = differing(index, 6000, seed=1)
    for sql in wrong[:10]:
        print(f"  differing: {sql}", file=sys.stderr)
    (scratch / "secrets").mkdir()
    (scratch / "secrets" / "secret.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with Warm() as warm:
        told = attacked(warm, index, scratch / "secrets")
    return {
        "random filters": 6000,
        "differing": len(wrong),
        **{name: told[name] for name in ("hostile filters", "refused", "harmless", "files opened")},
        "broken promises": told["escaped"] + told["files opened"] + len(told["changed"]),
    }


def urls(_scratch: Path) -> Figures:
    """Every form of a URL that leads into a private network, and the connections that it led to."""
    import test_source_urls as known

    from indexer.corpus.remote.fetch import Fetcher, WebLimits
    from indexer.errors import ContentError

    forms = sorted(set(known.PRIVATE_URLS))
    refused = 0
    known._connected.clear()
    known._recording[0] = True
    with serving() as server:
        for form in forms:
            try:
                Fetcher(WebLimits(seconds=2)).fetch(form.replace(known.PORT, str(server.server_address[1])), 1 << 20)
            except ContentError:
                refused += 1
        asked = len(server.asked)
    known._recording[0] = False
    reached = asked + len(known._connected)
    return {
        "URL forms": len(forms),
        "refused": refused,
        "connections": reached,
        "broken promises": reached + len(forms) - refused,
    }


def corpora(kind: str, count: int) -> Callable[[Path], Figures]:
    """Damaged and hostile tables, archives, arrays or manifests."""

    def part(scratch: Path) -> Figures:
        told = fuzz_manifests(count, 1, scratch) if kind == "manifests" else fuzz(kind, count, 1, scratch)
        wrong, left = told.pop("wrong"), told.pop("left")
        for case, outcome in list(wrong.items())[:10]:
            print(f"  {case}: {outcome[:300]}", file=sys.stderr)
        return {f"hostile {kind}": told.pop("cases"), **told, "broken promises": len(wrong) + len(left)}

    return part


def machine(_scratch: Path) -> Figures:
    """The store against a dict, run after run, for some minutes."""
    StoreMachine.steps = runs = 0
    quiet = settings(
        max_examples=10,
        stateful_step_count=MACHINE_STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    deadline = time.monotonic() + MACHINE_SECONDS
    while time.monotonic() < deadline:
        run_state_machine_as_test(StoreMachine, settings=quiet)  # type: ignore[no-untyped-call]
        runs += 10
    return {"runs of the store": runs, "steps of the store": StoreMachine.steps, "broken promises": 0}


PARTS: dict[str, Callable[[Path], Figures]] = {
    "store-machine": machine,
    "filters": filters,
    "urls": urls,
    **{f"images-{number}": images(number, 5000) for number in range(4)},
    **{kind: corpora(kind, 5000) for kind in (*KINDS, "manifests")},
}
