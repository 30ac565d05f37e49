"""HTML gallery: one page of many hits that needs no server, no network and no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from storage.files.atomic import next_step, write_whole

from ..errors import SearchError
from ..hits import Hit, Hits, about, cut, plain, shown_score
from ..relevance_map import shaded
from .photo_facts import photo_facts
from .thumbnails import Thumbnail, hit_thumbnail, thumbnail

Map = NDArray[np.float32]
Maps = Sequence[Sequence[Map | None]] | None

MAX_HITS = 2_000
_BOX = (480, 360)
_QUERY_BOX = (320, 240)
_QUALITY = 82
_TITLE = 1_000
_GALLERY = "gallery.html"


def save_gallery(path: Path, results: Sequence[Hits], root: Path | None = None, maps: Maps = None) -> None:
    """Write a self-contained page with the hits of one or more queries.

    Args:
        path: The file to write; an existing one is replaced.
        results: The hits of each query.
        root: The folder that the images' `uri` are relative to.
        maps: For each query the maps of its hits, which parts of each match, as of `Searcher.relevance_map`; None for a
            hit without one.

    Raises:
        SearchError: More than 2,000 hits, or the file cannot be written.
    """
    total = sum(len(hits) for hits in results)
    if total > MAX_HITS:
        raise SearchError(f"{total} hits do not fit in a gallery; ask for {MAX_HITS} or fewer in all with k (-k)")
    write_page(path, render_gallery(results, root, maps), "gallery")


def write_page(path: Path, page: str, kind: str) -> None:
    """Write a page to a file, whole; an existing one is replaced, or stays where that fails.

    Raises:
        SearchError: It cannot be written.
    """
    try:
        write_whole(path, page.encode("utf-8", "replace"))
    except OSError as error:
        reason, step = error.strerror or error, next_step(error)
        raise SearchError(f"cannot write the {kind} {str(path)!r}: {reason}; {step}") from error


def render_gallery(results: Sequence[Hits], root: Path | None = None, maps: Maps = None) -> str:
    """Return the page that `save_gallery` writes; every text in it is escaped."""
    of_hits = maps or [[None] * len(hits) for hits in results]
    sections = [_section(hits, root, own) for hits, own in zip(results, of_hits, strict=True)]
    return page_template(_GALLERY).render(sections=sections)


def render_sections(sections: Sequence[Mapping[str, Any]]) -> str:
    """Return a page of sections, each with a title and cards, as `gallery.html` takes them; every text is escaped."""
    return page_template(_GALLERY).render(sections=sections)


@lru_cache
def page_template(name: str) -> Template:
    """Return a template that stands beside this file; every text in it is escaped. Pages share `look.html`."""
    loader = FunctionLoader(lambda one: files("searcher.render").joinpath(one).read_text(encoding="utf-8"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    return environment.get_template(name)


def _section(hits: Hits, root: Path | None, maps: Sequence[Map | None]) -> dict[str, Any]:
    query_image = thumbnail(hits.query.content, _QUERY_BOX) if hits.query.kind == "image" else None
    return {
        "title": cut(hits.query.label, _TITLE),
        "about": about(hits),
        "query": as_source(query_image) if query_image else None,
        "images": hits.collection == "images",
        "cards": [_card(hit, hits.collection == "images", root, own) for hit, own in zip(hits, maps, strict=True)],
    }


def _card(hit: Hit, image: bool, root: Path | None, relevance: Map | None) -> dict[str, Any]:
    known, said = photo_facts(hit.metadata)
    rest = ((name, value) for name, value in hit.metadata.items() if name not in said and value is not None)
    facts = [*((fact.name, fact.value) for fact in known), *((name, str(plain(value))) for name, value in rest)]
    thumb = hit_thumbnail(hit, root, _BOX) if image else None
    where = None if relevance is None or thumb is None or thumb.image is None else shaded(thumb.image, relevance)
    why = None if hit.explanation is None else hit.explanation.caption
    return {
        "why": why,
        "where": None if where is None else _data_uri(where),
        "rank": hit.rank,
        "item_id": hit.item_id,
        "score": shown_score(hit.score),
        "caption": hit.caption,
        "alt": hit.caption or hit.item_id,
        "facts": ([("uri", hit.uri)] if hit.uri else []) + facts,
        **({} if thumb is None else as_source(thumb)),
    }


def as_source(thumb: Thumbnail) -> dict[str, Any]:
    """Return what a card says of its image: source and size, or the problem."""
    if thumb.image is None:
        return {"source": None, "problem": thumb.problem}
    return {"source": _data_uri(thumb.image), "width": thumb.image.width, "height": thumb.image.height}


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
