"""How a spec says that an encoder sees regions, not photographs. No torch."""

from __future__ import annotations

from pathlib import Path

FAMILY = "regions"
PREFIX = "hrem:"


def takes_regions(spec: str | None) -> bool:
    """Return whether a spec names an encoder of region features."""
    return spec is not None and spec.startswith(PREFIX)


def checkpoint_folder(spec: str) -> Path:
    """Return the folder that `hrem:PATH` names."""
    return Path(spec.removeprefix(PREFIX)).expanduser().resolve()
