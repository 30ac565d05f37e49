from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from storage import IndexStore
from storage.errors import CorruptIndexError, StorageError
from storage.files import atomic
from storage.schema import EncoderInfo
from storage.staging import Staging

TABLE = pa.table({"item_id": ["a", "b"], "vector": pa.array([[1.0], [2.0]], pa.list_(pa.float16(), 1))})


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return IndexStore.create(tmp_path / "index").staging("f" * 64)


def test_a_shard_comes_back_as_it_was_written(staging: Staging) -> None:
    assert not staging.has(3)
    staging.write(3, TABLE)
    assert staging.has(3)
    assert staging.read(3) == TABLE
    assert IndexStore.open(staging.path.parents[1]).staging("f" * 64).read(3) == TABLE


def test_a_shard_may_be_empty_and_may_be_written_again(staging: Staging) -> None:
    staging.write(0, TABLE)
    old = staging.read(0)
    staging.write(0, TABLE.slice(0, 0))
    assert staging.read(0).num_rows == 0
    assert old == TABLE, "what is mapped stays as it was"


def test_a_torn_shard_at_any_length_is_not_there(staging: Staging) -> None:
    staging.write(0, TABLE)
    path = next(staging.path.glob("*.arrow"))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not staging.has(0)
        with pytest.raises(CorruptIndexError, match=r"00000000.arrow is (empty|not the shard that was written)"):
            staging.read(0)


def test_a_flipped_bit_anywhere_in_a_shard_is_found(staging: Staging) -> None:
    staging.write(0, TABLE)
    path = next(staging.path.glob("*.arrow"))
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert not staging.has(0)


def test_a_missing_shard_is_named(staging: Staging) -> None:
    with pytest.raises(CorruptIndexError, match=r"00000007.arrow is missing"):
        staging.read(7)


def test_a_plan_comes_back_and_is_replaced_whole(staging: Staging) -> None:
    assert staging.read_plan() is None
    staging.write_plan({"encoder": EncoderInfo(spec="lite", dim=3, fingerprint=None), "shards": 3})
    assert staging.read_plan() == {
        "encoder": {"spec": "lite", "dim": 3, "fingerprint": None, "details": {}},
        "shards": 3,
    }
    staging.write_plan({"shards": 4})
    assert staging.read_plan() == {"shards": 4}


def test_a_damaged_plan_is_refused(staging: Staging) -> None:
    (staging.path / "plan.json").write_text('{"shards":', encoding="utf-8")
    with pytest.raises(CorruptIndexError, match=r"plan.json is damaged .*; remove .* and build again"):
        staging.read_plan()
    with pytest.raises(StorageError, match=r"the plan of a build cannot be kept"):
        staging.write_plan({"x": float("nan")})


def test_discard_removes_everything(staging: Staging) -> None:
    staging.write(0, TABLE)
    staging.discard()
    assert not staging.path.exists()
    staging.discard()


@pytest.mark.parametrize("fingerprint", ["", "..", "a/b", ".hidden", "x" * 129, "a\0b"])
def test_a_fingerprint_is_a_plain_name(tmp_path: Path, fingerprint: str) -> None:
    with pytest.raises(StorageError, match="is no name for a folder"):
        IndexStore.create(tmp_path / "index").staging(fingerprint)


def test_a_full_disk_keeps_the_shard_that_was_there(staging: Staging, no_hook: None) -> None:
    staging.write(0, TABLE)

    def hook(name: str) -> None:
        if name == "shard.written":
            raise OSError(28, "No space left on device")

    atomic.hook = hook
    with pytest.raises(StorageError, match=r"cannot write .*00000000.arrow: No space left on device; free some space"):
        staging.write(0, TABLE.slice(1))
    assert staging.read(0) == TABLE
