"""The command `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from searcher.errors import SearchError
from searcher.hits import Hits, table
from searcher.render.image_files import corpus_root
from searcher.searcher import Searcher
from storage.schema import Collection

from ..console import emit, output_option

_SEARCH_OPTIONS = ("where", "ann_recall", "nprobe", "oversample", "exact")


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, help="Search with words; may be given several times.")
@click.option("--image", "images", multiple=True, help="Search with a picture file; may be given several times.")
@click.option(
    "--into",
    type=click.Choice(["images", "texts"]),
    help="What to look for.  [default: images where the index has any, else texts]",
)
@click.option("-k", type=int, default=10, show_default=True, help="Hits wanted a query.")
@click.option("--where", help='A condition on columns of the catalog, e.g. "width >= 640".')
@click.option(
    "--ann-recall",
    type=float,
    help="Share of the exact top k to find; the cheapest measured setting that does is used.  [default: 0.95]",
)
@click.option("--nprobe", type=int, help="Lists to visit, in place of the measured setting.")
@click.option("--oversample", type=int, help="Candidates a hit, in place of the measured setting.")
@click.option("--exact", is_flag=True, help="Compare every vector.")
@click.option("--version", type=int, help="Which version of the index.  [default: the current one]")
@click.option(
    "--encoder", help="The encoder, for an index of ready-made vectors.  [default: the one that made the index]"
)
@click.option("--device", default="auto", show_default=True, help="Where to encode queries: auto, cpu, cuda.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option(
    "--verify",
    type=click.Choice(["full", "size"]),
    default="full",
    show_default=True,
    help="Check the files' checksums, or only their sizes.",
)
@click.option("--contact-sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write the hits as a PNG.")
@click.option("--gallery", type=click.Path(path_type=Path, dir_okay=False), help="Write the hits as an HTML page.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the pictures are, if the corpus was moved.")
@output_option
def search(index: Path, output: str, **options: Any) -> None:
    """Search INDEX by words or by pictures.

    Several --text and --image are answered in this order, first the texts. With --output json one query gives one
    object, several give a list of them.
    """
    if not options["texts"] and not options["images"]:
        raise SearchError('there is nothing to search with; give --text "a dog in the snow" or --image query.jpg')
    _check_files(options)
    opening = {name: options[name] for name in ("version", "encoder", "device", "precision", "verify")}
    with Searcher.open(index, **opening) as searcher:
        found = _ask(searcher, options)
        root = corpus_root(searcher.manifest.corpus, options["root"])
    _draw(found, root, options)
    answers = [hits.to_json() for hits in found]
    emit(output, answers[0] if len(answers) == 1 else answers, table(found))


def _check_files(options: dict[str, Any]) -> None:
    """Refuse a file that cannot be written before the work rather than after it."""
    for name in ("contact_sheet", "gallery"):
        path = options[name]
        if path is not None and not path.parent.is_dir():
            raise SearchError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    if options["root"] is not None and not options["root"].is_dir():
        raise SearchError(f"--root {str(options['root'])!r} is no folder; name the one that the pictures are in")


def _ask(searcher: Searcher, options: dict[str, Any]) -> list[Hits]:
    into: Collection = options["into"] or searcher.collections[0]
    asked = {name: options[name] for name in _SEARCH_OPTIONS}
    by_text = searcher.text_to_image if into == "images" else searcher.text_to_text
    by_image = searcher.image_to_image if into == "images" else searcher.image_to_text
    found = by_text(list(options["texts"]), options["k"], **asked) if options["texts"] else []
    return found + (by_image(list(options["images"]), options["k"], **asked) if options["images"] else [])


def _draw(found: list[Hits], root: Path | None, options: dict[str, Any]) -> None:
    if options["contact_sheet"]:
        from searcher.render.contact_sheet import save_contact_sheet

        save_contact_sheet(options["contact_sheet"], found, root)
    if options["gallery"]:
        from searcher.render.html_gallery import save_gallery

        save_gallery(options["gallery"], found, root)
