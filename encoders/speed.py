"""The speed of an encoder on this machine, measured with random weights: what they are does not change it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from .catalogue.entries import CatalogueEntry
from .checkpoints import FAILURES, cache_first, local_only, quiet_logging
from .device import choose_device
from .errors import EncoderError
from .open_clip_encoder import ClipEncoder
from .two_towers import TwoTowers

TEXT = "two dogs run through the snow"
# Images in one call: on a CPU what one core is given, on a GPU what occupies it.
_IMAGES = {"cpu": 8, "cuda": 64}
_ROUNDS = 3
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of one encoder.

    Attributes:
        images_per_second: Preprocessed images; decoding is not part of it. On a CPU, in a second that one core works.
        text_ms: Milliseconds for one short text, likewise.
        device: `cpu`, one core of it, or `cuda`.
        precision: `fp32` on a CPU, `bf16` or `fp16` on a GPU.
    """

    images_per_second: float
    text_ms: float
    device: str
    precision: str


def measure_speed(entry: CatalogueEntry, device: str = "cpu", seconds: float = 2.0) -> Speed:
    """Return the speed of an encoder, with random weights, on one core of the CPU or on a GPU.

    Nothing is fetched, except what describes a text tower of Hugging Face where that is not in the cache.

    Args:
        entry: Which encoder.
        device: `cpu`, `cuda` or `cuda:N`.
        seconds: How long images are encoded, and a third of it texts; at least three rounds of each.

    Raises:
        EncoderError: It cannot be built here, or there is not enough memory.
    """
    placement = choose_device(device)
    # The seconds that one core worked, so that other programs on the machine do not count.
    clock = time.process_time if placement.kind == "cpu" else time.perf_counter
    _check_memory(entry)
    with _one_thread():
        try:
            with torch.random.fork_rng(devices=[]), quiet_logging():
                encoder = ClipEncoder(_random_towers(entry), placement, lambda towers, dim: "random weights")
            pixels = np.stack([encoder.byte_pixels(_photograph())] * _IMAGES[placement.kind])
            each = _seconds(lambda: encoder.encode_pixels(pixels), seconds, clock) / len(pixels)
            text = _seconds(lambda: encoder.encode_texts([TEXT]), seconds / 3, clock)
        except FAILURES as error:
            raise EncoderError(
                f"{entry.architecture} cannot be measured: {' '.join(str(error).split())[:200]}"
            ) from error
    return Speed(images_per_second=1 / each, text_ms=1000 * text, device=placement.kind, precision=placement.precision)


def _random_towers(entry: CatalogueEntry) -> TwoTowers:
    config = open_clip.get_model_config(entry.architecture)
    text = config["text_cfg"]
    described_on_hub = "hf_model_name" in text
    reach: AbstractContextManager[object] = cache_first() if described_on_hub else local_only()
    try:
        with reach:
            model: Any = open_clip.create_model(entry.architecture, load_weights=False, pretrained_text=False)
    except OSError as error:
        if not described_on_hub:
            raise
        raise OSError(f"the hub, which describes its text tower {text['hf_model_name']}, is out of reach") from error
    return TwoTowers(
        spec=entry.spec,
        model=model.eval(),
        config=config,
        preprocess=model.visual.preprocess_cfg,
        tokenizer=_stand_in_tokenizer(text, getattr(model, "text", None)),
    )


def _stand_in_tokenizer(config: Mapping[str, Any], text: Any) -> Callable[[list[str]], torch.Tensor]:
    """Return CLIP's tokenizer, which ships with open_clip, its ids cut to the vocabulary of another text tower."""
    tokenize = SimpleTokenizer(context_length=config.get("context_length", 77))
    last = config.get("vocab_size", tokenize.vocab_size) - 1
    padding = text.config.pad_token_id if isinstance(text, HFTextEncoder) else 0

    def padded(texts: list[str]) -> torch.Tensor:
        ids: torch.Tensor = tokenize(texts)
        return torch.where(ids == 0, padding, ids.clamp(max=last))

    return padded


def _photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))


def _seconds(work: Callable[[], object], at_least: float, clock: Callable[[], float]) -> float:
    """Return the median time of a call, after one that is not counted."""
    work()
    times: list[float] = []
    while len(times) < _ROUNDS or sum(times) < at_least:
        begin = clock()
        work()
        times.append(clock() - begin)
    return median(times)


def _check_memory(entry: CatalogueEntry) -> None:
    need, free = 4e6 * (entry.mparams or 2 * entry.image_mparams), _free_bytes()
    if free is not None and need > _MEMORY_SHARE * free:
        there = f"half of the free memory is {_MEMORY_SHARE * free / 1e9:.1f} GB"
        raise EncoderError(f"{entry.architecture} takes {need / 1e9:.1f} GB, and {there}")


def _free_bytes() -> float | None:
    """Return the bytes of memory that are available; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
