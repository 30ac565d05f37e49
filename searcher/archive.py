"""Pictures that lie in tar shards, found again by name for people to look at."""

from __future__ import annotations

import tarfile
from functools import lru_cache
from itertools import islice
from pathlib import Path

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
        place = _members(shard, shard.stat().st_mtime_ns).get(path.relative_to(shard).as_posix())
        if place is None or place[1] > max_bytes:
            return None
        with shard.open("rb") as file:
            file.seek(place[0])
            return file.read(place[1])
    except (OSError, tarfile.TarError):
        return None


@lru_cache(maxsize=_SHARDS_KEPT)
def _members(shard: Path, _mtime_ns: int) -> dict[str, tuple[int, int]]:
    """Offset and size of each regular member by name; what stands after damage is missing."""
    with tarfile.open(shard, "r:") as archive:
        regular = (member for member in islice(archive, _MOST_MEMBERS) if member.isreg() and not member.issparse())
        return {member.name.removeprefix("./"): (member.offset_data, member.size) for member in regular}
