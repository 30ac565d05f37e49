"""Keeping the approximate indexes of the version before, where an update leaves every vector as it was."""

from __future__ import annotations

import shutil
from collections.abc import Collection as Names
from collections.abc import Mapping
from pathlib import Path

from storage import CollectionInfo
from storage.files.layout import ann_name, measure, vectors_name
from storage.manifest import Manifest
from storage.schema import Collection
from storage.version import IndexVersion

from ..config import BuildConfig
from ..progress import Progress

# What an approximate index depends on besides the vectors.
_SETTINGS = ("ann", "seed")


def carried_over(
    parent: IndexVersion | None, folder: Path, collections: Names[Collection], config: BuildConfig, progress: Progress
) -> dict[Collection, CollectionInfo] | None:
    """Copy the approximate indexes of the version that is updated into the folder of a draft, with what was measured.

    None, and nothing copied, where any vector, item id or order differs, or a setting of the indexes: also where one
    half alone changed, as each half is measured with the other's vectors.

    Args:
        parent: The version that is updated, open; None for none.
        folder: Of the draft, where the vectors are already.
        collections: The halves that the draft has.
        config: Of this build.
        progress: Told that it is so.
    """
    if parent is None or not _is_alike(parent.manifest, collections, config):
        return None
    before = parent.manifest
    if any(measure(folder, vectors_name(name)) != before.files[vectors_name(name)] for name in collections):
        return None
    files = [ann_name(name) for name in collections if ann_name(name) in before.files]
    for name in files:
        shutil.copyfile(parent.path / name, folder / name)
    if any(measure(folder, name) != before.files[name] for name in files):
        for name in files:
            (folder / name).unlink()
        return None  # damaged since it was opened
    progress.note(f"every vector is as in version {before.version}, whose approximate index and recall are kept")
    return dict(before.collections)


def _is_alike(before: Manifest, collections: Names[Collection], config: BuildConfig) -> bool:
    settings = before.build.get("config")
    if not isinstance(settings, Mapping) or set(before.collections) != set(collections):
        return False
    floor = settings.get("min_ann_recall")
    return (
        isinstance(floor, int | float)
        and floor >= config.min_ann_recall
        and all(settings.get(name) == getattr(config, name) for name in _SETTINGS)
    )
