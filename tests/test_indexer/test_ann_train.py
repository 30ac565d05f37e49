from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from vector_tables import brute_force, build_index, unit_rows, write_table

from evaluation import ann_recall, hit_rate_at_k
from indexer.ann.plan import plan_ann
from indexer.ann.train import _centre_width, build_ann, estimate_memory
from indexer.errors import BuildError
from storage import StorageError, VectorTable
from storage.ann import AnnIndex
from storage.schema import ANN_KINDS, AnnKind

CODED = [kind for kind in ANN_KINDS if kind != "flat"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VectorTable:
    return write_table(tmp_path_factory.mktemp("table"), unit_rows(4000, 24))


@pytest.mark.parametrize("kind", CODED)
def test_ids_are_row_ids(tmp_path: Path, table: VectorTable, kind: AnnKind) -> None:
    rows = np.arange(0, 4000, 97)
    stored = table.gather(rows).astype(np.float32)
    ids = build_index(tmp_path, kind, table).search(stored, 1, nprobe=64, oversample=200)[0]
    assert np.array_equal(ids[:, 0], rows)


def test_flat_writes_nothing(tmp_path: Path, table: VectorTable) -> None:
    plan = plan_ann("flat", table.rows, table.dim)
    assert build_ann(table, plan, tmp_path / "ann.faiss") == plan
    assert not (tmp_path / "ann.faiss").exists()
    assert estimate_memory(plan, table.rows, table.dim) == 0


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-pq", "ivf-pq4", "ivf-rabitq"])
def test_the_same_seed_gives_the_same_file(tmp_path: Path, table: VectorTable, kind: AnnKind) -> None:
    files = []
    for number, seed in enumerate((3, 3, 4)):
        plan = replace(plan_ann(kind, table.rows, table.dim, seed=seed), train_rows=2000)
        build_ann(table, plan, tmp_path / str(number))
        files.append((tmp_path / str(number)).read_bytes())
    assert files[0] == files[1] != files[2]


def test_the_same_queries_spill_the_same_entries(tmp_path: Path, table: VectorTable) -> None:
    plan = plan_ann("ivf-pq4", table.rows, table.dim)
    queries = off_the_vectors(400, seed=1)
    plans = [build_ann(table, plan, tmp_path / name, queries=queries) for name in ("a", "b")]
    assert plans[0] == plans[1] == replace(plan, spilled=plans[0].spilled)
    assert 0 < plans[0].spilled <= table.rows // 10
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_spilling_finds_more_for_queries_off_the_vectors(tmp_path: Path, table: VectorTable) -> None:
    """Other queries of the same kind, as many lists: more is found; for the vectors themselves no less."""
    plain = build_index(tmp_path / "plain", "ivf-pq4", table, 64)
    spilled = build_index(tmp_path / "spilled", "ivf-pq4", table, 64, queries=off_the_vectors(2000, seed=1))
    others, stored = off_the_vectors(300, seed=2), table.gather(np.arange(0, 4000, 20)).astype(np.float32)
    for queries, gain in ((others, 0.03), (stored, -0.01)):
        truth = brute_force(table, queries, 10)
        recalls = [ann_recall(ann.search(queries, 10, nprobe=4, oversample=20)[0], truth) for ann in (plain, spilled)]
        assert recalls[1] >= recalls[0] + gain


def test_centres_that_are_found_by_codes_name_the_lists_that_all_of_them_would(
    tmp_path: Path, table: VectorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, files = plan_ann("ivf-pq4", table.rows, table.dim, nlist=128), []
    for name, lists in (("plain", 1 << 20), ("quick", 128)):
        monkeypatch.setattr("indexer.ann.train.FAST_CENTROIDS", lists)
        build_ann(table, plan, tmp_path / name)
        files.append(faiss.read_index(str(tmp_path / name)))
    plain, quick = (faiss.downcast_index(file.index) for file in files)
    assert isinstance(faiss.downcast_index(quick.quantizer), faiss.IndexRefineFlat)
    asked = off_the_vectors(200, seed=3)
    turned = faiss.downcast_VectorTransform(files[0].chain.at(0)).apply(asked)
    lists = [index.quantizer.search(turned, 16)[1] for index in (plain, quick)]
    assert ann_recall(lists[1], lists[0]) > 0.98
    assert [plain.invlists.list_size(i) for i in range(128)] == [quick.invlists.list_size(i) for i in range(128)]
    ann = AnnIndex.open(tmp_path / "quick", plan, table)
    everything = ann.search(asked, 10, nprobe=128, oversample=400)[0]
    assert np.array_equal(everything, brute_force(table, asked, 10))


def test_memory_for_one_copy_of_the_codes_alone_spills_nothing(tmp_path: Path) -> None:
    table = write_table(tmp_path, unit_rows(30_000, 64, clusters=64))
    plan = replace(plan_ann("ivf-pq4", table.rows, table.dim), train_rows=2000)
    need = estimate_memory(plan, table.rows, table.dim)
    queries = unit_rows(100, 64, seed=1)
    assert build_ann(table, plan, tmp_path / "tight", memory_bytes=need, queries=queries).spilled == 0
    assert build_ann(table, plan, tmp_path / "wide", memory_bytes=need + (8 << 20), queries=queries).spilled > 0


@pytest.mark.parametrize("kind", [kind for kind in ANN_KINDS if kind != "ivf-pq4"])
def test_other_kinds_spill_nothing(tmp_path: Path, table: VectorTable, kind: AnnKind) -> None:
    plan = plan_ann(kind, table.rows, table.dim)
    assert build_ann(table, plan, tmp_path / "ann.faiss", queries=off_the_vectors(50, seed=1)).spilled == 0


def off_the_vectors(count: int, seed: int) -> np.ndarray:
    """Queries as captions are to images: each leans on a vector, and has as much of its own and a mean of its own."""
    generator = np.random.default_rng([seed, count])
    queries = unit_rows(4000, 24)[generator.integers(0, 4000, count)] + 0.25 * generator.standard_normal((count, 24))
    queries[:, :3] += 0.8
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)


def test_the_size_of_a_chunk_does_not_show_in_the_file(
    tmp_path: Path, table: VectorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_ann("ivf-pq4", table.rows, table.dim)
    build_ann(table, plan, tmp_path / "whole")
    monkeypatch.setattr("indexer.ann.train._CHUNK_ROWS", 1500)
    build_ann(table, plan, tmp_path / "chunks")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "chunks").read_bytes()


def test_progress_counts_the_rows(tmp_path: Path, table: VectorTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.ann.train._CHUNK_ROWS", 1500)
    seen: list[tuple[int, int]] = []
    plan = plan_ann("ivf-pq4", table.rows, table.dim)
    build_ann(table, plan, tmp_path / "ann.faiss", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1500, 4000), (3000, 4000), (4000, 4000)]


def test_a_memory_limit_shrinks_the_sample(tmp_path: Path) -> None:
    table = write_table(tmp_path, unit_rows(30_000, 64, clusters=64))
    plan = plan_ann("ivf-pq4", table.rows, table.dim)
    whole = estimate_memory(plan, table.rows, table.dim)
    trained = build_ann(table, plan, tmp_path / "ann.faiss", memory_bytes=whole - 12_000_000)
    assert plan.train_rows == 30_000
    assert trained == replace(plan, train_rows=39 * 512)  # the fewest that 512 lists are found by; half would be 15,000
    assert AnnIndex.open(tmp_path / "ann.faiss", trained, table).plan == trained


def test_too_small_a_memory_limit_names_one_that_would_do(tmp_path: Path, table: VectorTable) -> None:
    plan = plan_ann("ivf-pq4", table.rows, table.dim, nlist=64)
    with pytest.raises(BuildError, match=r"a memory limit of 1,000 bytes is too small .* give at least ([\d,]+)") as no:
        build_ann(table, plan, tmp_path / "ann.faiss", memory_bytes=1000)
    need = int(str(no.value).split("give at least ")[1].split(", or")[0].replace(",", ""))
    with pytest.raises(BuildError, match="too small"):
        build_ann(table, plan, tmp_path / "ann.faiss", memory_bytes=need - 1)
    assert build_ann(table, plan, tmp_path / "ann.faiss", memory_bytes=need).train_rows < plan.train_rows


@pytest.mark.parametrize("kind", CODED)
def test_the_estimate_covers_the_index(tmp_path: Path, table: VectorTable, kind: AnnKind) -> None:
    plan = plan_ann(kind, 100_000, 24)
    build_index(tmp_path, kind, table)
    bytes_a_row = (tmp_path / f"{kind}.faiss").stat().st_size / table.rows
    fixed = estimate_memory(plan, 100_000, 24)
    assert estimate_memory(plan, 1_100_000, 24) - fixed >= 0.6 * 1_000_000 * bytes_a_row


def test_a_small_collection_trains_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """FAISS prints warnings about few points straight to the terminal."""
    build_index(tmp_path, "ivf-pq", write_table(tmp_path / "a", unit_rows(256, 30)))
    build_index(tmp_path, "ivf-pq4", write_table(tmp_path / "b", unit_rows(64, 30)))
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, table: VectorTable) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*no/ann\.faiss: No such file or directory"):
        build_ann(table, plan_ann("ivf-pq4", table.rows, table.dim), tmp_path / "no" / "ann.faiss")


