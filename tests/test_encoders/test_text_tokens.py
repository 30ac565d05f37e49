"""Texts become the token ids that open_clip's own tokenizers give, for any text."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn

from encoders.errors import TowerError
from encoders.lite import text_folder
from encoders.text_tower.export import COUNT, _tokenizer, sample_texts
from encoders.text_tower.tokenize import CLEANERS, TextTokenizer, TokenizerInfo

TEXTS = st.one_of(
    st.text(max_size=80),
    st.text("aAſst'’rRvVemMlLdD <>_/09&;!?-éß½一\u0301\u200b\t\n", max_size=60),
    st.lists(st.sampled_from(sample_texts()[:32]), max_size=3).map(" ".join),
)


@cache
def both(kind: str) -> tuple[SimpleTokenizer | HFTokenizer, TextTokenizer]:
    made = {
        "clip": lambda: SimpleTokenizer(),
        "short": lambda: SimpleTokenizer(context_length=7, clean="canonicalize"),
        "cased": lambda: SimpleTokenizer(clean="whitespace", additional_special_tokens=None),
        "bert": lambda: HFTokenizer(str(text_folder()), context_length=16),
        "stripped": lambda: HFTokenizer(str(text_folder()), context_length=16, clean="lower", strip_sep_token=True),
    }[kind]()
    info, data = _tokenizer(made, whole=True)
    return made, TextTokenizer(info, data)


@pytest.mark.parametrize("kind", ["clip", "short", "cased", "bert", "stripped"])
@given(text=TEXTS)
@example(text="<start_of_text> dog's <END_OF_TEXT>, they'LL &amp;amp; l'été №5 ⅷ²")
@example(text="'ſ <ſtart_of_text> İstanbul ΟΔΟΣ")
@example(text="word" * 300)
def test_token_ids_are_those_of_open_clip(kind: str, text: str) -> None:
    theirs, ours = both(kind)
    assert ours([text])[0].tolist() == theirs([text])[0].tolist()


@pytest.mark.parametrize("name", CLEANERS)
@given(text=TEXTS)
@example(text="a\x1b[31mred\x7f\x00 &lt; ﬁ “quoted” cafÃ©")
def test_texts_are_cleaned_as_open_clip_does(name: str, text: str) -> None:
    assert CLEANERS[name](text) == get_clean_fn(name)(text)


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_plain_texts_are_cleaned_without_ftfy_alike(text: str) -> None:
    assert CLEANERS["whitespace"](text) == get_clean_fn("whitespace")(text)


def test_the_sample_is_two_hundred_texts_of_all_lengths_and_scripts() -> None:
    texts = sample_texts()
    assert len(texts) == COUNT == 200
    assert texts == sample_texts()
    assert min(map(len, texts)) == 0
    assert max(len(text.split()) for text in texts) == 600
    scripts = "aяσك\u05dbएส一の가დՄஒት🐶"
    assert all(any(character in text for text in texts) for character in scripts)


@pytest.mark.parametrize("data", [b"", b"{}", b'["a"]', b"[1]", b"\xff"])
def test_a_file_that_is_no_tokenizer_is_refused(data: bytes) -> None:
    for kind in ("bpe", "tokenizers"):
        with pytest.raises(TowerError, match="tokenizer of the text tower"):
            TextTokenizer(TokenizerInfo(kind=kind, clean="lower", context_length=77), data)
