"""Images per core-second of every backend that computes an encoder on a CPU, and what a build takes by itself.

One core, CPU seconds of the process, so that other programs do not change the figures. `lite` with its weights;
ViT-B-32 and ViT-B-16-SigLIP2 with random ones, which are as fast. Each again with the processor's newer instructions
masked for oneDNN (torch and OpenVINO compute by it), where 16 bits are slower: there the race has to keep fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from record import Figure, record

ENCODERS = ("lite", "ViT-B-32", "ViT-B-16-SigLIP2")
MASKS = ("", "AVX512_CORE_VNNI", "AVX2")
MASKED = ("lite", "ViT-B-32")  # without 16-bit instructions the third takes a quarter of an hour a mask
BATCHES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--masks", nargs="*", default=list(MASKS), metavar="ISA", help="For oneDNN; '' for none.")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.encoders[0])))
        return
    figures: list[Figure] = []
    for name in arguments.encoders:
        for mask in arguments.masks if name in MASKED else [""]:
            figures += in_process(name, mask)
            record("cpu_backends", figures, NOTES)  # each time, so that a run that is stopped leaves what it has


NOTES = (
    "Images of golden photographs, already decoded, per second of CPU time of one core. Cosine: the lowest to torch in "
    "fp32 over golden photographs and texts. Masked: `ONEDNN_MAX_CPU_ISA`. "
    "Asked for on AMX: ViT-B-32 45 with torch alone and 70 with OpenVINO, SigLIP2 3 times and lite 2 times "
    "torch fp32; elsewhere no less than torch fp32."
)
ASKED = {"lite": 2.0, "ViT-B-16-SigLIP2": 3.0}


def in_process(name: str, mask: str) -> list[Figure]:
    """Measure one encoder in a process of its own, whose processor seems to lack what the mask leaves out."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"ONEDNN_MAX_CPU_ISA": mask} if mask else {})}
    command = [sys.executable, "-W", "ignore", __file__, "--one", "--encoders", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    label = f"{name}, {mask} at most" if mask else name
    if done.returncode:
        return [Figure(label, f"failed: {done.stderr.strip().splitlines()[-1][:120]}")]
    answer = json.loads(done.stdout.splitlines()[-1])
    rates = {one["name"]: one["rate"] for one in answer["trials"] if "rate" in one}
    rows = [
        Figure(f"{label}: {one['name']}", f"cannot compute it: {one['error']}")
        if "error" in one
        else Figure(
            f"{label}: {one['name']}",
            one["rate"],
            asked(name, mask, one["name"]),
            f"images/core-s, cosine {one['cosine']:.5f}",
        )
        for one in answer["trials"]
    ]
    plain, taken = rates["torch fp32"], rates[answer["chosen"]]
    wanted = f">= {ASKED[name]}" if name in ASKED and not mask else ">= 1.0"
    rows.append(
        Figure(f"{label}: taken by a build", f"{answer['chosen']}: {taken / plain:.2f}", wanted, "times torch fp32")
    )
    rows.append(Figure(f"{label}: CPU seconds of the race", answer["race_seconds"], "", "s"))
    return rows


def asked(name: str, mask: str, backend: str) -> str:
    return (
        {"torch bf16": ">= 45", "openvino bf16": ">= 70"}.get(backend, "") if (name, mask) == ("ViT-B-32", "") else ""
    )


def measured(name: str) -> dict[str, Any]:
    import time

    from encoders.cpu_backends import fastest

    encoder = opened(name)
    trials = [
        trial(encoder, *each)
        for each in (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))
    ]
    started = time.process_time()
    _, race = fastest(encoder, remember=False)
    seconds = time.process_time() - started
    return {"trials": trials, "chosen": race.winner.name, "race_seconds": round(seconds, 1)}


def trial(encoder: Any, backend: str, precision: str) -> dict[str, Any]:
    import time

    import numpy as np

    from encoders.cpu_backends import golden_images

    images = golden_images()
    pixels = np.stack([encoder.byte_pixels(image) for image in images])[:16]
    try:
        made = encoder if (backend, precision) == ("torch", "fp32") else encoder.on_backend(backend, precision)
        lowest = float((made.encode_images(images) * encoder.encode_images(images)).sum(1).min())
    except Exception as error:  # noqa: BLE001  # a compiler's may be of any kind, and the race leaves it out too
        words = " ".join(str(error).split())
        return {"name": f"{backend} {precision}", "error": words[-100:]}
    rates = []
    for _ in range(BATCHES):
        started = time.process_time()
        made.encode_pixels(pixels)
        rates.append(len(pixels) / (time.process_time() - started))
    return {"name": f"{backend} {precision}", "rate": round(max(rates), 1), "cosine": lowest}


def opened(name: str) -> Any:
    from encoders import load_encoder

    if name == "lite":
        return load_encoder(name, device="cpu", precision="fp32")
    import open_clip
    import torch

    from encoders.device import Placement
    from encoders.open_clip_encoder import ClipEncoder
    from encoders.two_towers import TwoTowers

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval()
    length = model.context_length
    towers = TwoTowers(
        spec=name,
        model=model,
        config=open_clip.get_model_config(name),
        preprocess=model.visual.preprocess_cfg,
        tokenizer=lambda texts: torch.arange(1, length + 1).repeat(len(texts), 1) % 1000,  # images alone are measured
    )
    return ClipEncoder(towers, Placement(device="cpu", precision="fp32"))


if __name__ == "__main__":
    main()
