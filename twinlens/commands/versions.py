"""The versions of an index: `versions` lists them, `rollback` goes back to one, `vacuum` removes old ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from indexer.report import changes_text
from storage.errors import CorruptIndexError, StorageError
from storage.files.canonical_json import to_plain
from storage.store import IndexStore

from ..console import align_columns, emit, format_counts, index_argument, output_option


@click.command()
@index_argument
@output_option
def versions(index: Path, output: str) -> None:
    """List the published versions of INDEX and what each update changed; a star marks the current one."""
    store = IndexStore.open(index)
    try:
        current = store.current()
    except CorruptIndexError as error:
        # The list is needed just then, to choose what to go back to.
        current = None
        click.echo(f"warning: {error}", err=True)
    rows = [_version_row(store, number, current) for number in store.versions()]
    lines = [(_star(row), row["created_at"] or "", row["problem"] or _contents(row)) for row in rows]
    emit(
        output,
        {"path": str(index), "current": current, "versions": rows},
        align_columns(lines) or "nothing published yet",
    )


@click.command()
@index_argument
@click.option("--to", type=int, help="Version to make current.  [default: the parent of the current one]")
@output_option
def rollback(index: Path, to: int | None, output: str) -> None:
    """Make an older version of INDEX current again, after verifying it."""
    store = IndexStore.open(index)
    number = store.rollback(to)
    emit(output, {"path": str(index), "current": number}, f"version {number} of {index} is current")


@click.command()
@index_argument
@click.option(
    "--keep", type=click.IntRange(min=1), default=2, show_default=True, help="How many of the newest to keep."
)
@output_option
def vacuum(index: Path, keep: int, output: str) -> None:
    """Remove old versions of INDEX and what killed builds left behind; the current version always stays."""
    store = IndexStore.open(index)
    removed = store.vacuum(keep)
    kept = store.versions()
    text = f"removed {_format_versions(removed)} of {index}; kept {_format_versions(kept)}"
    emit(output, {"path": str(index), "removed": removed, "kept": kept}, text)


def _version_row(store: IndexStore, number: int, current: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"version": number, "current": number == current, "created_at": None, "problem": None}
    try:
        manifest = store.manifest(number)
    except StorageError as error:
        return {**row, "problem": str(error)}
    changes = manifest.build.get("changes")
    return {**row, "created_at": manifest.created_at, **to_plain(manifest.counts), "changes": changes}


def _contents(row: dict[str, Any]) -> str:
    return format_counts(row) + (f"; {changes_text(row['changes'])}" if row["changes"] else "")


def _star(row: dict[str, Any]) -> str:
    return f"{'*' if row['current'] else ' '} {row['version']}"


def _format_versions(numbers: Sequence[int]) -> str:
    noun = "version" if len(numbers) == 1 else "versions"
    return f"{noun} {', '.join(map(str, numbers))}" if numbers else "nothing"
