"""An open version against the content that it must have: every row of every table, every vector, every score."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.schema import COLLECTIONS
from storage.version import IndexVersion

from .expected import Content, Half
from .promise import expect


def compare(version: IndexVersion, content: Content) -> None:
    """Compare all that a version holds with what it must hold."""
    expect(set(version.manifest.collections), set(content.halves), "the collections")
    _counts(version, content)
    for name, half in content.halves.items():
        what = f"{name} of version {version.number}"
        table = version.vectors(name)
        expect((table.rows, table.dim), half.vectors.shape, f"shape of {what}")
        rows = np.arange(len(half))
        expect(table.item_ids(rows).tolist(), list(half.ids), f"item ids of {what}")
        expect(table.gather(rows).tobytes(), half.vectors.tobytes(), f"vectors of {what}")
        _catalog(version, name, half, what)
        expect(version.manifest.collections[name].ann.kind, content.kinds.get(name, "flat"), f"kind of {what}")
        queries = half.vectors[: min(2, len(half))].astype(np.float32)
        found = version.ann(name).search(queries, 5, nprobe=4096, oversample=8)
        same_ranking(found, half.ranking(queries, 5), what)
        expect(version.words(name) is not None, content.words and len(half) > 0, f"a lexical index of {what}")
    pairs = version.catalog.table("pairs").to_pydict()
    found_pairs = set(zip(pairs["image_row"], pairs["text_row"], strict=True))
    expect(found_pairs, set(content.pairs), f"pairs of version {version.number}")
    for name, data in content.towers.items():
        folder, _, file = name.partition("/")
        tower = version.tower(folder)
        expect(tower and (tower / file).read_bytes(), data, f"{name} of version {version.number}")


def _counts(version: IndexVersion, content: Content) -> None:
    counts = version.manifest.counts
    expect(counts.items, counts.indexed + counts.rejected, "items = indexed + rejected")
    found = (counts.images, counts.texts, counts.pairs, counts.rejected)
    wanted = (*(content.rows(name) for name in COLLECTIONS), len(content.pairs), content.rejected)
    expect(found, wanted, f"images, texts, pairs, rejected of version {version.number}")
    expect(version.catalog.table("rejected").num_rows, content.rejected, "rows of rejected")


def _catalog(version: IndexVersion, name: Any, half: Half, what: str) -> None:
    own = list(half.facts[0]) if half.facts else []
    table = version.catalog.table(name, ["item_id", "caption", "sha256", *own])
    expect(table.column("item_id").to_pylist(), list(half.ids), f"item ids in the catalog, {what}")
    expect(table.column("caption").to_pylist(), list(half.captions), f"captions, {what}")
    expect(table.column("sha256").to_pylist(), list(half.hashes), f"checksums, {what}")
    if own:
        expect(table.select(own).to_pylist(), [dict(one) for one in half.facts], f"metadata, {what}")


def same_ranking(found: tuple[Any, Any], wanted: tuple[Any, Any], what: str) -> None:
    """Compare ids and scores, bit for bit."""
    expect(found[0].tolist(), wanted[0].tolist(), f"row ids of {what}")
    expect(found[1].tobytes(), wanted[1].tobytes(), f"scores of {what}")
