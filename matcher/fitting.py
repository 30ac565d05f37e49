"""Fine-tuning as a matcher does it: pairs to examples, a split that leaks nothing, and a calibration afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from .calibration import FILE, Calibration, fit_calibration, write_calibration
from .embed import CellEncoder, Column
from .errors import CalibrationError, DataError, MatcherError
from .evaluate_pairs import Items, known_pairs
from .pairs import Pairs, Reader, read_pairs
from .tables import SIDES, CellError, CellImage, IdMappings, Roles, images_of, text_of

if TYPE_CHECKING:
    from training import CaptionedImages, FitConfig

_NAMED = 3
# Of a time limit, what is left for loading the new encoder and encoding validation pairs with it; where that is less
# than some encoders take to be loaded, up to so many seconds, but never more than the second share.
_CALIBRATION_SHARE, _LOADING_SECONDS, _LOADING_SHARE = 0.1, 4.0, 0.3
# And of that limit, what is left for the curve, once the pairs are encoded.
_CURVE_SHARE = 0.01
# Pairs to calibrate with when the time is over already.
_FEWEST_PAIRS = 64


class FitOptions(TypedDict, total=False):
    """The keyword arguments of `Matcher.fit`.

    Attributes:
        out: A new folder for the fine-tuned encoder, which `local-dir:` opens; None makes one with the time in its
            name in the working directory.
        config: A `training.FitConfig`, or a mapping of its settings; None leaves all at their defaults.
        id_mappings: What ids in the columns stand for.
    """

    out: str | Path | None
    config: FitConfig | Mapping[str, Any] | None
    id_mappings: IdMappings | None


class Fitted(NamedTuple):
    """The spec of the fine-tuned encoder, what its cosines mean (None where that could not be learned), a report."""

    spec: str
    calibration: Calibration | None
    report: dict[str, Any]


class Task(NamedTuple):
    """What is fine-tuned, and on which pairs."""

    spec: str
    roles: Roles
    train: Pairs
    val: Pairs


def fit(spec: str, roles: Roles, data: tuple[Any, Any], time_limit: float | None, options: FitOptions) -> Fitted:
    """Fine-tune an encoder on pairs and calibrate it on the validation pairs.

    Args:
        spec: The encoder to start from.
        roles: Which column plays which part.
        data: Training pairs, and validation pairs or None.
        time_limit: Seconds.
        options: See `FitOptions`.

    Raises:
        MatcherError: The data cannot be used.
        TrainingError: The encoder cannot be trained so.
    """
    config = fit_config(options.get("config"), time_limit)
    limit = TimeLimit(config.time_limit)
    mappings = options.get("id_mappings")
    train = one_image_a_row(read_pairs(data[0], roles, mappings, several=True))
    if data[1] is None:
        train, val = split_pairs(train, config.val_share, config.seed)
    else:
        val = one_image_a_row(read_pairs(data[1], roles, mappings, several=True))
    out = Path(options.get("out") or f"encoder-{datetime.now():%Y%m%d-%H%M%S}")
    report = _as_report(_train(Task(spec, roles, train, val), out, config, limit))
    if limit.seconds and report["stopped_by"] == "time_limit" and not report["curve"]:
        warn(
            f"nothing was trained: the time limit of {limit.seconds:g} s was over before that; raise it, or give fewer "
            "pairs",
            stacklevel=4,
        )
    return _calibrated(f"local-dir:{out.resolve()}", roles, val, report | {"out": str(out)}, config.device, limit)


class TimeLimit:
    """The seconds of one `fit`, from the call on: reading the tables, training, calibrating.

    Attributes:
        seconds: All of them; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self._began)

    def of_training(self, config: FitConfig) -> FitConfig:
        """Return the settings with the seconds that are left for training."""
        if not self.seconds:
            return config
        share = max(_CALIBRATION_SHARE, min(_LOADING_SHARE, _LOADING_SECONDS / self.seconds))
        return replace(config, time_limit=max(0.0, self.left - share * self.seconds))


