"""Published rows: each has a source, none comes from memory, and the right few stand beside a result."""

from __future__ import annotations

import pytest

from evaluation.published import DATASETS, KINDS, MARKS, PublishedRow, published, published_rows

ALL = [row for dataset in DATASETS for row in published(dataset)]


def row(model: str, dataset: str) -> PublishedRow:
    return next(one for one in published(dataset) if one.model == model)


def test_every_row_was_seen_somewhere() -> None:
    assert len(ALL) > 100
    assert {one.mark for one in ALL} == set(MARKS) == {"S", "T"}
    assert all(one.source.strip() and one.model.strip() for one in ALL)
    assert {one.kind for one in ALL} == set(KINDS)


def test_figures_are_percentages_that_rise_with_k() -> None:
    for one in ALL:
        for side in (one.image_to_text, one.text_to_image):
            known = [value for value in side if value is not None]
            assert all(1 < value <= 100 for value in known)
            assert known == sorted(known)
        assert any(value is not None for value in (*one.image_to_text, *one.text_to_image))


def test_no_row_stands_twice() -> None:
    assert len({(one.model, one.dataset, one.source) for one in ALL}) == len(ALL)


def test_the_zero_shot_table_holds_what_its_source_says() -> None:
    found = row("ViT-B-32 openai", "flickr30k")
    assert found.image_to_text == (78.9, 94.9, 98.2)
    assert found.text_to_image == (58.78, 83.56, 90.02)
    assert row("ViT-H-14 laion2b_s32b_b79k", "coco-5k").text_to_image == (49.48, None, None)


@pytest.mark.parametrize(("dataset", "image_to_text"), [("flickr30k", 83.3), ("coco-1k", 81.1), ("coco-5k", 62.3)])
def test_hrem_stands_in_all_three_tables(dataset: str, image_to_text: float) -> None:
    assert row("HREM, BERT", dataset).image_to_text[0] == image_to_text
    assert "test split" in str(row("HREM fusion, BERT", dataset).note)


@pytest.mark.parametrize("model", ["HREM*", "InternVL-G", "X2-VLM", "BEiT-3 (zero-shot)"])
def test_what_is_only_remembered_is_left_out(model: str) -> None:
    assert not [one for one in ALL if one.model.startswith(model)]


def test_a_kind_can_be_picked() -> None:
    assert {one.kind for one in published("flickr30k", "regions")} == {"regions"}
    assert sum(len(published("flickr30k", kind)) for kind in KINDS) == len(published("flickr30k"))


def test_rows_of_the_same_encoder_come_first_then_landmarks() -> None:
    rows = published_rows("flickr30k", "ViT-H-14/laion2b_s32b_b79k")
    assert rows[0].model == "ViT-H-14 laion2b_s32b_b79k"
    assert not rows[0].landmark
    assert all(one.landmark for one in rows[1:])


def test_a_landmark_of_the_same_encoder_stands_once() -> None:
    rows = published_rows("flickr30k", "ViT-B-32/openai")
    assert rows[0].encoder == "ViT-B-32/openai"
    assert len({(one.model, one.source) for one in rows}) == len(rows)


@pytest.mark.parametrize("dataset", ["flickr30k", "coco-5k", "coco-1k"])
def test_an_unknown_encoder_gets_the_landmarks(dataset: str) -> None:
    rows = published_rows(dataset)
    assert 3 <= len(rows) <= 8
    assert rows == published_rows(dataset, "lite")


def test_nothing_is_known_of_flickr8k() -> None:
    assert published_rows("flickr8k", "ViT-B-32/openai") == []


def test_encoder_specs_are_those_of_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip")
    known = {"/".join(pair) for pair in open_clip.list_pretrained()}
    assert {one.encoder for one in ALL if one.encoder} <= known


def test_a_row_is_json() -> None:
    plain = row("ViT-B-32 openai", "flickr30k").to_json()
    assert plain["text_to_image"] == [58.78, 83.56, 90.02]
    assert plain["mark"] == "S"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="dataset 'imagenet' has no published rows; choose one of flickr30k"):
        published("imagenet")
    with pytest.raises(ValueError, match="kind 'best' is unknown; choose one of zero-shot, fine-tuned, regions"):
        published("flickr30k", "best")
