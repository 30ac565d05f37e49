from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from vector_tables import build_index, unit_rows, write_table

from storage import StorageError, VectorTable
from storage.ann import AnnIndex
from storage.errors import CorruptIndexError
from storage.faiss_file import read_ann, write_ann
from storage.faiss_structure import FOURCC
from storage.files import atomic
from storage.schema import AnnKind, AnnPlan

KINDS: tuple[AnnKind, ...] = tuple(FOURCC)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(600, 16))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, table: VectorTable) -> dict[AnnKind, tuple[bytes, AnnPlan]]:
    folder = tmp_path_factory.mktemp("files")
    plans = {kind: build_index(folder, kind, table).plan for kind in KINDS}
    return {kind: ((folder / f"{kind}.faiss").read_bytes(), plan) for kind, plan in plans.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_reads_back_as_what_was_written(
    tmp_path: Path, files: dict[AnnKind, tuple[bytes, AnnPlan]], table: VectorTable, kind: AnnKind
) -> None:
    data, plan = files[kind]
    (tmp_path / "a").write_bytes(data)
    write_ann(read_ann(tmp_path / "a", kind, rows=600, dim=16, nlist=plan.nlist), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d[:-1], lambda d: d[:3], lambda d: b""])
def test_a_truncated_file_is_refused(
    tmp_path: Path,
    files: dict[AnnKind, tuple[bytes, AnnPlan]],
    table: VectorTable,
    kind: AnnKind,
    damage: Callable[[bytes], bytes],
) -> None:
    data, plan = files[kind]
    (tmp_path / "ann.faiss").write_bytes(damage(data))
    with pytest.raises(CorruptIndexError, match=r"ann\.faiss"):
        AnnIndex.open(tmp_path / "ann.faiss", plan, table)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_what_describes_the_index_is_refused(
    tmp_path: Path, files: dict[AnnKind, tuple[bytes, AnnPlan]], table: VectorTable, kind: AnnKind
) -> None:
    """The kind, dim, number of rows and metric; what lies behind them only a checksum sees."""
    data, plan = files[kind]
    path = tmp_path / "ann.faiss"
    described = [*range(16), 32, *range(33, 37)]  # fourcc, d, ntotal, (two dummies), is_trained, metric
    for place in described:
        damaged = bytearray(data)
        damaged[place] ^= 0x41 if place != 32 else 0x01
        path.write_bytes(damaged)
        with pytest.raises(CorruptIndexError, match=r"ann\.faiss"):
            AnnIndex.open(path, plan, table)


def test_damage_anywhere_never_ends_in_another_exception(
    tmp_path: Path, files: dict[AnnKind, tuple[bytes, AnnPlan]], table: VectorTable
) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "ann.faiss"
    opened = 0
    for data, plan in files.values():
        for place in generator.integers(0, min(len(data), 400), 40):
            damaged = bytearray(data)
            damaged[place : place + 8] = generator.bytes(8)
            path.write_bytes(damaged)
            opened += opens(path, plan, table)
    assert opened < 200


def opens(path: Path, plan: AnnPlan, table: VectorTable) -> bool:
    try:
        AnnIndex.open(path, plan, table)
    except CorruptIndexError:
        return False
    return True


def test_a_file_of_another_kind_never_reaches_the_loader(
    tmp_path: Path, files: dict[AnnKind, tuple[bytes, AnnPlan]]
) -> None:
    (tmp_path / "ann.faiss").write_bytes(files["hnsw"][0])
    with pytest.raises(CorruptIndexError, match="index b'IHNs' where b'IwPQ' is expected"):
        read_ann(tmp_path / "ann.faiss", "ivf-pq", rows=600, dim=16, nlist=16)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorruptIndexError, match="is missing; roll back"):
        read_ann(tmp_path / "ann.faiss", "ivf-pq", rows=600, dim=16, nlist=16)


def test_the_limits_of_the_loader_are_put_back(
    tmp_path: Path, files: dict[AnnKind, tuple[bytes, AnnPlan]], table: VectorTable
) -> None:
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    (tmp_path / "ann.faiss").write_bytes(files["ivf-pq"][0][:900])
    assert not opens(tmp_path / "ann.faiss", files["ivf-pq"][1], table)
    assert before == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_noticed() -> None:
    with pytest.raises(StorageError, match="cannot write /dev/full: No space left on device; free some space"):
        write_ann(faiss.IndexFlatIP(4), Path("/dev/full"))


def test_a_file_that_does_not_read_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses a byte after the sync."""
    path = tmp_path / "ann.faiss"

    def lose_a_byte(step: str) -> None:
        if step == "ann.synced":
            path.write_bytes(path.read_bytes()[:-1])

    monkeypatch.setattr(atomic, "hook", lose_a_byte)
    with pytest.raises(CorruptIndexError, match="does not read back as it was written"):
        write_ann(faiss.IndexFlatIP(4), path)
