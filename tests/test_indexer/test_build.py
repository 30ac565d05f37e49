"""From a folder to a published version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder, paint
from PIL import Image

from indexer import BuildError, RejectedError, build_index
from storage import IndexStore


def ids(out: Path, collection: str = "images") -> list[str]:
    with IndexStore.open(out).open_version() as version:
        return version.catalog.table(collection).column("item_id").to_pylist()


def rejected(out: Path) -> dict[str, str]:
    with IndexStore.open(out).open_version() as version:
        return {row["item_id"]: row["reason"] for row in version.catalog.table("rejected").to_pylist()}


def test_a_folder_becomes_images_texts_and_pairs(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    report = build_index(photos, tmp_path / "out", encoder=encoder)
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (40, 80, 80, 0)
    assert counts.items == counts.indexed + counts.rejected
    assert report.version == 1


def test_rows_stand_in_source_order_and_vectors_are_those_of_their_own_items(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    build_index(photos, tmp_path / "out", encoder=encoder, shard_cost=3, batch_size=2)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        table = version.vectors("images")
        names = list(table.item_ids(np.arange(table.rows)))
        assert names == sorted(names)
        expected = encoder.encode_images([photos / name for name in names])
        stored = table.gather(np.arange(table.rows)).astype(np.float32)
    np.testing.assert_allclose(stored, expected, atol=2e-3)


def test_the_catalog_tells_size_checksum_and_caption_of_an_image(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    build_index(photos, tmp_path / "out", encoder=encoder)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        row = version.catalog.rows("images", [0])[0]
    assert (row["item_id"], row["width"], row["height"]) == ("black/0005.png", 40, 30)
    assert row["caption"] == "a black square, number 5"
    assert len(row["sha256"]) == 64
    assert row["file_bytes"] == (photos / "black/0005.png").stat().st_size


def test_shards_and_batches_do_not_show_in_the_tables(photos: Path, tmp_path: Path) -> None:
    for name, cost, batch in (("a", 512, 8), ("b", 5, 8)):
        build_index(photos, tmp_path / name, encoder=ColourEncoder(), shard_cost=cost, batch_size=batch)
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    assert ids(tmp_path / "a", "texts") == ids(tmp_path / "b", "texts")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("noise.jpg", b"no image at all" * 50, "not_an_image"),
        ("half.png", None, "corrupt"),
    ],
)
def test_a_file_that_is_no_image_is_counted_with_its_reason(
    photos: Path, tmp_path: Path, encoder: ColourEncoder, name: str, content: bytes | None, reason: str
) -> None:
    whole = paint(tmp_path / "whole.png", "red", size=(200, 200)).read_bytes()
    (photos / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    report = build_index(photos, tmp_path / "out", encoder=encoder)
    assert rejected(tmp_path / "out") == {name: reason}
    assert report.rejected == {reason: 1}
    assert report.manifest.counts.images == 40


def test_the_captions_of_a_rejected_image_stay_and_its_pairs_go(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    (photos / "red" / "0000.png").write_bytes(b"broken")
    counts = build_index(photos, tmp_path / "out", encoder=encoder).manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (39, 80, 78, 1)


def test_a_decompression_bomb_is_rejected_before_it_is_decoded(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    Image.new("1", (30_000, 30_000)).save(photos / "bomb.png")
    build_index(photos, tmp_path / "out", encoder=encoder)
    assert rejected(tmp_path / "out") == {"bomb.png": "too_many_pixels"}


def test_too_many_rejections_stop_the_build_and_publish_nothing(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    for number in range(5):
        (photos / f"broken{number}.jpg").write_bytes(b"broken")
    with pytest.raises(RejectedError, match="5 items were rejected, more than --max-rejected 4"):
        build_index(photos, tmp_path / "out", encoder=encoder, max_rejected=4)
    assert IndexStore.open(tmp_path / "out").versions() == []
    assert build_index(photos, tmp_path / "out", encoder=encoder, max_rejected=0.1).manifest.counts.rejected == 5


def test_a_corpus_of_broken_images_alone_says_so(tmp_path: Path, encoder: ColourEncoder) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(BuildError, match=r"none of 1 items could be indexed; the first, 'a.jpg'"):
        build_index(tmp_path / "photos", tmp_path / "out", encoder=encoder)


def test_texts_alone_make_an_index(tmp_path: Path, encoder: ColourEncoder) -> None:
    (tmp_path / "lines.txt").write_text("a red thing\na blue thing\n", encoding="utf-8")
    counts = build_index(tmp_path / "lines.txt", tmp_path / "out", encoder=encoder).manifest.counts
    assert (counts.images, counts.texts) == (0, 2)


def test_images_alone_are_tuned_for_text_queries_with_generic_captions(
    tmp_path: Path, photos: Path, encoder: ColourEncoder
) -> None:
    for sidecar in photos.rglob("*.txt"):
        sidecar.unlink()
    manifest = build_index(photos, tmp_path / "out", encoder=encoder).manifest
    tuning = manifest.collections["images"].tuning
    assert tuning["text_to_image"].query_source == "bank"
    assert tuning["image_to_image"].query_source == "corpus"


def test_a_second_build_is_a_second_version(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    build_index(photos, tmp_path / "out", encoder=encoder)
    report = build_index(photos, tmp_path / "out", encoder=encoder)
    assert report.version == 2
    assert report.manifest.parent == 1
    assert encoder.images_encoded == 80


def test_nothing_of_a_finished_build_is_left_in_staging(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    build_index(photos, tmp_path / "out", encoder=encoder)
    assert list((tmp_path / "out" / "staging").glob("*")) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"min_ann_recall": 2.0}, "min_ann_recall is 2.0"),
        ({"max_rejected": -1.0}, "max_rejected is -1.0"),
        ({"shard_cost": -5}, "shard_cost is -5"),
    ],
)
def test_a_setting_out_of_range_is_named(
    photos: Path, tmp_path: Path, encoder: ColourEncoder, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        build_index(photos, tmp_path / "out", encoder=encoder, **settings)


def test_a_floor_that_no_point_reaches_is_not_published(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    report = build_index(photos, tmp_path / "out", encoder=encoder, min_ann_recall=1.0)
    points = report.manifest.collections["images"].tuning["text_to_image"].points
    assert points[-1].ann_recall == 1.0


def test_too_few_rows_for_a_trained_index_say_how_many_are_needed(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    with pytest.raises(BuildError, match="ivf-pq"):
        build_index(photos, tmp_path / "out", encoder=encoder, ann="ivf-pq")
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_cannot_be_read_leaves_no_index_behind(tmp_path: Path, encoder: ColourEncoder) -> None:
    with pytest.raises(BuildError, match="nowhere"):
        build_index(tmp_path / "nowhere", tmp_path / "out", encoder=encoder)
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_told_before_anything_is_encoded(
    photos: Path, tmp_path: Path, encoder: ColourEncoder
) -> None:
    with pytest.raises(BuildError, match=r"give (at least|more)"):
        build_index(photos, tmp_path / "out", encoder=encoder, ann="hnsw", memory_bytes=2**20)
    assert encoder.images_encoded == 0
