"""Exporting the text tower of a loaded encoder: its weights by one set of names, its tokenizer, and the comparison.

Nothing is exported that was not compared: over `sample_texts` the token ids must be the same and every vector must have
a cosine of at least `LOWEST_COSINE` to that of the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import TextTransformer as ClipTransformer
from safetensors.numpy import save
from torch.nn import functional

from storage.files.canonical_json import canonical
from storage.files.layout import TOWER_TOKENIZER, TOWER_WEIGHTS

from ..errors import TowerError
from ..tower_export import keep_tower, near_enough, towers_in_fp32, write_tower
from ..tower_files import TowerDescription
from ..two_towers import TwoTowers
from .tokenize import CLEANERS, BytePairTokenizer, Clean, TokenizerInfo
from .torch_weights import clip_weights, hugging_face_weights
from .tower import TextTower, TextTowerInfo, find_text_tower
from .transformer import Rows

if TYPE_CHECKING:
    from ..base import Encoder


COUNT = 200
_SEED = 20_261_128

# One sentence a script; words are drawn from them. Scripts without spaces between words give one long word.
_SENTENCES = (
    "Two dogs play in the snow while a child isn't watching; it's cold, they're happy!",
    "Un café crème brûlée, s'il vous plaît: l'été à Genève, où naît une âme naïve.",
    "Zażółć gęślą jaźń — příliš žluťoučký kůň, ığüşöç İstanbul, Þórður Ærø Straße ẞ.",
    "Большая белая собака бежит по снегу, а ребёнок смеётся.",
    "Ένας μεγάλος σκύλος τρέχει στο χιόνι ΟΔΟΣ ΣΟΦΟΣ.",
    "كلب كبير يركض في الثلج بجانب طفل سعيد ٢٠٢٦",
    "כלב גדול רץ בשלג ליד ילד שמח",
    "एक बड़ा कुत्ता बर्फ में दौड़ रहा है १२३",
    "สุนัขตัวใหญ่วิ่งเล่นบนหิมะกับเด็กน้อย",
    "一只大狗在雪地里奔跑,旁边有一个快乐的孩子。",
    "大きな犬が雪の中を走っている、子供も一緒だ。カタカナも",
    "큰 개가 눈 속에서 행복한 아이 옆을 달린다",
    "დიდი ძაღლი თოვლში დარბის",
    "Մեծ շունը վազում է ձյան մեջ",
    "ஒரு பெரிய நாய் பனியில் ஓடுகிறது",
    "ትልቅ ውሻ በበረዶ ውስጥ ይሮጣል",
    "🐶❄️👩‍👩‍👧‍👦 🇨🇭 ½ Ⅷ ² ﬁ ℃ ①②③ ﷽ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "1,234.56 USD (100%) #1 @home a_b C++ 3:45pm e-mail x=y*2 [sic] {0} <b>bold</b> ~/.cache \\path",
)
# Texts that have gone wrong in tokenizers before.
_ODD = (
    "",
    " ",
    "a",
    "A DOG",
    "dog's DOG'S they'll've",
    "fish &amp; chips &lt;3 &nbsp; &#233;",
    "cafÃ© â€œquotedâ€\x9d",
    "line one\nline two\r\n\ttabbed",
    "e\u0301 is \u00e9",
    "zero\u200bwidth \u00a0 no-break\u3000wide",
    "'ſ ſo",
    "----- !!! ??? ...",
    "word" * 200,
    "<start_of_text> <end_of_text>",
)


def sample_texts() -> list[str]:
    """Return the texts; the longest are longer than any model reads."""
    random_words = random.Random(_SEED)
    words = [sentence.split() for sentence in _SENTENCES]
    texts = [*_ODD, *_SENTENCES]
    while len(texts) < COUNT:
        # Mostly the lengths of queries and captions, now and then a page.
        length = random_words.choice((1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30, 45, 70, 150, 600))
        own = words[random_words.randrange(len(words))]
        texts.append(" ".join(random_words.choice(own) for _ in range(length)))
    return texts


_REFERENCE_BATCH = 32


def keep_text_tower(encoder: Encoder) -> TowerDescription:
    """Export the text tower of an encoder to the user's cache, unless it is there, and return its description.

    Raises:
        TowerError: As `keep_tower` raises it.
    """
    return keep_tower("text", encoder, find_text_tower, export_text_tower)


def export_text_tower(encoder: Encoder, folder: Path) -> TextTowerInfo:
    """Write the text tower of an encoder to a new folder, compare it, and return what it says of itself.

    Raises:
        TowerError: It is of a kind that is not computed without torch, or its vectors differ.
        OSError: The disk refuses.
    """
    towers = towers_in_fp32(encoder, "text")
    info, weights, tokenizer = text_side(towers, encoder.fingerprint, encoder.dim)
    data = {TOWER_WEIGHTS: save(dict(weights)), TOWER_TOKENIZER: tokenizer}
    return write_tower(folder, info, data, lambda: compare(TextTower.open(folder, "size"), towers, encoder.device))


def text_side(towers: TwoTowers, fingerprint: str, dim: int) -> tuple[TextTowerInfo, Mapping[str, Rows], bytes]:
    """Return the description, the weights and the tokenizer of a model's text tower.

    Raises:
        TowerError: It is of a kind that is not computed without torch; the message says what.
    """
    model: Any = towers.model
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        architecture, weights = hugging_face_weights(text, dim)
    elif isinstance(text, ClipTransformer) or text is model:
        architecture, weights = clip_weights(text, dim)
    else:
        raise TowerError(f"a text tower of the class {type(text).__name__} is computed by torch alone")
    # Padding is left out where the model does not see it.
    whole = architecture.pad is None and (not architecture.causal or architecture.pooling == "last")
    info, tokenizer = _tokenizer(towers.tokenizer, whole)
    described = TextTowerInfo(
        fingerprint=fingerprint, spec=towers.spec, architecture=architecture, tokenizer=info, files={}
    )
    return described, weights, tokenizer


def compare(tower: TextTower, towers: TwoTowers, device: str) -> float:
    """Return the lowest cosine between the vectors of a tower and those of the model, over `sample_texts`.

    Raises:
        TowerError: A text has other token ids, or a cosine is below `LOWEST_COSINE`.
    """
    texts = sample_texts()
    padded = towers.tokenizer(texts)
    for text, ids, expected in zip(texts, tower.token_ids(texts), padded.tolist(), strict=True):
        if ids.tolist() != expected[: len(ids)] or len(set(expected[len(ids) :])) > 1:
            raise TowerError(f"the tokens of {text[:40]!r} differ from those of {towers.spec!r}, so it is not used")
    reference = _reference(towers.model, padded, tower.info.architecture.pad, device)
    # One at a time, as a search asks, so that a batch cannot hide a difference.
    vectors = np.concatenate([tower.encode_texts([text]) for text in texts])
    lowest = float(np.vecdot(vectors, reference).min())
    return near_enough(lowest, towers.spec)


def _reference(model: Any, ids: torch.Tensor, pad: int | None, device: str) -> Rows:
    """Return the model's own unit rows; padding that it masks out is left away, which saves most of the time."""
    lengths = (ids != pad).sum(1) if pad is not None else torch.full((len(ids),), ids.shape[1])
    order = lengths.argsort()
    parts = [order[start : start + _REFERENCE_BATCH] for start in range(0, len(ids), _REFERENCE_BATCH)]
    with torch.inference_mode():
        cut = [ids[part, : max(1, int(lengths[part].max()))].to(device) for part in parts]
        vectors = torch.cat([model.encode_text(batch).float().cpu() for batch in cut])
        rows: Rows = functional.normalize(vectors, dim=-1)[order.argsort()].numpy()
    return rows


