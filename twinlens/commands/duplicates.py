"""The command `duplicates`."""

from __future__ import annotations

from pathlib import Path

import click

from storage.duplicates.grades import GRADES, Grade

from ..console import emit, index_argument


@click.command()
@index_argument
@click.option(
    "--grade",
    type=click.Choice(GRADES),
    default="resaved",
    show_default=True,
    help="The loosest likeness: equal bytes; saved or resized again; crops, mirrored images, the same scene.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the images are, if the corpus was moved.")
@click.option("--version", type=int, help="Which version of the index.  [default: the current one]")
@click.option(
    "--output",
    type=click.Choice(["text", "json", "html"]),
    default="text",
    show_default=True,
    help="For people, for programs, or a page with thumbnails.",
)
def duplicates(index: Path, grade: Grade, root: Path | None, version: int | None, output: str) -> None:
    """Group the images of INDEX that are alike, and say which of each group is best; nothing is deleted.

    \b
      twinlens duplicates photos.index
      twinlens duplicates photos.index --grade similar --output html > duplicates.html
      twinlens duplicates photos.index --grade exact --output json
    """
    from searcher import Searcher

    with Searcher.open(index, version=version, root=root) as searcher:
        found = searcher.duplicates(grade)
        if output == "html":
            from searcher.originals import corpus_root
            from searcher.render.duplicates_page import render_duplicates

            emit("text", None, render_duplicates(found, corpus_root(searcher.manifest.corpus, root)))
        else:
            emit(output, found.to_json(), found.to_text())
