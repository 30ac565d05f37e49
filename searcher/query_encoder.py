"""Queries to unit vectors: the encoder of an index, loaded when a query first needs it, refused if it is another.

Texts and images go through the towers that were exported for the encoder, where there are such: they open in a tenth
of a second, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from encoders.base import plain_array
from encoders.errors import EncoderError, ImageError, TowerError
from encoders.image_tower import ImageTower, find_image_tower
from encoders.images import decode_image
from encoders.text_tower import TextTower, find_text_tower
from encoders.tower_files import was_refused
from storage import compiled
from storage.lru import Lru
from storage.schema import EncoderInfo

from .errors import EncoderMismatchError, QueryError
from .query import QueryPart

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.version import IndexVersion

Vectors = NDArray[np.float32]
T = TypeVar("T", TextTower, ImageTower)

_SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Which encoder to use: one that is there already, or the spec of one to load, or None for that of the index.

    Attributes:
        encoder: The encoder or its spec.
        device: Where queries are encoded: `auto`, `cpu`, `cuda`.
        precision: `auto`, `fp32`, `bf16`, `fp16`.
        kept_texts: Texts whose vectors are kept for when they are asked again.
    """

    encoder: Encoder | str | None = None
    device: str = "auto"
    precision: str = "auto"
    kept_texts: int = 1024


