"""AutoMM's tutorials cell by cell, on real photographs: each cell here is no longer than theirs, with right values.

Semantic matching, zero-shot matching and embedding extraction. The cells with `fit` are in `test_matcher_fit.py` and in
`docs/automm.md`, which a test runs as a whole.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matching import Photographs

from encoders import Encoder
from matcher import Matcher, semantic_search

FEW = 30


@pytest.fixture(scope="module")
def folder(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`test.csv` as the tutorial's archive has it: an index column, five rows an image, paths below the archive."""
    folder = tmp_path_factory.mktemp("flickr30k_processed")
    (folder / "images").mkdir()
    with (folder / "test.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "caption", "image"])
        for image, texts in zip(photographs.images[:FEW], photographs.captions, strict=False):
            name = f"images/{Path(image).name}"
            (folder / name).symlink_to(image)
            table.writerows([(0, text, name) for text in texts])
    return folder


@pytest.fixture(scope="module")
def matcher(lite: Encoder) -> Matcher:
    return Matcher(query="caption", response="image", encoder=lite, label="relevance")


@pytest.fixture(scope="module")
def frame(folder: Path) -> Any:
    """The first cells: a frame, paths made whole, and what is relevant."""
    data = pytest.importorskip("pandas").read_csv(folder / "test.csv", index_col=0)
    data["image"] = [str(folder / name) for name in data["image"]]
    return data


def test_the_table_is_read_where_it_lies(matcher: Matcher, frame: Any, folder: Path) -> None:
    assert matcher.evaluate(folder / "test.csv") == matcher.evaluate(frame)


def test_text_to_image_and_image_to_text_by_one_object(matcher: Matcher, frame: Any) -> None:
    image_data, text_data = frame[["image"]].drop_duplicates(), frame[["caption"]].drop_duplicates()
    table = frame.assign(relevance=1)
    to_images = matcher.evaluate(table, query_data=text_data, response_data=image_data, cutoffs=[1, 5, 10])
    to_texts = matcher.evaluate(table, query_data=image_data, response_data=text_data, cutoffs=[1, 5, 10])
    scores = matcher.embed_texts(text_data["caption"]) @ matcher.embed_images(image_data["image"]).T
    own = image_data["image"].tolist().index
    owner = np.array([own(frame["image"][frame["caption"] == text].iloc[0]) for text in text_data["caption"]])
    assert (to_images["queries"], to_texts["queries"]) == (len(owner), FEW)
    assert to_images["recall@1"] == pytest.approx(np.mean(scores.argmax(axis=1) == owner))
    assert to_texts["R@1"] == pytest.approx(np.mean(owner[scores.argmax(axis=0)] == np.arange(FEW)))
    assert to_texts["recall@1"] == pytest.approx(to_texts["R@1"] / 5, abs=0.01)


def test_pairs_are_judged(matcher: Matcher, frame: Any) -> None:
    predictions = matcher.predict(frame[:5])
    probabilities = matcher.predict_proba(frame[:5])
    assert set(predictions) <= {0, 1}
    assert probabilities.sum(axis=1).tolist() == pytest.approx([1] * 5)
    assert (predictions == (probabilities[1] >= matcher.calibration.threshold)).all()


def test_embeddings_come_by_the_columns_given(matcher: Matcher, frame: Any) -> None:
    images, texts = frame["image"][:3].tolist(), frame["caption"][:3].tolist()
    embeddings_image = matcher.extract_embedding({"image": images})
    embeddings_text = matcher.extract_embedding({"caption": texts})
    assert embeddings_image["image"].shape == embeddings_text["caption"].shape == (3, 384)
    both = matcher.extract_embedding({"image": images, "caption": texts})
    assert np.array_equal(both["image"], embeddings_image["image"])


def test_semantic_search_is_a_function(matcher: Matcher, frame: Any) -> None:
    gallery = frame[["image"]].drop_duplicates()
    text_to_image_hits = semantic_search(
        matcher=matcher, query_data={"caption": frame["caption"][:1].tolist()}, response_data=gallery, top_k=5
    )
    image_to_text_hits = semantic_search(
        matcher=matcher, query_data=gallery[:1], response_data=frame[["caption"]], top_k=5
    )
    assert [len(line) for line in (*text_to_image_hits, *image_to_text_hits)] == [5, 5]


def test_zero_shot_from_lists(lite: Encoder, photographs: Photographs) -> None:
    matcher = Matcher(encoder=lite)
    texts = [line[0] for line in photographs.captions[:FEW]]
    image_embeddings = matcher.extract_embedding(photographs.images[:FEW], as_tensor=True).bfloat16()
    text_embeddings = matcher.extract_embedding(texts, as_tensor=True).bfloat16()
    hits = semantic_search(matcher, query_embeddings=text_embeddings[None, 0], response_embeddings=image_embeddings)
    wanted = semantic_search(matcher, texts[:1], photographs.images[:FEW])
    assert {hit["response_id"] for hit in hits[0][:5]} <= {hit["response_id"] for hit in wanted[0]}


def test_zero_shot_pairs_under_any_names(lite: Encoder, photographs: Photographs) -> None:
    matcher = Matcher(query="abc", response="xyz", encoder=lite, query_type="image", response_type="text")
    pair = {"abc": [photographs.images[0]], "xyz": [photographs.captions[0][0]]}
    assert matcher.predict(pair).shape == (1,)
    assert matcher.predict_proba(pair).shape == (1, 2)


def test_zero_shot_classes(lite: Encoder, photographs: Photographs) -> None:
    matcher = Matcher(query="text", response="image", encoder=lite)
    prob = matcher.predict_proba({"image": photographs.images[:1]}, {"text": ["this is a dog", "this is a train"]})
    assert prob.shape == (1, 2)
    pred = matcher.predict({"image": photographs.images[:1]}, {"text": ["this is a dog", "this is a train"]})
    assert pred[0] == prob[0].argmax()
