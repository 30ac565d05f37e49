"""Photographs with captions that are small enough to take to a machine: 76 of COCO and 300 of Flickr8k.

python benchmarks/gpu/photographs.py DATA TO
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTIONS = "captions.jsonl"
SETS = (("coco", "coco_cc", 76), ("flickr8k", "flickr8k", 300))


def collect(data: Path, to: Path) -> None:
    """Copy photographs out of the folder of real data, those of COCO first, and write their captions last."""
    rows = []
    for name, folder, count in SETS:
        shutil.rmtree(to / name, ignore_errors=True)
        (to / name).mkdir(parents=True)
        lines = (data / folder / CAPTIONS).read_text("utf-8").splitlines()
        for line in lines[:: max(1, len(lines) // count)][:count]:
            row = json.loads(line)
            target = Path(name) / Path(row["image"]).name
            shutil.copyfile(data / folder / row["image"], to / target)
            rows.append({"image": str(target), "captions": row["captions"]})
    (to / CAPTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def rows_of(folder: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Return `image` (a path in the folder) and `captions` of the first photographs, or of all.

    Raises:
        FileNotFoundError: `collect` has not made the folder.
    """
    if not (folder / CAPTIONS).is_file():
        raise FileNotFoundError(f"there are no photographs in {folder}; name a folder of them with --photographs")
    return [json.loads(line) for line in (folder / CAPTIONS).read_text("utf-8").splitlines()[:count]]


def paths_of(folder: Path, count: int | None = None) -> list[Path]:
    """Return the paths of the first photographs, or of all."""
    return [folder / row["image"] for row in rows_of(folder, count)]


def captions_of(folder: Path, count: int | None = None) -> list[str]:
    """Return the captions of the first photographs, or of all, one after the other."""
    return [text for row in rows_of(folder, count) for text in row["captions"]]


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        sys.exit(f"error: two folders are needed, {len(arguments)} were named; {__doc__.splitlines()[-1]}")
    collect(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
