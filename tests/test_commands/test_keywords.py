"""A wrong keyword or a wrong type is told by the name of the public function, never by one of a class inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders import EncoderError, load_encoder
from indexer import BuildError, EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from matcher import Matcher, semantic_search
from searcher import QueryError, Searcher


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("index")
    np.save(folder / "rows.npy", np.eye(4, dtype=np.float32))
    files = EmbeddingFiles(vectors=folder / "rows.npy")
    build_index(EmbeddingSource(EmbeddingOptions(images=files, texts=files)), folder / "out")
    return Searcher.open(folder / "out")


CALLS: list[tuple[Callable[[Any], object], str]] = [
    (
        lambda _: build_index("x", "y", encodr="lite"),
        r"^build_index\(\) has no keyword 'encodr'; did you mean 'encoder'",
    ),
    (lambda _: build_index("x", "y", max_reject=3), r"^build_index\(\) has no keyword .*; did you mean 'max_rejected'"),
    (lambda s: s.text_to_image("a", ks=1), r"^Searcher.text_to_image\(\) has no keyword 'ks'; did you mean 'k'"),
    (lambda s: s.image_to_text("a", overample=1), r"^Searcher.image_to_text\(\) has .*; did you mean 'oversample'"),
    (lambda s: s.image_to_image("a", whre="x"), r"^Searcher.image_to_image\(\) has .*; did you mean 'where'"),
    (
        lambda s: s.text_to_text("a", xyz=1),
        r"^Searcher.text_to_text\(\) has no keyword 'xyz'; it takes query, k, .*where",
    ),
    (lambda s: s.search_vectors("images", np.eye(4), exat=1), r"^Searcher.search_vectors\(\) .*; did you mean 'exact'"),
    (lambda _: Matcher(qery="a"), r"^Matcher\(\) has no keyword 'qery'; did you mean 'query'"),
    (lambda _: Matcher(encodr="lite"), r"^Matcher\(\) has no keyword 'encodr'; did you mean 'encoder'"),
    (lambda _: Matcher().fit([], vla=[]), r"^Matcher.fit\(\) has no keyword 'vla'; did you mean 'val'"),
    (lambda _: Matcher().semantic_search([], top=3), r"^Matcher.semantic_search\(\) .*; did you mean 'top_k'"),
    # AutoMM's own names.
    (lambda _: Matcher(problem_type="image_text_similarity"), r"^Matcher\(\) .* AutoMM's; .*query_type="),
    (lambda _: Matcher(eval_metric="ndcg"), r"AutoMM's; .*evaluate\(\.\.\., metrics="),
    (lambda _: Matcher(presets="best_quality"), r"AutoMM's; the model is Matcher\(encoder="),
    (lambda _: Matcher().evaluate([], label="relevance"), r"^Matcher.evaluate\(\) .*; .*Matcher\(\.\.\., label="),
    (lambda _: Matcher().fit(train_data=[]), r"^Matcher.fit\(\) has no keyword 'train_data', .*here it is train: fit"),
    (lambda _: Matcher().fit([], tuning_data=[]), r"'tuning_data', which is AutoMM's; here it is val: "),
    (lambda _: Matcher().predict([], candidate_data=[]), r"^Matcher.predict\(\) .*here it is candidates="),
    (lambda _: semantic_search(Matcher(), [], similarity_type="dot_prod"), r"^semantic_search\(\) .*'cosine' or 'dot'"),
]


@pytest.mark.parametrize(("call", "told"), CALLS)
def test_a_keyword_that_is_none_names_the_function_and_the_nearest(
    searcher: Searcher, call: Callable[[Any], object], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        call(searcher)


def test_a_search_without_a_request_a_spec_and_a_corpus_of_another_type(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="the request is of type str; give a SearchRequest"):
        searcher.search("a dog")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="spec is 5, of type int; give a text"):
        load_encoder(5)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="source is 5, of type int; give a path"):
        build_index(5, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("query", "told"), [(123, "type int; give a str"), (b"x", "type bytes; search with an image by")]
)
def test_a_query_text_of_another_type(searcher: Searcher, query: Any, told: str) -> None:
    for asked in (query, ["a", query]):
        with pytest.raises(QueryError, match=told):
            searcher.text_to_image(asked)
