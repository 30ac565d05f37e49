"""Images and texts a second of the encoders alone, beside the arithmetic that the card can do and open_clip's loop."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gpu.machine import matrix_product
from gpu.meters import memory_taken, seconds_of
from gpu.models import SIDES, encoder_of, random_towers
from gpu.notes import Run
from gpu.photographs import captions_of

COUNTS = {"ViT-B-32": 8192, "ViT-L-14": 2048, "ViT-SO400M-14-SigLIP-384": 768}
LARGEST = {"ViT-B-32": 1024, "ViT-L-14": 512, "ViT-SO400M-14-SigLIP-384": 256}
BATCHES = (64, 256, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Floating-point operations: of the card a second in bf16, of one image, of one text of full length."""

    a_second: float
    image: float
    text: float

    def share(self, items: float, seconds: float, operations: float) -> float:
        """Return which share of the card's arithmetic so many items took."""
        return items / seconds * operations / self.a_second


def throughput(run: Run) -> None:
    """Images and texts a second of three models."""
    a_second = matrix_product(run, "bfloat16")
    for arch in run.pick(tuple(COUNTS), ("ViT-B-32",)):
        with run.notes.part(f"throughput of {arch}"):
            run.notes.need(12)
            encoding_speed(run, arch, a_second)


def encoding_speed(run: Run, arch: str, a_second: float) -> None:
    import torch

    notes, side = run.notes, SIDES[arch]
    began = time.perf_counter()
    towers = random_towers(arch, run.device)
    plain = random_towers(arch, run.device, like=towers.model).model
    notes.fact(f"{arch}: seconds to make", time.perf_counter() - began)
    pixels = torch.randint(0, 256, (run.pick(COUNTS[arch], 16), 3, side, side), dtype=torch.uint8)
    image, text = operations(plain, side)
    ceiling = Ceiling(a_second=a_second, image=image, text=text)
    notes.figure(f"{arch}: an image", image / 1e9, "GFLOP")
    notes.figure(f"{arch}: a text of full length", text / 1e9, "GFLOP")
    precisions = run.pick(("bf16", "fp16"), ("bf16",))
    for precision in precisions:
        with notes.part(f"{arch} {precision}: encoder"), memory_taken(run, f"{arch} {precision}"):
            notes.need(4)
            encoder = encoder_of(random_towers(arch, run.device, like=towers.model), run.device, precision)
            image_speed(run, f"{arch} {precision}", encoder, pixels, ceiling, LARGEST[arch])
            text_speed(run, f"{arch} {precision}", encoder, ceiling)
            del encoder
    for precision in precisions:
        with notes.part(f"{arch} {precision}: open_clip as a user would call it"):
            notes.need(4)
            plain_speed(run, f"{arch} {precision}", precision, plain, pixels)


def image_speed(run: Run, name: str, encoder: Any, pixels: Any, ceiling: Ceiling, largest: int) -> None:
    notes, device = run.notes, run.device
    for batch in run.pick([size for size in BATCHES if size <= largest], [8]):
        one = pixels[:batch].to(device)

        def forward(one: Any = one) -> Any:
            return encoder._run(encoder._image_features, one)

        took = seconds_of(forward, device, repeats=7, warm=3)
        notes.figure(f"{name}: bytes on the device, batch {batch}", batch / took, "images/s")
        notes.figure(f"{name}: of the bf16 ceiling, batch {batch}", ceiling.share(batch, took, ceiling.image))
    host = pixels.numpy()
    count, sizes = len(host), run.pick((256, largest) if largest > 256 else (256,), (8,))
    for size in sizes:
        encoder.batch_size = size
        took = seconds_of(lambda: encoder.encode_pixels(host), device, repeats=2)
        notes.figure(f"{name}: encode_pixels of {count}, batch {size}", count / took, "images/s")
    encoder.batch_size = size = sizes[0]
    parts = [host[start : start + size] for start in range(0, count, size)]
    with ThreadPoolExecutor(2) as two:
        took = seconds_of(lambda: list(two.map(encoder.encode_pixels, parts)), device, repeats=2)
    notes.figure(f"{name}: encode_pixels from two threads, {size} a call", count / took, "images/s")


def text_speed(run: Run, name: str, encoder: Any, ceiling: Ceiling) -> None:
    texts = captions_of(run.photographs)
    texts = (texts * (8192 // len(texts) + 1))[: run.pick(8192, 40)]
    took = seconds_of(lambda: encoder.encode_texts(texts), run.device, repeats=2)
    run.notes.figure(f"{name}: encode_texts of {len(texts)} captions", len(texts) / took, "texts/s")
    began = time.perf_counter()
    ids = encoder._tokenizer(texts)
    run.notes.figure(f"{name}: tokenising alone", len(texts) / (time.perf_counter() - began), "texts/s")
    part = ids[: run.pick(1024, 16)]
    on = part.to(run.device)
    whole = seconds_of(lambda: encoder._run(encoder._model.encode_text, on), run.device, repeats=5, warm=2)
    run.notes.figure(f"{name}: token ids on the device, batch {len(part)}", len(part) / whole, "texts/s")
    run.notes.figure(f"{name}: texts, of the bf16 ceiling", ceiling.share(len(part), whole, ceiling.text))
    if encoder._text.cuts:
        length = int(encoder._text.lengths(part).max())
        cut = on[:, :length].contiguous()
        took = seconds_of(lambda: encoder._run(encoder._text, cut), run.device, repeats=5, warm=2)
        run.notes.figure(f"{name}: the same cut to the longest of {length} tokens", len(part) / took, "texts/s")


def plain_speed(run: Run, name: str, precision: str, model: Any, pixels: Any) -> None:
    """A loop of open_clip's own documentation: float pixels from pinned memory, autocast, unit length, back."""
    import torch

    device, batch = run.device, run.pick(256, 8)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = model.to(device)
    floats = pixels[: batch * 4].float() / 127.5 - 1
    floats = floats if device == "cpu" else floats.pin_memory()

    def encode(part: Any) -> Any:
        with torch.inference_mode(), torch.autocast(device.partition(":")[0], dtype=dtype):
            features = model.encode_image(part.to(device, non_blocking=True))
            return features / features.norm(dim=-1, keepdim=True)

    on = floats[:batch].to(device)
    took = seconds_of(lambda: encode(on), device, repeats=7, warm=3)
    run.notes.figure(f"{name}: open_clip's loop, floats on the device, batch {batch}", batch / took, "images/s")
    took = seconds_of(lambda: [encode(part).float().cpu() for part in floats.split(batch)], device, repeats=3)
    rate = len(floats) / took
    run.notes.figure(f"{name}: open_clip's loop, floats from pinned memory, batch {batch}", rate, "images/s")


def operations(model: Any, side: int) -> tuple[float, float]:
    """Return the floating-point operations of one image and of one text."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    length = int(getattr(model, "context_length", 77) or 77)
    found = []
    for work in (
        lambda: model.encode_image(torch.zeros(2, 3, side, side, device=device)),
        lambda: model.encode_text(torch.ones(2, length, dtype=torch.long, device=device)),
    ):
        # With gradients on: without, attention may take a fused path that the counter does not know.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            work()
        found.append(counter.get_total_flops() / 2)
    return found[0], found[1]
