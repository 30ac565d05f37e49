"""The rules under which a figure was measured, as a value, as JSON and as a sentence."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.protocol import PROTOCOLS, Protocol


def five_each(images: int = 4, **said: Any) -> Protocol:
    pairs = [(image, 5 * image + number) for image in range(images) for number in range(5)]
    return Protocol.of_pairs(np.array(pairs), images, 5 * images, **said)


def test_pairs_tell_how_many_captions_an_image_has() -> None:
    protocol = Protocol.of_pairs(np.array([(0, 0), (0, 1), (0, 2), (1, 3)]), 2, 4)
    assert protocol.captions_per_image == (1, 2.0, 3)
    assert (protocol.images, protocol.texts, protocol.pairs) == (2, 4, 4)


def test_queries_that_nothing_answers_are_counted_for_each_direction() -> None:
    protocol = Protocol.of_pairs(np.array([(0, 0), (2, 1)]), 5, 3)
    assert protocol.queries_left_out == {"text_to_image": 1, "image_to_text": 3}
    assert "3 images without a caption and 1 texts without an image can be found but do not ask" in protocol.sentence()


def test_a_pair_that_is_given_twice_counts_once() -> None:
    assert Protocol.of_pairs(np.array([(0, 0), (0, 0), (1, 1)]), 2, 2).captions_per_image == (1, 1.0, 1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=30))
def test_every_image_is_counted_once(pairs: list[tuple[int, int]]) -> None:
    protocol = Protocol.of_pairs(np.array(pairs), 7, 10)
    low, mean, high = protocol.captions_per_image
    asking = 7 - protocol.queries_left_out["image_to_text"]
    assert 1 <= low <= mean <= high
    assert mean * asking == pytest.approx(protocol.pairs, abs=0.001)


def test_the_sentence_says_everything_on_one_line() -> None:
    sentence = five_each(split="test", prompt="a photo of {}").sentence()
    assert sentence.startswith("Protocol twinlens, split test: 4 images and 20 texts; 5 captions an image;")
    for words in ("R@k is the share of queries with any", "recall@k the share", "exact search", "lower row first"):
        assert words in sentence
    assert sentence.endswith("texts encoded as 'a photo of {}'.")
    assert "\n" not in sentence


def test_the_sentence_tells_folds_uneven_captions_and_a_search_through_an_index() -> None:
    protocol = Protocol.of_pairs(np.array([(0, 0), (0, 1), (1, 2)]), 2, 3, folds=5, search="ann")
    sentence = protocol.sentence()
    assert "the mean of 5 contiguous folds of the images" in sentence
    assert "1 to 2 captions, 1.5 on average, an image" in sentence
    assert "through the approximate index" in sentence
    assert "all items" in sentence
    assert "no prompt recorded" in sentence


def test_every_tool_has_its_own_definition_of_recall() -> None:
    assert len({five_each(name=name).recall for name in PROTOCOLS}) == len(PROTOCOLS)
    assert "at most 0.2" in five_each(name="automm").recall
    assert five_each(recall="as I say").recall == "as I say"


def test_it_is_json_and_comes_back_from_it() -> None:
    protocol = five_each(name="vse", split="dev", k=(1, 5))
    plain = json.loads(json.dumps(protocol.to_json()))
    assert plain["captions_per_image"] == [5, 5.0, 5]
    assert plain["k"] == [1, 5]
    assert Protocol.from_json(plain) == protocol


def test_it_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        five_each().split = "test"  # type: ignore[misc]


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol 'trec' is unknown; choose one of twinlens, automm, clip-benchmark"):
        five_each(name="trec")


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs, so there is nothing to measure"):
        Protocol.of_pairs(np.zeros((0, 2), dtype=int), 3, 3)
