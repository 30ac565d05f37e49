"""The errors of `encoders`, under `storage.errors.TwinlensError`.

TwinlensError
|-- EncoderError          a model that cannot be found, loaded or run as asked
|   `-- TowerError        a tower of a model that cannot be exported, read or run without torch
`-- ImageError            one image that cannot be used; `reason` is a machine word, `detail` a sentence
"""

from __future__ import annotations

from typing import Literal

from storage.errors import TwinlensError

ImageReason = Literal[
    "missing",
    "empty",
    "too_large",
    "too_many_pixels",
    "too_slow",
    "not_an_image",
    "unsupported_format",
    "corrupt",
    "unreadable",
]


class EncoderError(TwinlensError):
    """A model cannot be found, loaded or run as asked."""


class TowerError(EncoderError):
    """A tower cannot be exported, read or run without torch."""


class ImageError(TwinlensError):
    """One image cannot be used.

    Attributes:
        reason: One word for counting: `missing`, `empty`, `too_large`, `too_many_pixels`, `too_slow`,
            `not_an_image`, `unsupported_format`, `corrupt` or `unreadable`.
        detail: What was found, with the value, on one line.
    """

    def __init__(self, reason: ImageReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: ImageReason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[ImageReason, str]]:
        # Decode workers may live in another process; the default would call ImageError(message).
        return type(self), (self.reason, self.detail)
