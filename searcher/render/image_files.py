"""Thumbnails of hits and queries, read from files, tar shards and bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from encoders import DecodeLimits
from encoders.errors import ImageError
from encoders.images import decode_image
from storage.schema import CorpusInfo

from ..hits import Hit, Hits

_SUFFIX = ".tar"
_MOST_MEMBERS = 1_000_000  # what an index reads of one shard
_SHARDS_KEPT = 8


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


def picture_source(uri: str | None, root: Path | None) -> Path | bytes | None:
    """Return what `decode_image` takes for the image that `uri` names: its file, or its bytes out of a tar shard."""
    path = resolve_uri(uri, root)
    if path is None or path.exists():
        return path
    return member_bytes(path, DecodeLimits().max_bytes) or path


def missing_images(results: Iterable[Hits], root: Path | None) -> list[str]:
    """Return the `uri` of each image hit whose file is not where it was, each once, in order."""
    uris = (hit.uri for hits in results if hits.collection == "images" for hit in hits if hit.uri)
    found = {uri: picture_source(uri, root) for uri in uris}
    return [uri for uri, source in found.items() if isinstance(source, Path) and not source.exists()]


_LARGEST_ENLARGEMENT = 4.0
_PROBLEMS = {"missing": "file not found", "not_an_image": "not an image", "unsupported_format": "format not supported"}


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail, or why there is none: exactly one of the two is set."""

    image: Image.Image | None = None
    problem: str | None = None


def thumbnail(source: Any, box: tuple[int, int]) -> Thumbnail:
    """Return a thumbnail that fits into `box`, aspect kept, enlarged at most four times.

    `source` is what `decode_image` takes, or None.
    """
    if source is None:
        return Thumbnail(problem="no file is named")
    try:
        image = decode_image(source).pixels
    except ImageError as error:
        return Thumbnail(problem=_PROBLEMS.get(error.reason, error.reason.replace("_", " ")))
    factor = min(box[0] / image.width, box[1] / image.height, _LARGEST_ENLARGEMENT)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return Thumbnail(image=image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def hit_thumbnail(hit: Hit, root: Path | None, box: tuple[int, int]) -> Thumbnail:
    """Return the thumbnail of an image hit; `root` is the folder that its `uri` is relative to."""
    return thumbnail(picture_source(hit.uri, root), box)
