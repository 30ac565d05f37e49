"""Measures the calibrations that ship: `python benchmarks/make_calibrations.py FOLDER` writes `calibrations.json`.

FOLDER holds `flickr8k/` (photographs, captions.jsonl) and `clip_vit_b32/` (CLIP vectors, flickr8k_captions.jsonl).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from matcher.calibration import PATH, Calibration, fit_calibration
from matcher.negatives import Sampling, sample_pairs

_LITE_IMAGES = 500


def measure_lite(folder: Path) -> Calibration:
    """Fit `lite` on 500 photographs of the train split of Flickr8k, five captions each."""
    from encoders import load_encoder

    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    train = [row for row in map(json.loads, lines) if row["split"] == "train"]
    rows = train[:: len(train) // _LITE_IMAGES][:_LITE_IMAGES]
    encoder = load_encoder("lite", device="cpu")
    images = encoder.encode_images([folder / row["image"] for row in rows])
    captions = list(dict.fromkeys(text for row in rows for text in row["captions"]))
    place = {text: number for number, text in enumerate(captions)}
    pairs = np.array([[place[text], number] for number, row in enumerate(rows) for text in row["captions"]])
    sample = sample_pairs(encoder.encode_texts(captions), images, np.unique(pairs, axis=0))
    calibration = fit_calibration(sample.cosine, sample.label, encoder="lite", fingerprint=encoder.fingerprint)
    return _said(calibration, f"Flickr8k, {len(rows)} images of the train split, {len(captions)} captions")


def measure_clip(folder: Path) -> Calibration:
    """Fit OpenAI's ViT-B/32 on the vectors of 50 Flickr8k photographs, every other one, five captions each."""
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    owner = np.array([json.loads(line)["image_row"] for line in lines])
    images, captions = (np.load(folder / f"flickr8k_{what}.npy")[:] for what in ("images", "captions"))
    mine = np.flatnonzero(owner % 2 == 0)
    pairs = np.stack([np.arange(len(mine)), owner[mine] // 2], axis=1)
    sample = sample_pairs(captions[mine], images[::2], pairs)
    # So few pairs carry two numbers, and no shape of their own.
    calibration = fit_calibration(sample.cosine, sample.label, "platt", encoder="ViT-B-32/openai")
    return _said(calibration, f"Flickr8k, {len(images[::2])} images, {len(mine)} captions")


def _said(calibration: Calibration, source: str) -> Calibration:
    value = calibration.to_json()
    value["measured"] = {
        **{name: round(figure, 4) for name, figure in calibration.measured.items()},
        "source": f"{source}; 1 true : 1 random : 1 of the nearest {Sampling().hard_share:.0%}",
    }
    value["knots"] = [[round(x, 6), round(y, 6)] for x, y in calibration.knots]
    return Calibration.from_json(value, source)


def main() -> None:
    """Write the file that ships."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/make_calibrations.py FOLDER, which holds flickr8k/ and clip_vit_b32/")
    data = Path(sys.argv[1])
    found = [measure_lite(data / "flickr8k"), measure_clip(data / "clip_vit_b32")]
    value = {calibration.encoder: calibration.to_json() for calibration in found}
    PATH.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
