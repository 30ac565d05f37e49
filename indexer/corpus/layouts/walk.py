"""The files below a folder of a corpus, without hidden ones, system folders, thumbnails and what the user excludes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

from storage.files.layout import LOCK, VERSIONS

from ...errors import SourceError
from ..item import Rejection, printable

# A folder with both is an index, often one that stands among the images it was made of.
INDEX_NAMES = frozenset((LOCK, VERSIONS))
# What photo stations, network drives and desktops put beside files, in lower case; the hidden ones begin with a dot.
SYSTEM_NAMES = frozenset(
    (
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "@transcode",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
        "lost+found",
        "recycler",
        "system volume information",
        "thumbs.db",
    )
)
HIDDEN, SYSTEM, EXCLUDED = "hidden", "system", "excluded"
_WORDS = {
    HIDDEN: "hidden files or folders",
    SYSTEM: "files or folders of systems and thumbnails",
    EXCLUDED: "files or folders by --exclude",
}


@dataclass(slots=True)
class Walk:
    """What lies below a folder.

    Attributes:
        files: Relative POSIX paths, sorted.
        linked: Those of them that are links, or lie in a folder that is one.
        rejected: Folders that could not be read.
        counts: How many files or folders were left out, by `HIDDEN`, `SYSTEM` and `EXCLUDED`.
        firsts: The first of each in path order.
        unused: The patterns of `exclude` that fit nothing.
    """

    files: list[str] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    rejected: list[Rejection] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each reason why something was left out, with the count and the first."""
        left = (
            f"left out {self.counts[why]} {words}, first {printable(self.firsts[why])!r}"
            for why, words in _WORDS.items()
            if self.counts[why]
        )
        return (*left, *(f"--exclude {pattern!r} fits no file or folder" for pattern in self.unused))

    def leave_out(self, why: str, name: str) -> None:
        """Count a file or folder that is not read."""
        self.counts[why] += 1
        self.firsts[why] = min(name, self.firsts.get(why, name))


class Exclusion:
    """Decides by its name whether a file or folder is left out.

    A pattern fits a whole relative path or the name alone, as a shell's does: `*_thumb.jpg`, `drafts`, `2019/*`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        # A folder may be written as a shell completes it.
        self._patterns = {pattern: pattern.removeprefix("./").rstrip("/") for pattern in patterns}
        self._used: set[str] = set()

    def reason(self, name: str, path: str) -> str | None:
        """Return `HIDDEN`, `SYSTEM` or `EXCLUDED`; None for what is kept."""
        ways = {name, path, normalize("NFC", name), normalize("NFC", path)} if self._patterns else ()
        fits = [given for given, one in self._patterns.items() if any(fnmatchcase(way, one) for way in ways)]
        self._used.update(fits)
        if fits:
            return EXCLUDED
        if name.startswith("."):
            return HIDDEN
        return SYSTEM if name.lower() in SYSTEM_NAMES else None

    @property
    def unused(self) -> tuple[str, ...]:
        """The patterns that have fitted nothing so far."""
        return tuple(pattern for pattern in self._patterns if pattern not in self._used)


def kept_paths(root: Path, paths: Iterable[Path], exclude: Sequence[str]) -> list[Path]:
    """Those of the files or folders below `root` that are not left out."""
    excluded = Exclusion(exclude)
    return [path for path in paths if excluded.reason(path.name, path.relative_to(root).as_posix()) is None]


def walk(root: Path, exclude: Sequence[str] = ()) -> Walk:
    """Every file below a folder; linked folders are followed, each folder once, so loops of links end.

    Real folders are walked before linked ones: a folder that is reached both ways keeps its own path.

    Raises:
        SourceError: The folder itself cannot be read.
    """
    walked = Walk()
    excluded = Exclusion(exclude)
    visited: set[tuple[int, int]] = set()
    real, links = [""], list[str]()
    for queue in (real, links):
        while queue:
            prefix = queue.pop()
            try:
                status = (root / prefix).stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                _take(_entries(root / prefix), prefix, walked, excluded, (queue, links))
            except OSError as error:
                _unreadable(root, prefix, error, walked)
    walked.files.sort()
    walked.rejected.sort(key=lambda rejection: rejection.uri)
    walked.unused = excluded.unused
    return walked


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    return () if {entry.name for entry in entries} >= INDEX_NAMES else entries


def _take(
    entries: Iterable[os.DirEntry[str]],
    prefix: str,
    walked: Walk,
    excluded: Exclusion,
    queues: tuple[list[str], list[str]],
) -> None:
    """Sort the entries of one folder into files, further folders and what is left out."""
    queue, links = queues
    for entry in entries:
        name = prefix + entry.name
        if (why := excluded.reason(entry.name, name)) is not None:
            walked.leave_out(why, name)
        elif _is_folder(entry):
            (links if entry.is_symlink() else queue).append(f"{name}/")
        else:
            walked.files.append(name)
            if queue is links or entry.is_symlink():
                walked.linked.add(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be searched: a file that cannot be read
        return False


def _unreadable(root: Path, prefix: str, error: OSError, walked: Walk) -> None:
    if not prefix:
        raise SourceError(f"folder {str(root)!r} cannot be read ({error.strerror}); fix its permissions") from error
    shown = printable(prefix)
    walked.rejected.append(
        Rejection(
            item_id=shown,
            collection="images",
            uri=shown,
            stage="read",
            reason="unreadable_folder",
            detail=f"the folder {shown!r} cannot be read ({error.strerror}), so nothing below it is indexed",
        )
    )


def leads_out(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Those of the relative paths that links lead out of the folder."""
    base = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - with a separator at its end
    return (name for name in names if not os.path.realpath(root / name).startswith(base))
