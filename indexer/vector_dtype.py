"""The numbers that vectors are stored in, over the versions of an index: what an update keeps and may change."""

from __future__ import annotations

from collections.abc import Mapping

from storage import Manifest
from storage.schema import Collection, Rounding

from .config import BuildConfig
from .errors import BuildError


def check_vector_dtype(before: Manifest, config: BuildConfig) -> None:
    """Refuse an update that asks for digits that the version before does not have.

    Raises:
        BuildError: It stores one byte a value, and `config` asks for float16.
    """
    if before.rounding and config.vector_dtype == "float16":
        raise BuildError(
            f"--vector-dtype float16: version {before.version} stores one byte a value, and the vectors that an update "
            "takes over do not get their digits back; leave the option out, or build without --update"
        )


def taken_over(before: Manifest | None) -> Mapping[Collection, Rounding]:
    """Return the rounding of the vectors that a build may take over; nothing where they are float16 or none."""
    return before.rounding if before else {}


def rounding_of(
    lost: Mapping[Collection, float], before: Manifest | None, config: BuildConfig
) -> dict[Collection, Rounding] | None:
    """Return what storing the vectors of a build took off them; None for float16.

    Vectors that an update takes over were rounded when they came in, so that the version before has a say.

    Args:
        lost: For each collection the largest length of what rounding took off a vector.
        before: The version that is updated; None for none.
        config: Of this build.
    """
    if config.vector_dtype == "float16":
        return None
    known = taken_over(before)
    return {
        name: max([Rounding.of(length), *([known[name]] if name in known else [])], key=lambda one: one.within)
        for name, length in lost.items()
    }
