"""One encoder of a comparison: the sample encoded by it, kept in a cache, and how fast it is.

What it encodes is an index like any other, in a folder of the cache that is named by the sample and the encoder: a
killed run goes on where it stopped, and a repeated one encodes nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from encoders import DecodeLimits, Encoder
from encoders.remembered import absolute_spec, recall
from indexer import build_index
from indexer.config import BuildConfig, with_prompt
from indexer.encode.build_encoder import computed, load
from indexer.encode.decode_pool import ImageReader, Prepared
from indexer.encode.reuse import NoReuse
from indexer.encode.shards import Corpus
from indexer.progress import Progress
from indexer.up_to_date import changed_on_disk
from storage import IndexStore, Manifest
from storage.errors import StorageError
from storage.files.atomic import replace_file

from .sample import Sample

# What is timed: enough for some seconds of a large model, after a first batch that is not.
_TIMED_IMAGES, _TIMED_TEXTS, _WARM = 48, 256, 4
# A killed run encodes at most so many images twice over; the samples are small.
_SHARD_COST = 128


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The sample as one encoder sees it.

    Attributes:
        index: The folder of the index.
        fingerprint: That of the encoder.
        speed: `images` and `texts`, each `per_second` and `per_cpu_second` of so many `measured`; images with reading
            and decoding. None where there was nothing to measure.
        reused: Whether nothing had to be encoded.
    """

    index: Path
    fingerprint: str
    speed: dict[str, Any]
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all encoders of a comparison share.

    Attributes:
        sample: What they encode.
        corpus: Its counts and digest.
        cache: The folder where vectors are kept, which is there.
        config: Device, precision and prompt.
        progress: Told what is going on.
    """

    sample: Sample
    corpus: Corpus
    cache: Path
    config: BuildConfig
    progress: Progress

    def encode(self, encoder: str | Encoder) -> Encoded:
        """Encode the sample, unless the cache has it, and measure the speed.

        Raises:
            TwinlensError: The encoder cannot be loaded, no image can be read, or the cache cannot be written.
        """
        spec = encoder if isinstance(encoder, str) else encoder.spec
        out = self.cache / f"{self._key(spec)}.index"
        kept, speed = self._kept(out), _read_speed(out)
        known = _remembered(spec) if isinstance(encoder, str) else None
        if kept and speed and known and _is_of(kept, known):
            return Encoded(index=out, fingerprint=known, speed=speed, reused=True)
        loaded = self._loaded(encoder, spec)
        reused = kept is not None and _is_of(kept, loaded.fingerprint)
        if reused and speed:
            return Encoded(index=out, fingerprint=loaded.fingerprint, speed=speed, reused=True)
        if isinstance(encoder, str):
            loaded = computed(loaded, self.config, self.corpus.images, None, self.progress).encoder
        if not reused:
            given = cast("Encoder", _WithoutTowers(loaded))
            settings: dict[str, Any] = {"prompt": self.config.prompt, "shard_cost": _SHARD_COST, "min_ann_recall": 0.0}
            build_index(self.sample, out, encoder=given, progress=self.progress, **settings)
        self.progress.note(f"timing {spec}")
        speed = speed_on_sample(loaded, self.sample, self.config.prompt)
        replace_file(_speed_file(out), json.dumps(speed).encode(), "cache")()
        return Encoded(index=out, fingerprint=loaded.fingerprint, speed=speed, reused=reused)

    def _key(self, spec: str) -> str:
        parts = [
            self.corpus.digest,
            str(self.sample.root.resolve()),
            absolute_spec(spec),
            self.config.device,
            self.config.precision,
            self.config.prompt,
        ]
        return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    def _kept(self, out: Path) -> Manifest | None:
        """Return the manifest of what the cache has; None for nothing, for what is damaged or older than an image."""
        with suppress(StorageError), IndexStore.open(out).open_version() as version:
            return None if changed_on_disk(version.manifest, self.corpus) else version.manifest
        return None

    def _loaded(self, encoder: str | Encoder, spec: str) -> Encoder:
        if not isinstance(encoder, str):
            return encoder
        self.progress.note(f"loading encoder {spec}")
        return load(replace(self.config, encoder=spec), None)


class _WithoutTowers:
    """An encoder as it is, but that its towers are not exported: most of those compared will never be searched with."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        if name == "towers":
            raise AttributeError(name)
        return getattr(self._encoder, name)


def speed_on_sample(encoder: Encoder, sample: Sample, prompt: str | None = None) -> dict[str, Any]:
    """Return how many images and texts of a sample an encoder takes a second, by wall clock and by processor time.

    Processor time counts all cores, so that it is what one core would take, and other programs do not change it. An
    image is read, decoded, preprocessed and encoded; one after the other, where a build overlaps them.

    Args:
        encoder: It is warmed up first.
        sample: Its first 48 images and 256 texts are taken.
        prompt: The template that every text goes through.
    """
    reader = ImageReader(encoder=encoder, reuse=NoReuse(), limits=DecodeLimits())
    images = sample.first("images", _TIMED_IMAGES + _WARM)
    texts = [str(item.content) for item in sample.first("texts", _TIMED_TEXTS + _WARM)]
    encode_texts = with_prompt(encoder.encode_texts, prompt)

    def encode_images(items: list[Any]) -> int:
        ready = [one.pixels for one in map(reader.prepare, items) if isinstance(one, Prepared)]
        for start in range(0, len(ready), encoder.batch_size):
            encoder.encode_pixels(np.stack(cast("Any", ready[start : start + encoder.batch_size])))
        return len(ready)

    def encode_all(batch: list[Any]) -> int:
        return len(encode_texts(batch))

    return {"images": _timed(encode_images, images), "texts": _timed(encode_all, texts)}


def _timed(encode: Callable[[list[Any]], int], items: list[Any]) -> dict[str, Any] | None:
    warm = min(_WARM, len(items) // 2)
    encode(items[:warm])
    wall, processor = time.perf_counter(), time.process_time()
    done = encode(items[warm:])
    seconds = (time.perf_counter() - wall, time.process_time() - processor)
    if not done:
        return None
    per_second, per_cpu_second = (round(done / max(one, 1e-6), 2) for one in seconds)
    return {"per_second": per_second, "per_cpu_second": per_cpu_second, "measured": done}


def _speed_file(out: Path) -> Path:
    return out.with_suffix(".speed.json")


def _read_speed(out: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        speed: dict[str, Any] = json.loads(_speed_file(out).read_bytes())
        return speed
    return None


def _remembered(spec: str) -> str | None:
    """Return the fingerprint of an encoder that was loaded before and has not changed; None where it has to be."""
    found = recall(spec)
    return found.info.fingerprint if found is not None else None


def _is_of(manifest: Manifest, fingerprint: str) -> bool:
    return manifest.encoder is not None and manifest.encoder.fingerprint == fingerprint
