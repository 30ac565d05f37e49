"""A search asks for a recall and gets the cheapest measured setting that reaches it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from searcher import Searcher, SearchRequest
from searcher.operating_points import Choice, choose
from storage.schema import AnnPlan, CollectionInfo, OperatingPoint, Tuning


def point(k: int, nprobe: int, recall: float, oversample: int = 4) -> OperatingPoint:
    return OperatingPoint(k=k, nprobe=nprobe, oversample=oversample, ann_recall=recall, ms_per_query=nprobe / 10)


MANY = 1_000_000  # queries: what was measured is true to a thousandth
TEXT = Tuning(
    query_source="corpus",
    queries=MANY,
    points=(point(10, 4, 0.9), point(10, 16, 0.97), point(10, 64, 0.995), point(100, 8, 0.9), point(100, 32, 0.98)),
)
IMAGE = Tuning(query_source="corpus", queries=MANY, points=(point(10, 2, 0.96), point(10, 8, 0.999)))
INFO = CollectionInfo(
    rows=1_000_000,
    ann=AnnPlan(kind="ivf-pq4", factory="IVF1024,PQ128x4fsr", nlist=1024),
    tuning={"text_to_image": TEXT, "image_to_image": IMAGE},
)


def ask(direction: Any = "text_to_image", filtered_rows: int | None = None, **asked: Any) -> Choice:
    return choose(INFO, direction, SearchRequest(**asked), filtered_rows)


@pytest.mark.parametrize(
    ("recall", "nprobe"), [(0.5, 4), (0.899, 4), (0.91, 16), (None, 16), (0.969, 16), (0.98, 64), (0.994, 64)]
)
def test_the_cheapest_point_that_reaches_the_recall_is_taken(recall: float | None, nprobe: int) -> None:
    choice = ask(ann_recall=recall)
    assert (choice.nprobe, choice.exact, choice.k) == (nprobe, False, 10)
    assert (choice.ann_recall or 0) >= (recall or 0.95)


@pytest.mark.parametrize(
    ("queries", "recall", "nprobe"),
    [
        (MANY, 0.95, 16),
        (1000, 0.96, 16),  # .97 is .9636 for sure, one-sided 95 of 100
        (1000, 0.965, 64),
        (200, 0.95, 16),
        (200, 0.96, 64),
        (10, 0.95, 64),  # too few to be sure of anything: the best there is
    ],
)
def test_a_recall_counts_from_the_lower_end_of_its_interval(queries: int, recall: float, nprobe: int) -> None:
    info = replace(INFO, tuning={"text_to_image": replace(TEXT, queries=queries)})
    choice = choose(info, "text_to_image", SearchRequest(ann_recall=recall))
    assert (choice.nprobe, choice.exact) == (nprobe, False)


@pytest.mark.parametrize(("k", "queries", "recall"), [(10, 1000, 0.95), (10, 252, 0.99), (100, 500, 0.95)])
def test_what_is_asked_for_holds_on_queries_that_took_no_part(k: int, queries: int, recall: float) -> None:
    """Of 41 settings, close together, whose queries vary as real ones do, the choice is one that reaches it."""
    true = recall + np.arange(-20, 21) * (1 - recall) / 25
    random = np.random.default_rng(k)
    kept = []
    for _ in range(200):
        easy = random.beta(true * 3, (1 - true) * 3, (queries, len(true)))  # variance of r (1 - r) / 4
        measured = random.binomial(k, easy).mean(axis=0) / k
        points = tuple(point(k, at, round(float(value), 5)) for at, value in enumerate(measured, 1))
        tuning = {"text_to_image": Tuning(query_source="corpus", queries=queries, points=points)}
        choice = choose(replace(INFO, tuning=tuning), "text_to_image", SearchRequest(k=k, ann_recall=recall))
        kept.append(choice.exact or true[choice.nprobe - 1] >= recall)
    assert np.mean(kept) > 0.9


@pytest.mark.parametrize(("k", "measured"), [(1, 10), (10, 10), (11, 100), (100, 100), (1000, 100)])
def test_the_smallest_measured_k_that_covers_the_asked_one_counts(k: int, measured: int) -> None:
    assert ask(k=k).k == measured


def test_a_recall_that_nothing_reaches_is_searched_exactly() -> None:
    choice = ask(ann_recall=0.999)
    assert (choice.exact, choice.ann_recall) == (True, 1.0)
    assert choice.reason == "no measured setting reaches ann_recall 0.999"


def test_a_direction_that_was_never_measured_is_searched_exactly() -> None:
    assert ask("image_to_text").reason == "image_to_text was never measured in this index"
    assert ask("image_to_text").exact


def test_each_direction_has_its_own_points() -> None:
    assert ask("image_to_image").nprobe == 2


def test_vectors_of_unknown_origin_take_the_costliest_direction() -> None:
    assert ask(None).nprobe == 16


def test_each_step_wider_misses_half_as_much_at_most_until_every_vector_is_compared() -> None:
    def wider(steps: int, direction: Any = "text_to_image") -> Choice:
        return choose(INFO, direction, SearchRequest(), widened={"text_to_image": steps})

    assert [wider(steps).nprobe for steps in (0, 1)] == [16, 64]
    assert (
        wider(1).reason
        == "the cheapest measured setting that reaches ann_recall 0.95, 1 wider, since searches found less"
    )
    assert (wider(2).exact, wider(9).exact) == (True, True)
    assert wider(2).reason == "no measured setting reaches ann_recall 0.95, 2 wider, since searches found less"
    assert wider(1, "image_to_image") == ask("image_to_image")
    assert wider(1, None).nprobe == 64


def test_exact_is_exact() -> None:
    assert ask(exact=True, nprobe=3).exact
    assert ask(exact=True).to_json() == {
        "kind": "ivf-pq4",
        "exact": True,
        "nprobe": None,
        "oversample": None,
        "ann_recall": 1.0,
        "k": None,
        "reason": "asked for",
        "filtered_rows": None,
    }


@pytest.mark.parametrize(
    ("given", "nprobe", "oversample", "recall"),
    [
        ({"nprobe": 16}, 16, 4, 0.97),
        ({"nprobe": 5}, 5, 4, None),
        ({"oversample": 9}, 64, 9, None),
        ({"nprobe": 5000, "oversample": 2}, 1024, 2, None),
    ],
)
def test_settings_given_by_the_caller_are_taken(given: Any, nprobe: int, oversample: int, recall: float | None) -> None:
    choice = ask(**given)
    assert (choice.nprobe, choice.oversample, choice.ann_recall) == (nprobe, oversample, recall)


def test_settings_given_without_any_measurement_are_completed() -> None:
    bare = CollectionInfo(rows=9_000, ann=AnnPlan(kind="ivf-flat", factory="IVF50,SQfp16", nlist=50))
    choice = choose(bare, "text_to_image", SearchRequest(nprobe=7))
    assert (choice.nprobe, choice.oversample, choice.exact) == (7, 16, False)
    assert choose(bare, "text_to_image", SearchRequest(oversample=7)).nprobe == 50


def test_a_narrow_filter_is_scanned() -> None:
    assert ask(filtered_rows=10_000).reason == "the filter leaves few enough rows to compare them all"
    assert ask(filtered_rows=0).exact


def test_a_wide_filter_looks_deeper_the_less_it_lets_through() -> None:
    probes = [ask(filtered_rows=rows).nprobe for rows in (1_000_000, 500_000, 100_000, 50_000, 20_000)]
    assert probes == [16, 32, 32, 64, 160]
    assert ask(filtered_rows=500_000).ann_recall is None


def test_a_search_says_how_it_was_carried_out(wide: Searcher, wide_vectors: np.ndarray) -> None:
    ann = wide.text_to_image(wide_vectors[0]).ann
    assert (ann["kind"], ann["nprobe"], ann["ann_recall"], ann["k"], ann["exact"]) == ("ivf-flat", 8, 0.96, 10, False)
    assert wide.image_to_image(wide_vectors[0]).ann["reason"] == "image_to_image was never measured in this index"


def test_exact_search_equals_comparing_all(wide: Searcher, wide_vectors: np.ndarray, oracle: Any) -> None:
    for query in wide_vectors[:5]:
        oracle.check(wide.text_to_image(query, 20, exact=True), wide_vectors, query, 20)


def test_all_lists_equal_comparing_all(wide: Searcher, wide_vectors: np.ndarray, oracle: Any) -> None:
    for query in wide_vectors[:5]:
        oracle.check(wide.text_to_image(query, 20, nprobe=32, oversample=8), wide_vectors, query, 20)


def test_scores_are_exact_whatever_the_setting(wide: Searcher, wide_vectors: np.ndarray, oracle: Any) -> None:
    hits = wide.text_to_image(wide_vectors[7], 10, nprobe=1, oversample=1)
    expected = oracle.scores(wide_vectors, wide_vectors[7])[hits.row_ids]
    np.testing.assert_allclose(hits.scores, expected, atol=2e-6)
