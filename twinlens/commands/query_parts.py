"""Parts of queries as they are typed, each with its sign and weight, and as they stand in a file, a query a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import click

from searcher.errors import SearchError
from searcher.query import MOST_PARTS, QueryPart, image_part, item_part, text_part
from searcher.request import query_part

_ORDER = "twinlens.order"
_LONGEST_LINE = 1_000_000

# What each option adds, and whether it is wanted; in this order they stand in the query.
_KINDS: Mapping[str, tuple[Callable[[Any], QueryPart], int]] = {
    "texts": (text_part, 1),
    "images": (image_part, 1),
    "like": (item_part, 1),
    "minus": (text_part, -1),
    "minus_image": (image_part, -1),
    "unlike": (item_part, -1),
}
_TOGETHER = ("like", "minus", "minus_image", "unlike", "weight")


class OrderedCommand(click.Command):
    """A command that remembers in which order its options were typed, those of several kinds among one another."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as ever, and keep the order for `typed_parts`."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that give the parts of a query."""
    options = [
        click.option("--text", "texts", multiple=True, help="Search with words; may be given several times."),
        click.option("--image", "images", multiple=True, help="Search with an image file; may be given several times."),
        click.option("--minus", multiple=True, help="Words for what is unwanted; may be given several times."),
        click.option("--minus-image", multiple=True, metavar="FILE", help="An image file of what is unwanted."),
        click.option("--like", multiple=True, metavar="ITEM", help="More like an item of the index, by its id."),
        click.option("--unlike", multiple=True, metavar="ITEM", help="Less like an item of the index."),
        click.option(
            "--weight",
            type=float,
            multiple=True,
            help="How much the part typed just before it counts beside the others, e.g. 0.5.  [default: 1]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def typed_parts(options: Mapping[str, Any]) -> list[tuple[QueryPart, ...]]:
    """Return the queries that were typed: one of all parts where any belongs with others, else one a part.

    Raises:
        UsageError: A weight stands where nothing is to weigh.
        SearchError: A part cannot be searched with.
    """
    weights = _weights(click.get_current_context().meta[_ORDER], options)
    parts = [
        replace(make(value), weight=sign * weights.get((kind, position), 1.0))
        for kind, (make, sign) in _KINDS.items()
        for position, value in enumerate(options[kind])
    ]
    if any(options[name] for name in _TOGETHER):
        return [tuple(parts)]
    return [(part,) for part in parts]


def has_parts(options: Mapping[str, Any]) -> bool:
    """Whether anything to search with was typed."""
    return any(options[kind] for kind in _KINDS)


def _weights(order: Sequence[str], options: Mapping[str, Any]) -> dict[tuple[str, int], float]:
    """Return the weight of each part that has one, by its kind and its position among those."""
    values = iter(options["weight"])
    seen: Counter[str] = Counter()
    # The words are no option and have no position: a weight before all options is theirs.
    before = ("texts", 0) if options["texts"] and "texts" not in order else None
    weights: dict[tuple[str, int], float] = {}
    for name in order:
        if name in _KINDS:
            before = (name, seen[name])
            seen[name] += 1
        elif name == "weight":
            value = next(values)
            if before is None or before in weights:
                raise click.UsageError(f"--weight {value:g} must follow what it weighs, e.g. --like ITEM --weight 0.5")
            if not (value > 0 and isfinite(value)):
                raise click.UsageError(f"--weight {value:g} must be above 0; --minus and --unlike say what is unwanted")
            weights[before] = value
    return weights


def query_lines(path: Path) -> Iterator[tuple[QueryPart, ...]]:
    """Yield the parts of the queries of a file, one query a line; empty lines are left out. `-` is stdin.

    Args:
        path: A file of texts; of JSON objects with one of `text`, `image`, `item` and `query` where its name ends in
            `.jsonl`.

    Raises:
        SearchError: The file cannot be read, or a line is no query; the message says which.
    """
    objects = path.suffix.lower() in (".jsonl", ".ndjson")
    try:
        with click.open_file(str(path), encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), ""), start=1):
                if len(line) > _LONGEST_LINE:
                    raise SearchError(f"line {number} of {str(path)!r} has more than {_LONGEST_LINE:,} characters")
                if text := line.strip():
                    try:
                        yield _line_parts(text) if objects else (text_part(text),)
                    except SearchError as error:
                        raise SearchError(f"line {number} of {str(path)!r}: {error}") from error
    except UnicodeDecodeError as error:
        raise SearchError(f"{str(path)!r} is no UTF-8 text: {error.reason}; save it as UTF-8") from error
    except OSError as error:
        raise SearchError(f"the queries {str(path)!r} cannot be read: {error.strerror or error}") from error


def _line_parts(line: str) -> tuple[QueryPart, ...]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SearchError(f"{line[:60]!r} is no JSON: {error}") from error
    kind, given = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)
    if kind == "query" and isinstance(given, list):
        return _composed(given)
    if kind not in _LINE_PARTS or not isinstance(given, str):
        raise SearchError(
            f'{line[:60]!r} is no query; give one of {{"text": ...}}, {{"image": PATH}}, {{"item": ID}}, '
            '{"query": [PARTS]}'
        )
    return (_LINE_PARTS[kind](given),)


def _composed(values: list[Any]) -> tuple[QueryPart, ...]:
    """Return the parts of a query as the API takes them, and images besides, by their paths."""
    if not 1 <= len(values) <= MOST_PARTS:
        raise SearchError(f"query has {len(values)} parts; give 1 to {MOST_PARTS}")
    return tuple(
        replace(image_part(value["image"]), weight=value.get("weight", 1.0))
        if isinstance(value, dict) and isinstance(value.get("image"), str) and value.keys() <= {"image", "weight"}
        else query_part(number, value)
        for number, value in enumerate(values)
    )


_LINE_PARTS: dict[str, Callable[[str], QueryPart]] = {"text": text_part, "image": image_part, "item": item_part}
