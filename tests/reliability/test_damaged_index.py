"""A damaged index is refused by the name of the file, and no damage ends the process."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage_cases import BYTES, Case, byte_cases, damage, files_of, whole_cases
from damage_run import Tally, corpus, keeps_promise, run
from make_golden import unpack


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "golden"
    unpack(folder)
    return folder


def sample(cases: list[Case], count: int) -> list[Case]:
    return random.Random(3).sample(cases, count)


def test_a_sample_of_damaged_files_is_refused_and_the_file_is_named(golden: Path, tmp_path: Path) -> None:
    cases = sample([*byte_cases(range(3), "full"), *whole_cases()], 120)
    tally = run(cases, golden, tmp_path / "copies")
    assert tally.broken == []
    assert tally.total == 120
    assert tally.count("full", "refused") > 80


@pytest.mark.parametrize("mode", ["size", "resealed"])
def test_damage_that_no_checksum_sees_ends_in_an_error_or_an_answer(golden: Path, tmp_path: Path, mode: str) -> None:
    tally = run(sample(list(byte_cases(range(3), mode)), 25), golden, tmp_path / "copies")
    assert tally.broken == []
    assert tally.count(mode) == 25
    assert tally.count(mode, "different") > 0, "this is what checksums are for"


def test_every_case_that_once_broke_a_promise_is_replayed(golden: Path, tmp_path: Path) -> None:
    assert run(corpus(), golden, tmp_path / "copies").broken == []


def test_a_case_is_the_same_damage_every_time(golden: Path, tmp_path: Path) -> None:
    for how in BYTES:
        content = []
        for attempt in range(2):
            path = tmp_path / f"{how}{attempt}" / "versions" / "00000001" / "manifest.json"
            path.parent.mkdir(parents=True)
            path.write_bytes((golden / "flat.index" / "versions" / "00000001" / "manifest.json").read_bytes())
            damage(Case("flat", "manifest.json", how, 4, "full"), tmp_path / f"{how}{attempt}", golden)
            content.append(path.read_bytes())
        assert content[0] == content[1]


def test_a_child_that_dies_is_counted_and_the_rest_goes_on(golden: Path, tmp_path: Path) -> None:
    fatal = Case("no-such-index", "manifest.json", "flip", 0, "full")
    fine = Case("flat", "manifest.json", "flip", 0, "full")
    tally = run([fatal, fine], golden, tmp_path / "copies")
    assert [case for case, told in tally.broken if told.startswith("died")] == [fatal]
    assert tally.count("full", "refused") == 1


@pytest.mark.parametrize("told", ["different", "died -11", "escaped ValueError x", "refused CorruptIndexError other"])
def test_what_breaks_a_promise_is_told_from_what_keeps_it(told: str) -> None:
    case = Case("flat", "catalog.duckdb", "flip", 0, "full")
    assert not keeps_promise(case, told)
    assert keeps_promise(case, "refused CorruptIndexError a/catalog.duckdb has SHA-256")
    tally = Tally()
    tally.add(case, told)
    assert len(tally.broken) == 1


def test_every_file_of_every_kind_has_cases() -> None:
    seen = {(case.index, case.file) for case in byte_cases(range(1), "full")}
    assert seen == {(kind, file) for kind in {kind for kind, _ in seen} for file in files_of(kind)}
    assert len({kind for kind, _ in seen}) == 6
