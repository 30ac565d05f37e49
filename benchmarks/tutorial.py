"""AutoMM's tutorial of matching on Flickr8k: what evaluating again takes, and what `fit` does within a time limit."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from record import Figure, need_data, record

from encoders import load_encoder
from matcher import Matcher

# AutoMM's tutorial: 29,000 images, 180 s.
TUTORIAL_IMAGES, TUTORIAL_SECONDS = 29_000, 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="Training images.  [default: 2000]")
    parser.add_argument("--limit", type=float, default=120.0, help="Seconds that fit may take.  [default: 120]")
    options = parser.parse_args()
    folder = need_data() / "flickr8k"
    load = os.getloadavg()[0]
    with TemporaryDirectory() as work:
        figures = again(pairs(folder, "dev", 1000), Path(work))
        figures += limited(
            pairs(folder, "train", options.images), pairs(folder, "dev", 1000), options.limit, Path(work)
        )
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    record(
        "tutorial",
        figures,
        "Flickr8k at 224 x 224, five captions an image, `lite`, the encoder loaded before the clock starts. The limit "
        f"of AutoMM's tutorial, {TUTORIAL_SECONDS} s for {TUTORIAL_IMAGES:,} images, is "
        f"{TUTORIAL_SECONDS / TUTORIAL_IMAGES:.4f} s an image; here it is {options.limit / options.images:.4f}. `fit` "
        f"has its default settings; OMP_NUM_THREADS is {threads}; dev is what weights are chosen by and evaluated "
        f"on. Load average of the machine {load:.1f} before and {os.getloadavg()[0]:.1f} after.",
    )


def pairs(folder: Path, split: str, images: int) -> dict[str, list[Any]]:
    """A row a caption."""
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == split][:images]
    captions = [caption for row in rows for caption in row["captions"]]
    return {"caption": captions, "image": [str(folder / row["image"]) for row in rows for _ in row["captions"]]}


def again(test: dict[str, list[Any]], work: Path) -> list[Figure]:
    encoder = load_encoder("lite", device="cpu")
    matcher = Matcher(encoder=encoder, remember_in=work / "vectors")
    first, wanted = timed(lambda: matcher.evaluate(test))
    second, same = timed(lambda: matcher.evaluate(test))
    both, _ = timed(lambda: matcher.evaluate(test, directions="both"))
    later = Matcher(encoder=encoder, remember_in=work / "vectors")
    disk, from_disk = timed(lambda: later.evaluate(test))
    what = f"{len(set(test['image'])):,} images and {len(test['caption']):,} captions"
    return [
        Figure(f"evaluate {what}, first", first, unit="s"),
        Figure("the same again, share of the first", second / first, "<= 0.1"),
        Figure("then both directions, share of the first", both / first, "<= 0.1"),
        Figure("by another matcher, vectors from disk, share of the first", disk / first, "<= 0.1"),
        Figure("figures the same to the last digit", wanted == same == from_disk, "True"),
    ]


def limited(train: dict[str, list[Any]], dev: dict[str, list[Any]], limit: float, work: Path) -> list[Figure]:
    matcher = Matcher(encoder="lite", device="cpu")
    before = matcher.evaluate(dev)
    took, _ = timed(lambda: matcher.fit(train, val=dev, time_limit=limit, out=work / "tuned"))
    after, summary = matcher.evaluate(dev), matcher.fit_summary
    return [
        Figure(
            f"fit(time_limit={limit:g}) on {len(set(train['image'])):,} images: seconds", took, f"<= {limit:g}", "s"
        ),
        Figure("images used", summary["counts"]["train_left"]),
        Figure("augmented views of each used, of those asked", f"{summary['views']} of {summary['settings']['views']}"),
        Figure(
            "features, training", f"{summary['seconds']['features']:.1f}, {summary['seconds']['training']:.1f}", "", "s"
        ),
        Figure("steps", summary["curve"][-1]["step"] if summary["curve"] else 0, ">= 1"),
        Figure("dev R@1, R@10 before", f"{before['R@1']:.3f}, {before['R@10']:.3f}"),
        Figure("dev R@1, R@10 after", f"{after['R@1']:.3f}, {after['R@10']:.3f}", "above"),
    ]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


if __name__ == "__main__":
    main()
