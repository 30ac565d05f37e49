"""Filters, tables, archives, arrays and manifests: a sample of what `fuzz_sweep.py` tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import corpus_fuzz
import pytest
from filter_fuzz import attacked, build, differing, predicates
from hostile_filters import hostile
from shim import missing
from warm import Warm

INPUTS = sorted((Path(__file__).parent / "corpus" / "inputs").iterdir())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose images have numbers, texts and flags, some of them missing."""
    return build(tmp_path_factory.mktemp("facts"))


def test_random_filters_let_through_what_python_lets_through(index: Path) -> None:
    assert differing(index, 250, seed=7) == []


def test_random_filters_say_yes_no_and_unknown(index: Path) -> None:
    from filter_fuzz import facts

    told = [{truth(row) for row in facts()} for _, truth in predicates(200, seed=7)]
    assert sum({True, False} <= one for one in told) > 100
    assert sum(None in one for one in told) > 50
    assert len({sql for sql, _ in predicates(200, seed=7)}) > 180


@pytest.fixture
def warm() -> Iterator[Warm]:
    if missing():
        pytest.skip(str(missing()))
    with Warm() as process:
        yield process


def test_hostile_filters_are_refused_or_harmless_and_open_no_file(warm: Warm, index: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    told = attacked(warm, index, tmp_path)
    assert told["hostile filters"] == len(hostile(tmp_path)) >= 200
    assert [one for one in told["told"] if one.startswith("escaped")] == []
    assert told["opened"] == told["changed"] == []
    assert told["harmless"] < 10


@pytest.mark.parametrize("kind", corpus_fuzz.KINDS)
@pytest.mark.filterwarnings("ignore")
def test_hostile_corpora_are_read_or_refused_and_nothing_else_is_opened(kind: str, tmp_path: Path) -> None:
    told = corpus_fuzz.fuzz(kind, 150, 0, tmp_path / "x")
    assert (told["wrong"], told["left"]) == ({}, [])
    assert told["refused"] > 15
    assert told["refused"] < 150


def test_hostile_manifests_are_read_or_refused(tmp_path: Path) -> None:
    told = corpus_fuzz.fuzz_manifests(300, 0, tmp_path)
    assert told["wrong"] == {}
    assert told["refused"] > 200
    assert told["read"] > 5, "some changes are no contradiction"


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_every_input_that_once_got_an_error_out_is_replayed(path: Path) -> None:
    assert not corpus_fuzz.outcome(path).startswith("escaped")
