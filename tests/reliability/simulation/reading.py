"""Steps that read: searches, filters, rows and copies of open versions against numpy and plain Python."""

from __future__ import annotations

import random

import numpy as np
from filter_fuzz import condition

from searcher import Searcher
from searcher.filters import Filters
from searcher.query_encoder import unit_rows
from storage.exact_search import exact_search
from storage.lexical.terms import terms

from .compare import compare, same_ranking
from .promise import BrokenPromiseError, expect
from .world import MOST_READERS, Reader, World, one_search, random_queries


def open_reader(world: World, chance: random.Random) -> None:
    """Open a searcher on any whole version and keep it open."""
    whole = [number for number, known in world.versions.items() if not known.damaged]
    if not whole:
        return
    number = chance.choice(whole)
    if len(world.readers) == MOST_READERS:
        world.readers.pop(chance.randrange(MOST_READERS)).searcher.close()
    searcher = Searcher.open(world.path, version=number, verify=chance.choice(("full", "full", "size")))
    expect(searcher.manifest.version, number, "the version that was opened")
    world.readers.append(Reader(searcher, number, world.versions[number].content))


def close_reader(world: World, chance: random.Random) -> None:
    """Close one."""
    world.readers.pop(chance.randrange(len(world.readers))).searcher.close()


def search(world: World, chance: random.Random) -> None:
    """Search exactly through the approximate index with the widest settings."""
    one_search(chance.choice(world.readers), chance)


def search_rows(world: World, chance: random.Random) -> None:
    """Brute force over some rows, or over all but one a query."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    half, table = reader.content.halves[name], reader.version.vectors(name)
    queries, k = random_queries(chance, reader.content.dim), chance.randrange(1, 12)
    if chance.random() < 0.5:
        rows = np.array(sorted(chance.sample(range(len(half)), chance.randrange(len(half) + 1))), dtype=np.int64)
        same_ranking(exact_search(table, queries, k, rows), half.ranking(queries, k, rows), f"some {name}")
        return
    excluded = np.array([chance.randrange(-1, len(half)) for _ in queries], dtype=np.int64)
    found = exact_search(table, queries, k, exclude=excluded)
    for line, row in enumerate(excluded):
        left = [other for other in range(len(half)) if other != row]
        one = (found[0][line : line + 1], found[1][line : line + 1])
        same_ranking(one, half.ranking(queries[line : line + 1], k, left), f"{name} but {row}")


def search_items(world: World, chance: random.Random) -> None:
    """Search by the searcher: item ids, padding and scores."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    half, k = reader.content.halves[name], chance.randrange(1, 34)
    given = random_queries(chance, reader.content.dim)
    rows, scores = half.ranking(unit_rows(given, reader.content.dim), k)
    found = reader.searcher.search_vectors(name, given, k, exact=True)
    ids = [[half.ids[row] if row >= 0 else None for row in line] for line in rows]
    expect(found[0].tolist(), ids, f"item ids of {name}")
    shown = np.where(rows >= 0, scores.clip(-1, 1), scores)  # rounding may leave a vector longer than 1
    expect(found[1].tobytes(), shown.tobytes(), f"scores of {name}")


