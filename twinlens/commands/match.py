"""The command `match`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from encoders.load import DEFAULT_ENCODER
from matcher.calibration import check_threshold, read_calibration, write_calibration
from matcher.errors import MatcherError
from matcher.evaluate_pairs import judge, match_readable
from matcher.matcher import Matcher
from matcher.matches import Match, Matches
from matcher.pairs import Pairs, Reader, read_pairs
from matcher.tables import CellError, Kind

from ..console import emit, output_option

_SHOWN = 48


@click.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--image", "images", multiple=True, help="A column of images; twice to match images with images.")
@click.option("--text", "texts", multiple=True, help="A column of texts; twice to match texts with texts.")
@click.option("--encoder", default=DEFAULT_ENCODER, show_default=True, help="The encoder spec, e.g. lite.")
@click.option("--threshold", type=float, help="Probability of a match from which on.  [default: the calibration's]")
@click.option("--calibration", type=click.Path(path_type=Path), help="What cosines mean: a file saved before.")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="Learn it from a table of true pairs with the same columns, or of labelled ones.",
)
@click.option("--label", help="The column of that table that says whether a pair matches.")
@click.option("--match-label", help="The label that means a match.  [default: 1]")
@click.option("--save-calibration", type=click.Path(path_type=Path), help="Keep what was learned, for --calibration.")
@click.option("--uncalibrated", is_flag=True, help="Give cosines alone; probability and match are then empty.")
@click.option("--root", type=click.Path(path_type=Path), help="Where relative image paths start.  [default: PAIRS]")
@click.option("--quoting", type=click.Choice(["auto", "csv", "none"]), default="auto", help="How a CSV file is quoted.")
@click.option("--device", default="auto", show_default=True, help="Where to encode: auto, cpu, cuda.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@output_option
def match(pairs: Path, output: str, **options: Any) -> None:
    """Say for each row of the table PAIRS how likely its two sides belong together.

    PAIRS is a CSV, Parquet or JSON file, also .gz, as build-index reads them.

    A row that cannot be read is kept in its place with the reason; exit code 1 only where that is all rows.
    """
    matcher = _matcher(options)
    table = read_pairs(pairs, matcher.roles, labelled=False)
    for note in table.notes:
        click.echo(note, err=True)
    _calibrate(matcher, options)
    calibration = None if options["uncalibrated"] else matcher.calibration
    scores, errors = match_readable(Reader(matcher.roles, matcher.cell_encoder()), table)
    if len(errors) == len(table):
        raise MatcherError(f"none of the {len(table)} rows of {str(pairs)!r} can be used: row 0: {errors[0]}")
    matches = judge(scores, calibration, options["threshold"], errors=errors)
    emit(output, [_row(row, table) | one for row, one in enumerate(matches.to_json())], _table(matches, table))
    click.echo(_summary(matches), err=True)


def _matcher(options: dict[str, Any]) -> Matcher:
    columns: list[tuple[str, Kind]] = [(name, "text") for name in options["texts"]]
    columns += [(name, "image") for name in options["images"]]
    if len(columns) != 2:
        raise click.UsageError(
            f"{len(columns)} columns are named, and a pair has 2; give --image COLUMN and --text COLUMN, or one twice"
        )
    if options["uncalibrated"] and (options["calibration"] or options["calibrate"] or options["threshold"] is not None):
        raise click.UsageError("--uncalibrated gives no probabilities, so no calibration and no threshold go with it")
    if options["calibration"] and options["calibrate"]:
        raise click.UsageError("--calibration and --calibrate exclude each other; give one of them")
    if options["save_calibration"] and not options["calibrate"]:
        raise click.UsageError("--save-calibration keeps what --calibrate learns; give --calibrate PAIRS as well")
    (query, query_type), (response, response_type) = columns
    if options["threshold"] is not None:
        check_threshold(options["threshold"])
    return Matcher(
        query,
        response,
        options["encoder"],
        device=options["device"],
        precision=options["precision"],
        # A vector of another batch may differ in its last digit, and a row says the same with --calibrate and without.
        remember_bytes=0,
        query_type=query_type,
        response_type=response_type,
        label=options["label"],
        match_label=options["match_label"],
        root=options["root"],
        quoting=options["quoting"],
    )


def _calibrate(matcher: Matcher, options: dict[str, Any]) -> None:
    if options["calibration"]:
        matcher.use(read_calibration(options["calibration"]))
    if options["calibrate"]:
        learned = matcher.calibrate(options["calibrate"])
        click.echo(f"calibrated: {_learned(learned.measured)}", err=True)
        if options["save_calibration"]:
            write_calibration(learned, options["save_calibration"])


def _learned(measured: Any) -> str:
    figures = ", ".join(f"{name} {measured[name]:.3f}" for name in ("roc_auc", "accuracy", "ece"))
    return f"{measured['pairs']} pairs, {figures}"


def _row(row: int, table: Pairs) -> dict[str, Any]:
    """What the row says, as far as it can be shown."""
    columns = (table.query, table.response)
    return {"row": row} | {column.name: _plain(column.cells[row]) for column in columns if column.name not in _OURS}


_OURS = ("row", "cosine", "probability", "match", "error")


def _plain(cell: Any) -> Any:
    if isinstance(cell, CellError):
        return None
    return cell if isinstance(cell, str | int | float | list | type(None)) else f"<{type(cell).__name__}>"


def _table(matches: Matches, table: Pairs) -> str:
    cells = zip(table.query.cells, table.response.cells, strict=True)
    lines = [f"{'row':>5}  {'cosine':>7}  {'prob.':>6}  {'match':5}  {table.query.name} | {table.response.name}"]
    for row, (one, pair) in enumerate(zip(matches, cells, strict=True)):
        shown = " | ".join(" ".join(str(_plain(cell)).split())[:_SHOWN] for cell in pair)
        lines.append(f"{row:>5}  {_figures(one)}  {shown}" + (f"  ! {one.error}" if one.error else ""))
    return "\n".join(lines)


def _figures(one: Match) -> str:
    cosine = "" if one.cosine is None else f"{one.cosine:.4f}"
    probability = "" if one.probability is None else f"{one.probability:.3f}"
    verdict = "" if one.match is None else "yes" if one.match else "no"
    return f"{cosine:>7}  {probability:>6}  {verdict:5}"


def _summary(matches: Matches) -> str:
    limit = "" if matches.threshold is None else f", {int(matches.match.sum())} match at {matches.threshold:g} or above"
    unread = f"; {len(matches.errors)} rows could not be used" if matches.errors else ""
    return f"{len(matches)} pairs{limit}{unread}"
