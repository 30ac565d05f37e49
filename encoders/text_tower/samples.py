"""The texts that a text tower is compared on: 200 of all lengths and many scripts, the same on every machine."""

from __future__ import annotations

import random

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
