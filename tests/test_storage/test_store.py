from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from damage import flip
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from small_index import ENCODER, collections, counts, fill, publish, rows_found

from storage import AnnPlan, EncoderInfo, IndexStore, IndexVersion
from storage.errors import CorruptIndexError, IndexNotFoundError, StorageError
from storage.files.layout import TOWER_FILES
from storage.publish import Draft


def test_a_published_version_is_current_and_readable(store: IndexStore) -> None:
    manifest = publish(store, 7)
    assert (manifest.version, manifest.parent) == (3, 2)
    assert (store.current(), store.versions()) == (3, [1, 2, 3])
    assert store.manifest() == manifest
    assert rows_found(store.path) == 7


def test_an_old_version_stays_readable_by_number(store: IndexStore) -> None:
    with store.open_version(1) as version:
        assert version.number == 1
        assert version.dim == 8
        assert version.vectors("texts").rows == 5


def test_an_argument_of_another_kind_is_told_in_one_line(store: IndexStore) -> None:
    with pytest.raises(StorageError, match=r"verify is 'fast'; choose"):
        store.open_version(verify="fast")  # type: ignore[arg-type]


def test_an_index_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    store = IndexStore.create(tmp_path / "deep" / "index")
    assert (store.current(), store.versions()) == (None, [])
    IndexStore.create(tmp_path / "deep" / "index")
    with pytest.raises(IndexNotFoundError, match=r"nothing has been published in .* yet"):
        store.open_version()


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(StorageError, match=r"is not an index and not empty \(it holds 'photo.jpg'\)"):
        IndexStore.create(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(IndexNotFoundError, match=r"there is no index at .*; make one with `build-index"):
        IndexStore.open(tmp_path)


def test_an_address_is_no_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("s3://user:secret@bucket/x.index", Path("s3://bucket/x.index"), Path("file:///x.index")):
        with pytest.raises(
            IndexNotFoundError, match=r"an index is a folder of this machine, and (s3|file)://\.\.\. is"
        ):
            IndexStore.open(path)
        with pytest.raises(IndexNotFoundError, match="copy the whole folder here"):
            IndexStore.create(path)
    assert not [*tmp_path.iterdir()]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot make the index .*file.*: (File exists|Not a directory); choose"):
        IndexStore.create(tmp_path / "file" / "index")


def test_a_folder_that_cannot_be_written_is_named() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that nobody can write into")
    with pytest.raises(StorageError, match="cannot make the index /proc/self/index"):
        IndexStore.create("/proc/self/index")


def test_drafts_and_publishing_need_the_lock(store: IndexStore) -> None:
    with pytest.raises(StorageError, match=r"cannot start a draft in .* do it inside `with store.lock\(\):`"):
        store.draft()
    with pytest.raises(StorageError, match=r"cannot publish in .* without its lock"):
        store.publish(Draft(store.path, 3), encoder=None, collections={}, counts=counts(1), build={})


def test_a_discarded_draft_leaves_nothing(store: IndexStore) -> None:
    with store.lock():
        draft = store.draft()
        fill(draft, 4)
        draft.discard()
        draft.discard()
    assert [entry.name for entry in (store.path / "versions").iterdir()] != []
    assert not draft.path.exists()


def test_discarding_a_published_draft_does_nothing(store: IndexStore) -> None:
    with store.lock():
        draft = store.draft()
        plan = fill(draft, 4)
        store.publish(draft, encoder=ENCODER, collections=collections(4, plan), counts=counts(4), build={"rows": 4})
        draft.discard()
    assert rows_found(store.path) == 4


def test_a_new_draft_takes_the_place_of_one_that_was_abandoned(store: IndexStore) -> None:
    with store.lock():
        fill(store.draft(), 4)
        assert list(store.draft().path.iterdir()) == []


@pytest.fixture
def draft(store: IndexStore) -> Iterator[Draft]:
    with store.lock():
        draft = store.draft()
        fill(draft, 7)
        yield draft


HNSW = AnnPlan(kind="hnsw", factory="HNSW32_SQfp16")


def try_to_publish(store: IndexStore, draft: Draft, rows: int = 7, encoder: EncoderInfo = ENCODER) -> None:
    store.publish(draft, encoder=encoder, collections=collections(rows, HNSW), counts=counts(rows), build={})


def test_a_draft_with_a_file_too_many_or_too_few_is_refused(store: IndexStore, draft: Draft) -> None:
    (draft.path / "catalog.duckdb.wal").touch()
    with pytest.raises(StorageError, match=r"has \['catalog.duckdb.wal'\] unasked"):
        try_to_publish(store, draft)
    (draft.path / "catalog.duckdb.wal").unlink()
    (draft.path / "texts" / "vectors.arrow").unlink()
    with pytest.raises(StorageError, match=r"lacks \['texts/vectors.arrow'\]"):
        try_to_publish(store, draft)
    assert rows_found(store.path) == 6


def test_a_draft_that_does_not_hold_what_is_said_of_it_is_refused(store: IndexStore, draft: Draft) -> None:
    with pytest.raises(StorageError, match=r"vectors.arrow has rows 7 and the manifest says 8"):
        try_to_publish(store, draft, rows=8)
    with pytest.raises(StorageError, match=r"vectors.arrow has dim 8 and the manifest says 9"):
        try_to_publish(store, draft, encoder=EncoderInfo(spec="x", dim=9, fingerprint=None))
    (draft.path / "images" / "ann.faiss").write_bytes(b"no index")
    with pytest.raises(StorageError, match=r"ann.faiss"):
        try_to_publish(store, draft)
    assert store.current() == 2


def test_a_damaged_current_version_does_not_stop_a_new_build(store: IndexStore) -> None:
    flip(store.version_path(2) / "manifest.json")
    assert publish(store, 7).parent == 2
    assert rows_found(store.path) == 7


def test_a_version_or_collection_that_is_not_there_is_named(store: IndexStore) -> None:
    with pytest.raises(IndexNotFoundError, match=r"has no version 9; it has \[1, 2\]"):
        store.open_version(9)
    with pytest.raises(IndexNotFoundError, match="has no version 9"):
        store.verify(9)
    with store.open_version() as version, pytest.raises(IndexNotFoundError, match="no sounds; it has images, texts"):
        version.vectors("sounds")  # type: ignore[arg-type]


def test_rollback_goes_to_the_parent_and_forward_again(store: IndexStore) -> None:
    assert store.rollback() == 1
    assert rows_found(store.path) == 5
    assert store.versions() == [1, 2]
    with pytest.raises(IndexNotFoundError, match=r"version 1 of .* has no parent; name one of \[1, 2\]"):
        store.rollback()
    assert store.rollback(2) == 2
    assert rows_found(store.path) == 6


def test_rollback_from_a_damaged_version_goes_to_the_one_before(store: IndexStore) -> None:
    flip(store.version_path(2) / "manifest.json")
    assert store.rollback() == 1
    assert rows_found(store.path) == 5


def test_rollback_to_a_damaged_version_changes_nothing(store: IndexStore) -> None:
    flip(store.version_path(1) / "images" / "ann.faiss")
    with pytest.raises(CorruptIndexError, match=r"versions/00000001/images/ann.faiss"):
        store.rollback()
    assert rows_found(store.path) == 6


def test_numbers_are_never_used_twice(store: IndexStore) -> None:
    store.rollback(1)
    assert publish(store, 7).version == 3
    store.rollback(1)
    assert store.vacuum(keep=1) == [2]
    assert publish(store, 8).version == 4
    (store.path / "versions" / ".trash-00000009").mkdir()
    (store.path / "CURRENT").unlink()
    assert publish(store, 9).version > 4


def test_vacuum_keeps_the_newest_and_the_current(store: IndexStore) -> None:
    for rows in (7, 8, 9):
        publish(store, rows)
    store.rollback(1)
    assert store.vacuum(keep=2) == [2, 3]
    assert store.versions() == [1, 4, 5]
    assert rows_found(store.path) == 5
    assert store.vacuum(keep=2) == []
    with pytest.raises(StorageError, match="cannot keep 0 versions"):
        store.vacuum(keep=0)


def test_vacuum_removes_what_killed_builds_left(store: IndexStore) -> None:
    store.staging("abc").write_plan({})
    with store.lock():
        fill(store.draft(), 4)
    (store.path / "versions" / ".trash-00000001").symlink_to(store.path.parent)
    store.vacuum()
    assert list((store.path / "staging").iterdir()) == []
    assert sorted(entry.name for entry in (store.path / "versions").iterdir()) == ["00000001", "00000002"]
    assert store.path.exists()


def test_staging_of_other_builds_is_dropped(store: IndexStore) -> None:
    for fingerprint in ("one", "two", "three"):
        store.staging(fingerprint)
    store.drop_staging(keep="two")
    assert [entry.name for entry in (store.path / "staging").iterdir()] == ["two"]


def read(version: IndexVersion) -> tuple[int, list[str], list[int]]:
    ids, _ = version.ann("images").search(np.eye(1, 8), 3, nprobe=16, oversample=1)
    names = [row["item_id"] for row in version.catalog.rows("texts", [0, 1], ["item_id"])]
    return version.vectors("images").find(["item_id-4"])[0], names, ids[0].tolist()


def test_an_approximate_index_is_loaded_once(store: IndexStore) -> None:
    with store.open_version() as version:
        assert version.ann("images") is version.ann("images")


def test_an_open_version_keeps_working_while_it_is_vacuumed(store: IndexStore) -> None:
    with store.open_version(1) as version, store.open_version(1) as other:
        expected = read(other)
        publish(store, 7)
        assert 1 in store.vacuum(keep=1)
        assert not version.path.exists()
        assert read(version) == expected, "its FAISS file is read for the first time after it was removed"


def test_an_open_version_keeps_its_files_when_others_take_their_names(store: IndexStore) -> None:
    with store.open_version(1) as version, store.open_version(1) as other:
        expected = read(other)
        path = store.version_path(1) / "images" / "ann.faiss"
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.unlink()
        path.write_bytes(data)
        assert read(version) == expected


@pytest.mark.parametrize("how", ["vacuumed", "replaced"])
def test_the_towers_of_an_open_version_stay(store: IndexStore, how: str) -> None:
    tower = {f"text_tower/{name}": b"{}" for name in TOWER_FILES["text_tower"]}
    publish(store, 5, extra=tower)
    with store.open_version() as version:
        folder = version.tower("text_tower")
        assert folder == version.path / "text_tower"
        if how == "vacuumed":
            publish(store, 5)
            store.vacuum(1)
        else:
            (folder / "weights.safetensors").unlink()
            (folder / "weights.safetensors").write_bytes(b"other")
        copy = version.tower("text_tower")
        assert copy == version.tower("text_tower") != folder
        assert (copy / "weights.safetensors").read_bytes() == b"{}"
        assert version.tower("image_tower") is None
    assert not copy.exists()


def test_readers_see_one_whole_version_while_others_are_published_and_vacuumed(store: IndexStore) -> None:
    done = threading.Event()

    def read_on() -> int:
        reads = 0
        while not done.is_set() or reads == 0:
            assert rows_found(store.path) in range(5, 12)
            reads += 1
        return reads

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_on) for _ in range(3)]
        try:
            for rows in range(7, 12):
                publish(store, rows)
                store.vacuum(keep=1)
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert store.versions() == [7]


class StoreMachine(RuleBasedStateMachine):
    """A store against a dict: version -> rows."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = IndexStore.create(Path(self.folder.name) / "index")
        self.rows: dict[int, int] = {}
        self.current: int | None = None
        self.newest = 0

    @rule(rows=st.integers(1, 4))
    def publish(self, rows: int) -> None:
        number = publish(self.store, rows).version
        assert number > self.newest
        self.rows[number], self.current, self.newest = rows, number, number

    @rule()
    def abandon(self) -> None:
        with self.store.lock():
            fill(self.store.draft(), 1)

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        if self.rows:
            self.current = self.store.rollback(data.draw(st.sampled_from(sorted(self.rows))))

    @rule(keep=st.integers(1, 3))
    def vacuum(self, keep: int) -> None:
        removed = self.store.vacuum(keep)
        assert self.current not in removed
        self.rows = {number: rows for number, rows in self.rows.items() if number not in removed}

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "store"):
            assert self.store.current() == self.current
            assert self.store.versions() == sorted(self.rows)
            if self.current:
                assert rows_found(self.store.path) == self.rows[self.current]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=8, stateful_step_count=10, deadline=None)
