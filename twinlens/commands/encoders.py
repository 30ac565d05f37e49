"""The command group `encoders`: what is kept of encoders on this machine. `export` keeps the towers of one."""

from __future__ import annotations

from typing import Any

import click

from encoders.errors import TowerError
from encoders.tower_files import Kind, TowerDescription, cache_folder

from ..console import emit, output_option


@click.group()
def encoders() -> None:
    """Export the towers of an encoder, so that searches by text or image need no torch."""


@encoders.command()
@click.argument("spec")
@output_option
def export(spec: str, output: str) -> None:
    """Export the text tower of the encoder SPEC to the user's cache, and its image tower where it is that of `lite`.

    A build does this by itself, once for an encoder. This is for an index that was built on another machine, without
    --portable.

    \b
      twinlens encoders export ViT-B-32/laion2b_s34b_b79k
      twinlens encoders export lite
    """
    from encoders import load_encoder

    encoder = load_encoder(spec)
    if not hasattr(encoder, "towers"):
        raise TowerError(f"encoder {spec!r} is computed by torch alone; searches load it as it is")
    from encoders.image_tower.export import keep_image_tower
    from encoders.text_tower.export import keep_text_tower

    info = keep_text_tower(encoder)
    summary: dict[str, Any] = {
        "spec": info.spec,
        "fingerprint": info.fingerprint,
        **_files("text", info),
        "image": None,
    }
    lines = [_line("text", info)]
    try:
        image = keep_image_tower(encoder)
    except TowerError as error:
        click.echo(f"note: searches by image load torch: {error}", err=True)
    else:
        summary["image"] = _files("image", image)
        lines.append(_line("image", image))
    emit(output, summary, "\n".join(lines))


def _files(kind: Kind, info: TowerDescription) -> dict[str, Any]:
    size = sum(entry.bytes for entry in info.files.values())
    folder = cache_folder(kind, info.fingerprint)
    return {"folder": str(folder), "bytes": size, "lowest_cosine": info.lowest_cosine}


def _line(kind: Kind, info: TowerDescription) -> str:
    files = _files(kind, info)
    size, lowest = files["bytes"] / 1e6, info.lowest_cosine
    return f"{files['folder']}: the {kind} tower of {info.spec}, {size:,.0f} MB, lowest cosine {lowest:.6f}"