def test_training_leaves_the_threads_of_faiss_alone(tmp_path: Path, table: VectorTable) -> None:
    before = faiss.omp_get_max_threads()
    build_index(tmp_path, "ivf-pq4", table)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("kind", CODED)
def test_real_vectors_lose_nothing_through_codes_and_rerank(tmp_path: Path, data: Path, kind: AnnKind) -> None:
    folder = data / "clip_vit_b32"
    images, texts, others = (
        np.load(folder / f"{name}.npy") for name in ("flickr8k_images", "flickr8k_captions", "distractor_images")
    )
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    images_of = [[json.loads(line)["image_row"]] for line in lines]
    texts_of = [[text for text, image in enumerate(images_of) if image == [row]] for row in range(len(images))]
    gallery = build_index(tmp_path, kind, write_table(tmp_path / "gallery", np.concatenate([images, others])))
    captions = build_index(tmp_path, kind, write_table(tmp_path / "captions", texts))
    t2i = gallery.search(texts, 10, nprobe=64, oversample=64)[0]
    i2t = captions.search(images, 10, nprobe=64, oversample=64)[0]
    assert [round(hit_rate_at_k(t2i, images_of, k), 3) for k in (1, 5, 10)] == [0.822, 0.986, 0.996]
    assert [round(hit_rate_at_k(i2t, texts_of, k), 3) for k in (1, 5, 10)] == [0.93, 1, 1]


