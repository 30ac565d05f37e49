"""`--dim`: an encoder with shorter vectors, fitted to a sample of the corpus, judged on another, kept by the index."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder, load_encoder
from encoders.remembered import FOLDER_PREFIX
from evaluation import ann_recall, evaluate_embeddings, exact_top_k
from storage.files import atomic
from storage.hit_calibration import evenly_spaced
from storage.schema import EncoderInfo

from .config import BuildConfig, with_prompt
from .corpus import Source
from .corpus.item import Item, Rejection
from .encode.decode_pool import ImageReader
from .encode.reuse import NoReuse
from .encode.shards import Corpus
from .errors import BuildError
from .progress import Progress

Rows = NDArray[np.float32]
# Half of them fit, half of them judge.
MOST_IMAGES, MOST_TEXTS = 2_000, 4_000
_DEPTH = 10
# What is to be left: of the sum of recalls where there are pairs, else of the ten nearest.
LEAST_RECALL, LEAST_NEAREST = 0.95, 0.8
_FEWEST = 16  # of a half: with fewer nothing can be told


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Vectors of a sample, in the full length.

    Attributes:
        images: (n, full dim).
        texts: (m, full dim).
        pairs: (p, 2) positions of an image and a text that belong together.
    """

    images: Rows
    texts: Rows
    pairs: NDArray[np.int64]

    def half(self, second: bool) -> Sample:
        """Return every other image with its texts, and every other of the texts without one."""
        images = np.arange(len(self.images)) % 2 == second
        texts = np.arange(len(self.texts)) % 2 == second
        texts[self.pairs[:, 1]] = images[self.pairs[:, 0]]
        kept = self.pairs[images[self.pairs[:, 0]]]
        positions = np.stack([np.cumsum(one)[kept[:, side]] - 1 for side, one in enumerate((images, texts))], axis=1)
        return Sample(images=self.images[images], texts=self.texts[texts], pairs=positions)


def with_fewer_dimensions(
    encoder: Encoder, source: Source, corpus: Corpus, config: BuildConfig, out: Path, progress: Progress
) -> Encoder:
    """Return an encoder whose vectors have `config.dim` values, kept in `OUT.encoder`.

    Raises:
        BuildError: It has no so many values, the corpus is too small to tell which of them matter, or too much is lost.
        EncoderError: Its towers end in layers that cannot be cut.
    """
    from encoders.open_clip_encoder import ClipEncoder
    from encoders.reduced import first_values, principal_directions, save_reduced

    dim = config.dim or encoder.dim
    if dim == encoder.dim:
        return encoder
    if dim > encoder.dim or not isinstance(encoder, ClipEncoder):
        raise BuildError(f"--dim {dim}: encoder {encoder.spec!r} gives {encoder.dim} values a vector; give fewer")
    key = json.dumps([encoder.fingerprint, config.seed, config.prompt])
    folder = out.absolute().with_name(f"{out.name}.encoder") / f"{dim}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not folder.exists():
        sample = take_sample(encoder, source, corpus, config, progress)
        fitting, judging = sample.half(False), sample.half(True)
        if max(dim, _FEWEST) > len(fitting.images) + len(fitting.texts):
            raise BuildError(
                f"--dim {dim}: {len(sample.images)} images and {len(sample.texts)} texts do not tell which values "
                "matter; leave --dim out for a corpus of this size"
            )
        ways = {
            "pca": principal_directions(fitting.images, fitting.texts, dim),
            "first values": first_values(encoder.dim, dim),  # the better ones of an encoder that was trained for it
        }
        by, directions = max(ways.items(), key=lambda way: float(what_is_left(fitting, way[1])["left"]))
        facts = {"of": encoder.spec, "full_dim": encoder.dim, "dim": dim, "by": by}
        facts |= what_is_left(judging, directions)
        check_what_is_left(facts, fitting, judging)
        progress.note(sentence(facts))
        _save(encoder.spec, directions, folder, facts, save_reduced)
    return load_encoder(f"{FOLDER_PREFIX}{folder}", config.device, encoder.precision)


def go_on_with(config: BuildConfig, known: EncoderInfo | None) -> BuildConfig:
    """Return the settings of an update: the encoder that was cut for the version is that of the index already.

    Raises:
        BuildError: `--dim` is not that of the index.
    """
    if known is None:
        return config
    if config.dim not in (None, known.dim):
        raise BuildError(
            f"--dim {config.dim}: the index has vectors of {known.dim} values; build without --update to change that"
        )
    cut = known.details.get("reduced") or {}
    return replace(config, dim=None, encoder=None if config.encoder == cut.get("of") else config.encoder)


