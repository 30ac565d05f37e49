"""The template that texts go through on their way to the encoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import BuildError

PLACE = "{}"


def checked_prompt(template: str) -> str | None:
    """Return a template that holds one place for a text; None where it is nothing but that place.

    Raises:
        BuildError: It has no `{}` or several, more than one line, or is not valid Unicode.
    """
    places = template.count(PLACE)
    if places != 1:
        raise BuildError(
            f"the prompt {template!r} has {places} places for the text; write {PLACE} once, as in 'a photo of {PLACE}'"
        )
    if not template.isprintable():
        raise BuildError(f"the prompt {template!r} holds signs that cannot be printed; write it on one line")
    return None if template.strip() == PLACE else template


def prompting(encode: Callable[[list[str]], np.ndarray], template: str | None) -> Callable[[list[str]], np.ndarray]:
    """Return `encode` for texts that go through a template first; None leaves them as they are."""
    if template is None:
        return encode
    return lambda texts: encode([template.replace(PLACE, text) for text in texts])
