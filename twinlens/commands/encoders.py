"""The command group `encoders`: what is kept of encoders on this machine. `export` keeps the text tower of one."""

from __future__ import annotations

from typing import Any

import click

from encoders.errors import TextTowerError
from encoders.text_tower import cache_folder

from ..console import emit, output_option


@click.group()
def encoders() -> None:
    """Export the text tower of an encoder, so that searches by text need no torch."""


@encoders.command()
@click.argument("spec")
@output_option
def export(spec: str, output: str) -> None:
    """Export the text tower of the encoder SPEC to the user's cache.

    A build does this by itself, once for an encoder. This is for an index that was built on another machine, without
    --portable.

    \b
      twinlens encoders export ViT-B-32/laion2b_s34b_b79k
      twinlens encoders export lite
    """
    from encoders import load_encoder

    encoder = load_encoder(spec)
    if not hasattr(encoder, "towers"):
        raise TextTowerError(f"encoder {spec!r} is computed by torch alone; searches load it as it is")
    from encoders.text_tower.export import keep_text_tower

    info = keep_text_tower(encoder)
    folder = cache_folder(info.fingerprint)
    size = sum(entry.bytes for entry in info.files.values())
    summary: dict[str, Any] = {
        "spec": info.spec,
        "fingerprint": info.fingerprint,
        "folder": str(folder),
        "bytes": size,
        "lowest_cosine": info.lowest_cosine,
    }
    text = f"{folder}: the text tower of {info.spec}, {size / 1e6:,.0f} MB, lowest cosine {info.lowest_cosine:.6f}"
    emit(output, summary, text)
