"""A forged FAISS file is refused before FAISS sees it: no other part, no other file, no id that no row has."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from vector_tables import build_index, unit_rows, write_table

from storage import VectorTable
from storage.ann import AnnIndex
from storage.errors import CorruptIndexError
from storage.faiss_structure import FOURCC
from storage.schema import AnnKind, AnnPlan

KINDS: tuple[AnnKind, ...] = tuple(FOURCC)
LISTED: tuple[AnnKind, ...] = tuple(kind for kind in KINDS if kind != "hnsw")
ROWS, DIM = 600, 16
Files = dict[AnnKind, tuple[bytes, AnnPlan]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(ROWS, DIM))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, table: VectorTable) -> Files:
    folder = tmp_path_factory.mktemp("files")
    plans = {kind: build_index(folder, kind, table).plan for kind in KINDS}
    return {kind: ((folder / f"{kind}.faiss").read_bytes(), plan) for kind, plan in plans.items()}


def refused(tmp_path: Path, data: bytes, plan: AnnPlan, table: VectorTable) -> str:
    path = tmp_path / "ann.faiss"
    path.write_bytes(data)
    with pytest.raises(CorruptIndexError, match=r"ann\.faiss has ") as caught:
        AnnIndex.open(path, plan, table)
    return str(caught.value)


def changed(data: bytes, position: int, value: bytes) -> bytes:
    return data[:position] + value + data[position + len(value) :]


def lists_at(data: bytes) -> int:
    return max(data.find(b"ilar"), data.find(b"ilbl"))


@pytest.mark.parametrize("kind", LISTED)
def test_lists_in_another_file_are_refused_and_it_is_not_opened(
    tmp_path: Path, files: Files, table: VectorTable, kind: AnnKind
) -> None:
    data, plan = files[kind]
    other = tmp_path / "other"
    other.write_bytes(b"\0" * 100_000)
    other.chmod(0)
    name = str(other).encode()
    elsewhere = struct.pack("<4sQQ", b"ilod", plan.nlist, 8) + struct.pack("<Q", 3 * plan.nlist)
    elsewhere += struct.pack(f"<{3 * plan.nlist}Q", *[1, 1, 0] * plan.nlist) + struct.pack("<Q", 0)
    elsewhere += struct.pack("<Q", len(name)) + name + struct.pack("<Q", 100_000)
    assert "ilod" in refused(tmp_path, data[: lists_at(data)] + elsewhere, plan, table)
    assert other.stat().st_atime_ns <= other.stat().st_mtime_ns


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [b"ilod", b"IxM2", b"IHNf", b"IwFl", b"IxHe", b"null"])
def test_another_part_in_the_stead_of_any_is_refused(
    tmp_path: Path, files: Files, table: VectorTable, kind: AnnKind, part: bytes
) -> None:
    data, plan = files[kind]
    names = (FOURCC[kind], b"IxSQ") if kind == "hnsw" else (FOURCC[kind], b"IxFI", data[lists_at(data) :][:4])
    for name in names:
        refused(tmp_path, changed(data, data.index(name), part), plan, table)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_follows_is_refused(tmp_path: Path, files: Files, table: VectorTable, kind: AnnKind) -> None:
    data, plan = files[kind]
    assert "end" in refused(tmp_path, data + b"\0", plan, table)


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-pq"])
@pytest.mark.parametrize("row", [-1, ROWS, 1 << 40])
def test_an_id_that_no_row_has_is_refused(
    tmp_path: Path, files: Files, table: VectorTable, kind: AnnKind, row: int
) -> None:
    data, plan = files[kind]
    assert "ids from" in refused(tmp_path, data[:-8] + struct.pack("<q", row), plan, table)


@pytest.mark.parametrize("row", [-2, ROWS, 1 << 30])
def test_a_graph_that_leads_nowhere_is_refused(tmp_path: Path, files: Files, table: VectorTable, row: int) -> None:
    data, plan = files["hnsw"]
    position = data.index(b"IxSQ") - 20
    neighbour = position - 4 * 64
    assert "graph" in refused(tmp_path, changed(data, neighbour, struct.pack("<i", row)), plan, table)
    assert "entered" in refused(tmp_path, changed(data, position, struct.pack("<i", ROWS)), plan, table)
    assert "entered" in refused(tmp_path, changed(data, position + 4, struct.pack("<i", 40)), plan, table)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotated", [1, 2])
def test_a_rotation_stands_where_a_build_puts_one_and_once(
    tmp_path: Path, files: Files, table: VectorTable, kind: AnnKind, rotated: int
) -> None:
    data, plan = files[kind]
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    for _ in range(rotated):
        turn = faiss.RandomRotationMatrix(DIM, DIM)
        turn.init(1)
        index = faiss.IndexPreTransform(turn, index)
    forged = faiss.serialize_index(index).tobytes()
    if data[:4] != b"IxPT" and kind in ("ivf-pq", "ivf-pq4") and rotated == 1:
        forged = forged.replace(b"rrot", b"LTrb", 1)
    refused(tmp_path, forged, plan, table)


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from storage import VectorTable
from storage.ann import AnnIndex
from storage.errors import CorruptIndexError
from storage.schema import AnnPlan
vectors, folder = Path(sys.argv[1]), Path(sys.argv[2])
chance = np.random.default_rng(5)
with VectorTable.open(vectors) as table:
    for line in sys.stdin.read().splitlines():
        kind, nlist = line.split()
        data = (folder / kind).read_bytes()
        for number in range(120):
            damaged = bytearray(data)
            for place in chance.integers(0, len(data) if number % 2 else 2_000, 1 + number % 3):
                size = int(chance.choice([1, 4, 8]))
                damaged[place : place + size] = chance.choice([chance.bytes(8), b"\\xff" * 8, b"\\0" * 8])[:size]
            (folder / "ann.faiss").write_bytes(damaged)
            try:
                index = AnnIndex.open(folder / "ann.faiss", AnnPlan(kind=kind, nlist=int(nlist)), table)
            except CorruptIndexError:
                continue
            with np.errstate(all="ignore"):
                index.search(np.eye(2, 16, dtype=np.float32), 5, nprobe=16, oversample=4)
print("whole")
"""


def test_changes_of_any_part_end_in_an_error_or_an_answer(tmp_path: Path, files: Files, table: VectorTable) -> None:
    for kind, (data, _) in files.items():
        (tmp_path / kind).write_bytes(data)
    given = "\n".join(f"{kind} {plan.nlist}" for kind, (_, plan) in files.items())
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(table.path), str(tmp_path)],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert done.stdout == "whole\n", (done.returncode, done.stderr[-2000:])
