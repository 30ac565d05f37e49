"""The errors of matching.

TwinlensError                    storage/errors.py
`-- MatcherError                 a matcher cannot do what it was asked
    |-- DataError                the data: an unknown column, rows that cannot be used, a side given twice or not at all
    `-- CalibrationError         there are no probabilities for this encoder, or no pairs to fit them on
"""

from storage.errors import TwinlensError


class MatcherError(TwinlensError):
    """A matcher cannot do what it was asked."""


class DataError(MatcherError):
    """The data cannot be used as asked; the message names the column, the rows and what to give instead."""


class CalibrationError(MatcherError):
    """Cosines of this encoder cannot be turned into probabilities, or there is nothing to learn that from."""