def test_a_hundred_real_images_are_enough_for_short_codes(tmp_path: Path, data: Path) -> None:
    folder = data / "clip_vit_b32"
    images, texts = np.load(folder / "flickr8k_images.npy"), np.load(folder / "flickr8k_captions.npy")
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    images_of = [[json.loads(line)["image_row"]] for line in lines]
    found = build_index(tmp_path, "ivf-pq4", write_table(tmp_path, images)).search(texts, 10, nprobe=2, oversample=8)[0]
    assert [round(hit_rate_at_k(found, images_of, k), 3) for k in (1, 5, 10)] == [0.832, 0.99, 0.998]


@pytest.mark.parametrize("kind", CODED)
def test_lists_that_torch_finds_are_as_good_as_those_of_faiss(
    table: VectorTable, kind: AnnKind, tmp_path: Path
) -> None:
    plan, asked, recalls = plan_ann(kind, table.rows, table.dim), unit_rows(100, 24, seed=5), []
    exact = brute_force(table, asked, 10)
    for device in (None, "cpu"):
        path = tmp_path / f"{device}.faiss"
        ann = AnnIndex.open(path, build_ann(table, plan, path, device=device), table)
        recalls.append(ann_recall(ann.search(asked, 10, nprobe=16, oversample=8)[0], exact))
    assert recalls[1] > recalls[0] - 0.03
    assert recalls[1] > 0.3


def test_spilled_entries_join_the_lists_that_torch_found(table: VectorTable, tmp_path: Path) -> None:
    plan, path = plan_ann("ivf-pq4", table.rows, table.dim), tmp_path / "ann.faiss"
    built = build_ann(table, plan, path, queries=off_the_vectors(50, seed=1), device="cpu")
    assert AnnIndex.open(path, built, table).plan.spilled == built.spilled


@pytest.mark.parametrize(("dim", "width"), [(512, 4), (384, 4), (200, 2), (20, 1), (30, 3), (7, 1), (130, 2)])
def test_codes_of_centroids_come_in_fours_where_they_can(dim: int, width: int) -> None:
    assert _centre_width(dim) == width
