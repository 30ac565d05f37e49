"""The encoder of a build: when it is loaded, and which library computes it on a CPU, in which precision.

An update loads it not before there is something to encode. On a CPU it is computed as asked for, as before, or by what
a race shows to be fastest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
from PIL import Image

from encoders import DecodedImage, DecodeLimits, Encoder, EncoderError, ImageError, decode_image, load_encoder
from encoders.base import ImageLike, backend_of
from encoders.errors import TowerError
from encoders.load import DEFAULT_ENCODER
from encoders.remembered import absolute_spec, recall
from encoders.text_tower import find_text_tower
from storage import EncoderInfo, Manifest
from storage.schema import EncodingInfo

from ..config import ON_GPU, BuildConfig, with_prompt
from ..errors import BuildError
from ..progress import Progress

if TYPE_CHECKING:
    from encoders.open_clip_encoder import ClipEncoder


# Below this many images a race takes longer than it saves.
RACE_FROM = 1000


class Computed(NamedTuple):
    """An encoder as a build computes it, and the race that led to it as JSON values; None where there was none."""

    encoder: Encoder
    race: dict[str, Any] | None = None


def computed(
    encoder: Encoder, config: BuildConfig, images: int, before: EncodingInfo | None, progress: Progress
) -> Computed:
    """Return the encoder as this build will compute it.

    Args:
        encoder: As `load_encoder` gave it.
        config: Says whether there is a choice: `auto` for both backend and precision, and no cluster.
        images: How many there are.
        before: How the version that is updated was encoded: an update goes on likewise where it can.
        progress: Told what was chosen and what was refused.

    Raises:
        EncoderError: A backend was asked for by name and is not installed or cannot compute the encoder here, or on a
            CPU its vectors are not those of torch.
    """
    if config.backend in ON_GPU:
        return Computed(on_gpu_backend(encoder, config.backend, progress))
    if not has_backends(encoder) or encoder.device != "cpu" or encoder.precision != "fp32":
        return Computed(encoder)
    from encoders.cpu_backends import checked, fastest

    if config.backend == "openvino":
        return Computed(checked(encoder, "openvino", "bf16" if config.precision == "bf16" else "fp32"))
    if config.executor == "ray" or (config.backend, config.precision) != ("auto", "auto"):
        return Computed(encoder)
    if before is not None and (kept := _as_before(encoder, before, progress)) is not None:
        return Computed(kept)
    if images < RACE_FROM:
        return Computed(encoder)
    progress.note("trying which backend encodes fastest on this processor (--precision fp32 leaves that out)")
    chosen, race = fastest(encoder)
    progress.note(race.sentence())
    return Computed(chosen, race.to_json())


def on_gpu_backend(encoder: Encoder, backend: str, progress: Progress) -> Encoder:
    """Return an encoder as a backend of a GPU computes it, or as it is where its vectors would be others.

    Raises:
        EncoderError: There is no GPU, the encoder is no model of open_clip, or it cannot be computed so.
    """
    from encoders.gpu_backends import check_gpu, faster

    check_gpu(backend, encoder.device)
    if not has_backends(encoder):
        raise EncoderError(f"encoder {encoder.spec!r} is computed in its own way, not {backend}; leave --backend out")
    progress.note(f"preparing {backend} on {encoder.device}")
    return faster(encoder, backend, progress.note)


def has_backends(encoder: Encoder) -> TypeGuard[ClipEncoder]:
    """Whether an encoder is a model of open_clip; told without importing that for one that is not."""
    return hasattr(encoder, "on_backend")


def _as_before(encoder: ClipEncoder, before: EncodingInfo, progress: Progress) -> Encoder | None:
    """Return the encoder computed as an earlier version was; None where that was elsewhere or is not possible here."""
    from encoders.cpu_backends import checked

    if before.device != "cpu" or before.backend is None or before.precision is None:
        return None
    try:
        return checked(encoder, before.backend, before.precision)
    except EncoderError as error:
        progress.note(f"the version before was encoded by {before.backend} {before.precision}, and here {error}")
        return None


# As many as an encoder on two cores takes, until it is known: it bounds the images that are read ahead.
_BATCH_SIZE = 16


def load(config: BuildConfig, given: Encoder | None, known: EncoderInfo | None = None) -> Encoder:
    """Return the encoder of a build.

    Raises:
        EncoderError: It cannot be loaded.
        BuildError: It is not the one that made the index being updated.
    """
    spec = config.encoder or (known.spec if known else DEFAULT_ENCODER)
    precision = "fp32" if config.backend == "openvino" else config.precision  # compiled from fp32
    if config.backend in ON_GPU and given is None:
        with suppress(ImportError):  # without torch: what follows says so
            from encoders.gpu_backends import check_gpu

            check_gpu(config.backend, config.device)  # before a model is downloaded
    encoder = given or load_encoder(spec, config.device, precision)
    if given is None and config.batch_size and encoder.device != "cpu":
        encoder.batch_size = config.batch_size  # else it would cut what it is given into batches of its own
    if known is not None and known.fingerprint != encoder.fingerprint:
        raise BuildError(
            f"the index was built with encoder {known.spec!r} ({known.fingerprint}), and {encoder.spec!r} is another "
            f"({encoder.fingerprint}); build without --update to encode everything anew"
        )
    return encoder


class ComputedElsewhereError(Exception):
    """A deferred encoder, once it was loaded, runs on another device, library or precision than the version before.

    Never leaves the build, which begins to encode again with what was loaded: shards of one build are computed alike.
    """

    def __init__(self, computed: Computed) -> None:
        super().__init__(computed.encoder.spec)
        self.computed = computed


class DeferredEncoder:
    """An `Encoder` that is known to be the one that made an index, and is loaded when it is first needed.

    Torch and weights take seconds, and an update that takes over every vector needs neither. An image that cannot be
    decoded does not load it either. Safe from many threads.
    """

    def __init__(self, info: EncoderInfo, encoding: EncodingInfo, load: Callable[[], Computed]) -> None:
        """Stand for the encoder of a version until `load` is called, which happens once.

        Args:
            info: Its identity; the fingerprint is there.
            encoding: How the version was encoded; device, backend and precision are there.
            load: Returns the same encoder.
        """
        self.info = info
        self.spec, self.dim, self.fingerprint = info.spec, info.dim, str(info.fingerprint)
        self.device, self.precision = str(encoding.device), str(encoding.precision)
        self.backend, self.batch_size = str(encoding.backend), _BATCH_SIZE
        self._load, self._lock = load, threading.Lock()
        self._loaded: ClipEncoder | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the encoder itself is loaded already."""
        return self._loaded is not None

    @property
    def loaded(self) -> ClipEncoder:
        """The encoder itself, loaded where it is not yet.

        Raises:
            ComputedElsewhereError: It is computed otherwise than the version before.
        """
        with self._lock:
            if self._loaded is None:
                computed = self._load()
                encoder: Any = computed.encoder
                found = (encoder.device, encoder.precision, backend_of(encoder))
                if computed.race is not None or found != (self.device, self.precision, self.backend):
                    raise ComputedElsewhereError(computed)
                self._loaded, self.batch_size = encoder, encoder.batch_size
            return self._loaded

    def open_image(self, source: ImageLike, limits: DecodeLimits) -> DecodedImage[Image.Image]:
        """Return an image decoded as large as the encoder needs it.

        Raises:
            ImageError: It cannot be decoded.
        """
        if self._loaded is None:
            try:
                decode_image(source, limits)
            except ImageError as error:
                if error.reason != "too_slow":  # the encoder may need less of it
                    raise
        return self.loaded.open_image(source, limits)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as the model wants it."""
        return self.loaded.preprocess(image)

    def byte_pixels(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as (3, H, W) uint8."""
        return self.loaded.byte_pixels(image)

    def encode_pixels(self, pixels: Any) -> np.ndarray:
        """Return (n, dim) float32 unit rows for what `byte_pixels` gave."""
        return self.loaded.encode_pixels(pixels)

    def encode_images(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for images."""
        return self.loaded.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts."""
        return self.loaded.encode_texts(texts)

    def encode_queries(self, texts: Sequence[str], inside: Path | None) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts that only measure, by an exported text tower where there is one.

        Args:
            texts: What is looked for.
            inside: The folder of a text tower in the version before, checked; None for none.
        """
        tower = None
        if self._loaded is None:
            try:
                tower = find_text_tower(self.fingerprint, self.dim, inside)
            except TowerError:
                tower = None  # a damaged one is exported again when a search needs it
        return self.encode_texts(texts) if tower is None else tower.encode_texts(texts)


def query_encoder(
    encoder: Encoder | None, prompt: str | None, inside: Path | None
) -> Callable[[list[str]], np.ndarray] | None:
    """Return what encodes texts as queries are, (n, dim) unit rows; None for ready-made vectors.

    Args:
        encoder: Of the build.
        prompt: The template that every text goes through; None for none.
        inside: The folder of a text tower in the version before, checked; None for none.
    """
    if encoder is None:
        return None
    if isinstance(encoder, DeferredEncoder):
        return with_prompt(partial(encoder.encode_queries, inside=inside), prompt)
    return with_prompt(encoder.encode_texts, prompt)


def loaded(encoder: Encoder) -> Encoder:
    """Return an encoder that has weights: itself, unless it is a deferred one."""
    return encoder.loaded if isinstance(encoder, DeferredEncoder) else encoder


def deferred(config: BuildConfig, before: Manifest, load: Callable[[], Computed]) -> DeferredEncoder | None:
    """Return the encoder of an update without loading it; None where it has to be loaded to know which it is.

    It is known where the encoder of the version before was loaded on this machine, and its files have not changed
    since. How it will be computed is taken from that version too, so that nothing may be asked for by name which that
    version was not.
    """
    info, encoding = before.encoder, before.encoding
    if info is None or encoding.device is None or encoding.precision is None or encoding.backend is None:
        return None
    if config.executor != "local" or absolute_spec(config.encoder or info.spec) != info.spec:
        return None
    named = ((config.device, encoding.device), (config.precision, encoding.precision))
    if any(asked not in ("auto", found) for asked, found in (*named, (config.backend, encoding.backend))):
        return None
    if config.device.startswith("cuda"):
        return None  # asked for by name, it is looked for
    known = recall(info.spec)
    if known is None or (known.info.fingerprint, known.info.dim) != (info.fingerprint, info.dim):
        return None
    return DeferredEncoder(info, encoding, load)
