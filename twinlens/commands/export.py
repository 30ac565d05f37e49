"""The command `export`: writes an index to Parquet, Lance or `.npy` files, or into Milvus or Qdrant."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from ..console import emit, index_argument, output_option

SECONDS_BETWEEN_LINES = 5.0


@click.command()
@index_argument
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FOLDER|URL",
    help="A new folder, a file NAME.parquet, milvus:ADDRESS or qdrant:ADDRESS; a path in place of an address is the "
    "embedded engine.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "npy", "lance"]),
    default="parquet",
    show_default=True,
    help="File format in the folder.",
)
@click.option(
    "--collection",
    "collections",
    multiple=True,
    type=click.Choice(["images", "texts"]),
    help="Which of the two.  [default: both]",
)
@click.option("--where", help='Only items that satisfy a condition on columns, e.g. "width >= 640".')
@click.option("--column", "columns", multiple=True, help="Catalog column to export.  [default: all]")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Number type of the vectors.  [default: float16, as stored, for files; float32 for engines]",
)
@click.option("--version", type=int, help="Which version of the index.  [default: the current one]")
@click.option("--name", default="twinlens", show_default=True, help="Prefix of an engine's collections: NAME_images.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option(
    "--verify",
    type=click.Choice(["full", "size"]),
    default="full",
    show_default=True,
    help="Check the files' checksums first, or only their sizes.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
def export(index: Path, target: str, output: str, quiet: bool, **options: Any) -> None:
    """Write INDEX to files, or into a vector engine, for those who serve from there.

    \b
      twinlens export photos.index --to photos.parquet
      twinlens export photos.index --to tables
      twinlens export photos.index --to vectors --format npy --collection images
      twinlens export photos.index --to qdrant:http://localhost:6333 --name photos
      twinlens export photos.index --to milvus:photos.db --where "width >= 640"

    What appears is whole: files are written under another name and renamed, collections too. Keys of engines are read
    from QDRANT_API_KEY and MILVUS_TOKEN.
    """
    from storage.export.export import ExportOptions, export_index

    chosen = ExportOptions(**{**options, "columns": options["columns"] or None})
    report = export_index(index, target, chosen, None if quiet else _ProgressLines())
    emit(output, report.to_json(), report.to_text())


class _ProgressLines:
    """Progress on stderr: a line when a collection begins, every few seconds, and at its end."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, collection: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            self._started = self._last = now
        if done not in (0, total) and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = f", {done / max(now - self._started, 1e-9):,.0f} a second" if done else ""
        click.echo(f"{collection}: {done:,} of {total:,}{rate}", file=sys.stderr)
