"""Semantic search: from data and from embeddings, in memory and in a built index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder
from matching import Painted

from encoders import Encoder
from indexer import build_index
from matcher import DataError, Matcher, MatcherError, semantic_search
from searcher import Searcher


def test_hits_from_data_equal_hits_from_embeddings(painted: Painted, matcher: Matcher) -> None:
    asked, found = painted.captions[:6], {"image": painted.images}
    from_data = matcher.semantic_search(asked, found, top_k=4)
    queries = matcher.extract_embedding(asked, signature="query")
    responses = matcher.extract_embedding(found)["image"]
    assert matcher.semantic_search(query_embeddings=queries, response_embeddings=responses, top_k=4) == from_data
    assert matcher.semantic_search(asked, response_embeddings=responses, top_k=4) == from_data
    assert matcher.semantic_search(query_embeddings=queries, response_data=found, top_k=4) == from_data


def test_hits_are_lists_of_ids_and_scores_best_first(painted: Painted, matcher: Matcher) -> None:
    hits = matcher.semantic_search(painted.captions, painted.images, top_k=3)
    assert len(hits) == 24
    for row, line in enumerate(hits):
        assert [set(hit) for hit in line] == [{"response_id", "score"}] * 3
        assert {painted.colours[hit["response_id"]] for hit in line} == {painted.colours[row]}
        assert [hit["score"] for hit in line] == sorted((hit["score"] for hit in line), reverse=True)
        assert isinstance(line[0]["response_id"], int)
        assert isinstance(line[0]["score"], float)


def test_arrays_say_the_same_as_lists(painted: Painted, matcher: Matcher) -> None:
    lists = matcher.semantic_search(painted.captions, painted.images, top_k=5)
    ids, scores = matcher.semantic_search(painted.captions, painted.images, top_k=5, as_arrays=True)
    assert ids.tolist() == [[hit["response_id"] for hit in line] for line in lists]
    assert scores.tolist() == [[hit["score"] for hit in line] for line in lists]


def test_no_more_hits_than_responses(painted: Painted, matcher: Matcher) -> None:
    assert [len(line) for line in matcher.semantic_search(["red"], painted.images[:4], top_k=10)] == [4]


def test_each_side_is_encoded_once_however_small_the_blocks(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, remember_bytes=0)
    whole = matcher.semantic_search(painted.captions, painted.images)
    assert (encoder.texts_encoded, encoder.images_encoded) == (24, 24)
    blocks = matcher.semantic_search(painted.captions, painted.images, query_chunk_size=2, response_chunk_size=5)
    assert (encoder.texts_encoded, encoder.images_encoded) == (48, 48)
    assert blocks == whole


def test_equal_responses_come_by_lower_id(painted: Painted, matcher: Matcher) -> None:
    same = [painted.images[0]] * 5
    (line,) = matcher.semantic_search(["red"], same, top_k=5)
    assert [hit["response_id"] for hit in line] == [0, 1, 2, 3, 4]


def test_dot_products_keep_the_length_of_embeddings(matcher: Matcher) -> None:
    responses = np.diag([1.0, 3.0])
    asked = np.array([[1.0, 0.9]])
    by_cosine = matcher.semantic_search(query_embeddings=asked, response_embeddings=responses)
    by_dot = matcher.semantic_search(query_embeddings=asked, response_embeddings=responses, similarity="dot")
    assert [hit["response_id"] for hit in by_cosine[0]] == [0, 1]
    assert by_dot == [[{"response_id": 1, "score": pytest.approx(2.7)}, {"response_id": 0, "score": 1.0}]]


def test_embeddings_alone_need_no_encoder() -> None:
    matcher = Matcher(encoder="no-such-encoder")
    assert matcher.semantic_search(query_embeddings=np.eye(2), response_embeddings=np.eye(2), top_k=1)[1] == [
        {"response_id": 1, "score": 1.0}
    ]


@pytest.fixture(scope="module")
def index(painted: Painted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matcher") / "painted.index"
    build_index(painted.folder, path, encoder=ColourEncoder())
    return path


def test_an_index_answers_with_item_ids(index: Path, painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher.from_index(index, encoder=encoder)
    hits = matcher.semantic_search(["a red square", "a blue square"], top_k=2)
    rows = [[int(hit["response_id"].removesuffix(".png")) for hit in line] for line in hits]
    assert [{painted.colours[row] for row in line} for line in rows] == [{"red"}, {"blue"}]
    with Searcher.open(index, encoder=encoder) as searcher:
        wanted = searcher.text_to_image("a red square", k=2)
    assert [hit["response_id"] for hit in hits[0]] == list(wanted.item_ids)
    assert [hit["score"] for hit in hits[0]] == pytest.approx(wanted.scores.tolist(), abs=1e-6)


def test_an_index_may_be_named_for_one_search(index: Path, encoder: ColourEncoder) -> None:
    found = Matcher(encoder=encoder).semantic_search(["a red square"], index=index, top_k=100, as_arrays=True)
    assert found.ids.shape == found.scores.shape == (1, 24)


def test_an_index_ranks_as_memory_does(index: Path, painted: Painted, encoder: ColourEncoder) -> None:
    truth = {"caption": painted.captions, "image": [Path(path).name for path in painted.images]}
    in_index = Matcher.from_index(index, encoder=encoder).evaluate(truth, query_data=painted.captions)
    in_memory = Matcher(encoder=encoder).evaluate(painted.pairs)
    assert in_index["R@5"] == in_memory["R@5"] == 1
    assert in_index["queries"] == 24
    with pytest.raises(MatcherError, match="an index is searched in one direction; leave directions out"):
        Matcher.from_index(index, encoder=encoder).evaluate(truth, painted.captions, directions="both")


def test_an_index_of_another_encoder_is_refused(index: Path) -> None:
    with pytest.raises(MatcherError, match="was made by encoder 'colour', not by 'other'"):
        Matcher(encoder=ColourEncoder("other")).semantic_search(["red"], index=index)


def test_an_index_without_texts_finds_none(index: Path, encoder: ColourEncoder, painted: Painted) -> None:
    matcher = Matcher.from_index(index, "image", "caption", encoder=encoder, query_type="image", response_type="text")
    with pytest.raises(Exception, match="has no texts"):
        matcher.semantic_search(painted.images[:1])


def test_build_index_takes_the_encoder_of_a_matcher(painted: Painted, encoder: ColourEncoder, tmp_path: Path) -> None:
    matcher = Matcher(encoder=encoder)
    report = build_index(painted.folder, tmp_path / "i", encoder=matcher.encoder)
    assert report.manifest.encoder is not None
    assert report.manifest.encoder.fingerprint == encoder.fingerprint


def test_sentence_transformers_finds_the_same(lite: Encoder) -> None:
    util = pytest.importorskip("sentence_transformers.util")
    rng = np.random.default_rng(0)
    queries, responses = (rng.standard_normal((40, 16)).astype(np.float32) for _ in range(2))
    ours = Matcher().semantic_search(query_embeddings=queries, response_embeddings=responses, top_k=5)
    theirs = util.semantic_search(queries, responses, top_k=5)
    for mine, other in zip(ours, theirs, strict=True):
        assert [hit["response_id"] for hit in mine] == [hit["corpus_id"] for hit in other]
        assert [hit["score"] for hit in mine] == pytest.approx([hit["score"] for hit in other], abs=1e-5)


def test_data_of_the_other_side_is_named(painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(DataError, match="the data has no column 'image'; it has 'caption'"):
        matcher.semantic_search(painted.captions, {"caption": painted.captions})


def test_one_matcher_searches_both_ways(painted: Painted, matcher: Matcher) -> None:
    images, captions = {"image": painted.images[:5]}, {"caption": painted.captions}
    texts, pictures = matcher.embed_texts(painted.captions), matcher.embed_images(painted.images[:5])
    wanted = matcher.semantic_search(query_embeddings=pictures, response_embeddings=texts, top_k=3)
    assert matcher.semantic_search(images, captions, top_k=3) == wanted
    assert matcher.semantic_search(images, painted.captions, top_k=3) == wanted
    assert matcher.semantic_search(painted.images[:5], painted.captions, top_k=3) == wanted
    assert matcher.semantic_search(images, response_embeddings=texts, top_k=3) == wanted
    assert matcher.semantic_search(query_embeddings=pictures, response_data=captions, top_k=3) == wanted
    assert semantic_search(matcher, images, captions, top_k=3) == wanted
    with pytest.raises(MatcherError, match="matcher is of type list; give a Matcher"):
        semantic_search([], images, captions)  # type: ignore[arg-type]
