"""Ways that the project does not go (bf16 throughout, CUDA graphs, compilation, JPEGs decoded there): their gain."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

from gpu.meters import seconds_of, wait
from gpu.models import encoder_of, random_towers
from gpu.notes import Run

SIDE = 224
JPEG_SET = "COCO, 640 x 480"


def headroom(run: Run) -> None:
    """Images a second of ViT-B-32 each way, and how near its vectors are to those of the way now."""
    import torch

    device, notes, batch = run.device, run.notes, run.pick(256, 4)
    towers = random_towers("ViT-B-32", device)
    encoder = encoder_of(random_towers("ViT-B-32", device, like=towers.model), device, "bf16")
    pixels = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    plain = random_towers("ViT-B-32", device, like=towers.model).model.to(device)
    kind = torch.bfloat16 if device != "cpu" else torch.float32
    plain = plain.to(kind).to(memory_format=torch.channels_last)

    def now() -> Any:
        return encoder._run(encoder._image_features, pixels)

    def bare() -> Any:
        with torch.inference_mode():
            found = plain.encode_image(encoder._fast.scaled(pixels).to(kind))
            return torch.nn.functional.normalize(found.float(), dim=-1)

    known = now().float()
    ways = [("as it is", now), ("all in bf16 and no autocast", bare)]
    for name, work in ways:
        with notes.part(name):
            compare(run, name, work, known)
    if device != "cpu":
        with notes.part("where the time goes"):
            notes.need(5)
            profiled(run, now)
        for name, work in ways:
            with notes.part(f"{name}, one CUDA graph"):
                notes.need(5)
                compare(run, f"{name}, one CUDA graph", graphed(work), known)
    with notes.part("JPEGs decoded on the device"):
        notes.need(10)
        jpegs(run, encoder)
    if not run.small:
        with notes.part("compiled"):
            notes.need(50)
            compare(run, "all in bf16 and compiled", compiled(run, plain, encoder, pixels, kind), known)


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


def graphed(work: Callable[[], Any]) -> Callable[[], Any]:
    """Return the work as one CUDA graph, which is launched at once."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()

    def again() -> Any:
        graph.replay()
        return found

    return again


def compiled(run: Run, plain: Any, encoder: Any, pixels: Any, kind: Any) -> Callable[[], Any]:
    """Return the image tower as `torch.compile` makes it, compiled."""
    import torch

    tower: Any = torch.compile(plain.visual, dynamic=False)

    def fused() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.normalize(tower(encoder._fast.scaled(pixels).to(kind)).float(), dim=-1)

    began = time.perf_counter()
    fused()
    wait(run.device)
    run.notes.figure("ViT-B-32, compiling takes", time.perf_counter() - began, "s")
    return fused


def jpegs(run: Run, encoder: Any) -> None:
    """torchvision's decoder on the device, and the resize there; the vectors beside those of the usual way."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    notes, device = run.notes, run.device
    middle = sorted((run.photographs / "coco").glob("*.jpg"))[: run.pick(76, 8)]
    raw = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in middle]
    many = (raw * 20)[: run.pick(1024, 8)]

    def decoded(part: list[Any]) -> list[Any]:
        found: list[Any] = decode_jpeg(part, mode=ImageReadMode.RGB, device=device)
        return found

    took = seconds_of(lambda: decoded(many), device, repeats=2)
    notes.figure(f"{JPEG_SET}: JPEGs decoded on the device, one call", len(many) / took, "images/s")
    parts = [many[start : start + 64] for start in range(0, len(many), 64)]
    with ThreadPoolExecutor(4) as four:
        took = seconds_of(lambda: list(four.map(decoded, parts)), device, repeats=2)
    notes.figure(f"{JPEG_SET}: JPEGs decoded on the device, four threads of 64", len(many) / took, "images/s")
    images = decoded(raw)
    took = seconds_of(lambda: torch.stack([resized(one) for one in images]), device, repeats=2)
    notes.figure(f"{JPEG_SET}: resize on the device, one by one", len(images) / took, "images/s")
    found = encoder.encode_pixels(torch.stack([resized(one) for one in images]).cpu())
    lowest = float((found * encoder.encode_images(middle)).sum(1).min())
    notes.figure("decoded and resized on the device: lowest cosine to the usual way", lowest, asked="> 0.999")
    golden = sorted(Path(str(files("encoders") / "golden")).glob("*.jpg"))
    data = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in golden]
    there = [resized(one) for one in decoded(data)]
    lowest = float((encoder.encode_pixels(torch.stack(there).cpu()) * encoder.encode_images(golden)).sum(1).min())
    notes.figure("the same of the golden photographs, which is the gate", lowest, asked=">= 0.999")


def resized(image: Any) -> Any:
    """Return (3, H, W) bytes at 224 pixels, cropped as torchvision's CenterCrop does."""
    import torch

    height, width = image.shape[1:]
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    small = torch.nn.functional.interpolate(image[None].float(), size=size, mode="bicubic", antialias=True)
    top, left = (round((side - SIDE) / 2) for side in size)
    return small.clamp(0, 255).round()[0, :, top : top + SIDE, left : left + SIDE].to(torch.uint8)
