"""What AutoMM's own tests assert, asserted here, on real photographs, captions and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from matching import Photographs

from encoders import Encoder
from encoders.lite import text_folder
from matcher import DataError, Matcher
from matcher.fitting import fit_config
from training import FitConfig

CLASSES = ["a dog", "a horse", "a child", "a bicycle", "a building"]


@pytest.fixture(scope="module")
def matcher(lite: Encoder) -> Matcher:
    return Matcher(encoder=lite)


def test_zero_shot_probabilities_have_a_row_an_image_and_sum_to_one(matcher: Matcher, photographs: Photographs) -> None:
    found = matcher.predict_proba({"image": photographs.images[:8]}, candidates={"caption": CLASSES})
    assert found.shape == (8, 5)
    assert found.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-6)
    best = matcher.predict({"image": photographs.images[:8]}, candidates={"caption": CLASSES})
    assert best.shape == (8,)
    assert np.array_equal(best, found.argmax(axis=1))


def test_zero_shot_works_from_texts_to_images(matcher: Matcher, photographs: Photographs) -> None:
    candidates = {"image": photographs.images[:8]}
    found = matcher.predict_proba({"caption": CLASSES}, candidates=candidates)
    assert found.shape == (5, 8)
    assert found.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert matcher.predict({"caption": CLASSES}, candidates=candidates).shape == (5,)


def test_paired_rows_have_a_cosine_each(matcher: Matcher, photographs: Photographs) -> None:
    pairs = {name: cells[:10] for name, cells in photographs.pairs.items()}
    cosine = matcher.match(pairs).cosine
    assert cosine.shape == (10,)
    whole = matcher.similarity(pairs["caption"], pairs["image"])
    assert cosine == pytest.approx(np.diag(whole), abs=1e-6)


def test_both_columns_give_a_vector_a_row_and_unequal_ones_are_refused(
    matcher: Matcher, photographs: Photographs
) -> None:
    pairs = {name: cells[:6] for name, cells in photographs.pairs.items()}
    found = matcher.extract_embedding(pairs)
    assert {name: rows.shape for name, rows in found.items()} == {"caption": (6, 384), "image": (6, 384)}
    with pytest.raises(DataError, match="columns differ in length: 'caption' has 6 values, 'image' has 5"):
        matcher.extract_embedding(pairs | {"image": pairs["image"][:5]})


def test_search_from_raw_data_equals_search_from_embeddings(matcher: Matcher, photographs: Photographs) -> None:
    captions = [texts[0] for texts in photographs.captions]
    raw = matcher.semantic_search({"caption": captions}, {"image": photographs.images}, top_k=5)
    queries = matcher.extract_embedding({"caption": captions})["caption"]
    responses = matcher.extract_embedding(photographs.images, as_tensor=True)
    ready = matcher.semantic_search(query_embeddings=queries, response_embeddings=responses, top_k=5)
    for one, other in zip(raw, ready, strict=True):
        assert [hit["response_id"] for hit in one] == [hit["response_id"] for hit in other]
        assert [hit["score"] for hit in one] == pytest.approx([hit["score"] for hit in other], abs=1e-6)


class MiniLM:
    """The plain sentence encoder all-MiniLM-L6-v2 from the package that `lite` is made of: mean pooling, unit rows."""

    spec, dim, fingerprint, device, precision, batch_size = "minilm", 384, "m" * 64, "cpu", "fp32", 32

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(text_folder())
        self._model: Any = AutoModel.from_pretrained(text_folder(), add_pooling_layer=False).eval()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        tokens = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        rows = (hidden * mask).sum(1) / mask.sum(1)
        return np.asarray(torch.nn.functional.normalize(rows, dim=-1))


# The nine sentences and the question of the semantic search example of sentence-transformers.
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A man is riding a horse.",
    "A woman is playing violin.",
    "Two men pushed carts through the woods.",
    "A man is riding a white horse on an enclosed ground.",
    "A monkey is playing drums.",
    "A cheetah is running behind its prey.",
]


def test_the_known_text_search_has_its_known_ids_and_scores() -> None:
    texts = Matcher("query", "response", MiniLM(), query_type="text", response_type="text")  # type: ignore[arg-type]
    (hits,) = texts.semantic_search(["A man is eating pasta."], SENTENCES, top_k=5)
    assert [hit["response_id"] for hit in hits] == [0, 1, 3, 6, 8]
    assert [hit["score"] for hit in hits] == pytest.approx([0.7036, 0.5272, 0.1888, 0.1046, 0.0981], abs=5e-4)


class Rows:
    """Texts that are row numbers of given features."""

    spec, fingerprint, device, precision, batch_size = "rows", "r" * 64, "cpu", "fp32", 8

    def __init__(self, features: np.ndarray) -> None:
        self._features = features / np.linalg.norm(features, axis=1, keepdims=True)
        self.dim = features.shape[1]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self._features[[int(text) for text in texts]], dtype=np.float32)


@pytest.mark.parametrize("cutoffs", [(1,), (1, 5, 10), (3, 20, 50)])
def test_hit_rates_equal_those_of_torchmetrics(cutoffs: tuple[int, ...]) -> None:
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    features = np.random.default_rng(0).standard_normal((100, 2))
    left, right = [str(row) for row in range(50)], [str(row) for row in range(50, 100)]
    encoder: Any = Rows(features)
    scores = encoder.encode_texts(left) @ encoder.encode_texts(right).T
    ours = theirs = 0.0
    for query, response, matrix in (("a", "b", scores), ("b", "a", scores.T)):
        matcher = Matcher(query, response, encoder, query_type="text", response_type="text")
        found = matcher.evaluate({"a": left, "b": right}, cutoffs=cutoffs)
        ours += sum(found[f"R@{k}"] for k in cutoffs)
        rows = torch.arange(50).repeat_interleave(50)
        for k in cutoffs:
            metric = retrieval.RetrievalHitRate(top_k=k)
            theirs += float(metric(torch.tensor(matrix.copy()).flatten(), torch.eye(50).flatten().long(), indexes=rows))
    assert ours / (2 * len(cutoffs)) == pytest.approx(theirs / (2 * len(cutoffs)), abs=1e-6)


def test_numpy_results_equal_pandas_results(matcher: Matcher, photographs: Photographs) -> None:
    pandas = pytest.importorskip("pandas")
    pairs = {name: cells[:6] for name, cells in photographs.pairs.items()}
    frame = pandas.DataFrame(pairs, index=list("abcdef"))
    for as_multiclass in (True, False):
        framed = matcher.predict_proba(frame, as_multiclass=as_multiclass)
        assert np.array_equal(framed.to_numpy(), matcher.predict_proba(pairs, as_multiclass=as_multiclass))
    assert matcher.predict(frame).index.tolist() == list("abcdef")


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_alone_are_judged_as_among_many(rows: int, matcher: Matcher, photographs: Photographs) -> None:
    pairs = {name: cells[:12] for name, cells in photographs.pairs.items()}
    few = {name: cells[:rows] for name, cells in pairs.items()}
    assert matcher.predict_proba(few) == pytest.approx(matcher.predict_proba(pairs)[:rows], abs=1e-4)
    assert matcher.extract_embedding(few)["image"] == pytest.approx(
        matcher.extract_embedding(pairs)["image"][:rows], abs=1e-5
    )


def test_settings_are_the_same_in_either_form() -> None:
    settings = {"mode": "head", "epochs": 3, "lr": 1e-4}
    assert fit_config(settings, time_limit=5) == fit_config(FitConfig(**settings), time_limit=5)  # type: ignore[arg-type]


def test_evaluation_runs_in_both_directions_and_finds_real_photographs(lite: Encoder, photographs: Photographs) -> None:
    both = Matcher(encoder=lite).evaluate(photographs.pairs, directions="both")
    forward, back = both["text_to_image"], both["image_to_text"]
    assert (forward["queries"], back["queries"]) == (200, 40)
    assert forward["R@10"] > 0.7 > 10 / 40
    assert back["R@10"] > 0.7
    # With five captions an image the share found among the first is at most a fifth, and hits are another figure.
    assert back["recall@1"] <= 0.2 <= back["R@1"]
    assert back["precision@1"] == back["R@1"]


def test_a_pair_is_not_a_match_for_having_a_cosine_above_zero(matcher: Matcher, photographs: Photographs) -> None:
    captions = [texts[0] for texts in photographs.captions]
    true = matcher.match({"caption": captions, "image": photographs.images})
    wrong = matcher.match({"caption": captions, "image": photographs.images[20:] + photographs.images[:20]})
    formula = (1 + wrong.cosine) / 2 >= 0.5
    assert formula.mean() > 0.4
    assert wrong.match.mean() < 0.1 < true.match.mean()
    assert true.probability.mean() > wrong.probability.mean() + 0.15
