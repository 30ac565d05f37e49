"""Calibration: cosines to probabilities of a match (Platt, isotonic), with cross-fitted figures; stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from encoders.catalogue import load_entries
from storage.arguments import check_fields, exits_as_typed_wrong
from storage.logistic import fit_logistic, sigmoid

from .errors import CalibrationError
from .pair_metrics import check_both, pair_figures

Method = Literal["platt", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST = 10
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A rising curve from the cosine of a pair to the probability that it is a match.

    The probability is that of pairs mixed as those it was fitted on: by default one true pair to two wrong ones, of
    which one was drawn at random and one among the nearest. Where matches are rarer than that, raise the threshold.

    Attributes:
        method: `platt`: 1 / (1 + exp(-(slope * cosine + intercept))), two numbers, right for hundreds of pairs on;
            `isotonic`: straight lines between knots, any rising shape, for thousands of pairs on.
        slope: Of `platt`.
        intercept: Of `platt`.
        knots: (cosine, probability) of `isotonic`, ascending in both.
        threshold: The probability from which on a pair is called a match. Raise it for fewer wrong matches.
        encoder: The spec of the encoder whose cosines these are.
        fingerprint: Of that encoder; None where only its vectors were known.
        measured: Figures of pairs that took no part in fitting: `pairs`, `matches`, `roc_auc`, `accuracy`, `ece`, ...
    """

    method: Method = "platt"
    slope: float = 0.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    threshold: float = 0.5
    encoder: str = ""
    fingerprint: str | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        """Refuse what is no calibration.

        Raises:
            CalibrationError: A value is not in its range; the message says which.
        """
        check_fields(self, CalibrationError)
        check_threshold(self.threshold)
        values = np.array([self.slope, self.intercept, *(value for knot in self.knots for value in knot)])
        if not np.isfinite(values).all():
            raise CalibrationError("a calibration holds a value that is not finite; fit it again")
        if self.method == "isotonic" and not _ascending(self.knots):
            raise CalibrationError("the knots of an isotonic calibration must ascend; fit it again")

    def probability(self, cosines: NDArray[Any] | float) -> NDArray[np.float64]:
        """Return for each cosine the probability of a match, in [0, 1]; NaN for NaN."""
        wide = np.asarray(cosines, dtype=np.float64)
        if self.method == "platt":
            return sigmoid(self.slope * wide + self.intercept)
        x, y = np.array(self.knots).T
        return np.asarray(np.interp(wide, x, y), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**asdict(self), "knots": [list(knot) for knot in self.knots], "measured": dict(self.measured)}

    @classmethod
    def from_json(cls, value: Any, origin: str) -> Calibration:
        """Read what `to_json` gave.

        Raises:
            CalibrationError: It is something else.
        """
        try:
            knots = tuple((float(x), float(y)) for x, y in value["knots"])
            values: dict[str, Any] = {name: float(value[name]) for name in ("slope", "intercept", "threshold")}
            values |= {name: value[name] for name in ("method", "encoder", "fingerprint", "measured")}
            return cls(knots=knots, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"{origin} holds no calibration: {error!r}; save one with twinlens match") from error


def fit_calibration(
    cosines: NDArray[Any],
    labels: NDArray[Any],
    method: Method | None = None,
    *,
    encoder: str = "",
    fingerprint: str | None = None,
) -> Calibration:
    """Learn what cosines mean from pairs of which it is known whether they match.

    `measured` holds the figures of five-fold cross-fitting: each pair is judged by a curve that has not seen it.

    Args:
        cosines: (n,) cosines.
        labels: (n,) 1 for a match, 0 for none.
        method: See `Calibration`; None takes the one with the lower cross-fitted Brier score.
        encoder: The spec of the encoder that the cosines come from.
        fingerprint: Of that encoder.

    Raises:
        CalibrationError: There are fewer than 10 pairs, or all have the same label.
    """
    if method is not None and method not in METHODS:
        raise CalibrationError(f"calibration method {method!r} is unknown; give 'platt' or 'isotonic'")
    scores, matches = np.asarray(cosines, dtype=np.float64), np.asarray(labels).astype(bool)
    if len(scores) < FEWEST:
        raise CalibrationError(f"{len(scores)} pairs are too few to calibrate with; give {FEWEST} or more")
    check_both(matches, CalibrationError)
    figures = {name: pair_figures(_cross_fitted(scores, matches, name), matches) for name in METHODS}
    best: Method = min(METHODS, key=lambda name: figures[name]["brier"]) if method is None else method
    measured = figures[best] | {"pairs": len(scores), "matches": int(matches.sum())}
    curve = _fit(scores, matches, best)
    return Calibration(method=best, **curve, encoder=encoder, fingerprint=fingerprint, measured=measured)


