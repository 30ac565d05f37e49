"""The folder that a run leaves: written aside, then renamed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from encoders.local_dir import save_local_dir
from encoders.model import TwoTowers
from storage import atomic

from .errors import TrainingError
from .report import FitReport


def free_folder(out: Path) -> Path:
    """Return the absolute path of a folder that an encoder can be saved to.

    Raises:
        TrainingError: Something is there already.
    """
    folder = out.expanduser().absolute()
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    if folder.exists() or folder.is_symlink():
        what = "is not empty" if folder.is_dir() else "is a file"
        raise TrainingError(f"output folder {str(out)!r} {what}; give a new one")
    return folder


def partial_folder(folder: Path) -> Path:
    """Return where the folder is written before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def publish(towers: TwoTowers, model: Any, report: FitReport, partial: Path, folder: Path) -> None:
    """Save the encoder and its report, durably, and give the folder its name as the last step.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    with atomic.explained("save the encoder to", folder):
        atomic.remove_folder(partial)
        atomic.make_folder(folder.parent)
        save_local_dir(replace(towers, model=model.cpu().eval()), partial)
        report.write(partial)
        for path in partial.iterdir():
            atomic.sync_file(path)
        atomic.sync_directory(partial)
        atomic.rename(partial, folder, "encoder")
