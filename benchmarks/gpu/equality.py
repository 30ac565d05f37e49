"""The vectors of each precision on the device beside those of the same weights on the CPU in fp32."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu.models import encoder_of, random_model, random_towers, saved_model
from gpu.notes import Notes, Run
from gpu.photographs import captions_of, paths_of

LEFT = 2 << 30  # bytes of the GPU that are left free
TOO_MANY = 4096  # images for them


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an encoder on the CPU in fp32 gives."""

    paths: list[Path]
    captions: list[str]
    pixels: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    fingerprint: str


def equality(run: Run) -> None:
    """ViT-B-32 in each precision, also from several threads, and larger models at two."""
    from encoders import load_encoder

    count = run.pick(376, 12)
    paths, captions = paths_of(run.photographs, count), captions_of(run.photographs, count)
    spec = f"local-dir:{saved_model(run, 'ViT-B-32')}"
    began = time.perf_counter()
    exact: Any = load_encoder(spec, device="cpu", precision="fp32")
    known = Known(
        paths=paths,
        captions=captions,
        pixels=np.stack([exact.byte_pixels(exact.open_image(path).pixels) for path in paths]),
        images=exact.encode_images(paths),
        texts=exact.encode_texts(captions),
        fingerprint=exact.fingerprint,
    )
    run.notes.fact("seconds on the CPU", time.perf_counter() - began)
    for precision in run.pick(("fp32", "bf16", "fp16", "auto"), ("fp32", "bf16")):
        with run.notes.part(f"equality of {precision}"):
            run.notes.need(5)
            one_precision(run, spec, precision, known)
    if run.device != "cpu":
        with run.notes.part("little memory"):
            run.notes.need(8)
            little_memory(run, spec, known)
    archs = run.pick((("ViT-L-14", 16), ("ViT-SO400M-14-SigLIP-384", 8)), (("ViT-B-16-SigLIP", 4),))
    for arch, few in archs:
        with run.notes.part(f"equality of {arch}"):
            run.notes.need(20)
            other_model(run, arch, paths[:few])


def one_precision(run: Run, spec: str, precision: str, known: Known) -> None:
    from encoders import load_encoder

    notes, began = run.notes, time.perf_counter()
    encoder: Any = load_encoder(spec, device=run.device, precision=precision)
    notes.fact(f"{precision}: seconds to load", time.perf_counter() - began)
    notes.figure(f"{precision}: the same fingerprint", encoder.fingerprint == known.fingerprint, asked="True")
    name = f"ViT-B-32 {precision} on {encoder.device}"
    images = encoder.encode_images(known.paths)
    agree(notes, f"{name}, {len(known.paths)} photographs", images, known.images)
    texts = encoder.encode_texts(known.captions)
    agree(notes, f"{name}, {len(known.captions)} captions", texts, known.texts)
    again = encoder.encode_pixels(known.pixels)
    notes.figure(f"{precision}: two calls equal to the bit", bool(np.array_equal(images, again)))
    wide = np.stack([encoder.preprocess(encoder.open_image(path).pixels) for path in known.paths[:32]])
    apart = float(np.abs(encoder.encode_pixels(wide) - again[:32]).max())
    notes.figure(f"{precision}: floats beside bytes, largest difference", apart)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encoder.encode_pixels, [known.pixels] * run.pick(8, 4)))
    worst = max(float(np.abs(one - again).max()) for one in found)
    notes.figure(f"{precision}: four threads at once, largest difference", worst)


def little_memory(run: Run, spec: str, known: Known) -> None:
    """A batch that the GPU has no memory for is halved until it fits, and gives the same vectors."""
    import torch

    from encoders import load_encoder

    encoder: Any = load_encoder(spec, device=run.device, precision="bf16")
    expected = encoder.encode_pixels(known.pixels)
    torch.cuda.empty_cache()
    held = torch.empty(torch.cuda.mem_get_info(run.device)[0] - LEFT, dtype=torch.uint8, device=run.device)
    times = -(-TOO_MANY // len(expected))
    encoder.batch_size = len(expected) * times
    found = encoder.encode_pixels(np.tile(known.pixels, (times, 1, 1, 1)))
    del held
    lowest = float((found * np.tile(expected, (times, 1))).sum(1).min())
    name = f"a batch of {len(found)} in 2 GiB"
    run.notes.figure(f"{name}: lowest cosine to that of small batches", lowest, asked="> 0.999")
    run.notes.figure(f"{name}: halved to", encoder.batch_size, "images", asked=f"< {len(found)}")


def other_model(run: Run, arch: str, paths: list[Path]) -> None:
    model = random_model(arch, run.device)
    known = encoder_of(random_towers(arch, run.device, like=model), "cpu", "fp32").encode_images(paths)
    for precision in run.pick(("bf16", "fp16"), ("bf16",)):
        encoder = encoder_of(random_towers(arch, run.device, like=model), run.device, precision)
        agree(run.notes, f"{arch} {precision}, {len(paths)} photographs", encoder.encode_images(paths), known)
        del encoder


def agree(notes: Notes, name: str, found: np.ndarray, known: np.ndarray) -> None:
    """Write down how near (n, dim) unit vectors are to those that they should be.

    Random weights give vectors that lie close together, so the mean is taken off as well: what is left must agree.
    """
    notes.figure(f"{name}: lowest cosine", float((found * known).sum(1).min()), asked="> 0.999")
    mean = known.mean(0)
    a, b = found - mean, known - mean
    own = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    notes.figure(f"{name}: lowest cosine without the common mean", float(own.min()))
    shared = [len(set(x) & set(y)) / len(x) for x, y in zip(nearest_five(found), nearest_five(known), strict=True)]
    notes.figure(f"{name}: nearest 5 shared", float(np.mean(shared)))


def nearest_five(rows: np.ndarray) -> np.ndarray:
    """Return (n, 5) positions of the rows nearest to each row; itself does not count."""
    scores = rows @ rows.T - 2 * np.eye(len(rows))
    return np.argsort(-scores, axis=1)[:, : min(5, len(rows) - 1)]
