"""Ways that are off by default (compiled, CUDA graphs), or not gone (bf16 throughout): what they gain."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from gpu.meters import seconds_of
from gpu.models import encoder_of, random_towers
from gpu.notes import Run

SIDE = 224
JPEG_SET = "COCO, 640 x 480"
NEEDED = {"cuda-graph": 5, "torch-compile": 40}
"""Seconds that a backend may take until it is ready."""


def headroom(run: Run) -> None:
    """Images a second of ViT-B-32 each way, and how near its vectors are to those of the way now."""
    import torch

    from encoders.gpu_backends import GPU_BACKENDS

    device, notes, batch = run.device, run.notes, run.pick(256, 4)
    towers = random_towers("ViT-B-32", device)
    encoder = encoder_of(random_towers("ViT-B-32", device, like=towers.model), device, "bf16")
    encoder.batch_size = batch
    pixels = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    now = partial(encoder._run, encoder._image_features, pixels)
    known = now().float()
    with notes.part("as it is"):
        compare(run, "as it is", now, known)
    if device != "cpu":
        with notes.part("where the time goes"):
            notes.need(5)
            profiled(run, now)
    with notes.part("JPEGs decoded on the device"):
        notes.need(10)
        jpegs(run, encoder)
    bf16 = all_in_bf16(random_towers("ViT-B-32", device, like=towers.model).model, device)
    with notes.part("all in bf16 and no autocast"):
        compare(run, "all in bf16 and no autocast", unit_rows(encoder, bf16, pixels), known)
    backends = [name for name in NEEDED if device != "cpu" or name == "torch-compile"]
    for backend in backends:
        with notes.part(backend):
            notes.need(NEEDED[backend])
            switched(run, encoder, backend, pixels, known)
        if device != "cpu":
            with notes.part(f"all in bf16 and {backend}"):
                notes.need(NEEDED[backend])
                made = GPU_BACKENDS[backend](bf16, device)
                compare(run, f"all in bf16 and {backend}", unit_rows(encoder, made, pixels), known)


def all_in_bf16(model: Any, device: str) -> Callable[[Any], Any]:
    """Return an image tower that computes nothing in fp32; on a CPU all in it."""
    import torch

    kind = torch.bfloat16 if device != "cpu" else torch.float32
    cast = model.to(device).to(kind).to(memory_format=torch.channels_last)
    return lambda images: cast.encode_image(images.to(kind))


def unit_rows(encoder: Any, tower: Callable[[Any], Any], pixels: Any) -> Callable[[], Any]:
    """Return what computes the rows of pixels by a tower, without autocast."""
    import torch

    def rows() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.normalize(tower(encoder._fast.scaled(pixels)).float(), dim=-1)

    return rows


def switched(run: Run, encoder: Any, backend: str, pixels: Any, known: Any) -> None:
    """`build-index --backend BACKEND`, with its gate; in a rehearsal the compiler generates no code."""
    from encoders.gpu_backends import compiled, faster, gated

    said: list[str] = []
    began = time.perf_counter()
    if run.device == "cpu":
        fast = gated(encoder, backend, partial(compiled, compiler="aot_eager"), said.append)
    else:
        fast = faster(encoder, backend, said.append)
    run.notes.figure(f"ViT-B-32, {backend}: until it is ready, its gate included", time.perf_counter() - began, "s")
    run.notes.fact(f"{backend} is taken", said or True)
    compare(run, f"--backend {backend}", partial(fast._run, fast._image_features, pixels), known)


def compare(run: Run, name: str, work: Callable[[], Any], known: Any) -> None:
    took = seconds_of(work, run.device, repeats=9, warm=3)
    cosine = float((work().float() * known).sum(1).min())
    run.notes.figure(f"ViT-B-32, {name}, batch {len(known)}", len(known) / took, "images/s")
    run.notes.figure(f"ViT-B-32, {name}: lowest cosine to the way now", cosine)


def profiled(run: Run, work: Callable[[], Any]) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            work()
        torch.cuda.synchronize()
    table = found.key_averages().table(sort_by="device_time_total", row_limit=25, max_name_column_width=60)
    run.notes.fact("profile", table)


def jpegs(run: Run, encoder: Any) -> None:
    """`build-index --decode-in gpu`: the decoder and the resize alone, what threads get of both, and the gate."""
    import torch

    from encoders.device_jpegs import DeviceJpegs, fitted, lowest_cosine, torchvision_decoder
    from encoders.images import DEFAULT_LIMITS

    notes, device, transform = run.notes, run.device, encoder._fast.exact
    files = [path.read_bytes() for path in sorted((run.photographs / "coco").glob("*.jpg"))[: run.pick(76, 8)]]
    raw = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    many, decode = (raw * 20)[: run.pick(1024, 8)], torchvision_decoder(device)
    took = seconds_of(lambda: decode(many), device, repeats=2)
    notes.figure(f"{JPEG_SET}: JPEGs decoded on the device, one call", len(many) / took, "images/s")
    parts = [many[start : start + 64] for start in range(0, len(many), 64)]
    with ThreadPoolExecutor(4) as four:
        took = seconds_of(lambda: list(four.map(decode, parts)), device, repeats=2)
    notes.figure(f"{JPEG_SET}: JPEGs decoded on the device, four threads of 64", len(many) / took, "images/s")
    images = decode(raw)
    took = seconds_of(lambda: torch.stack([fitted(one, transform) for one in images]), device, repeats=2)
    notes.figure(f"{JPEG_SET}: resize on the device, one by one", len(images) / took, "images/s")
    with DeviceJpegs(encoder.preprocess_config, device) as decoder, ThreadPoolExecutor(os.cpu_count()) as threads:
        asked = (files * 20)[: run.pick(1520, 8)]

        def read() -> list[Any]:
            return list(threads.map(lambda data: decoder.read(data, DEFAULT_LIMITS), asked))

        took = seconds_of(read, device, repeats=2)
        notes.figure(f"{JPEG_SET}: --decode-in gpu, as threads of a build ask", len(asked) / took, "images/s")
        usual = encoder.encode_images(files)
        found = [(image.pixels, row) for image, row in zip(read(), usual, strict=False) if image is not None]
        notes.figure(f"{JPEG_SET}: share that the device decodes", len(found) / len(files))
        rows = encoder.encode_pixels(np.stack([pixels for pixels, _ in found]))
        lowest = float((rows * np.stack([row for _, row in found])).sum(1).min())
        notes.figure("decoded and resized on the device: lowest cosine to the usual way", lowest, asked="> 0.999")
        notes.figure("the same of the golden photographs: the gate", lowest_cosine(decoder, encoder), asked=">= 0.999")
