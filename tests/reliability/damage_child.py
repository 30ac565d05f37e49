"""Opens and searches damaged copies, one case after another: `damage_child.py GOLDEN SCRATCH`, cases on stdin.

A process of its own, so that a crash in native code ends this one and is counted by who started it. Each case is one
line of JSON in, and one line `OUTCOME detail` out.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from damage_cases import VERSION, Case, damage

from searcher import Searcher
from storage import TwinlensError
from storage.files.layout import measure
from storage.manifest import Manifest
from storage.publish import write_pointer

MEMORY = 6 << 30
SECONDS = 30
QUERIES = np.random.default_rng(5).standard_normal((4, 4)).astype(np.float32)


def answers(index: Path, verify: Any) -> str:
    """Everything that a searcher says of an index: ids, scores, catalog entries, a filter's rows."""
    told: list[Any] = []
    with Searcher.open(index, verify=verify) as searcher:
        for into in searcher.collections:
            ids, scores = searcher.search_vectors(into, QUERIES, 10, nprobe=4, oversample=4)
            told += [ids.tolist(), scores.tolist()]
        for query in QUERIES[:2]:
            told += [hit.to_json() for hit in searcher.text_to_image(query, 5, where="year > 2000")]
            told += [hit.to_json() for hit in searcher.image_to_text(query, 5)]
    return repr(told)


def reseal(index: Path, case: Case) -> None:
    """Make manifest and CURRENT fit the damaged file."""
    folder = index / VERSION
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), "manifest")
    entry = measure(folder, case.file)
    data = replace(manifest, files={**manifest.files, case.file: entry}).to_json()
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(data)
    (index / "CURRENT").unlink()
    write_pointer(index, 1, data)


def outcome(case: Case, copy: Path, golden: Path, expected: str) -> str:
    """Return `refused`, `harmless`, `different` or `escaped`, and a few words."""
    damage(case, copy, golden)
    try:
        if case.mode == "resealed":
            reseal(copy, case)
        found = answers(copy, "size" if case.mode == "size" else "full")
    except TwinlensError as error:
        return f"refused {type(error).__name__} {' '.join(str(error).split())}"
    except BaseException as error:  # noqa: BLE001 - whatever gets out is what this looks for
        return f"escaped {type(error).__name__} {' '.join(str(error).split())[:300]}"
    return "harmless" if found == expected else "different"


def linked_copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, copy_function=os.link)
    return target


def cases() -> Iterator[Case]:
    for line in sys.stdin:
        yield Case(**json.loads(line))


def main(golden: Path, scratch: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    known: dict[str, str] = {}
    for number, case in enumerate(cases()):
        source = golden / f"{case.index}.index"
        if case.index not in known:
            known[case.index] = answers(source, "full")
        copy = linked_copy(source, scratch / f"{os.getpid()}-{number}")
        signal.alarm(SECONDS)  # one that hangs ends this process, and counts as dead
        told = outcome(case, copy, golden, known[case.index])
        signal.alarm(0)
        shutil.rmtree(copy)
        (scratch.parent / "elsewhere").unlink(missing_ok=True)
        print(told, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
