"""An image that was found says which of its captions is nearest to the query, and how near."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colour import ColourEncoder
from served_index import colour_index

from searcher import Query, Searcher, SearchRequest
from searcher.query import text_part


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """Painted squares with two captions each, `a red square, number 0` and `something red`."""
    with Searcher.open(colour_index(tmp_path_factory.mktemp("explained")), encoder=ColourEncoder()) as searcher:
        yield searcher


def captions(searcher: Searcher, item_id: str) -> dict[str, np.ndarray]:
    colour, name = item_id.split("/")
    number = int(Path(name).stem)
    texts = [f"a {colour} square, number {number}", f"something {colour}"]
    return dict(zip(texts, ColourEncoder().encode_texts(texts), strict=True))


@pytest.mark.parametrize(
    "query", [Query.text("a red square, number 8"), Query.text("red") - Query.text("blue"), Query.item("red/0000.png")]
)
def test_the_caption_nearest_to_the_query_is_named(explained: Searcher, query: Query) -> None:
    hits = explained.search(query, k=5, explain=True)
    plain = explained.search(query, k=5)
    assert hits.item_ids.tolist() == plain.item_ids.tolist()
    request = SearchRequest(parts=query.parts)
    vector = explained.composed(request, explained._resolve(query.parts)).vector
    for hit in hits:
        cosines = {text: float(row @ vector) for text, row in captions(explained, hit.item_id).items()}
        assert hit.explanation is not None
        # Stored in float16, so that two captions as near as one another may change places.
        assert cosines[hit.explanation.caption] == pytest.approx(max(cosines.values()), abs=2e-3)
        assert hit.explanation.score == pytest.approx(max(cosines.values()), abs=2e-3)
        assert hit.to_json()["explanation"]["caption"] == hit.explanation.caption
    assert all(hit.explanation is None and "explanation" not in hit.to_json() for hit in plain)


def test_the_caption_itself_is_its_own_explanation(explained: Searcher) -> None:
    best = explained.text_to_image("something red", k=1, explain=True)[0]
    assert best.explanation is not None
    assert best.explanation.caption == "something red"
    assert best.explanation.score == pytest.approx(1, abs=1e-3)


def test_texts_and_words_alone_have_none(explained: Searcher) -> None:
    assert all(hit.explanation is None for hit in explained.text_to_text("red", k=3, explain=True))
    words = explained.search(SearchRequest(words="red", k=3, explain=True))
    assert len(words) == 3
    assert all(hit.explanation is None for hit in words)
    nothing = SearchRequest(parts=(text_part("red"),), where="width > 9999", explain=True)
    assert len(explained.search(nothing)) == 0
