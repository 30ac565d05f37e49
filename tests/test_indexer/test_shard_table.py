"""The rows of one shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from indexer import BuildError
from indexer.corpus import Item
from indexer.corpus.item import Rejection
from indexer.encode.shards import ShardTable
from storage.schema import ImageInfo


def item(number: int, **facts: Any) -> Item:
    return Item(item_id=f"i{number}", collection="texts", content=f"words {number}", uri="a", location="a", **facts)


def test_vectors_go_to_their_places_in_any_order() -> None:
    table = ShardTable(2, pa.schema([]), "digest")
    places = [table.add_text(item(number)) for number in range(3)]
    table.set_vectors([places[2], places[0]], np.array([[2.0, 2.0], [0.0, 1.0]]))
    table.set_vectors([places[1]], np.array([[1.0, 1.0]]))
    assert table.finish().column("vector").to_pylist() == [[0, 1], [1, 1], [2, 2]]


def test_a_vector_that_is_not_finite_becomes_a_rejection() -> None:
    table = ShardTable(2, pa.schema([]), "digest")
    places = [table.add_text(item(number)) for number in range(2)]
    table.set_vectors(places, np.array([[1.0, 0.0], [np.nan, 0.0]]))
    assert table.finish().column("reason").to_pylist() == [None, "not_finite"]


def test_rejections_and_images_keep_their_facts() -> None:
    table = ShardTable(2, pa.schema([]), "digest")
    image = Item(item_id="a.jpg", collection="images", content=b"", uri="a.jpg", location="a.jpg", split="train")
    table.add_image(image, ImageInfo(width=640, height=480, sha256="f" * 64, file_bytes=1000, mtime_ns=5))
    table.reject(Rejection(item_id="b", collection="images", uri="b", stage="decode", reason="corrupt", detail="cut"))
    rows = table.finish().to_pylist()
    assert (rows[0]["width"], rows[0]["height"], rows[0]["split"], rows[0]["reason"]) == (640, 480, "train", None)
    assert (rows[1]["stage"], rows[1]["reason"], rows[1]["detail"]) == ("decode", "corrupt", "cut")


def test_metadata_has_the_types_that_the_source_declared() -> None:
    table = ShardTable(2, pa.schema([("year", pa.int32()), ("tags", pa.list_(pa.string()))]), "digest")
    table.add_text(item(0, metadata={"year": 1999, "tags": ["a"]}))
    table.add_text(item(1))
    assert table.finish().column("metadata.year").to_pylist() == [1999, None]


def test_metadata_of_another_type_names_the_column() -> None:
    table = ShardTable(2, pa.schema([("year", pa.int32())]), "digest")
    table.add_text(item(0, metadata={"year": "last year"}))
    with pytest.raises(BuildError, match="metadata column 'year' holds a value that is not int32"):
        table.finish()
