"""Cutting a corpus into shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.corpus import Item
from indexer.corpus.item import Rejection
from indexer.encode.shards import cut


def text(number: int, words: str = "words") -> Item:
    return Item(item_id=f"t{number}", collection="texts", content=words, uri="a.txt", location=f"line {number}")


def image(path: Path) -> Item:
    return Item(item_id=path.name, collection="images", content=path, uri=path.name, location=str(path))


def test_every_item_is_in_one_shard_in_the_order_given() -> None:
    items = [text(number) for number in range(100)]
    shards = list(cut(items, 2))
    assert [item for shard in shards for item in shard.entries] == items
    assert [shard.number for shard in shards] == list(range(len(shards)))


def test_eight_texts_cost_as_much_as_one_image(tmp_path: Path) -> None:
    assert [len(shard.entries) for shard in cut([text(n) for n in range(32)], 2)] == [16, 16]
    assert [len(shard.entries) for shard in cut([image(tmp_path / str(n)) for n in range(5)], 2)] == [2, 2, 1]


def test_an_empty_corpus_has_no_shards() -> None:
    assert list(cut([], 4)) == []


@pytest.mark.parametrize(
    "other",
    [
        text(1, "other words"),
        text(2),
        Item(item_id="t1", collection="texts", content="words", uri="b.txt", location="line 1"),
        Item(item_id="t1", collection="texts", content="words", uri="a.txt", location="", metadata={"year": 2001}),
        Item(item_id="t1", collection="texts", content="words", uri="a.txt", location="", split="train"),
        Item(item_id="t1", collection="texts", content="words", uri="a.txt", location="", image_ids=("a.jpg",)),
        Rejection(item_id="t1", collection="texts", uri="a.txt", stage="read", reason="empty_text", detail=""),
    ],
)
def test_whatever_a_row_depends_on_changes_the_digest(other: Item | Rejection) -> None:
    assert next(cut([text(1)], 4)).digest != next(cut([other], 4)).digest


def test_a_file_that_changed_changes_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    before = next(cut([image(path)], 4)).digest
    assert next(cut([image(path)], 4)).digest == before
    path.write_bytes(b"three")
    assert next(cut([image(path)], 4)).digest != before


def test_a_missing_file_has_a_digest_too(tmp_path: Path) -> None:
    assert next(cut([image(tmp_path / "none.jpg")], 4)).digest
