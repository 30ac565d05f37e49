"""Collapsing: one of each group of copies is shown, best first, and says which others it stands for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from searcher import Searcher, SearchError, SearchRequest
from searcher.collapse import first_copies, rule_of
from storage.duplicates.grades import CopyRule
from storage.schema import EncoderInfo
from twinlens.commands.search import search


def by_vector(cosine: float) -> CopyRule:
    """Vectors alone, as of images without a hash."""
    return CopyRule(sure_bits=-1, same_size_bits=-1, bits=-1, cosine=1.0, scene_bits=-1, scene_cosine=1.0, alone=cosine)


def one_by_one(cosines: np.ndarray, near: float, facts: list[dict[str, Any]]) -> list[int]:
    """The rule, written as it reads."""
    first: list[int] = []
    for late in range(len(cosines)):
        stands = late
        for early in range(late):
            if first[early] != early or stands != late:
                continue
            shapes = [one["width"] / one["height"] for one in (facts[early], facts[late])]
            alike = cosines[late, early] >= near and abs(shapes[1] / shapes[0] - 1) <= 0.03
            same = facts[early]["sha256"] == facts[late]["sha256"] and cosines[late, early] >= min(0.999, near)
            stands = early if alike or same else stands
        first.append(stands)
    return first


@pytest.mark.parametrize("near", [0.97, 0.9, 1.1])
def test_the_first_copy_of_each_is_that_of_the_rule(near: float) -> None:
    rng = np.random.default_rng(2)
    groups = rng.standard_normal((30, 64))
    wide = groups[rng.integers(30, size=200)] + 0.02 * rng.standard_normal((200, 64)) * rng.integers(0, 30, (200, 1))
    vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)
    facts = [{"sha256": str(rng.integers(5)), "width": 100, "height": int(rng.choice([100, 102, 150]))} for _ in wide]
    found = first_copies(vectors, by_vector(near), lambda at: [facts[one] for one in at])
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    assert found.tolist() == one_by_one(cosines, near, facts)
    assert len(set(found.tolist())) < 200


def test_unlike_items_ask_the_catalog_nothing() -> None:
    def never(at: Any) -> Any:
        raise AssertionError(at)

    assert first_copies(np.eye(5, dtype=np.float16), by_vector(0.97), never).tolist() == [0, 1, 2, 3, 4]


def test_hash_and_vector_tell_copies_as_the_encoder_allows() -> None:
    """A copy 3 bits away, another image 30 bits away with the same vector, and one 7 bits away with another vector."""
    vectors = np.array([[1, 0], [0.9, 0.44], [1, 0], [0.5, -0.87]], dtype=np.float16)
    hashes = [0, 0b111, 2**30 - 1, 0b1111111]
    facts = [
        {"sha256": str(row), "width": 40 + 4 * row, "height": 30 + 3 * row, "perceptual_hash": one}
        for row, one in enumerate(hashes)
    ]
    specs = ("ViT-B-32/laion2b_s34b_b79k", "lite")
    rules = [rule_of("images", EncoderInfo(spec=spec, dim=2, fingerprint=None)) for spec in specs]
    found = [first_copies(vectors, rule, lambda at: [facts[one] for one in at]).tolist() for rule in rules]
    assert found == [[0, 0, 2, 3], [0, 0, 2, 0]]


def test_hits_stand_for_their_copies_and_pages_stay_full(searcher: Searcher, corpus: Any) -> None:
    plain = searcher.text_to_image("a red door", 320)
    hits = searcher.text_to_image("a red door", 20, collapse=True)
    kept = [item for item in plain.item_ids if item in set(hits.item_ids)]
    assert hits.item_ids.tolist() == kept
    assert len(hits) == 20
    assert sum(len(hit.copies) for hit in hits) > 5
    vectors = corpus.images.astype(np.float16).astype(np.float32)
    for hit in hits:
        row = int(hit.item_id[4:])
        others = [int(copy[4:]) for copy in hit.copies]
        assert all(vectors[other] @ vectors[row] >= 0.97 for other in others)
    pages = [searcher.text_to_image("a red door", 10, offset=start, collapse=True) for start in (0, 10)]
    assert [hit.item_id for page in pages for hit in page] == hits.item_ids.tolist()
    assert "copies" not in plain[0].to_json()
    standing = next(hit for hit in hits if hit.copies)
    assert standing.to_json()["copies"] == list(standing.copies)


def test_collapsing_goes_with_diversity_words_floors_and_arrays(searcher: Searcher) -> None:
    floor = float(searcher.text_to_image("a red door", 320).scores[150])
    options: dict[str, Any] = {"collapse": True, "min_score": floor, "words": "red", "where": "stars >= 1"}
    hits = searcher.text_to_image("a red door", 200, **options)
    assert 0 < len(hits) < 150
    assert hits.scores.min() >= floor
    shown = {item for hit in hits for item in (hit.item_id, *hit.copies)}
    assert len(shown) == sum(1 + len(hit.copies) for hit in hits)
    diverse = searcher.text_to_image("a red door", 20, collapse=True, diversity=0.4)
    assert set(diverse.item_ids) != set(searcher.text_to_image("a red door", 20, collapse=True).item_ids)
    ids, _ = searcher.search_vectors("images", np.eye(64)[:2], 20, collapse=True)
    assert len(set(ids[0])) == 20
    alone = searcher.search(SearchRequest(words="red", into="images", k=30, collapse=True))
    assert any(hit.copies for hit in alone)


def test_the_command_collapses_and_what_is_too_deep_is_refused(
    searcher: Searcher, corpus: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.load_encoder", lambda spec, device, precision: encoder)
    done = CliRunner().invoke(search, [str(corpus.index), "a red door", "--collapse", "--output", "json"])
    assert any("copies" in hit for hit in json.loads(done.stdout)["hits"])
    with pytest.raises(SearchError, match="collapse is for 1,000 hits at most, and offset and k reach to 1,001"):
        searcher.text_to_image("red", 1001, collapse=True)
