"""Which examples can be read, and what tells their contents apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from encoders import ImageError, decode_image
from encoders.base import ImageLike

from .errors import ExamplesError
from .examples import Content, Kind

# A few broken files among many are the rule in photo collections; more than this share says that the paths are wrong.
MAX_UNREADABLE = 0.05
_NAMED = 3


def content_keys(kind: Kind, contents: Sequence[Content], role: str) -> tuple[list[str | None], list[str]]:
    """Return a key for each content, equal exactly where contents are, None where it cannot be read; and the reasons.

    Raises:
        ExamplesError: More than 5 % of the images, or all, cannot be read; the first three are named.
    """
    if kind == "text":
        return [str(content) for content in contents], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_image_key, contents))
    keys = [None if isinstance(key, ImageError) else key for key in found]
    problems = [f"image {row}: {key}" for row, key in enumerate(found) if isinstance(key, ImageError)]
    if len(problems) > MAX_UNREADABLE * len(keys) or (problems and len(problems) == len(keys)):
        raise ExamplesError(f"{len(problems)} of {len(keys)} {role} images cannot be read: {first_few(problems)}")
    return keys, problems


def first_few(problems: Sequence[str]) -> str:
    """Return the first three on one line, and how many more there are."""
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "; ".join(problems[:_NAMED]) + more


def _image_key(content: Content) -> str | ImageError:
    source: ImageLike = content
    try:
        return decode_image(source).sha256
    except ImageError as error:
        return error
