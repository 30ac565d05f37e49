"""The errors of Twinlens. Catch `TwinlensError` to catch them all.

TwinlensError                    anything we raise on purpose; the message names a value, a place and a next step
|-- StorageError                 an index on disk
|   |-- IndexNotFoundError       there is no index, or no such version, at this path
|   |-- CorruptIndexError        bytes on disk differ from what the manifest says
|   |-- IncompatibleIndexError   written by a newer format, or with a feature this release does not know
|   |-- IndexLockedError         another builder is writing to this index
|   |-- DuplicateItemError       one `item_id` was given to two items
|   |-- SearchParameterError     k, nprobe, ... outside what this index can do
|   `-- PublishStateUnknownError the last fsync failed: the version may or may not be the current one
|-- EncoderError, ImageError     encoders/errors.py
|-- BuildError, SourceError      indexer/errors.py
|-- SearchError                  searcher/errors.py
|-- TrainingError                training/errors.py
|-- MatcherError                 matcher/errors.py
`-- CompareError                 twinlens/compare/errors.py
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache


class TwinlensError(Exception):
    """Base of every error this project raises on purpose; commands print it as one line and exit with `exit_code`."""

    exit_code = 1


class StorageError(TwinlensError):
    """Something is wrong with an index on disk."""


class IndexNotFoundError(StorageError):
    """No index, or no such version, is at the path."""


class CorruptIndexError(StorageError):
    """A file of an index is missing, or its bytes differ from what the manifest says."""

    exit_code = 3


class IncompatibleIndexError(StorageError):
    """The index was written by a newer format, or with a feature this release does not know."""


class IndexLockedError(StorageError):
    """Another builder holds the lock of this index."""


class DuplicateItemError(StorageError):
    """One `item_id` was given to two items of a collection."""


class SearchParameterError(StorageError):
    """A search parameter is outside what the index can do."""


class PublishStateUnknownError(StorageError):
    """The final fsync failed, so nobody can tell whether the version survives a power loss."""


@lru_cache(maxsize=8)
def install_hint(extra: str) -> str:
    """Return the next step for whoever lacks an extra: the command that installs it, and where it is run.

    It names the extra of FAISS that is installed already: the other one would take its place.
    """
    from importlib.metadata import packages_distributions  # slow to import, and needed for this message alone

    owners = packages_distributions().get("faiss", [])
    faiss = "gpu" if any(owner.startswith("faiss-gpu") for owner in owners) else "cpu"
    return f'run pip install ".[{faiss},{extra}]" in the project\'s folder'


def first_line(error: BaseException) -> str:
    """Return the first line of an error with words, to stand inside a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def check_keywords(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `TypeError` for a keyword that a public function does not have, with the nearest one that it has."""
    names = list(known)
    for name in given:
        if name not in names:
            from difflib import get_close_matches  # for this message alone

            near = get_close_matches(name, names, n=1)
            words = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(names)}"
            raise TypeError(f"{function}() has no keyword {name!r}; {words}")