def check_threshold(threshold: Any) -> float:
    """Return a threshold that is a probability.

    Raises:
        CalibrationError: It is none.
    """
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1:
        raise CalibrationError(f"threshold {threshold!r} is no probability; give a number from 0 to 1")
    return value


def _cross_fitted(scores: NDArray[Any], matches: NDArray[np.bool_], method: Method) -> NDArray[np.float64]:
    """Judge each fifth by the other four; folds are drawn within matches and non-matches, so that each has both."""
    judged = np.empty(len(scores))
    fold = np.empty(len(scores), dtype=np.int64)
    for value in (True, False):
        rows = np.flatnonzero(matches == value)
        fold[np.random.default_rng(0).permutation(rows)] = np.arange(len(rows)) % _FOLDS
    for number in range(_FOLDS):
        kept, held = fold != number, fold == number
        both = 0 < matches[kept].sum() < kept.sum()
        curve = _fit(scores[kept], matches[kept], method) if both else _fit(scores, matches, method)
        judged[held] = Calibration(method=method, **curve).probability(scores[held])
    return judged


def _fit(scores: NDArray[Any], matches: NDArray[np.bool_], method: Method) -> dict[str, Any]:
    return _fit_platt(scores, matches) if method == "platt" else _fit_isotonic(scores, matches)


def _fit_platt(scores: NDArray[Any], matches: NDArray[np.bool_]) -> dict[str, Any]:
    """Maximum likelihood of a sigmoid with softened targets (Platt 1999).

    Targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2) in place of 1 and 0 keep the curve from becoming a step on few pairs.
    """
    positive = int(matches.sum())
    target = np.where(matches, (positive + 1) / (positive + 2), 1 / (len(scores) - positive + 2))
    slopes, intercept = fit_logistic(scores[:, None], target)
    return {"slope": float(slopes[0]), "intercept": intercept}


def _fit_isotonic(scores: NDArray[Any], matches: NDArray[np.bool_]) -> dict[str, Any]:
    """Least squares over all rising curves, by pooling adjacent violators (Zadrozny and Elkan 2002).

    A block becomes a knot at its mean cosine, with straight lines in between, so that pairs keep their order. Equal
    cosines are one block from the start. No knot is quite 0 or 1: nothing is certain after finitely many pairs.
    """
    cosines, block_of = np.unique(scores, return_inverse=True)
    blocks: list[tuple[float, float, float]] = []  # matches, pairs, sum of cosines
    for one in zip(
        np.bincount(block_of, weights=matches).tolist(), np.bincount(block_of).tolist(), cosines.tolist(), strict=True
    ):
        block = (one[0], float(one[1]), one[1] * one[2])
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    margin = 1 / (len(scores) + 2)
    knots = [(total / pairs, min(max(hits / pairs, margin), 1 - margin)) for hits, pairs, total in blocks]
    return {"knots": tuple(knots)}


def _ascending(knots: tuple[tuple[float, float], ...]) -> bool:
    x, y = np.array(knots).T if knots else (np.empty(0), np.empty(0))
    return len(knots) > 0 and bool(np.all(np.diff(x) > 0) and np.all(np.diff(y) >= 0) and y[0] >= 0 and y[-1] <= 1)


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
    raise _without_calibration(spec)


def check_not_unknown(spec: str) -> None:
    """Refuse an encoder of which its spec alone says that there is no calibration, before it is fetched and loaded.

    Any other may lie on this machine, hold a calibration, or be the weights of one that ships.

    Raises:
        CalibrationError: The catalogue knows it, and nothing ships for it.
    """
    known = any(entry.spec == spec for entry in load_entries())
    if known and all(calibration.encoder != spec for calibration in shipped_calibrations().values()):
        raise _without_calibration(spec)


def _without_calibration(spec: str) -> CalibrationError:
    return CalibrationError(
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
