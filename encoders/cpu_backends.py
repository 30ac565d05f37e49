"""The fastest way to compute an encoder on this processor: a race over what is installed, behind a gate.

Processors differ by a factor of five in what 16 bits and a compiler gain, and other projects have shipped compiled
models that were silently wrong. So each candidate first shows, on photographs and texts that come with this package,
that its vectors are those of torch in fp32; then the one that encodes most images per core-second is taken.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from encoders.remembered import read_cached, write_cached
from storage.errors import install_hint
from storage.files.canonical_json import canonical

from .errors import EncoderError
from .images import decode_image
from .open_clip_encoder import ClipEncoder
from .openvino_images import openvino_is_installed

GATE = 0.999
"""The lowest cosine to torch in fp32 that a backend may have on any of the golden photographs and texts."""

WORTH = 1.1
"""How many times as fast as torch in fp32 a backend must be to be taken: less is within what a busy machine varies."""

NOT_INSTALLED = "not installed"
_ROUNDS, _ROUND_SECONDS = 3, 1.0
_TEXTS = (
    "a dog",
    "two men are playing football on a green field near the sea",
    "Ein Café am Ufer des Sees, im Winter, mit Schnee auf den Tischen.",
    "一只狗在沙滩上奔跑",
    "",
    "The clock on the wall of a station, photographed while the camera moved; it is about ten minutes past ten. " * 3,
)


Reference = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one backend did.

    Attributes:
        backend: `torch` or `openvino`.
        precision: `fp32` or `bf16`.
        images_per_core_second: Per second of CPU time, which other programs do not change; None where it was refused.
        cosine: The lowest one to torch in fp32; None where nothing could be computed.
        refused: Why it was not in the race; None where it was.
    """

    backend: str
    precision: str
    images_per_core_second: float | None = None
    cosine: float | None = None
    refused: str | None = None

    @property
    def name(self) -> str:
        """As a report names it."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Race:
    """All trials of a race, torch in fp32 first, and which of them was taken."""

    trials: tuple[Trial, ...]
    chosen: tuple[str, str]

    @property
    def winner(self) -> Trial:
        """The trial that was taken."""
        return next(trial for trial in self.trials if (trial.backend, trial.precision) == self.chosen)

    def sentence(self) -> str:
        """One line that says what was taken and what was refused."""
        won, plain = self.winner, self.trials[0]
        said = f"images are encoded by {won.name}"
        if won is not plain and won.images_per_core_second and plain.images_per_core_second:
            said += (
                f", {won.images_per_core_second / plain.images_per_core_second:.1f} times as fast here as {plain.name}"
            )
            said += f" (cosine to it at least {won.cosine:.5f})"
        refused = [f"{trial.name}: {trial.refused}" for trial in self.trials if trial.refused]
        return said + "".join(f"; not {one}" for one in refused)

    def to_json(self) -> dict[str, Any]:
        """The race as JSON values."""
        return {"chosen": list(self.chosen), "trials": [asdict(trial) for trial in self.trials]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Race:
        """Return what `to_json` wrote."""
        return cls(trials=tuple(Trial(**trial) for trial in value["trials"]), chosen=tuple(value["chosen"]))


def fastest(encoder: ClipEncoder, *, remember: bool = True) -> tuple[ClipEncoder, Race]:
    """Return the encoder as it is computed fastest on this processor, and how that was found; takes some seconds.

    Args:
        encoder: Computed by torch in fp32 on the CPU. It is not to be used any more.
        remember: Keep the outcome in the user's cache, for this model, processor and these packages, and take it from
            there: so that a second build starts at once, and one that was stopped goes on as it began.
    """
    key = _key(encoder) if remember else None
    known = _remembered(key) if key else None
    if known is not None:
        with suppress(EncoderError):  # a library has gone or changed since: all are tried anew
            return checked(encoder, *known.chosen), known
    race, winner = _race(encoder)
    if key:
        write_cached("backends", key, canonical(race.to_json()))
    return winner, race


def checked(encoder: ClipEncoder, backend: str, precision: str) -> ClipEncoder:
    """Return the encoder as one backend computes it.

    Args:
        encoder: Computed by torch in fp32 on the CPU. It is not to be used any more.
        backend: `torch` or `openvino`.
        precision: `fp32` or `bf16`.

    Raises:
        EncoderError: The backend is not installed, cannot compute this model, or gives other vectors.
    """
    if (backend, precision) == ("torch", "fp32"):
        return encoder
    trial, made = _tried(encoder, backend, precision, _reference(encoder), timed=False)
    if made is None:
        hint = f"; {install_hint('openvino')}" if trial.refused == NOT_INSTALLED else "; choose another --backend"
        raise EncoderError(f"{trial.name} cannot compute encoder {encoder.spec!r}: {trial.refused}{hint}")
    return made


def _key(encoder: ClipEncoder) -> str:
    """What the outcome depends on."""
    versions = {}
    for name in ("torch", "openvino"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    parts = [encoder.fingerprint, _processor(), torch.get_num_threads(), versions]
    return json.dumps(parts, sort_keys=True)


def _processor() -> str:
    """The processor's model and what it can compute; on Linux from /proc/cpuinfo."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()}"


