"""The code blocks of the documentation, and a folder with real photographs in which they run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CAPTIONS = {
    "brick.png": ("train", "a wall of bricks", "masonry seen from near"),
    "coins.png": ("train", "old coins in rows", "many round coins on dark ground"),
    "grass.png": ("train", "a meadow of grass", "blades of grass from above"),
    "astronaut.png": ("dev", "an astronaut in an orange suit smiles", "a woman in front of a flag"),
    "chelsea.png": ("dev", "a cat looks into the camera", "the face of a tabby cat"),
    "coffee.png": ("dev", "a cup of coffee on a table", "an espresso with a spoon on its saucer"),
    "motorcycle_left.png": ("dev", "a motorcycle in a garage", "a red motorbike beside a bicycle"),
    "rocket.jpg": ("dev", "a rocket on its launch pad at night", "a rocket lit by floodlights"),
}


@dataclass(frozen=True)
class Block:
    """A fenced block: the page it is on, its language, the words after the language, and its code."""

    page: str
    language: str
    note: str
    code: str


def pages(home: Path) -> list[Path]:
    """Every page of the documentation."""
    return [home / "README.md", home / "CONTRIBUTING.md", *sorted((home / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    split = [(*info.partition(" "), code) for info, code in found]
    return [Block(page.name, language, note.strip(), code) for language, _, note, code in split]


def fill(folder: Path, photographs: Path) -> None:
    """Write `photos/`, `query.jpg`, `captions.jsonl` (with a column `split`) and `pairs.csv`.

    Of each photograph of the split `dev` the middle is a second image, so that ten can be ranked.
    """
    (folder / "photos").mkdir()
    rows = []
    for name, (split, *captions) in CAPTIONS.items():
        path = f"photos/{Path(name).stem}.jpg"
        with Image.open(photographs / name) as image:
            whole = image.convert("RGB")
        whole.save(folder / path)
        rows.append({"image": path, "captions": captions, "split": split})
        if split == "dev":
            middle = f"photos/{Path(name).stem}-middle.jpg"
            width, height = whole.size
            whole.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4)).save(folder / middle)
            rows.append({"image": middle, "captions": [f"a detail: {captions[0]}"], "split": split})
    (folder / "query.jpg").write_bytes((folder / "photos" / "chelsea.jpg").read_bytes())
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    pairs = [f"{row['image']},{row['captions'][0]}" for row in rows]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *pairs]) + "\n", encoding="utf-8")


def environment() -> dict[str, str]:
    """The environment in which the commands of this installation are found."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def run(command: list[str], folder: Path) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stderr}"
    return done.stdout
