from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import EncoderError
from training.hrem.region_batches import augmented_ids, kept_regions, kept_words
from training.hrem.towers.bert import load_bert
from training.hrem.towers.tokens import Tokens, WordTokens, load_vocabulary
from training.loop import step_decay

TEXTS = ["a red dog runs", "a dog", "the dog's red boat!"]


@pytest.fixture
def words() -> WordTokens:
    return WordTokens.of(TEXTS, max_tokens=16, at_least=1)


def test_a_fifth_of_the_regions_goes_and_one_always_stays() -> None:
    rng = np.random.default_rng(0)
    assert kept_regions(rng, (2000, 36), 0.2).mean() == pytest.approx(0.8, abs=0.01)
    assert kept_regions(rng, (500, 2), 0.9).any(1).all()
    assert kept_regions(rng, (5, 3), 0.0).all()


def test_words_that_are_touched_are_hidden_exchanged_or_left_out(words: WordTokens) -> None:
    rng = np.random.default_rng(0)
    tokens = Tokens(ids=(2, *[10] * 1000, 3), words=(-1, *range(1000), -1))
    ids = augmented_ids(rng, tokens, words, 0.2)
    assert ids[0] == 2
    assert ids[-1] == 3
    assert 1002 - len(ids) == pytest.approx(80, abs=25)  # 40 % of a fifth are left out
    assert ids.count(words.mask) == pytest.approx(100, abs=30)  # half of it is hidden
    other = sum(number not in (2, 3, 10, words.mask) for number in ids)
    assert other == pytest.approx(20, abs=12)  # a tenth becomes another word


def test_all_pieces_of_a_word_share_its_fate(words: WordTokens) -> None:
    tokens = Tokens(ids=(2, 8, 9, 9, 3), words=(-1, 0, 0, 0, -1))
    lengths = {len(kept_words(np.random.default_rng(seed), tokens, 0.5).nonzero()[0]) for seed in range(20)}
    assert lengths == {2, 5}


def test_without_a_drop_a_caption_stays_as_it_is(words: WordTokens) -> None:
    tokens = words(["a red dog"])[0]
    assert augmented_ids(np.random.default_rng(0), tokens, words, 0.0) == tokens.ids
    assert kept_words(np.random.default_rng(0), tokens, 0.0).all()


def test_a_vocabulary_holds_frequent_words_lower_case_and_reads_back(words: WordTokens, tmp_path: Path) -> None:
    assert "dog" in words.vocabulary
    assert "dog" not in WordTokens.of(["dog", "cat cat"], 16).vocabulary
    words.save(tmp_path)
    again = load_vocabulary(tmp_path, 16)
    assert again(["A RED fish"]) == words(["A RED fish"])
    assert again(["a red fish"])[0].words == (-1, 0, 1, 2, -1)


def test_long_texts_are_cut(words: WordTokens) -> None:
    assert len(words(["dog " * 99])[0].ids) == 16


def test_bert_tokens_know_their_words() -> None:
    bert = load_bert("lite", 12)
    tokens = bert.tokenizer(["unbelievableness of dogs", "dog " * 50])
    assert tokens[0].words[0] == tokens[0].words[-1] == -1
    assert max(tokens[0].words) == 2
    assert tokens[0].words.count(0) > 1
    assert len(tokens[1].ids) == 12
    assert bert.tokenizer.mask not in bert.tokenizer.ordinary


def test_two_loads_of_a_tokenizer_exchange_words_alike() -> None:
    """The vocabulary has no order of its own, and a run that is repeated loads it anew."""
    first, second = (load_bert("lite", 12).tokenizer.ordinary for _ in range(2))
    assert list(first) == list(second)


def test_a_text_encoder_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(EncoderError, match=r"cannot load the text encoder 'no/such-bert'.*give the folder"):
        load_bert("no/such-bert", 12)


def test_the_learning_rate_falls_at_its_steps() -> None:
    assert [step_decay(epoch, (2, 4), 0.1) for epoch in (0, 2, 4)] == pytest.approx([1.0, 0.1, 0.01])