def _remembered(key: str) -> Race | None:
    known = read_cached("backends", key)
    with suppress(ValueError, KeyError, TypeError):
        return Race.from_json(json.loads(known)) if known is not None else None
    return None


def _race(encoder: ClipEncoder) -> tuple[Race, ClipEncoder]:
    reference = _reference(encoder)
    best = Trial(backend="torch", precision="fp32", images_per_core_second=_rate(encoder, reference[0]), cosine=1.0)
    winner, trials, plain = encoder, [best], best
    # Whether 16 bits pay and are near enough depends on the processor and the model, not on the library that uses them.
    for backend in ("torch", "openvino"):
        precision = "bf16" if backend == "torch" or winner is not encoder else "fp32"
        trial, made = _tried(encoder, backend, precision, reference)
        trials.append(trial)
        if made is not None and (trial.images_per_core_second or 0) > _to_beat(plain, best):
            best, winner = trial, made
    return Race(trials=tuple(trials), chosen=(best.backend, best.precision)), winner


def _to_beat(plain: Trial, best: Trial) -> float:
    return max((plain.images_per_core_second or 0) * WORTH, best.images_per_core_second or 0)


def _tried(
    encoder: ClipEncoder, backend: str, precision: str, reference: Reference, *, timed: bool = True
) -> tuple[Trial, ClipEncoder | None]:
    """Return how a backend did, and the encoder where it passed the gate."""

    def told(**values: Any) -> Trial:
        return Trial(backend=backend, precision=precision, **values)

    if backend == "openvino" and not openvino_is_installed():
        return told(refused=NOT_INSTALLED), None
    try:
        made = encoder.on_backend(backend, precision)
        cosine = _lowest_cosine(made, *reference)
    except Exception as error:  # noqa: BLE001  # a compiler's may be of any kind, and none may end a build
        return told(refused=f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"), None
    if not cosine >= GATE:
        return told(cosine=round(cosine, 6), refused=f"cosine to torch fp32 {cosine:.4f} is below {GATE}"), None
    rate = _rate(made, reference[0]) if timed else None
    return told(cosine=round(cosine, 6), images_per_core_second=rate), made


def _lowest_cosine(made: ClipEncoder, pixels: np.ndarray, images: np.ndarray, texts: np.ndarray) -> float:
    pairs = ((made.encode_pixels(pixels), images), (made.encode_texts(_TEXTS), texts))
    return min(float(np.einsum("nd,nd->n", computed, exact).min()) for computed, exact in pairs)


def _rate(encoder: ClipEncoder, pixels: np.ndarray) -> float:
    """Images per second of CPU time, the best of some rounds."""
    seconds: list[float] = []
    while len(seconds) < _ROUNDS and sum(seconds) < _ROUND_SECONDS:
        started = time.process_time()
        encoder.encode_pixels(pixels)
        seconds.append(time.process_time() - started)
    return round(len(pixels) / min(seconds), 1)


def _reference(encoder: ClipEncoder) -> Reference:
    """Return the golden images' bytes, and the vectors of golden images and texts."""
    pixels = np.stack([encoder.byte_pixels(image) for image in golden_images()])
    return pixels, encoder.encode_pixels(pixels), encoder.encode_texts(_TEXTS)


def golden_images() -> Sequence[Image.Image]:
    """Return the photographs that every backend is tried on: each as it is, and mirrored with its colors inverted."""
    images = [decode_image(data).pixels for data in golden_files()]
    return [*images, *(ImageOps.invert(ImageOps.mirror(image)) for image in images)]


def golden_files() -> list[bytes]:
    """Return the same photographs as files."""
    folder = files("encoders") / "golden"
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".jpg")), key=lambda path: path.name)
    return [path.read_bytes() for path in paths]