def approximate(world: World, chance: random.Random) -> None:
    """Search with narrow settings: what is found is distinct, in order, and has its exact score."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    half, queries = reader.content.halves[name], random_queries(chance, reader.content.dim)
    k, nprobe = chance.randrange(1, 9), chance.choice((1, 2, 16))
    ids, scores = reader.version.ann(name).search(queries, k, nprobe=nprobe, oversample=chance.choice((1, 4)))
    for line, query in enumerate(queries):
        rows = ids[line][ids[line] >= 0]
        expect(len(rows), min(k, len(half)), f"hits in {name}")
        expect(len(set(rows.tolist())), len(rows), f"distinct hits in {name}")
        expect(scores[line][: len(rows)].tobytes(), half.scores(query)[rows].tobytes(), f"scores of {name}")


def filtered(world: World, chance: random.Random) -> None:
    """A random condition on the metadata of images, and the best of the rows that it lets through."""
    reader = chance.choice([one for one in world.readers if one.content.halves["images"].facts])
    half, filters = reader.content.halves["images"], Filters(reader.version.catalog)
    where, truth = condition(chance, chance.randrange(4))
    rows = [row for row, one in enumerate(half.facts) if truth(one) is True]
    expect(filters.rows("images", where).tolist(), rows, f"rows where {where}")
    queries = random_queries(chance, reader.content.dim)
    found = reader.version.ann("images").search(
        queries, 5, nprobe=4096, oversample=8, rows=filters.rows("images", where)
    )
    same_ranking(found, half.ranking(queries, 5, rows), f"images where {where}")


def has_facts(world: World) -> bool:
    """Whether a reader has metadata to filter by."""
    return any(one.content.halves["images"].facts for one in world.readers)


def vectors(world: World, chance: random.Random) -> None:
    """Rows by number and by item id."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    half, table = reader.content.halves[name], reader.version.vectors(name)
    rows = np.array([chance.randrange(len(half)) for _ in range(chance.randrange(1, 6))])
    expect(table.gather(rows).tobytes(), half.vectors[rows].tobytes(), f"vectors of {rows.tolist()}")
    names = [half.ids[row] for row in rows]
    expect(table.item_ids(rows).tolist(), names, f"item ids of {rows.tolist()}")
    if chance.random() < 0.2:
        expect(table.find([*names, "nobody"]).tolist(), [*rows.tolist(), -1], f"rows of {names}")


def entries(world: World, chance: random.Random) -> None:
    """What the catalog says of some items."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    half = reader.content.halves[name]
    rows = [chance.randrange(len(half)) for _ in range(chance.randrange(1, 5))]
    own = list(half.facts[0]) if half.facts else []
    found = reader.version.catalog.rows(name, rows, ["item_id", "caption", *own])
    facts = half.facts or ({},) * len(half)
    wanted = [{"item_id": half.ids[row], "caption": half.captions[row], **facts[row]} for row in rows]
    expect(found, wanted, f"entries of {rows}")


def copies(world: World, chance: random.Random) -> None:
    """Groups of images with equal bytes."""
    reader = chance.choice(world.readers)
    found = reader.searcher.duplicates("exact")
    groups = {frozenset(item.item_id for item in group.items) for group in found.groups}
    expect(groups, reader.content.halves["images"].copies(), "groups of copies")


def words(world: World, chance: random.Random) -> None:
    """Texts that have a word in their caption."""
    reader = chance.choice(world.readers)
    name = chance.choice(sorted(reader.content.halves))
    index = reader.version.words(name)
    if index is None or name == "images":
        return
    half = reader.content.halves[name]
    word = chance.choice(("red", "green", "cat", "zebra", "nowhere"))
    rows = [row for row, one in enumerate(half.captions) if word in terms(f"{one or ''} {half.ids[row]}")]
    expect(index.search(word).rows.tolist(), rows, f"texts with {word}")


def whole(world: World, chance: random.Random) -> None:
    """All that an open version holds, whatever has become of its files."""
    reader = chance.choice(world.readers)
    compare(reader.version, reader.content)


def ask_any(world: World, chance: random.Random) -> None:
    """Open any version, damaged ones too."""
    world.open(chance.choice(sorted(world.versions)))


def verify(world: World, chance: random.Random) -> None:
    """Verify a version: it has problems where it is damaged, and each damaged file is named."""
    number = chance.choice(sorted(world.versions))
    found, damaged = world.store.verify(number), world.versions[number].damaged
    expect(found.ok, not damaged, f"version {number} is whole: {found.problems}")
    for name in damaged:
        if not any(name in problem for problem in found.problems) and "manifest.json" not in damaged:
            raise BrokenPromiseError(f"{name} is damaged and not among {found.problems}")


def manifests(world: World, chance: random.Random) -> None:
    """What the manifests say, without opening a file."""
    number = chance.choice(sorted(world.versions))
    if "manifest.json" not in world.versions[number].damaged:
        counts = world.store.manifest(number).counts
        expect(counts.images, world.versions[number].content.rows("images"), f"images of version {number}")
