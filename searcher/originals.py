"""The originals of hits: the files that an index was made of, images and films, below the corpus or in tar shards."""

from __future__ import annotations

import tarfile
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.formats.films import file_behind
from storage.schema import CorpusInfo

from .errors import SearchError

if TYPE_CHECKING:
    from PIL import Image

_SUFFIX = ".tar"
_MOST_MEMBERS = 1_000_000  # what an index reads of one shard
_SHARDS_KEPT = 8
_MAX_BYTES = 64 * 1024 * 1024  # as `DecodeLimits`


def member_bytes(path: Path, max_bytes: int) -> bytes | None:
    """Return the bytes of `SHARD.tar/NAME`; None where `path` names no member of a shard, or one above `max_bytes`.

    The headers of a shard are read once, those of the last eight shards are kept.
    """
    shard = next((folder for folder in path.parents if folder.suffix == _SUFFIX and folder.is_file()), None)
    if shard is None:
        return None
    try:
        extent = _members(shard, shard.stat().st_mtime_ns).get(path.relative_to(shard).as_posix())
        if extent is None or extent[1] > max_bytes:
            return None
        with shard.open("rb") as file:
            file.seek(extent[0])
            return file.read(extent[1])
    except (OSError, tarfile.TarError):
        return None


@lru_cache(maxsize=_SHARDS_KEPT)
def _members(shard: Path, _mtime_ns: int) -> dict[str, tuple[int, int]]:
    """Offset and size of each regular member by name; what stands after damage is missing."""
    with tarfile.open(shard, "r:") as archive:
        regular = (member for member in islice(archive, _MOST_MEMBERS) if member.isreg() and not member.issparse())
        return {member.name.removeprefix("./"): (member.offset_data, member.size) for member in regular}


def corpus_root(corpus: CorpusInfo | None, override: str | Path | None = None) -> Path | None:
    """Return the folder that image paths are relative to: `override`, else the one the build recorded, else None."""
    if override is not None:
        return Path(override)
    return Path(corpus.root) if corpus is not None and corpus.root else None


def resolve_uri(uri: str | None, root: Path | None) -> Path | None:
    """Return the file that `uri` names, whether or not it exists; None where it names no file.

    An absolute `uri` stands for itself; a relative one is below `root` (the working directory without one). A path that
    leaves `root` by `..` names no file: an index from elsewhere must not make us show other files of this machine.
    """
    if not uri or "\0" in uri:
        return None
    path = Path(uri)
    if path.is_absolute():
        return path
    return None if ".." in path.parts else (root or Path()) / path


def image_source(uri: str | None, root: Path | None) -> Path | bytes | None:
    """Return what `decode_image` takes for the image that `uri` names: its file, or its bytes out of a tar shard.

    A frame of a film is named as `film.mp4#t=12.5`, which `decode_image` knows.
    """
    path = resolve_uri(uri, root)
    if path is None or file_behind(path).exists():
        return path
    return member_bytes(path, _MAX_BYTES) or path


def open_original(uri: str | None, root: Path | None) -> Image.Image:
    """Return the image that `uri` names, upright and in RGB.

    Raises:
        SearchError: No file is named, it is not there, or it cannot be decoded.
    """
    from encoders.errors import ImageError
    from encoders.images import decode_image

    source = image_source(uri, root)
    if source is None:
        raise SearchError(f"the image {str(uri)[:200]!r} names no file below {str(root or Path())!r}")
    try:
        return decode_image(source).pixels
    except ImageError as error:
        raise SearchError(
            f"the image {str(uri)[:200]!r} below {str(root or Path())!r} cannot be opened: {error}; "
            "if the images were moved, name their folder by root="
        ) from error