def split_pairs(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Return (train, val) pairs that have neither a query nor a response in common.

    Pairs that share a query or a response, directly or over others, stay together: the five captions of a photograph,
    and two photographs with a caption in common.

    Raises:
        DataError: All pairs are connected.
    """
    group = _connected([Items.of(pairs.keys[side]).find(pairs.keys[side], "") for side in SIDES])
    names = np.random.default_rng(seed).permutation(np.unique(group))
    if len(names) < 2:
        raise DataError(
            f"all {len(pairs)} pairs hang together by shared queries or responses, so none can be held back for "
            "validation; give more pairs, or val"
        )
    # Two to choose by, where that leaves two to learn from.
    count = max(1, min(len(names) - 2, max(2, round(share * len(names)))))
    held = np.isin(group, names[:count])
    return take(pairs, np.flatnonzero(~held)), take(pairs, np.flatnonzero(held))


def one_image_a_row(pairs: Pairs) -> Pairs:
    """Return the pairs with a row for each image where cells hold several, so that all of them are learned from.

    Images are then told apart by where they lie or what they hold, in whatever cell they stand. Cells that cannot be
    read stay as they are.
    """
    for side in SIDES:
        column = pairs.query if side == "query" else pairs.response
        if column.kind != "image" or not any(map(_may_hold_several, column.cells)):
            continue
        cells = [_images_in(cell, column) for cell in column.cells]
        flat = [image for images in cells for image in images]
        pairs = take(pairs, np.repeat(np.arange(len(cells)), [len(images) for images in cells]))
        sources = [image.source if isinstance(image, CellImage) else image for image in flat]
        keys = [image.key if isinstance(image, CellImage) else image for image in flat]
        # The paths found start at the working directory.
        found = Column(name=column.name, kind="image", cells=sources)
        query, response = (found, pairs.response) if side == "query" else (pairs.query, found)
        pairs = replace(pairs, query=query, response=response, keys={**pairs.keys, side: keys})
    return pairs


def _may_hold_several(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and ";" in cell)


def _images_in(cell: Any, column: Column) -> Sequence[Any]:
    try:
        return images_of(cell, column.folder)
    except CellError:
        return [cell]


def take(pairs: Pairs, rows: NDArray[np.int64]) -> Pairs:
    """Return some of the pairs."""
    query, response = (
        replace(column, cells=[column.cells[row] for row in rows]) for column in (pairs.query, pairs.response)
    )
    return Pairs(
        query=query,
        response=response,
        keys={side: [cells[row] for row in rows] for side, cells in pairs.keys.items()},
        labels=None if pairs.labels is None else pairs.labels[rows],
    )


def _connected(sides: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return for each pair the number of its group: the smallest row that it is connected with."""
    group = np.arange(len(sides[0]))
    while True:
        before = group
        for item in sides:
            smallest = np.full(int(item.max()) + 1, len(item))
            np.minimum.at(smallest, item, group)
            group = smallest[item]
        if np.array_equal(group, before):
            return group


def fit_config(given: FitConfig | Mapping[str, Any] | None, time_limit: float | None = None) -> FitConfig:
    """Return settings given in either form; a mapping and a `FitConfig` of the same values are the same settings.

    Raises:
        MatcherError: There is no such setting.
    """
    from training import FitConfig

    try:
        config = given if isinstance(given, FitConfig) else FitConfig(**(given or {}))
    except TypeError as error:
        raise MatcherError(f"config cannot be used: {error}; see training.FitConfig for its settings") from error
    return config if time_limit is None else replace(config, time_limit=time_limit)


def _train(task: Task, out: Path, config: FitConfig, limit: TimeLimit) -> Any:
    from training import PairSet, fit_encoder, fit_pairs

    if task.roles.mixed and task.train.labels is None:
        train, val = captioned(task.train), captioned(task.val)
        return fit_encoder(task.spec, train, val, out, limit.of_training(config))
    sets = [
        PairSet(
            left=contents_of(pairs.query),
            right=contents_of(pairs.response),
            labels=None if pairs.labels is None else pairs.labels.tolist(),
            left_kind=pairs.query.kind,
            right_kind=pairs.response.kind,
        )
        for pairs in (task.train, task.val)
    ]
    return fit_pairs(task.spec, sets[0], sets[1], out, limit.of_training(config))


def captioned(pairs: Pairs) -> CaptionedImages:
    """Return the distinct images of pairs, each with all of its texts."""
    from training import CaptionedImages

    image_first = pairs.query.kind == "image"
    image_column, text_column = (pairs.query, pairs.response) if image_first else (pairs.response, pairs.query)
    images, texts = contents_of(image_column), contents_of(text_column)
    cells = pairs.keys["query" if image_first else "response"]
    items = Items.of(cells)
    captions: list[list[str]] = [[] for _ in items.rows]
    for item, text in zip(items.find(cells, "").tolist(), texts, strict=True):
        captions[item].append(text)
    return CaptionedImages([images[row] for row in items.rows], captions)


def contents_of(column: Column) -> list[Any]:
    """Return the texts or the images, one a cell, as training takes them.

    Raises:
        DataError: Cells hold nothing that can be trained on; the message names the first three rows.
    """
    contents: list[Any] = []
    problems = []
    for row, cell in enumerate(column.cells):
        try:
            contents.append(text_of(cell) if column.kind == "text" else images_of(cell, column.folder)[0].source)
        except CellError as error:
            problems.append(f"row {row}: {error}")
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DataError(
            f"{len(problems)} rows of column {column.name!r} cannot be trained on: {'; '.join(problems[:_NAMED])}{more}"
        )
    return contents


def _calibrated(spec: str, roles: Roles, val: Pairs, report: dict[str, Any], device: str, limit: TimeLimit) -> Fitted:
    """Calibrate the new encoder and leave the calibration beside its weights, where it is found again."""
    from encoders import load_encoder

    encoder = load_encoder(spec, device=device)
    try:
        reader = Reader(roles, CellEncoder(encoder))
        scores, labels = known_pairs(reader, encoded_within(limit, reader, val))
        calibration = fit_calibration(scores, labels, encoder=spec, fingerprint=encoder.fingerprint)
    except CalibrationError as error:
        return Fitted(spec, None, report | {"calibration": f"none: {error}"})
    write_calibration(calibration, Path(spec.removeprefix("local-dir:")) / FILE)
    return Fitted(spec, calibration, report | {"calibration": dict(calibration.measured)})


def encoded_within(limit: TimeLimit, reader: Reader, pairs: Pairs) -> Pairs:
    """Encode pairs, drawn at random, as long as there is time, and return those; `_FEWEST_PAIRS` in any case."""
    if limit.seconds is None:
        return pairs
    order, done, count = np.random.default_rng(0).permutation(len(pairs)), 0, _FEWEST_PAIRS
    while done < count:
        before = limit.left
        reader.pairs(take(pairs, np.sort(order[done:count])))
        each = (before - limit.left) / (count - done)
        spare = limit.left - _CURVE_SHARE * limit.seconds
        # Half of what the time would allow for: the next ones may take longer than these.
        done, count = count, min(len(pairs), 2 * count, count + int(spare / 2 / max(each, 1e-6)))
    return take(pairs, np.sort(order[:done]))


def _as_report(report: Any) -> dict[str, Any]:
    return dict(report.to_json() if hasattr(report, "to_json") else asdict(report))
