"""The command `search`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from searcher.errors import SearchError
from searcher.hits import Hits, table
from searcher.request import OPTIONS, SearchRequest

from ..console import TOKEN, emit, emit_line
from .query_parts import OrderedCommand, has_parts, part_options, query_lines, typed_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searcher import Searcher

F = TypeVar("F", bound=Callable[..., Any])


def request_options(command: F) -> F:
    """Add the options of a search request to a command: each by its name, type and help text in `SearchRequest`."""
    for name, option in reversed([*OPTIONS.items()]):
        flag = f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
        if option.type is bool:
            command = click.option(flag, is_flag=True, default=None, help=option.help)(command)
        else:
            kind = click.Choice(option.choices) if option.choices else _CLICK_TYPES.get(option.type)
            shown = f"{option.help}  [default: 10]" if name == "k" else option.help
            command = click.option(flag, type=kind, help=shown)(command)
    return command


_CLICK_TYPES: dict[type, Any] = {int: click.INT, float: click.FLOAT}


@click.command(cls=OrderedCommand)
@click.argument("index", required=False)
@click.argument("sentence", metavar="[TEXT]", required=False)
@part_options
@click.option(
    "--queries",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Search with each line of a file, - for stdin: texts, or in a .jsonl objects with text, image, item or query.",
)
@request_options
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
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the hits as an image: .png, .jpg, .webp.",
)
@click.option("--gallery", type=click.Path(path_type=Path, dir_okay=False), help="Write the hits as an HTML page.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the images are, if the corpus was moved.")
@click.option("--server", metavar="URL", help="Ask a running `twinlens serve` in place of opening INDEX.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True, help="Seconds to wait for --server."
)
@click.option(
    "--output",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="Print results for people or for programs; jsonl gives an object a line, each as soon as it is there.",
)
def search(index: str | None, sentence: str | None, output: str, **options: Any) -> None:
    """Search INDEX by a TEXT, or by images.

    \b
      twinlens search photos.index "a dog in the snow"
      twinlens search photos.index --image query.jpg --into texts
      twinlens search --server http://127.0.0.1:8000/ "a dog in the snow"

    --minus, --minus-image, --like, --unlike and --weight make one query of all that is given; --weight says how much
    the part just before it counts:

    \b
      twinlens search photos.index "a beach" --minus people --like IMG_1.jpg --weight 0.5

    --words looks words up in captions and ids, alone or beside a query; --hybrid does so with those of the text:

    \b
      twinlens search photos.index --words SKU-1234
      twinlens search photos.index --hybrid "a red car in Seattle"

    Without them several --text and --image are answered in this order, first the texts, then --queries. With --output
    json one query gives one object, several give a list of them. A server is shown the token that TWINLENS_TOKEN
    holds; it does not tell where the images are.
    """
    if options["server"] is not None:
        _check_for_server(index, sentence)
        index, sentence = None, index
    elif index is None:
        raise click.UsageError("give the INDEX to search, or a running server by --server")
    if sentence is not None and options["texts"]:
        raise click.UsageError(f"the text {sentence[:40]!r} and --text were given; give each query by --text")
    options["texts"] = options["texts"] if sentence is None else (sentence,)
    if options["queries"] is None and options["words"] is None and not has_parts(options):
        raise click.UsageError('there is nothing to search with; give "a dog in the snow" or --image query.jpg')
    _check_files(options)
    requests = _requests(options)
    answers = _asked(requests, options) if index is None else _searched(Path(index), requests, options)
    if output == "jsonl" and not (options["contact_sheet"] or options["gallery"]):
        for hits in answers:
            if not emit_line(hits.to_json()):
                break
        return
    results = list(answers)
    if options["contact_sheet"] or options["gallery"]:
        _draw(results, options)
    values = [hits.to_json() for hits in results]
    if output == "jsonl":
        for value in values:
            emit_line(value)
    else:
        emit(output, values[0] if len(values) == 1 and options["queries"] is None else values, table(results))


def _searched(index: Path, requests: Iterator[SearchRequest], options: dict[str, Any]) -> Iterator[Hits]:
    from searcher.searcher import Searcher  # a server is asked without it, and without DuckDB and FAISS

    opening = {name: options[name] for name in ("version", "encoder", "device", "precision", "verify", "root")}
    with Searcher.open(index, **opening) as searcher:
        while batch := list(islice(requests, _TOGETHER)):
            for hits in searcher.search(batch):
                if options["gallery"] and options["explain"]:
                    options.setdefault("maps", []).append(_maps(searcher, hits))
                yield hits
        note = searcher.encoder_note
    if note is not None:
        click.echo(f"note: {note}", err=True)


def _maps(searcher: Searcher, hits: Hits) -> list[NDArray[np.float32] | None]:
    """Return which parts of each image hit of a text match; None for other hits, and images that cannot be shown."""
    maps: list[NDArray[np.float32] | None] = [None] * len(hits)
    if hits.collection != "images" or hits.query.kind != "text":
        return maps
    for position, hit in enumerate(hits):
        with suppress(SearchError):
            maps[position] = searcher.relevance_map(hits.query.content, hit.open())
    return maps


def _asked(requests: Iterator[SearchRequest], options: dict[str, Any]) -> Iterator[Hits]:
    from searcher.client import Client

    client = Client(options["server"], token=os.environ.get(TOKEN) or None, timeout=options["timeout"])
    while batch := list(islice(requests, _TOGETHER)):
        yield from client.search_many(batch)


# What a server has settled when it was started, or what needs the files of the images.
_NOT_FOR_SERVERS = ("version", "encoder", "device", "precision", "verify", "contact_sheet", "gallery", "root")


def _check_for_server(index: str | None, sentence: str | None) -> None:
    context = click.get_current_context()
    typed = [name for name in _NOT_FOR_SERVERS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if typed:
        flag = f"--{typed[0].replace('_', '-')}"
        raise click.UsageError(f"{flag} is for an INDEX of this machine and not for --server; leave one of them out")
    if sentence is not None:
        raise click.UsageError(f"--server takes no INDEX: give the text alone, without {index!r}")


def _check_files(options: dict[str, Any]) -> None:
    """Refuse a file that cannot be written before the work rather than after it."""
    for name in ("contact_sheet", "gallery"):
        path = options[name]
        if path is not None and not path.parent.is_dir():
            raise SearchError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    if options["contact_sheet"] is not None:
        from searcher.render.contact_sheet import sheet_format

        sheet_format(options["contact_sheet"])
    if options["root"] is not None and not options["root"].is_dir():
        raise SearchError(f"--root {str(options['root'])!r} is no folder; name the one that the images are in")


def _requests(options: dict[str, Any]) -> Iterator[SearchRequest]:
    """Return the requests in order; those of the command line are checked before the index is opened."""
    given = {name: option.parse(name, options[name]) for name, option in OPTIONS.items() if options[name] is not None}
    alone = SearchRequest(**given)
    typed = [SearchRequest(parts=parts, **given) for parts in typed_parts(options)]
    if not typed and options["queries"] is None:
        typed = [alone]
    if options["queries"] is None:
        return iter(typed)
    return chain(typed, (SearchRequest(parts=parts, **given) for parts in query_lines(options["queries"])))


# Lines that are encoded and ranked together.
_TOGETHER = 256


def _draw(results: list[Hits], options: dict[str, Any]) -> None:
    from searcher.render.thumbnails import missing_images

    root = next((hit.root for hits in results for hit in hits), options["root"])
    if missing := missing_images(results, root):
        click.echo(
            f"note: {len(missing)} image files are not there, first {missing[0]!r} below {str(root or Path())!r}; "
            "if the images were moved, name their folder by --root",
            err=True,
        )
    if options["contact_sheet"]:
        from searcher.render.contact_sheet import save_contact_sheet

        save_contact_sheet(options["contact_sheet"], results, root)
    if options["gallery"]:
        from searcher.render.html_gallery import save_gallery

        save_gallery(options["gallery"], results, root, options.get("maps"))
