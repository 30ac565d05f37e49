"""Do probabilities of a match mean something? Flickr8k dev pairs, 1 true : 1 random : 1 hard wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import Figure, need_data, record

from encoders import load_encoder
from matcher import Calibration, Sampling
from matcher.calibration import shipped_calibrations
from matcher.negatives import SampledPairs, sample_pairs
from matcher.pair_metrics import Reliability, pair_figures, reliability

# The nearest wrong one of all is a share so small that one is left.
HARDEST = 1e-9


class Split(NamedTuple):
    """Captions, images, and which belong together."""

    captions: np.ndarray
    images: np.ndarray
    pairs: np.ndarray


def main() -> None:
    data = need_data()
    shipped = shipped_calibrations()
    lite, clip, gallery = flickr8k(data / "flickr8k"), held_out_clip(data / "clip_vit_b32"), with_distractors(data)
    figures, curves = [], {}
    for name, spec, split in (
        ("lite, dev", "lite", lite),
        ("ViT-B-32/openai, 50 other images", "ViT-B-32/openai", clip),
        ("ViT-B-32/openai, 550 images, 500 unrelated", "ViT-B-32/openai", gallery),
    ):
        sample = sample_pairs(*split)
        found, curve = judged(name, sample, shipped[spec])
        figures += found
        curves[name] = curve
        figures += harder(name, split, shipped[spec])
    share = f"{Sampling().hard_share:.0%}"
    table = record(
        "match",
        figures,
        f"Captions ask, images answer. The hard wrong image is drawn from the nearest {share} of all wrong ones, as in "
        "the shipped calibrations (lite: 500 train images; ViT-B-32/openai: 50 other images). ECE over 15 bins of "
        "equal mass. AutoMM calls (1 + cosine) / 2 a probability and decides at 0.5.",
    )
    draw(curves, table.with_name(f"{table.stem}_reliability.png"))


def judged(name: str, sample: SampledPairs, calibration: Calibration) -> tuple[list[Figure], dict[str, Reliability]]:
    probability, formula = calibration.probability(sample.cosine), (1 + sample.cosine) / 2
    ours = pair_figures(probability, sample.label, calibration.threshold)
    theirs = pair_figures(formula, sample.label)
    third = np.split(probability >= calibration.threshold, 3)
    figures = [Figure(f"{name}: pairs", len(sample.label))]
    wanted = "" if "unrelated" in name else "<= 0.05"
    for metric, asked in (("roc_auc", ""), ("accuracy", ""), ("f1", ""), ("ece", wanted)):
        figures.append(Figure(f"{name}: {metric}", round(ours[metric], 4), asked))
        figures.append(Figure(f"{name}: {metric}, AutoMM's formula", round(theirs[metric], 4)))
    called = " / ".join(f"{part.mean():.3f}" for part in third)
    figures.append(Figure(f"{name}: called a match, true / random / hard", called))
    every = " / ".join(f"{part.mean():.3f}" for part in np.split(formula >= 0.5, 3))
    figures.append(Figure(f"{name}: the same, AutoMM's formula", every))
    return figures, {
        "calibrated": reliability(probability, sample.label),
        "formula": reliability(formula, sample.label),
    }


def harder(name: str, split: Split, calibration: Calibration) -> list[Figure]:
    figures = []
    for label, share in (("2 %", 0.02), ("the one", HARDEST)):
        sample = sample_pairs(*split, Sampling(hard_share=share))
        found = pair_figures(calibration.probability(sample.cosine), sample.label, calibration.threshold)
        shown = " / ".join(f"{found[metric]:.3f}" for metric in ("roc_auc", "accuracy", "ece"))
        figures.append(Figure(f"{name}, hard from {label} nearest: roc_auc / accuracy / ece", shown))
    return figures


def flickr8k(folder: Path) -> Split:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "dev"]
    captions = list(dict.fromkeys(text for row in rows for text in row["captions"]))
    place = {text: number for number, text in enumerate(captions)}
    pairs = {(place[text], number) for number, row in enumerate(rows) for text in row["captions"]}
    encoder = load_encoder("lite")
    images = encoder.encode_images([folder / row["image"] for row in rows])
    return Split(encoder.encode_texts(captions), images, np.array(sorted(pairs)))


def held_out_clip(folder: Path) -> Split:
    """The half of the images that the shipped calibration has not seen."""
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    owner = np.array([json.loads(line)["image_row"] for line in lines])
    mine = np.flatnonzero(owner % 2 == 1)
    captions, images = np.load(folder / "flickr8k_captions.npy"), np.load(folder / "flickr8k_images.npy")
    return Split(captions[mine], images[1::2], np.stack([np.arange(len(mine)), owner[mine] // 2], axis=1))


def with_distractors(data: Path) -> Split:
    split = held_out_clip(data / "clip_vit_b32")
    distractors = np.load(data / "clip_vit_b32" / "distractor_images.npy")
    return split._replace(images=np.concatenate([split.images, distractors]))


def draw(curves: dict[str, dict[str, Reliability]], path: Path) -> None:
    """A reliability diagram: what was promised against what came of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(4 * len(curves), 5), layout="tight")
    FigureCanvasAgg(picture)
    panels: Any = picture.subplots(1, len(curves), sharey=True)
    styles = {"calibrated": ("calibrated here", "tab:blue", "o"), "formula": ("(1 + cosine) / 2", "tab:red", "s")}
    for panel, (name, lines) in zip(panels, curves.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--", label="what was promised")
        for key, curve in lines.items():
            label, colour, marker = styles[key]
            text = f"{label}, ECE {curve.error:.3f}"
            panel.plot(curve.predicted, curve.observed, color=colour, marker=marker, markersize=4, label=text)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability given", aspect="equal")
        panel.set_title(name, fontsize=10)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=9, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share that matched")
    picture.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
