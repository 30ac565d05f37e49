"""Zero-shot classification: which of some candidates fits best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder

from .embed import CellEncoder, Vectors, mean_direction
from .errors import DataError, MatcherError
from .pairs import Reader, side_to_classify
from .tables import Side

# What CLIP was trained to multiply cosines with, and where OpenAI clamps it; for encoders that know none of their own.
USUAL_SCALE = 100.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """What rows are classified into.

    Attributes:
        candidates: The items of the other side: a list, or a table with its column.
        templates: Prompts for text candidates.
        scale: The factor before the softmax; None for the encoder's own.
    """

    candidates: Any
    templates: tuple[str, ...] = ()
    scale: float | None = None


def classify(reader: Reader, data: Any, classes: Classes, signature: Side | None) -> NDArray[np.float64]:
    """Return (n, candidates) probabilities, softmax(scale * cosine).

    Raises:
        DataError: The data or the candidates cannot be used.
    """
    side = signature or side_to_classify(data, reader.roles)
    other: Side = "response" if side == "query" else "query"
    column = reader.column(classes.candidates, other)
    if classes.templates and column.kind != "text":
        raise DataError(f"templates are for texts, and the candidates {column.name!r} are images; leave them out")
    if classes.templates:
        vectors = class_vectors(reader.cells, column.cells, classes.templates)
    else:
        vectors = reader.vectors(column)
    scale = scale_of(reader.cells.encoder) if classes.scale is None else classes.scale
    return softmax(reader.side(data, side) @ vectors.T, scale)


def softmax(cosines: NDArray[Any], scale: float) -> NDArray[np.float64]:
    """Return softmax(scale * cosines) along the last axis, float64; each line sums to 1."""
    logits = scale * cosines.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def scale_of(encoder: Encoder) -> float:
    """Return the factor that the encoder was trained to multiply cosines with (`lite`: 20); 100 where it knows none.

    Raises:
        MatcherError: It is not a number above 0.
    """
    learned = getattr(encoder, "logit_scale", None)
    scale = USUAL_SCALE if learned is None else float(learned)
    if not np.isfinite(scale) or scale <= 0:
        raise MatcherError(f"encoder {encoder.spec!r} has logit scale {scale!r}; train it again, or pass scale=")
    return scale


def class_vectors(cells: CellEncoder, names: Sequence[Any], templates: Sequence[str]) -> Vectors:
    """Return a unit vector for each class name: the mean over its prompts (Radford et al. 2021, section 3.1.4).

    Args:
        cells: What encodes.
        names: The classes, as words.
        templates: Prompts with `{}` where the name goes, such as `a photo of a {}.`; at least one.

    Raises:
        DataError: A template has no place for the name, or a name is no text.
    """
    bare = next((template for template in templates if "{}" not in template), None)
    if bare is not None:
        raise DataError(f"template {bare!r} has no {{}} where the candidate goes; write e.g. 'a photo of a {{}}.'")
    wrong = next((name for name in names if not isinstance(name, str) or not name.strip()), None)
    if wrong is not None:
        raise DataError(f"candidate {wrong!r} is no text; give words that can be put into a template")
    prompts = [[template.replace("{}", name) for template in templates] for name in names]
    cells.texts(prompt for line in prompts for prompt in line)
    return np.stack([mean_direction(cells.encoded(line)) for line in prompts])
