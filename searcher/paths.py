"""Where the file of an image is: catalogs hold paths relative to the corpus, so that a corpus can be moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders import DecodeLimits

from .archive import member_bytes


def corpus_root(build: Mapping[str, Any], override: str | Path | None = None) -> Path | None:
    """Return the folder that image paths are relative to: `override`, else the one the build recorded, else None."""
    if override is not None:
        return Path(override)
    recorded = build.get("root")
    return Path(recorded) if isinstance(recorded, str) and recorded else None


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
    """Return what `decode_image` takes for the picture that `uri` names: its file, or its bytes out of a tar shard."""
    path = resolve_uri(uri, root)
    if path is None or path.exists():
        return path
    return member_bytes(path, DecodeLimits().max_bytes) or path
