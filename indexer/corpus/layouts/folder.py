"""A folder of images, with captions in `name.txt` beside `name.jpg`, one a line."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa

from encoders.images import IMAGE_SUFFIXES
from storage.files.layout import LOCK, VERSIONS

from ...errors import SourceError
from ..item import Item, Rejection, is_utf8, printable, text_item
from .lines import read_lines

TEXT_SUFFIX = ".txt"
# A folder with both is an index, often one that stands among the images it was made of.
INDEX_NAMES = frozenset((LOCK, VERSIONS))
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")


class FolderSource:
    """Every image below a folder, sorted by relative path, each followed by the captions of its sidecar file.

    An image's id is its relative path; its captions are `PATH#0`, `PATH#1`, ... A `.txt` file with no image of
    its name gives texts `PATH#0`, ... that describe no image. Hidden files and folders and indexes are passed over.

    Raises:
        SourceError: `path` is no folder, cannot be read, or holds neither images nor texts.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self.name = f"folder {printable(str(path))}"
        self.metadata_schema = pa.schema([])
        files = sorted(_walk(path))
        self._images = [name for name in files if _suffix(name) in IMAGE_SUFFIXES]
        self._texts = [name for name in files if _suffix(name) == TEXT_SUFFIX]
        others = Counter(_suffix(name) or "(no suffix)" for name in files)
        for suffix in (*IMAGE_SUFFIXES, TEXT_SUFFIX):
            others.pop(suffix, None)
        self.notes = _ignored(others)
        if not self._images and not self._texts:
            raise SourceError(_nothing_found(path, len(files), others))

    def items(self) -> Iterator[Item | Rejection]:
        """Images in path order, each before its captions; then the texts of files that have no image."""
        sidecars, lonely = self._pair_by_stem()
        for name in self._images:
            yield from self._image(name)
            for sidecar in sidecars.get(_stem(name), ()):
                yield from self._captions(sidecar, name, (name,))
        for name in lonely:
            yield from self._captions(name, name, ())

    def _pair_by_stem(self) -> tuple[dict[str, list[str]], list[str]]:
        stems = {_stem(name) for name in self._images}
        sidecars: dict[str, list[str]] = defaultdict(list)
        for name in self._texts:
            if _stem(name) in stems:
                sidecars[_stem(name)].append(name)
        return sidecars, [name for name in self._texts if _stem(name) not in stems]

    def _image(self, name: str) -> Iterator[Item | Rejection]:
        shown = printable(name)
        item = Item(item_id=shown, collection="images", content=self.root / name, uri=shown, location=shown)
        # An id that is not UTF-8 can stand in no catalog, so the file cannot be found again by it.
        yield item if is_utf8(name) else item.rejected("read", "not_utf8", f"the file name {shown!r} is not UTF-8")

    def _captions(self, sidecar: str, base: str, images: tuple[str, ...]) -> Iterator[Item | Rejection]:
        shown = printable(sidecar)
        described = tuple(name for name in images if is_utf8(name))
        kept = Item(item_id=printable(base), collection="texts", content="", uri=shown, location=shown)
        try:
            for number, (line, text) in enumerate(read_lines(self.root / sidecar)):
                item = Item(
                    item_id=f"{kept.item_id}#{number}",
                    collection="texts",
                    content="",
                    uri=shown,
                    location=f"line {line} of {shown}",
                    image_ids=described,
                )
                yield text_item(item, text)
        except OSError as error:
            yield kept.rejected("read", "unreadable", f"{shown} cannot be read: {error.strerror}")


def _walk(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files that are not hidden; every folder once, so loops of links end.

    Real folders are walked before linked ones: a folder that is reached both ways keeps its own path.
    """
    visited: set[tuple[int, int]] = set()
    links: list[Path] = []
    for queue in ([root], links):
        while queue:
            folder = queue.pop()
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            yield from _scan(folder, root, queue, links)


def _scan(folder: Path, root: Path, real: list[Path], links: list[Path]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise SourceError(f"folder {str(folder)!r} cannot be read ({error.strerror}); fix its permissions") from error
    names = {entry.name for entry in entries}
    if names >= INDEX_NAMES:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            (links if entry.is_symlink() else real).append(Path(entry.path))
        else:
            yield Path(entry.path).relative_to(root).as_posix()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _ignored(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    hint = "; to index what a table names, name its file" if others.keys() & set(TABLE_SUFFIXES) else ""
    return (f"passed over {others.total()} files that are neither images nor .txt: {kinds}{hint}",)


def _nothing_found(path: Path, files: int, others: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {printable(suffix)}" for suffix, count in others.most_common(5))
    seen = f"{files} other files ({kinds})" if files else "no files at all"
    return (
        f"folder {str(path)!r} holds nothing to index: looked for images (.jpg, .png, .webp, ...) and .txt files, "
        f"recursively and without hidden ones, and saw {seen}; name a folder of images or a table file"
    )
