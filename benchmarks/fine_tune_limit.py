"""`lite` fine-tuned on 29,000 images within 60 and 180 s: how many of them it learns from, and what that gives.

    python benchmarks/fine_tune_limit.py [FOLDER]

The images are crops of 2,000 Flickr8k photographs, 14 or 15 of each with the five captions of their photograph; those
of 200 photographs are to choose weights by. Recall is measured on the dev split, whose photographs are others. What the
folder holds already is not made again, so that the fits alone can be run while nothing else does:
`--until images`, `--until fits`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

from fine_tune import CUTOFFS, DIRECTIONS, evaluated, line, print_progress, with_intervals
from record import Figure, need_data, record

from encoders import load_encoder
from training import CaptionedImages, FitConfig, fit_encoder, read_captions
from training.examples import decode
from training.features import augmented

IMAGES = 29_000
VALIDATION_PHOTOGRAPHS = 200
LIMITS = (60, 180)
STEPS = ("images", "fits", "record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="for images and encoders, a gigabyte; temporary without")
    parser.add_argument("--until", choices=STEPS, default="record", help="the last step that is taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(arguments.folder or Path(scratch), STEPS.index(arguments.until))


def run(folder: Path, last: int) -> None:
    """Take the steps up to `last`."""
    table = need_data() / "flickr8k" / "captions.jsonl"
    photographs = read_captions(table, split="train")
    crops = [one for number in range(len(photographs)) for one in crops_of(folder, number, len(photographs))]
    if not crops[-1].exists():
        make(folder, photographs)
    if last >= 1:
        for limit in LIMITS:
            if not result_of(folder, limit).exists():
                fit(folder, photographs, limit)
    if last >= 2:
        tell(folder, read_captions(table, split="dev"))


def crops_of(folder: Path, number: int, photographs: int) -> list[Path]:
    """Return the files of one photograph's crops."""
    first, end = (round(one * IMAGES / photographs) for one in (number, number + 1))
    return [folder / "images" / f"{number:04}_{crop}.jpg" for crop in range(end - first)]


def make(folder: Path, photographs: CaptionedImages) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    count = len(photographs)
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_crops, repeat(folder), range(count), repeat(count), photographs.images, chunksize=50))


def write_crops(folder: Path, number: int, photographs: int, content: Any) -> None:
    image = decode(content).pixels
    for crop, path in enumerate(crops_of(folder, number, photographs)):
        augmented(image, (number, crop)).save(path, quality=90)


def examples(folder: Path, photographs: CaptionedImages, numbers: range) -> CaptionedImages:
    """Return the crops of some photographs, with their captions."""
    files = [(number, path) for number in numbers for path in crops_of(folder, number, len(photographs))]
    return CaptionedImages([path for _, path in files], [photographs.captions[number] for number, _ in files])


def result_of(folder: Path, limit: int) -> Path:
    """Return the file with what one fit did."""
    return folder / f"fit{limit}.json"


def fit(folder: Path, photographs: CaptionedImages, limit: int) -> None:
    held = range(VALIDATION_PHOTOGRAPHS)
    val = examples(folder, photographs, held)
    train = examples(folder, photographs, range(VALIDATION_PHOTOGRAPHS, len(photographs)))
    began = time.monotonic()
    out, config = folder / f"encoder{limit}", FitConfig(time_limit=limit)
    report = fit_encoder("lite", train, val, out, config, print_progress)
    value = {**report.to_json(), "wall": time.monotonic() - began}
    result_of(folder, limit).write_text(json.dumps(value), encoding="utf-8")


def tell(folder: Path, dev: CaptionedImages) -> None:
    before = evaluated(load_encoder("lite"), dev)
    figures = [Figure(f"{name}, before: R@{'/'.join(map(str, CUTOFFS))}", line(before[name])) for name in DIRECTIONS]
    for limit in LIMITS:
        value = json.loads(result_of(folder, limit).read_text(encoding="utf-8"))
        after = evaluated(load_encoder(f"local-dir:{folder.resolve() / f'encoder{limit}'}"), dev)
        figures += of_limit(limit, value, after)
    notes = (
        f"{IMAGES:,} crops of 2,000 photographs, in the files' cache; their captions are 10,000 distinct ones, so that "
        f"texts take less than those of as many photographs would. Recall is that of the {len(dev):,} dev photographs."
    )
    record("fine_tune_limit", figures, notes)


def of_limit(limit: int, value: dict[str, Any], after: dict[str, Any]) -> list[Figure]:
    counts, curve = value["counts"], value["curve"]
    stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in value["seconds"].items() if stage != "all")
    learned = f"{counts['train_left']:,} to learn from, {counts['val_left']:,} to choose by"
    return [
        Figure(f"limit {limit} s: seconds ({stages})", value["wall"], f"<= {limit}", "s"),
        Figure(f"limit {limit} s: images ({learned})", counts["train_left"] + counts["val_left"], f"of {IMAGES:,}"),
        Figure(f"limit {limit} s: augmented views of each image", value["views"]),
        Figure(f"limit {limit} s: steps", curve[-1]["step"] if curve else 0),
        *(
            Figure(f"limit {limit} s: {name}, after: R@1/5/10 [95 %]", with_intervals(after[name]))
            for name in DIRECTIONS
        ),
    ]


if __name__ == "__main__":
    main()
