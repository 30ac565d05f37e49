"""The encoder of a searcher: loaded when a query first needs it, held to the one that made the index."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from encoders.errors import ImageError
from encoders.images import decode_image
from storage.schema import EncoderInfo

from .errors import EncoderMismatchError, QueryError
from .request import Query, Vectors, unit_rows

if TYPE_CHECKING:
    from encoders import Encoder

_KEPT_TEXTS = 1024


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Which encoder to use: one that is there already, or the spec of one to load, or None for that of the index."""

    encoder: Encoder | str | None = None
    device: str = "auto"
    precision: str = "auto"


class Embedder:
    """Turns queries into unit vectors of one index. Safe from many threads."""

    def __init__(
        self, choice: EncoderChoice, info: EncoderInfo | None, dim: int, place: str, *, prompt: str | None = None
    ) -> None:
        """Hold an encoder, or how to load it.

        Args:
            choice: The encoder to use.
            info: The encoder that made the index; None where nobody knows.
            dim: Length of the index's vectors.
            place: The index, for messages.
            prompt: The template that the index's texts were encoded with, so that text queries are measured alike: its
                one `{}` stands for the text. None leaves queries as they are.

        Raises:
            EncoderMismatchError: An encoder was given and is not the one that made the index.
        """
        self.dim = dim
        self._choice = choice
        self._info = info
        self._place = place
        self._prompt = "{}" if prompt is None else prompt
        self._lock = Lock()
        self._encoder: Encoder | None = None
        self._texts: OrderedDict[str, Vectors] = OrderedDict()
        if choice.encoder is not None and not isinstance(choice.encoder, str):
            self._encoder = self._checked(choice.encoder)

    def embed(self, queries: Sequence[Query]) -> Vectors:
        """Return (n, dim) float32 unit rows in the order given.

        Raises:
            QueryError: A vector does not fit, a picture cannot be decoded, or no encoder is known.
            EncoderMismatchError: The encoder is not the one that made the index.
            EncoderError: The encoder cannot be loaded.
        """
        found = np.empty((len(queries), self.dim), dtype=np.float32)
        for kind, embed in (("text", self._texts_of), ("image", self._images_of), ("vector", self._vectors_of)):
            places = [place for place, query in enumerate(queries) if query.kind == kind]
            if places:
                found[places] = embed([queries[place] for place in places])
        return found

    def _vectors_of(self, queries: Sequence[Query]) -> Vectors:
        for query in queries:
            if query.content.shape != (self.dim,):
                raise QueryError(f"a query vector has shape {query.content.shape}; this index takes ({self.dim},)")
        return unit_rows(np.stack([query.content for query in queries]), self.dim)

    def _images_of(self, queries: Sequence[Query]) -> Vectors:
        with self._lock:
            encoder = self._loaded()
            try:
                return unit_rows(encoder.encode_images([query.content for query in queries]), self.dim)
            except ImageError as error:
                raise QueryError(f"{_broken(queries)} cannot be used: {error}; search with another picture") from error

    def _texts_of(self, queries: Sequence[Query]) -> Vectors:
        texts = [query.content for query in queries]
        # One at a time: a model uses all cores by itself, and fast tokenizers refuse to be borrowed twice.
        with self._lock:
            known = {text: self._texts[text] for text in texts if text in self._texts}
            new = list(dict.fromkeys(text for text in texts if text not in known))
            if new:
                asked = [self._prompt.replace("{}", text) for text in new]
                known.update(zip(new, unit_rows(self._loaded().encode_texts(asked), self.dim), strict=True))
            self._keep(known)
        return np.stack([known[text] for text in texts])

    def _keep(self, known: dict[str, Vectors]) -> None:
        for text, vector in list(known.items())[-_KEPT_TEXTS:]:
            self._texts[text] = vector.copy()
            self._texts.move_to_end(text)
        while len(self._texts) > _KEPT_TEXTS:
            self._texts.popitem(last=False)

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
                f"the index {self._place} was built from ready-made vectors and does not know its encoder; "
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
                f"the index {self._place} was made with {self._info.spec!r} (fingerprint {self._info.fingerprint}), "
                f"and the encoder given is {encoder.spec!r} (fingerprint {encoder.fingerprint}); "
                "search with the former, or build the index again"
            )
        if encoder.dim != self.dim:
            raise EncoderMismatchError(
                f"the index {self._place} has vectors of {self.dim} values, and the encoder {encoder.spec!r} gives "
                f"{encoder.dim}; pass the encoder that made the index"
            )
        return encoder


def _broken(queries: Sequence[Query]) -> str:
    """The first query picture that cannot be decoded: the encoder does not say which of a batch it was."""
    for query in queries:
        try:
            decode_image(query.content)
        except ImageError:
            return f"the query picture {query.label!r}"
    return "a query picture"
