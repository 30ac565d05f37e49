"""The image files that a corpus names, found under the spelling that the disk has.

Tables and published data sets were written on other machines: with backslashes, with `./` before a name, with an
accent in one character where the disk has two, as `file:` URLs. All layouts look for their images here.
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from .item import shown, uri_of

SEPARATOR = ";"
MAX_PATH, MAX_NAME = 4096, 255
MAX_PARTS = 64
# Two letters at least: `C:` is a drive.
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+:[/\\]{2}", re.IGNORECASE)
# A URL may hold the separator itself.
_BETWEEN_URLS = re.compile(r";(?=\s*[a-z][a-z0-9+.-]+:[/\\]{1,3})", re.IGNORECASE)
_FILE_URL = re.compile(r"\s*file:[/\\]", re.IGNORECASE)
# A path of so many characters has a dot, or something else that base64 has not.
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*")
_LOCAL_HOSTS = ("", "localhost")


@dataclass(frozen=True, slots=True)
class Found:
    """Where an image's file is, or would be.

    Attributes:
        path: The file as the disk spells it.
        uri: The same as in `Item.uri`: equal for every spelling of one file.
        respelt: The disk has it under another spelling than the corpus.
    """

    path: Path
    uri: str
    respelt: bool = False


class ImagePaths:
    """The files below a root that relative names start from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tried: dict[tuple[Path, str], str | None] = {}

    def find(self, name: str) -> Found:
        """The file of that name; one that is not there is returned as it is spelt, for the decoder to miss."""
        path = self.root / name
        if name.isascii() and "\\" not in name and ".." not in name:
            return Found(path, uri_of(path, self.root))
        respelt = None if os.path.lexists(path) else self._respelt(name)
        path = _without_dots(respelt or path)
        return Found(path, uri_of(path, self.root), respelt is not None)

    def is_there(self, name: str) -> bool:
        """Whether there is a file of that name, in whatever spelling."""
        if not name or len(name) > MAX_PATH or "\0" in name:
            return False
        return os.path.isfile(self.find(name).path)  # noqa: PTH113 - False, too, for a name that is too long

    def names_in(self, cell: str) -> list[str]:
        """The names that a cell holds: what is there as one file first, then what `;` parts."""
        if SEPARATOR not in cell:
            return [cell]
        if self.is_there(cell.strip()):
            return [cell]
        if _URL.match(cell) or _FILE_URL.match(cell):
            return _BETWEEN_URLS.split(cell)
        plain = html.unescape(cell.strip())
        if plain != cell.strip() and self.is_there(plain):
            return [plain]
        return self._longest_names(cell.split(SEPARATOR))

    def _longest_names(self, parts: list[str]) -> list[str]:
        """`parts` with those joined again that together are the name of a file, as of `a;b.jpg;c.jpg`."""
        if len(parts) > MAX_PARTS:
            return parts
        names, start = [], 0
        while start < len(parts):
            ends = range(len(parts), start + 1, -1)
            joined = (SEPARATOR.join(parts[start:end]) for end in ends)
            name = next((one for one in joined if self.is_there(one.strip())), parts[start])
            names.append(name)
            start += name.count(SEPARATOR) + 1
        return names

    def _respelt(self, name: str) -> Path | None:
        """The file with the name's characters composed or decomposed, and with backslashes as slashes."""
        for spelling in dict.fromkeys((name, with_slashes(name))):
            path: Path | None = self.root
            for part in PurePosixPath(spelling).parts:
                path = path and self._below(path, part)
            if path is not None:
                return path
        return None

    def _below(self, folder: Path, part: str) -> Path | None:
        key = (folder, part)
        if key not in self._tried:
            if len(self._tried) > MAX_PATH:
                self._tried.clear()
            self._tried[key] = next((form for form in forms(part) if os.path.lexists(folder / form)), None)
        known = self._tried[key]
        return None if known is None else folder / known


def with_slashes(name: str) -> str:
    """The name with the slashes of this system."""
    return name.replace("\\", "/")


def forms(text: str) -> tuple[str, str, str]:
    """The text as it is, with its accents composed, and with them decomposed."""
    return text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def spellings(name: str) -> list[str]:
    """Every spelling under which `ImagePaths` finds a file of that name, the name itself first."""
    return list(dict.fromkeys(form for written in (name, with_slashes(name)) for form in forms(written)))


def local_name(name: str) -> tuple[str, str]:
    """The path that a name stands for, and what is wrong with it.

    Nothing, or `url`, `remote_file`, `invalid_path`, `not_a_path`.
    """
    path, problem = name.strip(), ""
    if _FILE_URL.match(path):
        path, problem = _of_file_url(path)
    elif _URL.match(path):
        problem = "url"
    if "\0" in path:
        return path.replace("\0", "\\0"), "invalid_path"
    # Of URLs the reader of URLs says what is too long.
    if problem or len(path) <= MAX_NAME or not (len(path) > MAX_PATH or _BASE64.fullmatch(path)):
        return path, problem
    return shown(path), "not_a_path"


def _of_file_url(url: str) -> tuple[str, str]:
    """The path in a `file:` URL of this machine, percent signs decoded."""
    try:
        parts = urlsplit(url.replace("\\", "/"))
    except ValueError:
        return url, "invalid_path"
    if parts.netloc.lower() not in _LOCAL_HOSTS:
        return url, "remote_file"
    # A name may hold a bare `?` or `#`, which would be written %3F and %23 by who knew better.
    rest = "".join(f"{mark}{part}" for mark, part in (("?", parts.query), ("#", parts.fragment)) if part)
    return os.fsdecode(unquote_to_bytes(parts.path + rest)), ""


def _without_dots(path: Path) -> Path:
    """`path` as it is, or where `link/..` leads elsewhere than the names say, the folder that it really leads to."""
    if ".." not in path.parts:
        return path
    real = os.path.realpath(path)
    return path if real == os.path.realpath(os.path.abspath(path)) else Path(real)  # noqa: PTH100
