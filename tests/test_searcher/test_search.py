"""The four directions find what comparing everything finds, one query or many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searcher import QueryError, Searcher, SearchError, SearchRequest
from searcher.errors import ItemNotFoundError
from searcher.query import image_part, item_part, text_part

TEXTS = ["a red door", "a green boat with yellow", "purple sky", "number 17"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("k", [1, 7, 50])
def test_texts_find_images_as_comparing_all_does(
    searcher: Searcher, corpus: Any, oracle: Any, text: str, k: int
) -> None:
    query = corpus.encoder.encode_texts([text])[0]
    oracle.check(searcher.text_to_image(text, k), corpus.images, query, k)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_find_texts_as_comparing_all_does(searcher: Searcher, corpus: Any, oracle: Any, text: str) -> None:
    oracle.check(searcher.text_to_text(text, 12), corpus.texts, corpus.encoder.encode_texts([text])[0], 12)


@pytest.mark.parametrize("number", [0, 5, 31])
def test_images_find_texts_as_comparing_all_does(searcher: Searcher, corpus: Any, oracle: Any, number: int) -> None:
    hits = searcher.image_to_text(corpus.picture(number), 12)
    oracle.check(hits, corpus.texts, corpus.images[number], 12)


@pytest.mark.parametrize("number", [0, 5, 31])
def test_images_find_images_as_comparing_all_does(searcher: Searcher, corpus: Any, oracle: Any, number: int) -> None:
    hits = searcher.image_to_image(corpus.picture(number), 12)
    oracle.check(hits, corpus.images, corpus.images[number], 12)


def test_words_find_pictures_of_that_colour(searcher: Searcher) -> None:
    assert all("purple" in (hit.caption or "") for hit in searcher.text_to_image("something purple", 10))


def test_a_picture_finds_itself_with_a_score_of_one(searcher: Searcher, corpus: Any) -> None:
    first = searcher.image_to_image(corpus.picture(12), 1)[0]
    assert first.score == pytest.approx(1, abs=1e-3)
    assert first.score <= 1


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes, Image.open])
def test_a_picture_is_a_path_bytes_or_a_pil_image(searcher: Searcher, corpus: Any, form: Any) -> None:
    expected = searcher.image_to_text(corpus.images[3], 5).row_ids
    assert searcher.image_to_text(form(corpus.picture(3)), 5).row_ids.tolist() == expected.tolist()


def test_a_ready_vector_needs_no_encoder(searcher: Searcher, corpus: Any, encoder: Any, oracle: Any) -> None:
    oracle.check(searcher.text_to_image(corpus.texts[9], 5), corpus.images, corpus.texts[9], 5)
    assert encoder.encoded == 0


def test_many_queries_at_once_equal_one_by_one(searcher: Searcher, corpus: Any) -> None:
    batch = searcher.text_to_image(TEXTS, 6)
    single = [searcher.text_to_image(text, 6) for text in TEXTS]
    assert [hits.row_ids.tolist() for hits in batch] == [hits.row_ids.tolist() for hits in single]
    assert all((one.scores == other.scores).all() for one, other in zip(batch, single, strict=True))
    assert [hits.query.label for hits in batch] == TEXTS


def test_a_list_may_mix_words_and_vectors(searcher: Searcher, corpus: Any) -> None:
    mixed = searcher.text_to_image(["a red door", corpus.texts[0], "a red door"], 4)
    assert [hits.query.kind for hits in mixed] == ["text", "vector", "text"]
    assert mixed[0].row_ids.tolist() == mixed[2].row_ids.tolist()
    assert mixed[1].row_ids.tolist() == searcher.text_to_image(corpus.texts[0], 4).row_ids.tolist()


def test_rows_of_an_array_are_queries(searcher: Searcher, corpus: Any) -> None:
    found = searcher.image_to_image(corpus.images[:3], 1)
    assert [hits[0].score for hits in found] == pytest.approx([1, 1, 1], abs=1e-3)


def test_no_queries_give_no_hits(searcher: Searcher) -> None:
    assert searcher.text_to_image([]) == []
    assert searcher.search_vectors("images", np.empty((0, 64)), 3)[0].shape == (0, 3)


def test_asking_for_more_than_there_is_gives_all(searcher: Searcher, corpus: Any, oracle: Any) -> None:
    hits = searcher.text_to_image("a red door", 10_000)
    oracle.check(hits, corpus.images, corpus.encoder.encode_texts(["a red door"])[0], 10_000)
    assert len(hits) == 320


def test_search_vectors_gives_ids_and_scores_as_arrays(searcher: Searcher, corpus: Any) -> None:
    ids, scores = searcher.search_vectors("images", corpus.images[:4], 3)
    assert ids.shape == scores.shape == (4, 3)
    assert scores.dtype == np.float32
    assert [set(row) for row in ids] == [
        set(searcher.image_to_image(corpus.images[row], 3).item_ids) for row in range(4)
    ]


def test_search_vectors_pads_with_none_and_minus_infinity(searcher: Searcher, corpus: Any) -> None:
    ids, scores = searcher.search_vectors("images", corpus.images[0], 5, where="row_id < 2")
    assert set(ids[0, :2]) == {"img-0", "img-1"}
    assert ids[0, 2:].tolist() == [None] * 3
    assert np.isneginf(scores[0, 2:]).all()
    assert np.isfinite(scores[0, :2]).all()


def test_vectors_of_any_length_are_scaled(searcher: Searcher, corpus: Any) -> None:
    ids, scores = searcher.search_vectors("texts", corpus.texts[:2], 4)
    for factor in (1e-30, 0.5, 1e30):
        scaled = searcher.search_vectors("texts", corpus.texts[:2].astype(np.float64) * factor, 4)
        assert (scaled[0] == ids).all()
        np.testing.assert_allclose(scaled[1], scores, atol=1e-6)


def test_search_vectors_checks_what_it_searches(searcher: Searcher, corpus: Any) -> None:
    with pytest.raises(SearchError, match=r"into='pictures' is no collection; give one of images, texts"):
        searcher.search_vectors("pictures", corpus.images[:1], 3)  # type: ignore[arg-type]
    with pytest.raises(
        SearchError, match=r"'image_to_text' does not search images; give one of text_to_image, image_to"
    ):
        searcher.search_vectors("images", corpus.images[:1], 3, direction="image_to_text")


def test_a_collection_that_is_not_there_is_named(wide: Searcher, wide_vectors: np.ndarray) -> None:
    assert wide.collections == ("images",)
    with pytest.raises(SearchError, match="has no texts, it has 12000 images; search those"):
        wide.image_to_text(wide_vectors[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 must be a whole number from 1 to 10,000"),
        ({"k": 10_001}, "k=10001 must be a whole number"),
        ({"k": True}, "k=True must be"),
        ({"k": 2.5}, "k=2.5 must be"),
        ({"nprobe": 0}, "nprobe=0 must be"),
        ({"oversample": -1}, "oversample=-1 must be"),
        ({"ann_recall": 0}, "ann_recall=0 must be above 0 and at most 1"),
        ({"ann_recall": 1.01}, "ann_recall=1.01 must be above 0"),
        ({"ann_recall": float("nan")}, "ann_recall=nan must be above 0"),
        ({"columns": "stars"}, r"columns='stars' is one string; give a list of names: columns=\['stars'\]"),
        ({"columns": ["star"]}, "columns names no column 'star'; images have row_id, item_id"),
    ],
)
def test_an_option_out_of_range_is_named(searcher: Searcher, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        searcher.text_to_image("red", **options)


def test_numpy_numbers_are_numbers(searcher: Searcher) -> None:
    assert len(searcher.text_to_image("red", np.int64(3), ann_recall=np.float32(0.5))) == 3


def test_a_closed_searcher_says_so(corpus: Any, encoder: Any) -> None:
    searcher = Searcher.open(corpus.index, encoder=encoder)
    searcher.close()
    searcher.close()
    with pytest.raises(SearchError, match=r"is closed; open another with Searcher.open"):
        searcher.text_to_image("red")


def test_importing_the_package_imports_no_torch(home: Path) -> None:
    code = "import sys, searcher, twinlens.commands.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=home, check=False).returncode == 0


def test_a_request_finds_what_the_method_of_its_direction_finds(searcher: Searcher, corpus: Any) -> None:
    by_text = searcher.search(SearchRequest(parts=(text_part("a red door"),), into="texts", k=4))
    assert by_text.row_ids.tolist() == searcher.text_to_text("a red door", 4).row_ids.tolist()
    by_image = searcher.search(SearchRequest(parts=(image_part(corpus.picture(3)),), k=4))
    assert by_image.row_ids.tolist() == searcher.image_to_image(corpus.picture(3), 4).row_ids.tolist()


@pytest.mark.parametrize("into", ["images", "texts"])
def test_an_item_finds_what_its_vector_finds_but_never_itself(searcher: Searcher, into: Any) -> None:
    item = searcher.text_to_image("a red door", 1)[0].item_id
    row = searcher.find_item(item, "images")[1]
    hits = searcher.search(SearchRequest(parts=(item_part(item, "images"),), into=into, k=5))
    vector = searcher.item_query(item_part(item), "images", row).vector
    ids, _ = searcher.search_vectors(into, vector, 6)
    assert hits.item_ids.tolist() == [other for other in ids[0] if into == "texts" or other != item][:5]


def test_an_item_that_is_not_there_is_named(searcher: Searcher) -> None:
    with pytest.raises(ItemNotFoundError, match="there is no item 'nothing' among the images or texts"):
        searcher.search(SearchRequest(parts=(item_part("nothing"),)))


def test_a_request_has_a_part(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="nothing to search with"):
        searcher.search(SearchRequest())
