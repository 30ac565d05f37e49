"""Which library computes a build's encoder on a CPU, and in which precision: as asked for, as before, or by a race."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from encoders import Encoder, EncoderError
from storage.schema import EncodingInfo

from ..config import BuildConfig
from ..progress import Progress

if TYPE_CHECKING:
    from encoders.open_clip_encoder import ClipEncoder

# Below this many images a race takes longer than it saves.
RACE_FROM = 1000


class Computed(NamedTuple):
    """An encoder as a build computes it, and the race that led to it as JSON values; None where there was none."""

    encoder: Encoder
    race: dict[str, Any] | None = None


def computed(
    encoder: Encoder, config: BuildConfig, images: int, before: EncodingInfo | None, progress: Progress
) -> Computed:
    """Return the encoder as this build will compute it.

    Args:
        encoder: As `load_encoder` gave it.
        config: Says whether there is a choice: `auto` for both backend and precision, and no cluster.
        images: How many there are.
        before: How the version that is updated was encoded: an update goes on likewise where it can.
        progress: Told what was chosen and what was refused.

    Raises:
        EncoderError: A backend was asked for by name and is not installed, or its vectors are not those of torch.
    """
    if not _has_backends(encoder) or encoder.device != "cpu" or encoder.precision != "fp32":
        return Computed(encoder)
    from encoders.cpu_backends import checked, fastest

    if config.backend == "openvino":
        return Computed(checked(encoder, "openvino", "bf16" if config.precision == "bf16" else "fp32"))
    if config.executor == "ray" or (config.backend, config.precision) != ("auto", "auto"):
        return Computed(encoder)
    if before is not None and (kept := _as_before(encoder, before, progress)) is not None:
        return Computed(kept)
    if images < RACE_FROM:
        return Computed(encoder)
    progress.note("trying which backend encodes fastest on this processor (--precision fp32 leaves that out)")
    chosen, race = fastest(encoder)
    progress.note(race.sentence())
    return Computed(chosen, race.to_json())


def _has_backends(encoder: Encoder) -> TypeGuard[ClipEncoder]:
    """Whether an encoder is a model of open_clip; told without importing that for one that is not."""
    return hasattr(encoder, "on_backend")


def _as_before(encoder: ClipEncoder, before: EncodingInfo, progress: Progress) -> Encoder | None:
    """Return the encoder computed as an earlier version was; None where that was elsewhere or is not possible here."""
    from encoders.cpu_backends import checked

    if before.device != "cpu" or before.backend is None or before.precision is None:
        return None
    try:
        return checked(encoder, before.backend, before.precision)
    except EncoderError as error:
        progress.note(f"the version before was encoded by {before.backend} {before.precision}, and here {error}")
        return None
