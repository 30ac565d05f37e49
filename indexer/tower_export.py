"""The towers of a build's encoder, exported so that searches need no torch: into the index or the user's cache."""

from __future__ import annotations

from pathlib import Path

from encoders import Encoder
from encoders.errors import TowerError
from encoders.image_tower import find_image_tower
from encoders.text_tower import find_text_tower
from encoders.tower_files import KINDS, Kind, cache_folder, copy_tower, was_refused
from storage.files.atomic import explained
from storage.files.layout import TOWER_DESCRIPTION

from .encode.build_encoder import DeferredEncoder, loaded
from .errors import BuildError
from .progress import Progress


def include_towers(encoder: Encoder | None, folder: Path, progress: Progress, before: Path | None = None) -> None:
    """Write the towers of an encoder to new folders in that of a draft: the index is portable.

    The text tower must be there; an image tower that cannot be exported, or not without loading the encoder for it
    alone, is left out.

    Args:
        encoder: Whose towers; it is not loaded where its text tower is in `before` or in the user's cache.
        folder: That of the draft.
        progress: Told what is going on.
        before: The folder of the version that is updated, which need not have towers.

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
    progress.note("adding the towers of the encoder to the index")
    try:
        _include("text", encoder, folder, before)
    except TowerError as error:
        raise BuildError(f"the text tower cannot go into the index: {error}; leave --portable out") from error
    try:
        _include("image", encoder, folder, before)
    except TowerError as error:
        progress.note(f"the image tower is not in the index, so that image searches load torch: {error}")


def _include(kind: Kind, encoder: Encoder, folder: Path, before: Path | None) -> None:
    name = f"{kind}_tower"
    inside = None if before is None else before / name
    find = {"text": find_text_tower, "image": find_image_tower}[kind]
    if copy_tower(kind, find, encoder.fingerprint, encoder.dim, folder / name, inside) or _waits(kind, encoder):
        return
    # Not before it is needed: this imports torch.
    from encoders.image_tower.export import export_image_tower
    from encoders.text_tower.export import export_text_tower

    with explained(f"write the {kind} tower to", folder / name):
        {"text": export_text_tower, "image": export_image_tower}[kind](loaded(encoder), folder / name)


def keep_towers(encoder: Encoder, progress: Progress) -> None:
    """Export the towers of an encoder to the user's cache, once; where that fails, a note says why.

    The version is published by then, and searches go without them.
    """
    if not (isinstance(encoder, DeferredEncoder) or _has_towers(encoder)):
        return
    for kind in KINDS:
        try:
            _keep(kind, encoder, progress)
        except TowerError as error:
            progress.note(f"the {kind} tower was not exported, so that {kind} searches load torch: {error}")


def _keep(kind: Kind, encoder: Encoder, progress: Progress) -> None:
    folder = cache_folder(kind, encoder.fingerprint)
    known = was_refused(kind, encoder.fingerprint) or (folder / TOWER_DESCRIPTION).is_file()
    if known or _waits(kind, encoder):
        return
    from encoders.image_tower.export import keep_image_tower
    from encoders.text_tower.export import keep_text_tower

    progress.note(f"exporting the {kind} tower, once for this encoder, to {folder}")
    {"text": keep_text_tower, "image": keep_image_tower}[kind](loaded(encoder))


def _waits(kind: Kind, encoder: Encoder) -> bool:
    """Whether a tower is not worth to load the encoder for it alone: few searches are by image."""
    return kind == "image" and isinstance(encoder, DeferredEncoder) and not encoder.is_loaded


def _has_towers(encoder: Encoder) -> bool:
    """Whether an encoder is a model of open_clip, as `lite` is; told without importing torch."""
    return hasattr(encoder, "towers")
