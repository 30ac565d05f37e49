"""Hits say how probable it is that they fit, a floor leaves out what is less so, and nothing may fit at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from paired_index import build_paired, captioned, unit

from indexer.fit_calibrations import FEWEST_QUERIES
from searcher import Query, Searcher, SearchError, SearchRequest
from searcher.errors import ParameterError
from searcher.query import item_part, vector_part
from storage.hit_calibration import HitCalibration, HitCurve
from storage.partners import Partners
from twinlens.commands.search import search

IMAGES, TEXTS, PAIRS = captioned(300, 3, noise=0.8)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_paired(tmp_path_factory.mktemp("fitted"), IMAGES, TEXTS, PAIRS)


@pytest.fixture(scope="module")
def fitted(index: Path) -> Iterator[Searcher]:
    with Searcher.open(index) as searcher:
        yield searcher


def queries(present: bool, count: int = 200) -> np.ndarray:
    """New captions, of images of the index or of others."""
    rng = np.random.default_rng(int(present))
    about = IMAGES[rng.choice(len(IMAGES), count)] if present else unit(rng.standard_normal((count, IMAGES.shape[1])))
    return unit(about + 0.8 / np.sqrt(IMAGES.shape[1]) * rng.standard_normal((count, IMAGES.shape[1])))


def test_what_is_there_is_found_and_what_is_not_is_not(fitted: Searcher) -> None:
    answered = {
        present: np.mean([len(hits) > 0 for hits in fitted.text_to_image(queries(present), 10, min_probability=0.5)])
        for present in (True, False)
    }
    assert answered[True] > 0.95
    assert answered[False] < 0.2


def test_a_probability_is_the_share_of_first_hits_that_fit(fitted: Searcher) -> None:
    likely, fits = [], []
    for present in (True, False):
        for hits in fitted.text_to_image(queries(present, 400), 1):
            likely.append(hits[0].probability)
            fits.append(present)
    assert abs(np.mean(np.array(likely, dtype=float)) - np.mean(fits)) < 0.1


def test_a_floor_leaves_out_hits_of_the_page_that_are_less_probable(fitted: Searcher) -> None:
    query = queries(True)[0]
    whole = fitted.text_to_image(query, 20)
    likely = np.array([hit.probability for hit in whole], dtype=float)
    floor = float(np.sort(likely)[-3])
    hits = fitted.text_to_image(query, 20, min_probability=floor)
    assert hits.item_ids.tolist() == whole.item_ids[likely >= floor].tolist()
    assert not hits.nothing_fits
    ids, _ = fitted.search_vectors("images", query, 20, direction="text_to_image", min_probability=floor)
    assert [one for one in ids[0] if one is not None] == hits.item_ids.tolist()


def test_a_hit_is_as_probable_on_any_page_with_any_filter_and_exactly(fitted: Searcher) -> None:
    query = queries(True)[1]
    known = {hit.item_id: hit.probability for hit in fitted.text_to_image(query, 100)}
    for options in ({"offset": 5}, {"exact": True}, {"where": "row_id % 3 = 0"}, {"diversity": 0.4}):
        for hit in fitted.text_to_image(query, 10, **options):  # type: ignore[arg-type]
            assert known.get(hit.item_id, hit.probability) == pytest.approx(hit.probability, abs=1e-6)


def test_images_find_texts_with_a_probability_and_texts_find_texts_without_one(fitted: Searcher) -> None:
    assert all(hit.probability is not None for hit in fitted.image_to_text(IMAGES[0], 3))
    hits = fitted.text_to_text(TEXTS[0], 3)
    assert [hit.probability for hit in hits] == [None] * 3
    assert "probability" not in hits.to_json()["hits"][0]
    with pytest.raises(ParameterError, match=r"is for image_to_text and text_to_image .* not fitted for text_to_text"):
        fitted.text_to_text(TEXTS[0], min_probability=0.5)


def test_a_text_of_the_index_is_no_witness_for_its_own_image(fitted: Searcher) -> None:
    part = item_part("texts-0", "texts")
    hits = fitted.search(SearchRequest(parts=(part,), into="images", k=1))
    same = fitted.text_to_image(TEXTS[0], 1)
    assert hits[0].item_id == same[0].item_id == "images-0"
    assert hits[0].probability != same[0].probability


def test_a_composed_query_has_no_probability_and_takes_no_floor_of_it(fitted: Searcher) -> None:
    query = Query.vector(TEXTS[0], "text") - Query.vector(TEXTS[9], "text")
    assert [hit.probability for hit in fitted.search(query, k=2, into="images")] == [None, None]
    with pytest.raises(ParameterError, match=r"min_probability=0.5 is for a query of one part, and this one has 2"):
        fitted.search(query, into="images", min_probability=0.5)


@pytest.mark.parametrize("value", [2, -0.1, float("nan"), "x", True])
def test_a_floor_that_is_no_probability_is_refused(fitted: Searcher, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"min_probability=.*{value}.* must be from 0 to 1"):
        fitted.text_to_image(TEXTS[0], min_probability=value)


def test_an_index_with_too_few_pairs_says_what_to_do(tmp_path: Path) -> None:
    few = FEWEST_QUERIES - 1
    with Searcher.open(build_paired(tmp_path, IMAGES, TEXTS, PAIRS[:few])) as searcher:
        assert searcher.manifest.calibrations == {}
        assert searcher.text_to_image(TEXTS[0], 1)[0].probability is None
        message = "needs an index that was fitted on pairs .* build or update it with 50 or more captioned images"
        with pytest.raises(SearchError, match=message):
            searcher.text_to_image(TEXTS[0], min_probability=0.5)


def test_one_caption_an_image_is_judged_without_partners(tmp_path: Path) -> None:
    images, texts, pairs = captioned(120, 1, noise=0.8)
    with Searcher.open(build_paired(tmp_path, images, texts, pairs)) as searcher:
        assert searcher.manifest.calibrations["text_to_image"].with_partners is None
        assert searcher.text_to_image(texts[0], 1, min_probability=0.5).item_ids.tolist() == ["images-0"]


def test_nothing_fits_is_an_answer_of_the_command(index: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "query.npy", queries(False)[0])
    with Searcher.open(index) as searcher:
        part = vector_part(queries(False)[0], "text")
        hits = searcher.search(SearchRequest(parts=(part,), into="images", min_probability=1.0))
    assert (hits.nothing_fits, hits.to_json()["nothing_fits"], hits.to_json()["hits"]) == (True, True, [])
    line = [str(index), "--like", "texts-0", "--into", "images", "--min-probability", "1"]
    shown = CliRunner().invoke(search, line)
    assert shown.exit_code == 0
    assert "nothing in this index fits: no hit has a probability of 1 or more" in shown.stdout
    assert "probability" not in CliRunner().invoke(search, line[:-2]).stdout
    assert "rank  score  probability" in CliRunner().invoke(search, [*line[:-1], "0"]).stdout
    told = json.loads(CliRunner().invoke(search, [*line, "--output", "json"]).stdout)
    assert (told["nothing_fits"], told["hits"], told["min_probability"]) == (True, [], 1.0)


def test_partners_are_those_of_the_pairs_sixteen_at_most() -> None:
    own = np.array([2, 0, 2, *[3] * 20])
    partners = Partners(own, np.arange(len(own)), 5)
    positions, rows = partners.among(np.array([3, 1, 2]))
    assert positions.tolist() == [0] * 16 + [2, 2]
    assert rows.tolist() == [*range(3, 19), 0, 2]
    assert partners.counts().tolist() == [1, 0, 2, 20, 0]


def test_a_hit_without_partners_is_judged_by_the_plain_curve() -> None:
    plain, paired = (
        HitCurve(weights=(1.0, 0.0), intercept=0.0),
        HitCurve(weights=(0.0, 0.0, 0.0, 2.0, 0.0), intercept=0.0),
    )
    words = HitCurve(weights=(0.0, 0.0, 0.0, 0.0, 0.0, 3.0), intercept=0.0)
    calibration = HitCalibration(queries=50, plain=plain, with_partners=paired, with_words=words)
    signals = np.array([[0.0, 1, np.nan, np.nan, np.nan], [1, 1, 0, 0.5, 9]], dtype=np.float32)
    assert calibration.probability(signals).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-1))])
    coverage = np.array([1, 0.5], dtype=np.float32)
    assert calibration.probability(signals, coverage).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-1.5))])
