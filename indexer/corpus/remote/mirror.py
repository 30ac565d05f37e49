"""Corpora that lie elsewhere, in an object store, on a server or in an archive: copied here, and kept up to date.

fsspec knows the protocols. A copy is what makes a build repeatable: it can be killed and resumed, its thumbnails can be
shown, and an update fetches only what changed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import IndexLockedError
from storage.files.atomic import explained, make_folder, remove_folder
from storage.files.lock import IndexLock

from ...errors import SourceError
from ...progress import Progress
from ..detect_layout import open_source
from ..image_paths import MAX_PARTS, SEPARATOR, spellings
from ..item import Item, SourceOptions, is_utf8, one_line, printable
from ..layouts.folder import TABLE_SUFFIXES, TEXT_SUFFIX
from ..webdataset.shard import TAR_SUFFIX
from .url import is_remote, without_credentials

AT_A_TIME = 16
# Each under its own name; the first one that a file has tells its versions apart.
STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "checksum",
    "CRC",
    "LastModified",
    "last_modified",
    "mtime",
    "modified",
    "updated",
    "created",
)
FILES, LIST, LOCK = "files", "fetched.jsonl", "LOCK"

_WILD = re.compile(r"[*?\[]")
_FILE = (*TABLE_SUFFIXES, TEXT_SUFFIX, TAR_SUFFIX, ".gz", ".token")


def local_copy(url: str, folder: Path, options: SourceOptions, progress: Progress) -> Path:
    """Copy a remote corpus into `folder`, and return the path in there that is to be opened with `options`.

    Of a folder all files come, of a pattern such as `s3://bucket/*.tar` all that fit, of a table the file and the
    images that it names by relative path. What is here already and has not changed there is not fetched again; what
    is gone there is removed here. Changes are known by size and by the tag or time that the other side gives.

    Raises:
        SourceError: Nothing is there, it cannot be listed or fetched, or `folder` holds a copy of something else.
        StorageError: The folder cannot be written.
        IndexLockedError: Another build is copying into it.
    """
    new = not folder.exists()
    with explained("write", folder):
        make_folder(folder)
    try:
        return _copied(url, folder, options, progress)
    except IndexLockedError:
        raise  # the folder is another build's
    except BaseException:
        if new and not (folder / LIST).exists():
            remove_folder(folder)  # nothing was fetched
        raise


def path_here(corpus: str | Path, folder: Path, options: SourceOptions, progress: Progress) -> Path:
    """Return the path of a corpus on this machine: its own, or that of the copy in `folder` of one that is remote.

    Raises:
        SourceError: As `local_copy` raises it, as its other errors.
    """
    remote = isinstance(corpus, str) and is_remote(corpus)
    return local_copy(str(corpus), folder, options, progress) if remote else Path(corpus)


def _copied(url: str, folder: Path, options: SourceOptions, progress: Progress) -> Path:
    with IndexLock(folder / LOCK), explained("write", folder):
        mirror = Mirror.open(url, folder, progress)
        files, path = mirror.find()
        mirror.fetch(files)
        if path.is_file() and path.suffix.lower() != TAR_SUFFIX:
            mirror.fetch(_named(path, options, mirror))
        mirror.drop_others()
    return path


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file over there: where, what it is called below the corpus, how long it is and which version of it."""

    path: str
    name: str
    size: int | None
    stamp: str

    @staticmethod
    def of(info: Mapping[str, Any], name: str) -> RemoteFile:
        """Return the file that a file system's description tells of."""
        size = info.get("size")
        stamp = next((str(info[key]) for key in STAMPS if info.get(key) is not None), "")
        return RemoteFile(str(info["name"]), name, size if isinstance(size, int) else None, stamp)


