"""Product codes that torch makes on a device are those of FAISS: tested without a GPU, on torch's own CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from vector_tables import brute_force, unit_rows, write_table

from evaluation import ann_recall
from indexer.ann import codes_on_device, kmeans
from indexer.ann.codes_on_device import DeviceCoder, add_codes, learned_codebook, set_codebook
from indexer.ann.plan import plan_ann
from indexer.ann.rotation import pq_rotation
from indexer.ann.train import build_ann
from storage import VectorTable
from storage.ann import AnnIndex
from storage.schema import AnnKind

ROWS, DIM, LISTS = 6000, 32, 16
BITS = [(16, 4), (4, 8), (15, 4), (DIM, 4)]  # codes a vector, bits a code; an odd number leaves half a byte empty


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(ROWS, DIM))


def faiss_index(sample: np.ndarray, codes: int, bits: int) -> Any:
    index = faiss.index_factory(sample.shape[1], f"IVF{LISTS},PQ{codes}x{bits}np", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.pq.cp.niter = 10
    index.train(sample)
    return index


def tables(index: Any) -> tuple[np.ndarray, np.ndarray]:
    codebook = faiss.vector_to_array(index.pq.centroids).reshape(index.pq.M, index.pq.ksub, index.pq.dsub)
    return index.quantizer.reconstruct_n(0, index.nlist), codebook


def left(sample: np.ndarray, codebook: np.ndarray, centroids: np.ndarray) -> float:
    """The mean squared error of residuals under a codebook."""
    residuals = sample - centroids[(sample @ centroids.T).argmax(1)]
    spaces = residuals.reshape(len(sample), len(codebook), 1, -1)
    return float(((spaces - codebook[None]) ** 2).sum(-1).min(-1).sum(-1).mean())


@pytest.mark.parametrize(("codes", "bits"), BITS[:2])
def test_the_codebook_is_as_good_as_that_of_faiss_and_the_same_each_time(codes: int, bits: int, device: str) -> None:
    sample, others = unit_rows(ROWS, DIM), unit_rows(2000, DIM, seed=5)
    centroids, theirs = tables(faiss_index(sample, codes, bits))
    ours = learned_codebook(sample, centroids, codes, 1 << bits, device=device)
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    assert np.array_equal(ours, learned_codebook(sample, centroids, codes, 1 << bits, device=device))
    for rows in (sample, others):
        assert left(rows, ours, centroids) < 1.02 * left(rows, theirs, centroids)


@pytest.mark.parametrize(("codes", "bits"), BITS)
@pytest.mark.parametrize("rotated", [True, False])
def test_lists_and_codes_are_those_of_faiss(codes: int, bits: int, rotated: bool, device: str) -> None:
    stored = unit_rows(2000, 2 * 15 if codes == 15 else DIM).astype(np.float16)
    wide = stored.astype(np.float32)
    rotation = pq_rotation(wide, codes) if rotated else None
    turned = wide @ rotation.T if rotation is not None else wide
    index = faiss_index(turned, codes, bits)
    lists, packed = DeviceCoder(*tables(index), rotation, device=device).coded(stored)
    homes = index.quantizer.search(turned, 1)[1][:, 0]
    expected = index.pq.compute_codes(turned - index.quantizer.reconstruct_n(0, LISTS)[homes])
    assert packed.shape == expected.shape
    assert packed.dtype == np.uint8
    assert (lists == homes).mean() > 0.999
    assert (packed == expected)[lists == homes].mean() > 0.9999


@pytest.mark.parametrize("lists", [1, LISTS, 300])
def test_entries_that_are_added_by_list_and_code_lie_where_faiss_would_put_them(lists: int) -> None:
    vectors, queries = unit_rows(2000, DIM), unit_rows(30, DIM, seed=3)
    index = faiss.index_factory(DIM, f"IVF{lists},PQ16x4np", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    other = faiss.clone_index(index)
    index.add(vectors)
    homes = other.quantizer.search(vectors, 1)[1][:, 0]
    codes = other.pq.compute_codes(vectors - other.quantizer.reconstruct_n(0, lists)[homes])
    for start in range(0, 2000, 700):
        part = slice(start, min(start + 700, 2000))
        add_codes(other, np.arange(part.start, part.stop), homes[part], codes[part])
    assert other.ntotal == 2000
    for expected, found in zip(index.search(queries, 10), other.search(queries, 10), strict=True):
        assert np.array_equal(expected, found)


@pytest.mark.parametrize("kind", ["ivf-pq", "ivf-pq4"])
def test_an_index_that_a_device_built_finds_as_much(
    kind: AnnKind, tmp_path: Path, table: VectorTable, device: str
) -> None:
    queries = unit_rows(300, DIM, seed=9)
    truth, recalls, plan, steps = brute_force(table, queries, 10), [], plan_ann(kind, ROWS, DIM), []
    for name, chosen in (("device", device), ("again", device), ("cpu", None)):
        built = build_ann(table, plan, tmp_path / name, device=chosen, progress=lambda *done: steps.append(done))
        ann = AnnIndex.open(tmp_path / name, built, table)
        recalls.append(ann_recall(ann.search(queries, 10, nprobe=8, oversample=4)[0], truth))
    assert steps == [(ROWS, ROWS)] * 3
    assert (tmp_path / "device").read_bytes() == (tmp_path / "again").read_bytes()
    assert recalls[0] >= recalls[2] - 0.01
    assert recalls[2] > 0.5


def test_too_little_memory_takes_fewer_rows_at_once_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, asked, whole = unit_rows(5000, DIM), [], codes_on_device._distances
    index = faiss_index(vectors, 16, 4)
    expected = DeviceCoder(*tables(index), None, device="cpu").coded(vectors)
    codebook = learned_codebook(vectors, tables(index)[0], 16, 16, device="cpu")

    def small_memory(spaces: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
        asked.append(spaces.shape[:2])
        if spaces.shape[0] * spaces.shape[1] > 16 * 2000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(spaces, centroids)

    monkeypatch.setattr(codes_on_device, "_distances", small_memory)
    coder = DeviceCoder(*tables(index), None, device="cpu")
    for found, known in zip(coder.coded(vectors), expected, strict=True):
        assert np.array_equal(found, known)
    tries = len(asked)
    coder.coded(vectors)
    assert max(count for _, count in asked[tries:]) <= 2000
    assert np.array_equal(learned_codebook(vectors, tables(index)[0], 16, 16, device="cpu"), codebook)


def test_a_device_that_has_no_memory_while_coding_leaves_those_rows_to_faiss(
    tmp_path: Path, table: VectorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError("none left")

    built = build_ann(table, plan_ann("ivf-pq4", ROWS, DIM), tmp_path / "whole", device="cpu")
    monkeypatch.setattr(DeviceCoder, "_coded", no_memory)
    assert build_ann(table, plan_ann("ivf-pq4", ROWS, DIM), tmp_path / "left", device="cpu") == built
    queries, found = unit_rows(100, DIM, seed=9), []
    for name in ("whole", "left"):
        found.append(AnnIndex.open(tmp_path / name, built, table).search(queries, 10, nprobe=8, oversample=8)[0])
    assert (found[0] == found[1]).mean() > 0.99


def test_sub_spaces_with_few_different_points_have_a_codebook_all_the_same(device: str) -> None:
    """Where points repeat, centroids stay without any, and are given others in place of a division by zero."""
    few = np.repeat(unit_rows(20, 8, seed=1), 40, axis=0)
    codebook = learned_codebook(few, np.zeros((1, 8), dtype=np.float32), 4, 16, device=device)
    assert np.isfinite(codebook).all()
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(8), 8, 1, 4, 4, faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(np.zeros((1, 8), dtype=np.float32))
    set_codebook(index, codebook)
    index.add(few)
    assert index.ntotal == len(few)
    assert kmeans.lists_of(few, np.eye(8, dtype=np.float32), device=device).shape == (800,)
