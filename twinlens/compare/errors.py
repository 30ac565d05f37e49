"""The error of comparing encoders.

TwinlensError                    storage/errors.py
`-- CompareError                 encoders that cannot be compared
"""

from storage.errors import TwinlensError


class CompareError(TwinlensError):
    """The encoders cannot be compared: no captions, a request that makes no sense, or no encoder that could be used."""
