"""An open_clip model saved to a folder and loaded by `load_encoder` against open_clip's own arithmetic."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from record import Figure, need_data, record
from safetensors.torch import save_file

from encoders import load_encoder


def main(arch: str = "ViT-B-32") -> None:
    rows = [json.loads(line) for line in (need_data() / "coco_cc" / "captions.jsonl").read_text("utf-8").splitlines()]
    paths = [need_data() / "coco_cc" / row["image"] for row in rows]
    captions = [caption for row in rows for caption in row["captions"]]
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(arch, pretrained=None)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        save(model, arch, Path(folder))
        encoder = load_encoder(f"local-dir:{folder}", device="cpu", precision="fp32")
        ours = encoder.encode_images(paths), encoder.encode_texts(captions)
    tokens = open_clip.get_tokenizer(arch)(captions)
    with torch.inference_mode():
        pictures = [preprocess(Image.open(path).convert("RGB")) for path in paths]
        theirs = (
            torch.cat([model.encode_image(picture[None], normalize=True) for picture in pictures]).numpy(),
            torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(64)]).numpy(),
        )
    figures = [
        Figure(f"lowest cosine over {len(a)} {name}", f"{float(np.min(np.sum(a * b, axis=1))):.7f}", "> 0.9999")
        for name, a, b in zip(("photographs", "captions"), ours, theirs, strict=True)
    ]
    record("fidelity", figures, f"{arch} with random weights, saved as a local folder; COCO photographs and captions.")


def save(model: torch.nn.Module, arch: str, folder: Path) -> None:
    config = {
        "model_cfg": open_clip.get_model_config(arch),
        "preprocess_cfg": open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg).__dict__,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
