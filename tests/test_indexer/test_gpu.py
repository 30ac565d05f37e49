"""What torch computes on a device is what the CPU computes: tested without a GPU, on torch's own CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from vector_tables import unit_rows, write_table

from encoders.device import Placement
from indexer.ann import build_ann, kmeans
from indexer.ann.kmeans import add_to_lists, list_centroids, lists_of, sums_of_lists
from indexer.ann.plan import plan_ann
from indexer.ann.train import build_ann as build_ann_file

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def test_centres_are_of_unit_length_repeatable_and_as_good_as_those_of_faiss(device: str) -> None:
    sample = unit_rows(4000, 32, clusters=40)
    centres = list_centroids(sample, 64, device=device)
    assert centres.shape == (64, 32)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert np.array_equal(centres, list_centroids(sample, 64, device=device))
    theirs = faiss.Kmeans(32, 64, niter=10, spherical=True, seed=1)
    theirs.train(sample)
    ours = (sample @ centres.T).max(axis=1).mean()
    assert ours > (sample @ theirs.centroids.T).max(axis=1).mean() - 0.02


def test_no_centre_stays_without_rows(device: str) -> None:
    sample = np.concatenate([np.repeat(unit_rows(3, 32), 50, axis=0), unit_rows(40, 32, seed=2)])
    centres = list_centroids(sample, 20, device=device)
    assert len(np.unique(lists_of(sample, centres, device=device))) >= 18


def test_rows_added_to_their_lists_are_found_as_if_faiss_had_added_them(device: str) -> None:
    vectors, queries = unit_rows(3000, 32), unit_rows(50, 32, seed=3)
    index = faiss.index_factory(32, "IVF16,PQ8x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    other = faiss.clone_index(index)
    index.add(vectors)
    centres = other.quantizer.reconstruct_n(0, 16)
    for start in range(0, 3000, 700):
        part = vectors[start : start + 700]
        add_to_lists(other, part, np.arange(start, start + len(part)), lists_of(part, centres, device=device))
    assert other.ntotal == 3000
    expected, found = index.search(queries, 10), other.search(queries, 10)
    assert np.array_equal(expected[1], found[1])
    assert np.allclose(expected[0], found[0])


def test_rows_are_summed_list_by_list_in_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "_SUMMED_ROWS", 70)
    rows = torch.from_numpy(unit_rows(300, 16)).to(device)
    lists = torch.from_numpy(np.random.default_rng(5).integers(0, 9, 300)).to(device)
    lists[lists == 4] = 5  # a list without rows
    expected = torch.zeros((9, 16), device=device).index_add_(0, lists, rows)
    torch.testing.assert_close(sums_of_lists(rows, lists, 9), expected)


def test_either_switch_of_tf32_is_put_back() -> None:
    matmul = torch.backends.cuda.matmul
    seen = []
    for name, value in (("allow_tf32", True), ("fp32_precision", "tf32")):
        before = getattr(matmul, name)
        setattr(matmul, name, value)
        with kmeans.full_precision():
            seen.append(matmul.fp32_precision)
        assert getattr(matmul, name) == value
        setattr(matmul, name, before)
    assert seen == ["ieee", "ieee"]


def test_a_device_without_memory_leaves_the_lists_to_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(kmeans, "nearest", no_memory)
    sample = unit_rows(600, 32)
    with pytest.raises(MemoryError, match="Tried to allocate"):
        lists_of(sample, sample[:8], device="cpu")
    built = [
        build_ann_file(
            write_table(tmp_path / name, sample),
            plan_ann("ivf-pq4", 600, 32),
            tmp_path / f"{name}.faiss",
            device=device,
        )
        for name, device in (("with", "cpu"), ("without", None))
    ]
    assert built[0] == built[1]
    assert (tmp_path / "with.faiss").read_bytes() == (tmp_path / "without.faiss").read_bytes()


@pytest.mark.parametrize("driver", [True, False])
def test_auto_looks_for_a_gpu_where_a_driver_is(driver: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for ready-made vectors, for which nothing has imported torch."""
    if driver:
        (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(build_ann, "_DRIVERS", (tmp_path / "nvidiactl",))
    monkeypatch.delitem(sys.modules, "torch")
    asked = []
    monkeypatch.setattr(
        "encoders.device.choose_device", lambda name: asked.append(name) or Placement(device="cuda", precision="fp32")
    )
    assert build_ann._gpu("auto") == ("cuda" if driver else None)
    assert asked == (["auto"] if driver else [])
