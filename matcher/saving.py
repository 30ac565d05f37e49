"""A matcher on disk: JSON for what it declares and what its cosines mean, a folder for the weights. Nothing runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from .calibration import Calibration
from .errors import MatcherError

FILE = "matcher.json"
ENCODER_FOLDER = "encoder"
FORMAT = 1
_LOCAL = "local-dir:"
ROLES = ("query", "response", "query_type", "response_type", "label", "match_label")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What is kept of a matcher.

    Attributes:
        roles: Those of `ROLES`; `root` is a place on one machine and stays behind.
        encoder: The spec that opens the encoder; of a saved folder the path inside it.
        fingerprint: Of the encoder.
        calibration: What its cosines mean; None where nobody knows.
        fit: What the last `fit` reported.
    """

    roles: Mapping[str, Any]
    encoder: str
    fingerprint: str
    calibration: Calibration | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)


def save(saved: Saved, path: Path, standalone: bool) -> Path:
    """Write a matcher to a folder that does not exist yet, or is empty; it appears whole or not at all.

    Raises:
        MatcherError: The folder holds something, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MatcherError(f"{str(path)!r} exists and is not empty; give a new folder to save the matcher to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _write(saved, draft, standalone)
            draft.chmod(0o755)
            draft.replace(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise MatcherError(f"cannot save the matcher to {str(path)!r}: {error.strerror or error}") from error
    return path


def read(path: Path) -> Saved:
    """Return what `save` wrote.

    Raises:
        MatcherError: There is no matcher, it is damaged, or a newer release wrote it.
    """
    value = _read_json(path)
    calibration = value["calibration"]
    return Saved(
        roles={name: value["roles"][name] for name in ROLES},
        encoder=f"{_LOCAL}{path.resolve() / ENCODER_FOLDER}" if value["encoder_folder"] else value["encoder"],
        fingerprint=value["fingerprint"],
        calibration=None if calibration is None else Calibration.from_json(calibration, repr(str(path / FILE))),
        fit=value["fit"],
    )


def _write(saved: Saved, folder: Path, standalone: bool) -> None:
    kept = standalone or saved.encoder.startswith(_LOCAL)
    if kept:
        _save_encoder(saved.encoder, folder / ENCODER_FOLDER)
    value = {
        "format": FORMAT,
        "roles": dict(saved.roles),
        "encoder": saved.encoder,
        "encoder_folder": kept,
        "fingerprint": saved.fingerprint,
        "calibration": None if saved.calibration is None else saved.calibration.to_json(),
        "fit": dict(saved.fit),
    }
    try:
        text = json.dumps(value, indent=1)
    except TypeError as error:
        label = saved.roles["match_label"]
        raise MatcherError(f"match_label={label!r} cannot be saved: {error}; give a text") from error
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def _save_encoder(spec: str, folder: Path) -> None:
    if spec.startswith(_LOCAL):
        shutil.copytree(Path(spec.removeprefix(_LOCAL)).expanduser(), folder)
        return
    from encoders.checkpoints import load_towers, save_local_dir

    save_local_dir(load_towers(spec), folder)


def _read_json(path: Path) -> dict[str, Any]:
    file = path / FILE
    if not file.is_file():
        raise MatcherError(f"there is no matcher in {str(path)!r}: it has no {FILE}; give a folder that save() wrote")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        newer = value["format"] > FORMAT
        required = ("roles", "encoder", "encoder_folder", "fingerprint", "calibration", "fit")
        complete = all(name in value for name in required) and all(name in value["roles"] for name in ROLES)
    except (ValueError, KeyError, TypeError) as error:
        raise MatcherError(f"{str(file)!r} is damaged: {error!r}; save the matcher again") from error
    if newer or not complete:
        what = f"has format {value['format']}" if newer else "lacks something that every matcher has"
        raise MatcherError(f"{str(file)!r} {what}; this release reads format {FORMAT}; save it again with this one")
    return dict(value)
