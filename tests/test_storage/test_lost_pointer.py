"""An index whose CURRENT is lost or damaged says which versions it has and how to take one; none of them goes."""

from __future__ import annotations

import pytest
from damage import cut
from small_index import publish

from storage.errors import CorruptIndexError, IndexNotFoundError
from storage.store import IndexStore


def test_a_lost_pointer_is_no_unpublished_index(store: IndexStore) -> None:
    last = publish(store, 5).version
    (store.path / "CURRENT").unlink()
    with pytest.raises(IndexNotFoundError, match=rf"CURRENT is missing.*has \[1, .*{last}\]: take one .*--to {last}`"):
        store.open_version()
    assert store.rollback(last) == store.current() == last


def test_a_damaged_pointer_tells_the_way_back(store: IndexStore) -> None:
    last = publish(store, 5).version
    (store.path / "CURRENT").write_text("garbage")
    with pytest.raises(
        CorruptIndexError, match=r"take a version of .*versions with `twinlens rollback .* --to NUMBER`"
    ):
        store.open_version()
    assert store.rollback(last) == store.current() == last
    with store.open_version() as version:
        assert version.manifest.counts.images == 5


@pytest.mark.parametrize("number", [1, 77])
def test_nothing_is_removed_or_published_on_the_word_of_a_damaged_pointer(store: IndexStore, number: int) -> None:
    """One bit tells another version from the current one; a vacuum would have removed the latter."""
    last = publish(store, 5).version
    _, checksum = (store.path / "CURRENT").read_text("ascii").split()
    (store.path / "CURRENT").write_text(f"{number:08d} {checksum}\n")
    for refused in (store.open_version, lambda: store.vacuum(1), lambda: publish(store, 5), store.rollback):
        with pytest.raises(CorruptIndexError, match="CURRENT"):
            refused()
    assert store.versions() == [1, 2, last]
    assert store.rollback(last) == store.current() == last
    assert store.vacuum(1) == [1, 2]


def test_a_version_is_opened_and_taken_by_its_number_whatever_current_says_of_it(store: IndexStore) -> None:
    number, checksum = (store.path / "CURRENT").read_text("ascii").split()
    (store.path / "CURRENT").write_text(f"{number} {checksum[:-1]}{'0' if checksum[-1] != '0' else '1'}\n")
    with pytest.raises(CorruptIndexError, match="CURRENT"):
        store.open_version()
    with store.open_version(2) as version:
        assert version.number == 2
    assert store.rollback(2) == store.current() == 2


def test_a_damaged_manifest_of_the_current_version_keeps_no_other_from_being_published(store: IndexStore) -> None:
    cut(store.version_path(2) / "manifest.json")
    assert store.vacuum(1) == [1]
    assert publish(store, 5).parent == 2
