"""Exporting a tower of a loaded encoder, compared before it is kept.

What a text and an image tower have in common; each says in its own `export` what is written and how it is compared.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from storage.errors import StorageError
from storage.files import atomic
from storage.files.layout import TOWER_DESCRIPTION, FileEntry, sha256_of

from .errors import TowerError
from .open_clip_encoder import ClipEncoder
from .tower_files import Find, Kind, TowerDescription, cache_folder, refusal_file
from .two_towers import TwoTowers

if TYPE_CHECKING:
    from .base import Encoder

LOWEST_COSINE = 0.9999
"""The lowest cosine to the encoder's own vectors that an exported tower may have."""

Export = Callable[["Encoder", Path], TowerDescription]
D = TypeVar("D", bound=TowerDescription)


def keep_tower(kind: Kind, encoder: Encoder, find: Find, export: Export) -> TowerDescription:
    """Export a tower of an encoder to the user's cache, unless it is there, and return what it says of itself.

    An encoder whose tower cannot be exported is remembered there.

    Raises:
        TowerError: It is of a kind that is not computed without torch, its vectors differ, or the disk refuses.
    """
    folder = cache_folder(kind, encoder.fingerprint)
    with suppress(TowerError):
        if (existing := find(encoder.fingerprint, encoder.dim, None)) is not None:
            return existing.info
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    refusal = refusal_file(kind, encoder.fingerprint)
    try:
        with atomic.explained(f"keep the {kind} tower in", folder):
            atomic.make_folder(folder.parent)
            refusal.unlink(missing_ok=True)
            info = export(encoder, draft)
            atomic.remove_folder(folder)  # a damaged one
            atomic.rename(draft, folder, f"{kind}_tower")
    except StorageError as error:
        raise TowerError(str(error)) from error
    except TowerError as error:
        refusal.write_text(f"{error}\n", encoding="utf-8")
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return info


def write_tower(folder: Path, info: D, data: Mapping[str, bytes], compare: Callable[[], float]) -> D:
    """Write a tower to a new folder, durable, and return its description with the files and the comparison in it.

    Args:
        folder: Where it goes.
        info: Its description without these.
        data: The bytes of its other files, by name.
        compare: Opens what was written, and returns the lowest cosine to the encoder's own vectors.

    Raises:
        TowerError: What `compare` raises.
        OSError: The disk refuses.
    """
    folder.mkdir()
    for name, content in data.items():
        atomic.write_new(folder / name, content, name)
    files = {name: FileEntry(bytes=len(content), sha256=sha256_of(content)) for name, content in data.items()}
    info = replace(info, files=files)
    description = folder / TOWER_DESCRIPTION
    description.write_bytes(info.to_json())
    try:
        info = replace(info, lowest_cosine=compare())
    except TowerError:
        shutil.rmtree(folder)
        raise
    description.unlink()
    atomic.write_new(description, info.to_json(), TOWER_DESCRIPTION)
    atomic.sync_directory(folder)
    return info


def near_enough(lowest: float, spec: str) -> float:
    """Return the lowest cosine of a comparison, at most 1.

    Raises:
        TowerError: It is below `LOWEST_COSINE`, or no number.
    """
    if not lowest >= LOWEST_COSINE:
        raise TowerError(
            f"its vectors differ from those of {spec!r} (lowest cosine {lowest:.5f}, asked {LOWEST_COSINE}), "
            "so it is not used"
        )
    return min(lowest, 1.0)


def towers_in_fp32(encoder: Encoder, kind: Kind) -> TwoTowers:
    """Return the model of an encoder with one tower in fp32, loaded again where the encoder has cast or compiled it.

    Raises:
        TowerError: It is no model of open_clip, or another one by now.
    """
    if not isinstance(encoder, ClipEncoder):
        raise TowerError(f"an encoder of the class {type(encoder).__name__} is computed by torch alone")
    if encoder.precision == "fp32" and (kind == "text" or encoder.backend == "torch"):
        return encoder.towers
    from .checkpoints import load_towers
    from .two_towers import fingerprint

    towers = load_towers(encoder.spec)
    if fingerprint(towers, encoder.dim) != encoder.fingerprint:
        raise TowerError(f"{encoder.spec!r} is another model by now than the one that was loaded; load it again")
    return replace(towers, model=towers.model.to(encoder.device))
