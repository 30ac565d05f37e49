"""The errors of a build.

TwinlensError                 storage/errors.py
`-- BuildError                a build cannot start, go on or be published
    |-- SourceError           the corpus cannot be read: wrong path, column, layout, ids, vectors
    |-- ContentError          one item's bytes cannot be had; `reason` is a machine word, `detail` a sentence
    |-- RepairError           a damaged version cannot be repaired
    |-- RejectedError         more items were rejected than the caller allows
    `-- ShrinkError           the result would be much poorer than the version that it replaces
"""

from __future__ import annotations

from storage.errors import TwinlensError


class BuildError(TwinlensError):
    """A build cannot start, go on or be published."""


class SourceError(BuildError):
    """The corpus cannot be read as asked; the message says what was found and what to name instead."""


class ContentError(BuildError):
    """The bytes of one item cannot be had: from an archive or the web. It becomes a rejection.

    Attributes:
        reason: One word for counting, e.g. `truncated` or `refused_address`.
        detail: What was found, with the value, on one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[ContentError], tuple[str, str]]:
        # Workers may live in another process; the default would call ContentError(message).
        return type(self), (self.reason, self.detail)


class RejectedError(BuildError):
    """More items were rejected than `max_rejected` allows, so nothing was published."""


class RepairError(BuildError):
    """A damaged version cannot be repaired from what is left."""

    exit_code = 3


class ShrinkError(BuildError):
    """The result would be much poorer than the version that it replaces, or an image corpus without images."""
