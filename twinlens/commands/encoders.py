"""The command group `encoders`: the table to choose an encoder from; `export` keeps the towers of one for searches."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from encoders.catalogue.entries import languages
from encoders.catalogue.presets import Kind
from encoders.errors import EncoderError, TowerError
from encoders.tower_files import Kind as TowerKind
from encoders.tower_files import TowerDescription, cache_folder

from ..console import emit, output_option
from ..encoder_table import KINDS, ORDERS, EncoderRow, Order, encoder_rows, sorted_rows, table_json, table_text

if TYPE_CHECKING:
    from encoders.speed import Speed


def _language(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the code of a language that was measured; any other is an error that lists them."""
    code = value.strip().lower() if value is not None else None
    if code is not None and code not in languages():
        raise click.BadParameter(f"no recall was published for the language {value!r}; choose {', '.join(languages())}")
    return code


class _Encoders(click.Group):
    """The table by itself, and what is called by name; a name of neither kind is an error that says what there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            only = f"`twinlens encoders --only {shlex.quote(args[0])}` shows the encoders with that in their name"
            raise click.UsageError(
                f"there is no command {args[0]!r}; there is {', '.join(self.commands)}; {only}, and "
                "`twinlens encoders` all",
                ctx,
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Encoders, invoke_without_command=True)
@click.option(
    "--sort", "order", type=click.Choice(ORDERS), default="recall", show_default=True, help="What comes first."
)
@click.option(
    "--language",
    metavar="CODE",
    callback=_language,
    help="Compare by the recall in this language, e.g. zh, and show it.",
)
@click.option("--only", metavar="TEXT", help="Show encoders with TEXT in their name, e.g. SigLIP2.")
@click.option(
    "--device", "kind", type=click.Choice(KINDS), default="cpu", show_default=True, help="For presets and --measure."
)
@click.option("--measure", is_flag=True, help="Measure speed here, with random weights, so that nothing is fetched.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="With --measure: begin with no further encoder after this time. The cheapest come first.",
)
@output_option
@click.pass_context
def encoders(
    context: click.Context,
    order: Order,
    language: str | None,
    only: str | None,
    kind: Kind,
    measure: bool,
    seconds: float,
    output: str,
) -> None:
    """List encoders to choose from: published recall, cost, bytes, licence; or `export` the towers of one.

    Any name in the first column is a spec for --encoder, and so is a preset: fast, balanced, best, multilingual.

    \b
      twinlens encoders --sort speed
      twinlens encoders --language zh
      twinlens encoders --measure --only SigLIP2
    """
    if context.invoked_subcommand is not None:
        return
    rows = _only(encoder_rows(language), only)
    if measure:
        rows = measured_rows(rows, kind, seconds)
    rows = sorted_rows(rows, order)
    emit(output, table_json(rows, language), table_text(rows, kind, language, measure))


def _only(rows: Sequence[EncoderRow], only: str | None) -> list[EncoderRow]:
    found = [row for row in rows if only is None or only.lower() in row.entry.spec.lower()]
    if not found:
        near = get_close_matches(str(only), [row.entry.spec for row in rows], n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise click.BadParameter(f"no encoder of the table has {only!r} in its name{hint}", param_hint="--only")
    return found


def measured_rows(rows: Sequence[EncoderRow], kind: Kind, seconds: float) -> list[EncoderRow]:
    """Return rows, the cheapest first, with their speed here, or why there is none.

    What cannot be built costs its row and not the run. Weights do not matter, so an architecture is measured once.
    """
    click.echo("loading torch", err=True)
    from encoders.device import choose_device
    from encoders.speed import Speed, measure_speed

    choose_device(kind)
    began, found = time.monotonic(), dict[str, Speed | str]()
    cheapest_first = sorted(rows, key=lambda row: row.entry.image_gflops)
    for number, row in enumerate(cheapest_first, start=1):
        name = row.entry.architecture
        if name in found:
            continue
        if time.monotonic() - began > seconds:
            found[name] = f"the {seconds:g} seconds were over (--seconds)"
            continue
        click.echo(f"measuring {number} of {len(rows)}: {name}", err=True)
        try:
            found[name] = measure_speed(row.entry, kind, min(2.0, seconds / 20))
        except EncoderError as error:
            found[name] = str(error)
    return [_with_speed(row, found[row.entry.architecture]) for row in cheapest_first]


def _with_speed(row: EncoderRow, found: Speed | str) -> EncoderRow:
    return replace(row, not_measured=found) if isinstance(found, str) else replace(row, speed=found)


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


def _files(kind: TowerKind, info: TowerDescription) -> dict[str, Any]:
    size = sum(entry.bytes for entry in info.files.values())
    folder = cache_folder(kind, info.fingerprint)
    return {"folder": str(folder), "bytes": size, "lowest_cosine": info.lowest_cosine}


def _line(kind: TowerKind, info: TowerDescription) -> str:
    files = _files(kind, info)
    size, lowest = files["bytes"] / 1e6, info.lowest_cosine
    return f"{files['folder']}: the {kind} tower of {info.spec}, {size:,.0f} MB, lowest cosine {lowest:.6f}"
