"""The errors of `training`, under `storage.errors.TwinlensError`.

TwinlensError
`-- TrainingError     an encoder that cannot be fine-tuned as asked
    |-- ExamplesError     the pictures, captions or pairs to learn from
    `-- CheckpointError   a run that cannot be taken up again
"""

from __future__ import annotations

from storage.errors import TwinlensError


class TrainingError(TwinlensError):
    """An encoder cannot be fine-tuned as asked."""


class ExamplesError(TrainingError):
    """The examples cannot be learned from: none, too few, unequal lists, unreadable files, no such column."""


class CheckpointError(TrainingError):
    """What a stopped run left behind cannot be taken up again."""