class QueryEncoder:
    """Turns queries into unit vectors of one index. Safe from many threads.

    Attributes:
        dim: Length of the index's vectors.
        prompt: The template that texts go through; None for none.
        note: Why a query had to go through the encoder itself; None where none had to, or where that was asked for.
    """

    def __init__(
        self,
        choice: EncoderChoice,
        info: EncoderInfo | None,
        dim: int,
        location: str,
        *,
        prompt: str | None = None,
        tower_folder: Callable[[str], Path | None] = lambda _: None,
    ) -> None:
        """Hold an encoder, or how to load it.

        Args:
            choice: The encoder to use.
            info: The encoder that made the index; None where nobody knows.
            dim: Length of the index's vectors.
            location: The index, for messages.
            prompt: The template that the index's texts were encoded with, so that text queries are measured alike: its
                one `{}` stands for the text. None leaves queries as they are.
            tower_folder: Gives the folder of the `text_tower` and of the `image_tower` that lie in the index, checked
                already; where there is none, the user's cache may have one.

        Raises:
            EncoderMismatchError: An encoder was given and is not the one that made the index.
        """
        self.dim = dim
        self._choice = choice
        self._info = info
        self._location = location
        self.prompt = prompt
        self._lock = Lock()
        self._encoder: Encoder | None = None
        self._tower_folder = tower_folder
        self._towers: dict[str, TextTower | ImageTower | None] = {}
        self.note: str | None = None
        self._texts: Lru[str, Vectors] = Lru(choice.kept_texts)
        if choice.encoder is not None and not isinstance(choice.encoder, str):
            self._encoder = self._checked(choice.encoder)

    @classmethod
    def of(cls, choice: EncoderChoice, version: IndexVersion, location: str) -> QueryEncoder:
        """Return the query encoder of a version.

        Raises:
            EncoderMismatchError: An encoder was given and is not the one that made the index.
        """
        return cls(
            choice,
            version.manifest.encoder,
            version.dim,
            location,
            prompt=version.manifest.encoding.prompt,
            tower_folder=version.tower,
        )

    def encode(self, parts: Sequence[QueryPart]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given; items of the index are not for an encoder.

        Raises:
            QueryError: A vector does not fit, an image cannot be decoded, or no encoder is known.
            EncoderMismatchError: The encoder is not the one that made the index.
            EncoderError: The encoder cannot be loaded.
        """
        vectors = np.empty((len(parts), self.dim), dtype=np.float32)
        for kind, encode in (("text", self._encode_texts), ("image", self._encode_images), ("vector", self._unit)):
            positions = [position for position, part in enumerate(parts) if part.kind == kind]
            if positions:
                vectors[positions] = encode([parts[position] for position in positions])
        return vectors

    def known_text(self, text: str) -> Vectors | None:
        """Return the vector (dim,) of a text that was encoded lately; None for any other."""
        return self._texts.get(text)

    @property
    def loaded(self) -> Encoder | None:
        """The encoder, where it is loaded already."""
        return self._encoder

    def image_encoder(self) -> ImageTower | Encoder:
        """Return what encodes images: the exported image tower, else the encoder, loaded now where that was not done.

        Raises:
            QueryError: No encoder is known.
            EncoderMismatchError: The encoder is not the one that made the index.
            EncoderError: The encoder cannot be loaded.
        """
        with self._lock:
            return self._image_encoder()

    def _unit(self, parts: Sequence[QueryPart]) -> Vectors:
        for part in parts:
            if part.content.shape != (self.dim,):
                raise QueryError(f"a query vector has shape {part.content.shape}; this index takes ({self.dim},)")
        return unit_rows(np.stack([part.content for part in parts]), self.dim)

    def _encode_images(self, parts: Sequence[QueryPart]) -> Vectors:
        with self._lock:
            encoder = self._image_encoder()
            try:
                return unit_rows(encoder.encode_images([part.content for part in parts]), self.dim)
            except ImageError as error:
                raise QueryError(f"{_broken(parts)} cannot be used: {error}; search with another image") from error

    def _encode_texts(self, parts: Sequence[QueryPart]) -> Vectors:
        texts = [part.content for part in parts]
        # One at a time: a model uses all cores by itself, and fast tokenizers refuse to be borrowed twice.
        with self._lock:
            vectors = {text: vector for text in texts if (vector := self._texts.get(text)) is not None}
            new = list(dict.fromkeys(text for text in texts if text not in vectors))
            if new:
                prompted = [text if self.prompt is None else self.prompt.replace("{}", text) for text in new]
                encoded = unit_rows(self._text_encoder().encode_texts(prompted), self.dim)
                for text, vector in zip(new, encoded, strict=True):
                    vectors[text] = vector.copy()  # a row alone keeps no batch in memory
                    self._texts.put(text, vectors[text])
        return np.stack([vectors[text] for text in texts])

    def _image_encoder(self) -> ImageTower | Encoder:
        if self._encoder is not None:
            return self._encoder
        return self._tower("image_tower", self._image_tower) or self._loaded()

    def _text_encoder(self) -> TextTower | Encoder:
        tower = self._tower("text_tower", self._text_tower)
        if tower is not None:
            return tower
        try:
            return self._loaded()
        except EncoderError as error:
            raise error if self.note is None else EncoderError(f"{self.note}; {error}") from error

    def _tower(self, name: str, find: Callable[[str, str | None], T | None]) -> T | None:
        """Return a tower of the index's encoder, sought once; None where the encoder was chosen, or none is there."""
        choice, info = self._choice, self._info
        chosen = choice.encoder is not None or (choice.device, choice.precision) != ("auto", "auto")
        if chosen or info is None or info.fingerprint is None:
            return None
        if name not in self._towers:
            self._towers[name] = find(info.fingerprint, info.spec)
        return cast("T | None", self._towers[name])

    def _text_tower(self, fingerprint: str, spec: str | None) -> TextTower | None:
        try:
            tower = find_text_tower(fingerprint, self.dim, self._tower_folder("text_tower"))
        except TowerError as error:
            self.note = f"torch encodes the texts: {error}"
            return None
        if tower is None and not was_refused("text", fingerprint) and _is_exportable(spec):
            self.note = (
                f"no text tower of {spec!r} is in the index or in this user's cache, so that torch encodes the "
                f"texts and takes seconds to start; run `twinlens encoders export {spec}` once"
            )
        return tower

    def _image_tower(self, fingerprint: str, spec: str | None) -> ImageTower | None:
        try:
            return find_image_tower(fingerprint, self.dim, self._tower_folder("image_tower"))
        except TowerError as error:
            self.note = f"torch encodes the images: {error}"
            return None

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            from encoders import load_encoder

            encoder = load_encoder(self._spec(), self._choice.device, self._choice.precision)
            self._encoder = self._checked(encoder)
        return self._encoder

    def _spec(self) -> str:
        if isinstance(self._choice.encoder, str):
            return self._choice.encoder
        if self._info is None or self._info.fingerprint is None:
            raise QueryError(
                f"the index {self._location} was built from ready-made vectors and does not know its encoder; "
                "pass encoder= (--encoder), or search by vector"
            )
        return self._info.spec

    def _checked(self, encoder: Encoder) -> Encoder:
        if not hasattr(encoder, "fingerprint"):
            raise EncoderMismatchError(
                f"an encoder of type {type(encoder).__name__} cannot encode; "
                "give a spec such as 'lite', or what load_encoder returns"
            )
        if self._info is not None and self._info.fingerprint not in (None, encoder.fingerprint):
            raise EncoderMismatchError(
                f"the index {self._location} was made with {self._info.spec!r} (fingerprint {self._info.fingerprint}), "
                f"and the encoder given is {encoder.spec!r} (fingerprint {encoder.fingerprint}); "
                "search with the former, or build the index again"
            )
        if encoder.dim != self.dim:
            raise EncoderMismatchError(
                f"the index {self._location} has vectors of {self.dim} values, and the encoder {encoder.spec!r} gives "
                f"{encoder.dim}; pass the encoder that made the index"
            )
        return encoder


def _broken(parts: Sequence[QueryPart]) -> str:
    """The first query image that cannot be decoded: the encoder does not say which of a batch it was."""
    for part in parts:
        try:
            decode_image(part.content)
        except ImageError:
            return f"the query image {part.label!r}"
    return "a query image"


def unit_rows(vectors: Any, dim: int) -> Vectors:
    """Return (n, dim) float32 rows of unit length, one row for a single vector (dim,).

    Raises:
        QueryError: Not numbers, not (n, dim), not finite, or a row of zeros.
    """
    if (quick := _quick_unit_rows(vectors, dim)) is not None:
        return quick
    given = [plain_array(one) for one in vectors] if isinstance(vectors, list | tuple) else plain_array(vectors)
    try:
        array = np.atleast_2d(np.asarray(given))
    except ValueError as error:
        raise QueryError(f"the query vectors are no array: {error}; give an array (n, {dim})") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise QueryError(f"the query vectors have shape {array.shape}; this index takes (n, {dim})")
    if array.dtype.kind not in "fiu":
        raise QueryError(f"the query vectors are of type {array.dtype}; give numbers, e.g. float32")
    wide = array.astype(np.float64)
    _check_rows(np.asarray(np.isfinite(wide).all(axis=1)), "has a value that is not finite (NaN or infinite)")
    # By the largest value first: squares of huge or tiny values would overflow or vanish.
    peak = np.abs(wide).max(axis=1, initial=0.0)
    _check_rows(peak > 0, "is all zeros, so it points nowhere")
    wide /= peak[:, None]
    wide /= np.maximum(np.sqrt(np.vecdot(wide, wide)), _SMALLEST)[:, None]
    return np.ascontiguousarray(wide, dtype=np.float32)


def _quick_unit_rows(vectors: Any, dim: int) -> Vectors | None:
    """Return what nearly all vectors become, compiled; None for those that need a closer look, or without compiler."""
    if type(vectors) is not np.ndarray or compiled.list_scan is None or vectors.shape[-1:] != (dim,):
        return None
    units = np.empty(vectors.shape if vectors.ndim == 2 else (1, dim), dtype=np.float32)
    return units if compiled.list_scan.unit_rows(vectors, dim, units) else None


def _is_exportable(spec: str | None) -> bool:
    """Whether an encoder is of a kind whose text tower can be exported: no registered family of its own."""
    from encoders.load import family_of  # its entry points are slow to import, and needed for a note alone

    return family_of(spec) is None


def _check_rows(good: NDArray[np.bool_], what: str) -> None:
    if not good.all():
        raise QueryError(f"query vector {int(np.flatnonzero(~good)[0])} {what}; encode it again")
