"""The text tower of a build's encoder, exported so that searches by text need no torch: into the index or the cache."""

from __future__ import annotations

from pathlib import Path

from encoders import Encoder
from encoders.text_tower import TextTowerError, cache_folder, copy_text_tower, was_refused
from storage.files.atomic import explained
from storage.files.layout import TOWER_FILES

from .encode.build_encoder import DeferredEncoder, loaded
from .errors import BuildError
from .progress import Progress


def include_text_tower(encoder: Encoder | None, folder: Path, progress: Progress, before: Path | None = None) -> None:
    """Write the text tower of an encoder to a new folder, which is that of a draft: the index is portable.

    Args:
        encoder: Whose tower; it is not loaded where the tower is in `before` or in the user's cache.
        folder: Where to.
        progress: Told what is going on.
        before: The folder of the tower in the version that is updated, which need not be there.

    Raises:
        BuildError: There is no encoder, or its text tower cannot be exported.
        StorageError: The disk refuses.
    """
    if encoder is None or not (isinstance(encoder, DeferredEncoder) or _has_towers(encoder)):
        what = "the encoder is not known" if encoder is None else f"{encoder.spec!r} is no such encoder"
        raise BuildError(
            f"a portable index holds the text tower of `lite` or of a model of open_clip, and {what}; "
            "leave --portable out, or name the encoder"
        )
    progress.note("adding the text tower to the index")
    try:
        if copy_text_tower(encoder.fingerprint, encoder.dim, folder, before):
            return
        # Not before it is needed: this imports torch.
        from encoders.text_tower.export import export_text_tower

        with explained("write the text tower to", folder):
            export_text_tower(loaded(encoder), folder)
    except TextTowerError as error:
        raise BuildError(f"the text tower cannot go into the index: {error}; leave --portable out") from error


def keep_text_tower(encoder: Encoder, progress: Progress) -> None:
    """Export the text tower of an encoder to the user's cache, once; where that fails, a note says why.

    The version is published by then, and searches go without the tower.
    """
    if not (isinstance(encoder, DeferredEncoder) or _has_towers(encoder)):
        return
    try:
        folder = cache_folder(encoder.fingerprint)
        if was_refused(encoder.fingerprint) or (folder / TOWER_FILES[0]).is_file():
            return
        from encoders.text_tower.export import keep_text_tower as keep

        progress.note(f"exporting the text tower, once for this encoder, to {folder}")
        keep(loaded(encoder))
    except TextTowerError as error:
        progress.note(f"the text tower was not exported, so that text searches load torch: {error}")


def _has_towers(encoder: Encoder) -> bool:
    """Whether an encoder is a model of open_clip, as `lite` is; told without importing torch."""
    return hasattr(encoder, "towers")
