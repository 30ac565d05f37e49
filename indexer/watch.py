"""Watching a corpus: an index that follows a folder or table while it changes, with a version for each settled burst.

The state is the index itself: an update looks at the whole corpus and takes over what is as it was, so that nothing is
missed that changed while nobody watched, and a watcher that was killed goes on where the last version is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from storage.errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    StorageError,
    TwinlensError,
    first_line,
    install_hint,
)

from .errors import BuildError
from .progress import Progress
from .report import BuildReport

if TYPE_CHECKING:
    from watchfiles import Change

SETTLED_SECONDS = 2.0
"""Without a change for so long a burst has settled: copying a file, and the next one of a folder, takes less."""
# Where an update could not be made for a reason that passes by itself, as another builder or a full disk.
RETRY_SECONDS = 30.0
_LOOK_MS = 200
_HIDDEN = "."


class Stop(Protocol):
    """What ends watching, as `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to end."""


def watch(
    corpus: Path,
    out: Path,
    update: Callable[[], BuildReport],
    progress: Progress,
    *,
    settled: float = SETTLED_SECONDS,
    stop: Stop | None = None,
) -> Iterator[BuildReport]:
    """Update an index at once, and again whenever its corpus has changed and settled; yield what was published.

    An update that fails says why, and the next change, or half a minute where the disk or another builder was in the
    way, leads to the next. Names that start with a point and what lies in the index itself are no changes.

    Args:
        corpus: A folder, or a table, beside which its own folder is watched.
        out: The index.
        update: Brings the index up to date, as `build_index` does.
        progress: Told what is waited for and what failed.
        settled: Seconds without a change before an update begins.
        stop: Ends it; None watches until it is interrupted.

    Raises:
        BuildError: The corpus is not there, or the extra `watch` is not installed.
        StorageError: The index is damaged, or of a newer format.
    """
    if not corpus.exists():
        raise BuildError(f"there is no corpus {str(corpus)!r} to watch")
    changes = _changes(corpus, out, stop)
    next(changes, None)  # watching begins before the first update looks, so that nothing falls between
    due: float | None = time.monotonic()
    for changed in changes:
        now = time.monotonic()
        if changed:
            due = now + settled
        if due is None or now < due:
            continue
        due = None
        try:
            report = update()
        except (CorruptIndexError, IncompatibleIndexError):
            raise
        except TwinlensError as error:
            due = _after(error, progress)
            continue
        if report.published:
            yield report
        progress.note(f"watching {corpus}; Ctrl-C ends it")


def _after(error: TwinlensError, progress: Progress) -> float | None:
    """Say what failed, and return when to try again; None for after the next change."""
    progress.note(f"nothing was published: {first_line(error)}")
    return time.monotonic() + RETRY_SECONDS if isinstance(error, StorageError) else None


def _changes(corpus: Path, out: Path, stop: Stop | None) -> Iterator[set[Any]]:
    """Yield the changes since the last look, also where there are none."""
    try:
        from watchfiles import watch as watch_files
    except ImportError as error:
        raise BuildError(f"watching needs the extra watch; {install_hint('watch')}") from error
    root = corpus.resolve()
    folder, index = root if root.is_dir() else root.parent, out.resolve()

    def counts(_change: Change, name: str) -> bool:
        path = Path(name)
        if path == index or index in path.parents or folder not in path.parents:
            return False
        return not any(part.startswith(_HIDDEN) for part in path.relative_to(folder).parts)

    yield from watch_files(
        folder,
        watch_filter=counts,
        rust_timeout=_LOOK_MS,
        debounce=_LOOK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        ignore_permission_denied=True,
    )
