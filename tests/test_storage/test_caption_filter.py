"""A condition on `caption` holds for an image when it holds for any of its captions, its negation when for none."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from small_index import tables

from storage.catalog import Catalog, write_catalog

# The captions of each image; the first one stands in its own row.
CAPTIONS = (
    ["a dog", "an animal runs", "a brown dog"],
    ["a bird", "it flies"],
    ["an animal sleeps", "the dog dreams"],
    [],
    ["a cat"],
)
WIDTHS = (10, 20, 30, 40, 50)
EXPECTED = {
    "caption ilike '%DOG%'": [0, 2],
    "not caption ilike '%dog%'": [1, 4],
    "caption not ilike '%dog%'": [1, 4],
    "caption like '%animal%' and caption like '%dreams'": [2],
    "caption like '%animal%' and not caption like '%dreams'": [0],
    "caption like '%flies' or width > 40": [1, 4],
    "caption = 'it flies'": [1],
    "caption <> 'it flies'": [0, 2, 4],
    "caption != 'a cat' and width >= 20": [1, 2],
    "caption in ('it flies', 'a cat')": [1, 4],
    "caption not in ('it flies', 'a cat')": [0, 2],
    "caption is null": [3],
    "caption is not null": [0, 1, 2, 4],
    "not (caption is null)": [0, 1, 2, 4],
    "caption is distinct from 'a cat'": [0, 1, 2, 3],
    "caption between 'b' and 'z'": [1, 2],
    "regexp_matches(caption, '^(it|the) ')": [1, 2],
    "not regexp_matches(caption, '^(it|the) ')": [0, 4],
    "CAPTION like 'it%' or images.\"caption\" like 'x'": [1],
    "length(caption) > 12": [0, 2],
    "length(caption) * 10 > width + 40": [0, 1, 2],
    "case when caption like '%dog%' then width > 20 else false end": [2],
    "(caption like '%dog%') is not true": [1, 3, 4],
    "caption = owner": [1],
    "not caption = owner": [0, 4],
    "width > 20": [2, 3, 4],
    "condition0 = 1 and caption like '%dog%'": [0],
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    words = [caption for captions in CAPTIONS for caption in captions]
    images, texts = tables(len(CAPTIONS))["images"], tables(len(words))["texts"]
    images = _with(images, "caption", pa.array([captions[0] if captions else None for captions in CAPTIONS]))
    images = _with(images, "width", pa.array(WIDTHS, pa.int32()))
    images = images.append_column("owner", pa.array(["x", "it flies", None, "x", "x"]))
    images = images.append_column("condition0", pa.array([1, 2, 3, 4, 5]))
    rows = [row for row, captions in enumerate(CAPTIONS) for _ in captions]
    pairs = pa.table({"image_row": pa.array(rows, pa.int64()), "text_row": pa.array(range(len(rows)), pa.int64())})
    path = tmp_path_factory.mktemp("captions") / "c.duckdb"
    given = {"images": images, "texts": _with(texts, "caption", pa.array(words)), "pairs": pairs}
    write_catalog(path, **{**tables(2), **given})
    with Catalog.open(path) as opened:
        yield opened


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize("where", EXPECTED)
def test_every_caption_of_an_image_counts(catalog: Catalog, where: str) -> None:
    assert catalog.filter_rows("images", where).tolist() == EXPECTED[where]


def test_a_text_has_one_caption(catalog: Catalog) -> None:
    assert catalog.filter_rows("texts", "caption like '%dog%'").tolist() == [0, 2, 6]
    assert catalog.filter_rows("texts", "not caption like '%dog%'").tolist() == [1, 3, 4, 5, 7]
