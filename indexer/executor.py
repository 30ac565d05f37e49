"""Where shards are encoded; staging, merging and publishing stay with the process that builds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .config import BuildConfig
from .encode import EncodeReport, ShardEncoder
from .plan import Shard


class Executor(Protocol):
    """Encodes the shards of a build, wherever it does so: the tables in staging are the same."""

    def placed(self, config: BuildConfig) -> BuildConfig:
        """Return the settings with the device that will be used, where that differs from this process's."""

    def encode(self, job: ShardEncoder, shards: Iterable[Shard]) -> EncodeReport:
        """Put every shard that is not finished yet into the job's staging, durably."""


class LocalExecutor:
    """This process."""

    def placed(self, config: BuildConfig) -> BuildConfig:
        """Return the settings as they are."""
        return config

    def encode(self, job: ShardEncoder, shards: Iterable[Shard]) -> EncodeReport:
        """Encode here."""
        return job.run(shards)
