"""The errors of `training`, under `storage.errors.TwinlensError`.

TwinlensError
|-- TrainingError     an encoder that cannot be fine-tuned as asked
|   |-- ExamplesError     the images, captions or pairs to learn from
|   `-- CheckpointError   a run that cannot be resumed
`-- RegionError       region features, captions or ids that cannot be used as they lie on disk
"""

from __future__ import annotations

from storage.errors import TwinlensError


class TrainingError(TwinlensError):
    """An encoder cannot be fine-tuned as asked."""


class ExamplesError(TrainingError):
    """The examples cannot be learned from: none, too few, unequal lists, unreadable files, no such column."""


class CheckpointError(TrainingError):
    """What a stopped run left behind cannot be taken up again."""


class RegionError(TwinlensError):
    """Files of region features cannot be used: missing, of another shape, not finite, or not fitting their captions."""
