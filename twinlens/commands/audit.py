"""The command `audit`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import emit, index_argument, output_option


@click.command()
@index_argument
@click.option("--out", type=click.Path(path_type=Path), help="Write a page with thumbnails: one file, no network.")
@click.option("--most", type=int, default=24, show_default=True, help="How many of each kind are listed, up to 100.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the images are, if the corpus was moved.")
@click.option("--version", type=int, help="Which version of the index.  [default: the current one]")
@output_option
def audit(index: Path, out: Path | None, most: int, root: Path | None, version: int | None, output: str) -> None:
    """Look for what is probably wrong with the collection in INDEX; nothing is changed.

    Captions that probably belong to another image, duplicates, leaks across splits, captions that repeat, hubs, items
    far from everything, items without partner, a map of what there is, classes by size, and what was rejected.

    \b
      twinlens audit photos.index --out audit.html
      twinlens audit photos.index --output json
    """
    from searcher.audit import audit_index

    if out is not None:
        from searcher.render.audit_page import EXAMPLE, check_page, save_audit

        check_page(out, EXAMPLE)
    found = audit_index(index, most=most, version=version, root=root)
    if out is not None:
        save_audit(out, found)
    emit(output, found.facts, found.to_text())
