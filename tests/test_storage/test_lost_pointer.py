"""An index that lost CURRENT says which versions it has and how to take one."""

from __future__ import annotations

import pytest
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
