"""The command `verify`: checks the files of a version; `--repair` trains damaged ANN files again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from storage import IndexStore
from storage.verify import verification_json, verification_text

from ..console import DAMAGED, emit, index_argument, output_option


@click.command()
@index_argument
@click.option("--version", "number", type=int, help="Version to check.  [default: the current one]")
@click.option(
    "--repair",
    is_flag=True,
    help="Rebuild damaged ANN files from intact vectors, and publish the result as a new version, which is then "
    "current. Damage to vectors, catalog or manifest is refused, unless another version holds the same bytes.",
)
@output_option
def verify(index: Path, number: int | None, repair: bool, output: str) -> None:
    """Read every file of INDEX and compare it with what was published; exit with 3 when one differs."""
    if repair:
        _repair(index, number, output)
        return
    result = IndexStore.open(index).verify(number)
    emit(output, verification_json(index, result), verification_text(index, result))
    if not result.ok:
        raise click.exceptions.Exit(DAMAGED)


def _repair(index: Path, number: int | None, output: str) -> None:
    from indexer.progress import console_progress
    from indexer.repair import repair_index

    with console_progress(sys.stderr) as progress:
        report = repair_index(index, number, progress)
    result = IndexStore.open(index).verify(report.published or report.version)
    value = {**verification_json(index, result), "repair": asdict(report)}
    emit(output, value, "\n".join([verification_text(index, result), report.sentence()]))