class Mirror:
    """Copies of the files of a remote folder, with a list of which versions they are."""

    def __init__(self, url: str, system: Any, root: str, folder: Path, progress: Progress) -> None:
        self._url, self._system, self._root, self._progress = url, system, root, progress
        self._list = folder / LIST
        self.files = folder / FILES
        self._have = _read_list(self._list, without_credentials(url))
        self._seen: set[str] = set()

    @classmethod
    def open(cls, url: str, folder: Path, progress: Progress) -> Mirror:
        """Reach the file system that a URL names.

        Raises:
            SourceError: Its protocol is unknown or needs a package, or it does not let us in.
        """
        import fsspec  # slow, and seldom needed

        with _one_line_errors(url, "reached"):
            system, root = fsspec.core.url_to_fs(url)
        return cls(url, system, str(root).rstrip("/"), folder, progress)

    def find(self) -> tuple[list[RemoteFile], Path]:
        """Return the files of the corpus, and the path that stands for it here."""
        if "{" in self._root:
            raise SourceError(f"{self._shown}: braces are not filled in over there; write * or ? instead")
        with _one_line_errors(self._url, "listed"):
            if _WILD.search(self._root):
                infos = self._system.glob(self._root, detail=True)
                base = self._root[: _WILD.search(self._root).start()].rpartition("/")[0]  # type: ignore[union-attr]
                path = self.files / PurePosixPath(self._root).name
            elif self._is_folder():
                infos, base, path = self._system.find(self._root, detail=True), self._root, self.files
            else:
                base, _, name = self._root.rpartition("/")
                infos, path = {self._root: self._system.info(self._root)}, self.files / name
        self._root = base
        files, unsafe = self._below(base, infos)
        if path.suffix.lower() != TAR_SUFFIX and _WILD.search(path.name):
            raise SourceError(f"{self._shown}: a pattern names .tar shards; name the folder of other files")
        if not files:
            raise SourceError(f"{self._shown} holds no files; check the address")
        if unsafe:
            self._progress.note(f"{self._shown}: {unsafe} files with unsafe names are left out")
        return files, path

    def named(self, name: str) -> RemoteFile | None:
        """Return the file of a name below the corpus's folder, as it is spelt there; None where there is none."""
        files = (self._spelt(spelling) for spelling in spellings(name) if _is_safe(spelling))
        return next((file for file in files if file is not None), None)

    def _spelt(self, name: str) -> RemoteFile | None:
        path = f"{self._root}/{name}" if self._root else name
        try:
            with _one_line_errors(self._url, "read"):
                return RemoteFile.of(self._system.info(path), name)
        except FileNotFoundError:
            return None  # a build rejects and counts the image

    def fetch(self, files: Iterable[RemoteFile]) -> None:
        """Copy what is not here yet, several at a time."""
        todo = [file for file in files if not self._is_here(file)]
        need, free = sum(file.size or 0 for file in todo), shutil.disk_usage(self._list.parent).free
        if need > free:
            raise SourceError(
                f"{self._shown} needs {need / 2**30:.1f} GiB and {self._list.parent} has {free / 2**30:.1f} GiB; "
                "give --cache on a larger disk"
            )
        if not todo:
            return
        self._progress.stage("fetching", len(todo))
        pool = ThreadPoolExecutor(AT_A_TIME)
        try:
            with self._list.open("a", encoding="utf-8") as have:
                if have.tell() == 0:
                    have.write(_head(without_credentials(self._url)))
                rest = iter(todo)
                while batch := list(islice(rest, 10 * AT_A_TIME)):
                    for file in pool.map(self._fetch, batch):
                        have.write(_line(file))
                        self._progress.advance(1)
                    have.flush()
        finally:
            pool.shutdown(cancel_futures=True)

    def drop_others(self) -> None:
        """Remove what was fetched before and is not in the corpus any more, and write the list anew."""
        for name in self._have.keys() - self._seen:
            (self.files / name).unlink(missing_ok=True)
        have = _read_list(self._list, without_credentials(self._url))
        lines = [_line(file) for name, file in have.items() if name in self._seen]
        self._list.write_text("".join([_head(without_credentials(self._url)), *lines]), encoding="utf-8")

    @property
    def _shown(self) -> str:
        return repr(without_credentials(self._url))

    def _is_folder(self) -> bool:
        # An HTTP server would be asked for a whole table to see whether it is a list of links.
        return not self._root.lower().endswith(_FILE) and bool(self._system.isdir(self._root))

    def _below(self, base: str, infos: Mapping[str, Mapping[str, Any]]) -> tuple[list[RemoteFile], int]:
        files, unsafe = [], 0
        for path, info in sorted(infos.items()):
            name = path[len(base) :].lstrip("/") if path.startswith(base) else ""
            if info.get("type") == "directory":
                continue
            if _is_safe(name):
                files.append(RemoteFile.of(info, name))
            else:
                unsafe += 1
        return files, unsafe

    def _is_here(self, file: RemoteFile) -> bool:
        self._seen.add(file.name)
        known, path = self._have.get(file.name), self.files / file.name
        if known is None or (known.size, known.stamp) != (file.size, file.stamp) or not path.is_file():
            return False
        return file.size is None or path.stat().st_size == file.size

    def _fetch(self, file: RemoteFile) -> RemoteFile:
        path = self.files / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_line_errors(self._url, f"fetched ({printable(file.name)})"):
            self._system.get_file(file.path, str(path))
        if file.size is not None and path.stat().st_size != file.size:
            raise SourceError(
                f"{self._shown}: {file.name!r} came with {path.stat().st_size} of {file.size} bytes; "
                "run the same command again, which goes on from here"
            )
        return file


