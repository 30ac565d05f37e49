"""Where calibrations are kept: those that ship, those beside an encoder's weights, and files of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .calibration import Calibration
from .errors import CalibrationError

PATH = Path(__file__).with_name("calibrations.json")
FILE = "calibration.json"
"""What a calibration is called in the folder of a `local-dir:` encoder."""


def find_calibration(spec: str, fingerprint: str | None) -> Calibration:
    """Return the calibration of an encoder: the one in its own folder, else the one that ships.

    Args:
        spec: Of the encoder.
        fingerprint: Of the encoder. A calibration is used for the very weights that it was fitted with, under
            whatever name; where only vectors were known, for the spec alone.

    Raises:
        CalibrationError: There is none; the message says how to fit one.
    """
    if spec.startswith("local-dir:"):
        path = Path(spec.removeprefix("local-dir:")).expanduser() / FILE
        if path.is_file():
            return check_encoder(read_calibration(path), spec, fingerprint)
    for calibration in shipped_calibrations().values():
        known = calibration.fingerprint
        if (known is not None and known == fingerprint) or (known is None and calibration.encoder == spec):
            return calibration
    raise CalibrationError(
        f"encoder {spec!r} has no calibration, so its cosines say nothing about the probability of a match; fit one "
        "with matcher.calibrate(pairs) or --calibrate PAIRS on 100 or more true pairs, or give a saved one"
    )


def check_encoder(calibration: Calibration, spec: str, fingerprint: str | None) -> Calibration:
    """Return a calibration that is of this encoder.

    Raises:
        CalibrationError: It is of another one: the same cosine means something else there.
    """
    if calibration.fingerprint is None or calibration.fingerprint == fingerprint:
        return calibration
    raise CalibrationError(
        f"the calibration is of encoder {calibration.encoder!r} with other weights than {spec!r} has; "
        "fit one for this encoder with matcher.calibrate(pairs)"
    )


def shipped_calibrations() -> dict[str, Calibration]:
    """Return the calibrations that ship, by encoder spec."""
    return {spec: Calibration.from_json(value, PATH.name) for spec, value in _read_json(PATH).items()}


def read_calibration(path: str | Path) -> Calibration:
    """Return the calibration in a file.

    Raises:
        CalibrationError: There is no such file, or it holds something else.
    """
    return Calibration.from_json(_read_json(Path(path)), repr(str(path)))


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as JSON, in place of a file of that name.

    Raises:
        CalibrationError: The file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(calibration.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CalibrationError(f"cannot write the calibration {str(path)!r}: {error.strerror}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"cannot read the calibration {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise CalibrationError(f"{str(path)!r} is no JSON: {error}; save a calibration with twinlens match") from error
