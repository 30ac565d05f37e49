"""`lite`, `lite` fine-tuned and a random ViT-B-32 on Flickr8k dev: whether a comparison puts them in the right order.

    python benchmarks/compare_encoders.py [FOLDER OF THE FINE-TUNED ENCODER]

Without a folder `lite` is fine-tuned first, on the train split with the default recipe: five minutes on two cores. The
order is right where no interval of a difference of rsum to the encoder above reaches 0. A second run says what kept
vectors save.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fine_tune import fit
from record import Figure, need_data, record

from evaluation.paired import DIRECTIONS
from indexer import SourceOptions
from indexer.progress import LineProgress
from searcher.render.comparison_page import save_comparison
from training import read_captions
from twinlens.compare.comparison import CompareConfig, Comparison, compare_encoders

SEED = 0


def main() -> None:
    table = need_data() / "flickr8k" / "captions.jsonl"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if sys.argv[1:]:
            tuned = f"local-dir:{sys.argv[1]}"
        else:
            tuned = fit(read_captions(table, split="train"), folder / "tuned", SEED).encoder
        specs = {"lite": "lite", "lite, fine-tuned": tuned, "ViT-B-32, random": random_vit(folder)}
        seconds, found = timed(table, list(specs.values()), folder)
        again, _ = timed(table, list(specs.values()), folder)
        page = folder / "compare.html"
        save_comparison(page, found.facts, found.images)
        figures = [*figures_of(found.facts, dict(zip(specs.values(), specs, strict=True)))]
        figures += [
            Figure("all three: CPU seconds", round(seconds, 1), "stated", "s"),
            Figure("the same again, from the cache: CPU seconds", round(again, 1), "stated", "s"),
            Figure("the page with its thumbnails", round(page.stat().st_size / 1e6, 2), "stated", "MB"),
        ]
    load = max(load, os.getloadavg()[0])
    notes = (
        "1,000 images with 5,000 captions, exact search; in brackets 95 % intervals, 1,000 resamples of images. "
        f"Speeds are a second of processor time. The machine was shared: load average up to {load:.1f} on "
        f"{os.cpu_count()} cores."
    )
    record("compare_encoders", figures, notes)


def random_vit(folder: Path) -> str:
    """Return the spec of a ViT-B-32 with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(SEED)
    save_file(open_clip.create_model("ViT-B-32", pretrained=None).state_dict(), folder / "vit.safetensors")
    return f"ViT-B-32/{folder / 'vit.safetensors'}"


def timed(table: Path, specs: list[str], folder: Path) -> tuple[float, Comparison]:
    """Compare, and return the CPU seconds that it took."""
    started = time.process_time()
    options = SourceOptions(splits=("dev",))
    config = CompareConfig(cache=folder / "cache", seed=SEED)
    found = compare_encoders(table, specs, options=options, config=config, progress=LineProgress(sys.stderr))
    return time.process_time() - started, found


def figures_of(facts: dict[str, Any], names: dict[str, str]) -> list[Figure]:
    """Return the figures of each encoder, the best first."""
    figures = []
    encoders = facts["encoders"]
    for at in sorted(range(len(encoders)), key=lambda one: -encoders[one]["rsum"]):
        one, behind = encoders[at], facts["differences"][at]
        name, (low, high) = names[one["label"]], one["rsum_interval"]
        figures.append(Figure(f"{name}: rsum", f"{one['rsum']:.1f} [{low:.1f}, {high:.1f}]"))
        for direction in DIRECTIONS:
            figures.append(Figure(f"{name}: {direction} R@1/5/10", shares(one[direction])))
        if behind is not None:
            above, (low, high) = behind["above"]["rsum"], behind["above"]["rsum"]["interval"]
            told = f"{above['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            figures.append(Figure(f"{name}: rsum beside the one above, paired", told, "a tie is excluded"))
        alone = " and ".join(f"{facts['alone'][at][direction]['count']:,}" for direction in DIRECTIONS)
        figures.append(Figure(f"{name}: answered by it alone, texts and images", alone, "stated"))
        rates = " and ".join(f"{one['speed'][kind]['per_cpu_second']:.0f}" for kind in ("images", "texts"))
        how = " ".join(one["index"]["computed"][part] for part in ("backend", "precision"))
        figures.append(Figure(f"{name}: images and texts a CPU second, {how}", rates, "stated"))
    return figures


def shares(figures: dict[str, Any]) -> str:
    """Return R@1, R@5 and R@10 with their intervals."""
    ends = {k: figures["intervals"][f"R@{k}"] for k in (1, 5, 10)}
    return " / ".join(f"{figures[f'R@{k}']:.3f} [{low:.3f}, {high:.3f}]" for k, (low, high) in ends.items())


if __name__ == "__main__":
    main()