def _named(path: Path, options: SourceOptions, mirror: Mirror) -> Iterator[RemoteFile]:
    """The images that a table here names and that lie beside it over there."""
    rows: dict[str, list[str]] = {}
    for item in open_source(path, options).items():
        if isinstance(item, Item) and isinstance(item.content, Path) and item.content.is_relative_to(mirror.files):
            rows.setdefault(item.location, []).append(item.content.relative_to(mirror.files).as_posix())
    with ThreadPoolExecutor(AT_A_TIME) as pool:

        def there(names: Iterable[str]) -> dict[str, RemoteFile | None]:
            asked = sorted(set(names))
            return dict(zip(asked, pool.map(mirror.named, asked), strict=True))

        files = there(name for names in rows.values() for name in names)
        # What the table's reader has parted may be one name: it knows only the files that are here.
        files |= there(
            parted.join(names[start:end])
            for names in rows.values()
            if 1 < len(names) <= MAX_PARTS and any(files[name] is None for name in names)
            for start, end in combinations(range(len(names) + 1), 2)
            if end > start + 1
            for parted in (SEPARATOR, f"{SEPARATOR} ")
        )
    yield from {file.name: file for file in files.values() if file is not None}.values()


@contextmanager
def _one_line_errors(url: str, action: str) -> Iterator[None]:
    """Turn whatever a protocol's package raises into one line; a missing file below a corpus stays one."""
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        if action == "read":
            raise
        raise SourceError(f"{without_credentials(url)!r}: nothing is there; check the address") from error
    except Exception as error:
        # Every protocol has errors of its own, and only some are an OSError.
        if isinstance(error, OSError) and error.filename is not None:
            raise  # ours: the disk
        words = one_line(error).replace(url, without_credentials(url)) or type(error).__name__
        raise SourceError(f"{without_credentials(url)!r} cannot be {action}: {words}") from error


def _is_safe(name: str) -> bool:
    """Whether a name stays below the folder of the copies, whatever wrote it."""
    if not name or not is_utf8(name) or len(name) > 1000 or "\\" in name or any(ord(letter) < 32 for letter in name):
        return False
    return not name.startswith("/") and not any(part in ("", ".", "..") for part in name.split("/"))


def _read_list(path: Path, shown: str) -> dict[str, RemoteFile]:
    """Read what was fetched; a line that a kill cut short counts for nothing.

    Raises:
        SourceError: It was fetched from elsewhere.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return {}
    files = {}
    for number, line in enumerate(lines):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if number == 0 and values != {"corpus": shown}:
            raise SourceError(
                f"{path.parent} holds a copy of {values.get('corpus')!r}, not of {shown!r}; "
                "give another folder with --cache, or remove this one"
            )
        if number:
            files[values["name"]] = RemoteFile(**values)
    return files


def _head(shown: str) -> str:
    return json.dumps({"corpus": shown}) + "\n"


def _line(file: RemoteFile) -> str:
    return json.dumps({"path": file.path, "name": file.name, "size": file.size, "stamp": file.stamp}) + "\n"
