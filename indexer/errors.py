"""The errors of a build.

TwinlensError                 storage/errors.py
`-- BuildError                a build cannot start, go on or be published
    |-- SourceError           the corpus cannot be read: wrong path, column, layout, ids, vectors
    `-- RejectedError         more items were rejected than the caller allows
"""

from __future__ import annotations

from storage.errors import TwinlensError


class BuildError(TwinlensError):
    """A build cannot start, go on or be published."""


class SourceError(BuildError):
    """The corpus cannot be read as asked; the message says what was found and what to name instead."""


class RejectedError(BuildError):
    """More items were rejected than `max_rejected` allows, so nothing was published."""