def take_sample(encoder: Encoder, source: Source, corpus: Corpus, config: BuildConfig, progress: Progress) -> Sample:
    """Encode evenly spaced images with their texts, and evenly spaced texts that have no image."""
    wanted_images = set(evenly_spaced(corpus.images, MOST_IMAGES).tolist())
    wanted_texts = set(evenly_spaced(corpus.texts, MOST_TEXTS).tolist())
    images: dict[str, Item] = {}
    texts: list[Item] = []
    seen = {"images": 0, "texts": 0}
    for item in source.items():
        if isinstance(item, Rejection):
            continue
        number = seen[item.collection]
        seen[item.collection] += 1
        if item.collection == "images":
            if number in wanted_images:
                images[item.item_id] = item
        elif any(image in images for image in item.image_ids) or (not item.image_ids and number in wanted_texts):
            texts.append(item)
    vectors, found = _encode_images(encoder, list(images.values()), config, progress)
    texts = [item for item in texts if not item.image_ids or any(image in found for image in item.image_ids)]
    texts = [texts[position] for position in evenly_spaced(len(texts), MOST_TEXTS).tolist()]
    progress.stage("a sample of texts", len(texts))
    encode = with_prompt(encoder.encode_texts, config.prompt)
    parts = []
    for start in range(0, len(texts), 512):
        parts.append(encode([str(item.content) for item in texts[start : start + 512]]))
        progress.advance(len(parts[-1]))
    pairs = [
        (found[image], position)
        for position, item in enumerate(texts)
        for image in item.image_ids[:1]
        if image in found
    ]
    return Sample(
        images=vectors,
        texts=np.concatenate([np.zeros((0, encoder.dim), np.float32), *parts]),
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )


def _encode_images(
    encoder: Encoder, items: Sequence[Item], config: BuildConfig, progress: Progress
) -> tuple[Rows, dict[str, int]]:
    """Return vectors and, by item id, their rows; images that cannot be decoded are left out here."""
    reader = ImageReader(encoder=encoder, reuse=NoReuse(), limits=config.limits)
    size = config.batch_size or encoder.batch_size
    progress.stage("a sample of images", len(items))
    parts: list[Rows] = [np.zeros((0, encoder.dim), np.float32)]
    found: dict[str, int] = {}
    with ThreadPoolExecutor(config.workers) as threads:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            pixels = []
            for item, prepared in zip(batch, threads.map(reader.prepare, batch), strict=True):
                if not isinstance(prepared, Rejection) and prepared.pixels is not None:
                    found[item.item_id] = len(found)
                    pixels.append(prepared.pixels)
            if pixels:
                parts.append(encoder.encode_pixels(np.stack(pixels)))
            progress.advance(len(batch))
    return np.concatenate(parts), found


def what_is_left(judging: Sample, directions: Rows) -> dict[str, Any]:
    """Return what is left of recall, or of the ten nearest where there are no pairs, along some directions."""
    from encoders.reduced import applied

    images, texts = applied(judging.images, directions), applied(judging.texts, directions)
    if len(judging.pairs) >= _FEWEST:
        full = evaluate_embeddings(judging.images, judging.texts, judging.pairs, (1,))
        cut = evaluate_embeddings(images, texts, judging.pairs, (1,))
        ways = ("text_to_image", "image_to_text")
        return {
            "judged_by": "rsum",
            "judged_on": {"images": len(images), "texts": len(texts)},
            "rsum": [round(full["rsum"], 2), round(cut["rsum"], 2)],
            "R@1": {way: [round(one[way]["R@1"], 4) for one in (full, cut)] for way in ways},
            "left": round(cut["rsum"] / full["rsum"], 4) if full["rsum"] else 1.0,
        }
    queries, full_queries = (texts, judging.texts) if len(images) and len(texts) else (images, judging.images)
    base, full_base = (images, judging.images) if len(images) else (texts, judging.texts)
    queries, full_queries = (queries, full_queries) if len(queries) else (base, full_base)
    k = min(_DEPTH, len(base))
    found, exact = exact_top_k(base, queries, k)[0], exact_top_k(full_base, full_queries, k)[0]
    return {
        "judged_by": "nearest",
        "judged_on": {"images": len(images), "texts": len(texts)},
        "left": round(ann_recall(found, exact), 4),
    }


def check_what_is_left(facts: dict[str, Any], fitting: Sample, judging: Sample) -> None:
    """Raise BuildError where too much is lost, with how many dimensions would do."""
    least = LEAST_RECALL if facts["judged_by"] == "rsum" else LEAST_NEAREST
    if facts["left"] >= least:
        return
    from encoders.reduced import principal_directions

    most = min(len(fitting.images) + len(fitting.texts), facts["full_dim"])
    enough = [
        dim
        for dim in (64, 96, 128, 192, 256, 384, 512, 768)
        if facts["dim"] < dim < most
        and what_is_left(judging, principal_directions(fitting.images, fitting.texts, dim))["left"] >= least
    ]
    hint = f"--dim {enough[0]} keeps enough" if enough else "leave --dim out"
    raise BuildError(f"{sentence(facts)}; at least {least:.0%} is asked for; {hint}")


def sentence(facts: dict[str, Any]) -> str:
    """Return in one line what was cut and what is left."""
    cut = f"{facts['dim']} of {facts['full_dim']} dimensions of {facts['of']} keep {facts['left']:.1%}"
    if facts["judged_by"] == "nearest":
        return f"{cut} of the ten nearest"
    ways = ", ".join(
        f"{way.replace('_', ' ')} R@1 {full:.3f} -> {left:.3f}" for way, (full, left) in facts["R@1"].items()
    )
    return f"{cut} of rsum ({ways}, on {facts['judged_on']['images']:,} images that took no part)"


def _save(spec: str, directions: Rows, folder: Path, facts: dict[str, Any], save: Any) -> None:
    """Write the folder whole or not at all."""
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        save(spec, directions, draft, facts)
        with atomic.explained("keep the encoder in", folder):
            atomic.rename(draft, folder, "encoder")
    except OSError as error:
        raise BuildError(
            f"cannot write the encoder to {folder}: {error.strerror or error}; free space there"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # where nothing is in it
