"""The store against a dict: published, killed at any step, rolled back, vacuumed, damaged, repaired, read.

A kill is played by an exception at a named step that nothing catches; kills of whole processes are elsewhere.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_index import fill, publish, tables

from indexer import BuildError
from indexer.repair import repair_index
from storage import IndexStore, StorageError
from storage.errors import CorruptIndexError, IndexLockedError, IndexNotFoundError
from storage.files import atomic

ANN = "images/ann.faiss"
FILES = ("manifest.json", "catalog.duckdb", "images/vectors.arrow", "texts/vectors.arrow", ANN)
MOST_STEPS = 28  # named steps of a publish


class Killed(BaseException):
    """Stands for the end of the process."""


class StoreMachine(RuleBasedStateMachine):
    """What is known: the rows of each version, which of their files are damaged, and which version is current."""

    steps = 0

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="twinlens-store-")
        self.path = Path(self.folder.name) / "index"
        self.store = IndexStore.create(self.path)
        self.rows: dict[int, int] = {}
        self.current: int | None = None
        self.newest = 0
        self.damaged: dict[int, dict[str, bytes]] = {}
        self.pointer_damaged = False

    # --- what works

    @precondition(lambda self: not self.pointer_damaged)
    @rule(rows=st.integers(1, 4), seed=st.integers(0, 1))
    def publish(self, rows: int, seed: int) -> None:
        number = publish(self.store, rows, seed).version
        assert number > self.newest
        self.rows[number], self.current, self.newest = rows, number, number

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.rows)))
        if number in self.damaged:
            with pytest.raises(CorruptIndexError):
                self.store.rollback(number)
            return
        assert self.store.rollback(number) == number
        self.current, self.pointer_damaged = number, False

    @precondition(lambda self: not self.pointer_damaged)
    @rule(keep=st.integers(1, 3))
    def vacuum(self, keep: int) -> None:
        self._forget(self.store.vacuum(keep))

    @rule()
    def reopen(self) -> None:
        self.store = IndexStore.open(self.path)

    @precondition(lambda self: not self.pointer_damaged)
    @rule()
    def abandon(self) -> None:
        with self.store.lock():
            fill(self.store.draft(), 1)

    @rule()
    def stage(self) -> None:
        staging = self.store.staging("shards")
        staging.write_plan({"shards": 2})
        staging.write(1, tables(3)["texts"])
        assert staging.read(1).num_rows == 3

    @rule()
    def second_builder(self) -> None:
        with self.store.lock(), pytest.raises(IndexLockedError, match="is being built by process"):
            IndexStore.open(self.path).vacuum()

    # --- kills

    @precondition(lambda self: not self.pointer_damaged)
    @rule(rows=st.integers(1, 4), step=st.integers(0, MOST_STEPS))
    def publish_is_killed(self, rows: int, step: int) -> None:
        self._killed(step, lambda: publish(self.store, rows))
        current, made = self.store.current(), set(self.store.versions()) - set(self.rows)
        assert made <= {self.newest + 1}
        assert current in {self.current, *made}
        for number in made:
            self.rows[number], self.newest = rows, number
        self.current = current

    @precondition(lambda self: set(self.rows) - set(self.damaged))
    @rule(data=st.data(), step=st.integers(0, 5))
    def rollback_is_killed(self, data: st.DataObject, step: int) -> None:
        number = data.draw(st.sampled_from(sorted(set(self.rows) - set(self.damaged))))
        self._killed(step, lambda: self.store.rollback(number))
        try:
            found = self.store.current()
        except CorruptIndexError:
            assert self.pointer_damaged
            return
        assert found == number or (found == self.current and not self.pointer_damaged)
        self.current, self.pointer_damaged = found, False

    @precondition(lambda self: not self.pointer_damaged)
    @rule(step=st.integers(0, 4))
    def vacuum_is_killed(self, step: int) -> None:
        self._killed(step, lambda: self.store.vacuum(1))
        self._forget([number for number in self.rows if number not in self.store.versions()])

    # --- damage and what mends it

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), name=st.sampled_from(FILES), place=st.integers(0, 10**6))
    def damage(self, data: st.DataObject, name: str, place: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.rows)))
        path = self.store.version_path(number) / name
        whole = self.damaged.setdefault(number, {})
        if name not in whole:
            whole[name] = path.read_bytes()
            content = bytearray(whole[name])
            content[place % len(content)] ^= 1 << place % 8
            path.write_bytes(content)

    @precondition(lambda self: self.damaged)
    @rule(data=st.data())
    def restore_a_copy(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.damaged)))
        for name, content in self.damaged.pop(number).items():
            (self.store.version_path(number) / name).write_bytes(content)

    @precondition(lambda self: self.current)
    @rule()
    def damage_current(self) -> None:
        (self.path / "CURRENT").write_bytes(b"0000000x")
        self.pointer_damaged = True
        for refused in (self.store.open_version, self.store.vacuum, lambda: publish(self.store, 1)):
            with pytest.raises(CorruptIndexError, match="CURRENT"):
                refused()

    @precondition(lambda self: self.rows and not self.pointer_damaged)
    @rule(data=st.data())
    def repair(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.rows)))
        wrong = set(self.damaged.get(number, ()))
        try:
            report = repair_index(self.path, number)
        except BuildError:
            assert wrong - {ANN}, "an approximate index can always be trained again"
            return
        assert (report.published is None) == (not wrong)
        if report.published:
            assert "manifest.json" not in wrong
            assert report.published > self.newest
            self.rows[report.published] = self.rows[number]
            self.current = self.newest = report.published

    # --- what holds at any time

    @invariant()
    def the_store_says_what_is_known(self) -> None:
        if not hasattr(self, "store"):
            return
        StoreMachine.steps += 1
        assert self.store.versions() == sorted(self.rows)
        if not self.pointer_damaged:
            assert self.store.current() == self.current
            self._read(None, self.current)

    @rule(data=st.data())
    def read_any(self, data: st.DataObject) -> None:
        if self.rows:
            number = data.draw(st.sampled_from(sorted(self.rows)))
            assert self.store.verify(number).ok == (number not in self.damaged)
            self._read(number, number)

    def _read(self, asked: int | None, number: int | None) -> None:
        if number is None:
            with pytest.raises(IndexNotFoundError):
                self.store.open_version(asked)
        elif number in self.damaged:
            with pytest.raises(CorruptIndexError, match=rf"{number:08d}/({'|'.join(self.damaged[number])}) "):
                self.store.open_version(asked)
        else:
            with self.store.open_version(asked) as version:
                rows = version.vectors("images").rows
                assert (rows, version.manifest.build["rows"]) == (self.rows[number],) * 2
                ids, _ = version.ann("images").search(np.eye(1, 8), 1, nprobe=16, oversample=1)
                assert version.catalog.rows("images", ids[0])[0]["item_id"] == f"item_id-{ids[0, 0]}"

    def _killed(self, step: int, action: Callable[[], object]) -> None:
        seen = 0

        def hook(_name: str) -> None:
            nonlocal seen
            seen += 1
            if seen > step:
                raise Killed

        atomic.hook = hook
        try:
            action()
        except Killed:
            self.store = IndexStore.open(self.path)
        except StorageError:
            assert self.damaged or self.pointer_damaged
        finally:
            atomic.hook = None

    def _forget(self, removed: list[int]) -> None:
        assert self.current not in removed
        for number in removed:
            del self.rows[number]
            self.damaged.pop(number, None)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