def _tokenizer(tokenizer: Any, whole: bool) -> tuple[TokenizerInfo, bytes]:
    if isinstance(tokenizer, SimpleTokenizer):
        return _byte_pairs(tokenizer, whole)
    if isinstance(tokenizer, HFTokenizer):
        return _hugging_face(tokenizer, whole)
    raise TowerError(f"a tokenizer of the class {type(tokenizer).__name__} is read by torch alone")


def _byte_pairs(tokenizer: Any, whole: bool) -> tuple[TokenizerInfo, bytes]:
    merges = [" ".join(pair) for pair in sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)]
    length = tokenizer.context_length
    if tokenizer.reduction_fn is not None or BytePairTokenizer(merges, length).vocabulary != tokenizer.encoder:
        raise TowerError("this variant of open_clip's tokenizer is read by torch alone")
    info = TokenizerInfo(
        kind="bpe", clean=_clean_name(tokenizer.clean_fn), context_length=length, fill=0 if whole else None
    )
    return info, canonical(merges)


def _hugging_face(tokenizer: Any, whole: bool) -> tuple[TokenizerInfo, bytes]:
    inner = tokenizer.tokenizer
    fast = getattr(inner, "backend_tokenizer", None)
    if fast is None or tokenizer.tokenizer_mode or inner.padding_side != "right" or inner.truncation_side != "right":
        raise TowerError(f"a tokenizer of the class {type(inner).__name__}, as it is set, is read by torch alone")
    info = TokenizerInfo(
        kind="tokenizers",
        clean=_clean_name(tokenizer.clean_fn),
        context_length=tokenizer.context_length,
        fill=inner.pad_token_id if whole else None,
        zeroed=inner.sep_token_id if tokenizer.strip_sep_token else None,
    )
    return info, fast.to_str().encode()


def _clean_name(function: Any) -> Clean:
    name = function.__name__.removeprefix("_clean_")
    for known in CLEANERS:
        if known == name:
            return known
    raise TowerError(f"the cleaning {name!r} of texts is done by torch alone")
