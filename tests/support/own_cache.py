"""A cache of a test's own, in which the towers that were exported for other tests are there already."""

from __future__ import annotations

from pathlib import Path

from encoders.remembered import user_cache

TOWERS = ("text-towers", "image-towers")


def with_towers(folder: Path) -> str:
    """Make a cache in a new folder, whose towers are those of the cache of all tests; return it for the environment.

    An export takes as long as encoding some hundred texts, and most tests need only its outcome.
    """
    folder.mkdir()
    for name in TOWERS:
        shared = user_cache() / name
        shared.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(shared)
    return str(folder)
