"""Readers while versions are published and vacuumed, in threads and in other processes."""

from __future__ import annotations

from pathlib import Path

from publishing import FIRST_ROWS, expected, publish_under_readers


def test_every_answer_is_that_of_exactly_one_version(tmp_path: Path) -> None:
    found = publish_under_readers(tmp_path, versions=8, threads=4, processes=1)
    assert found.errors == ()
    assert found.searches > 50
    assert found.versions <= set(range(1, 9))
    assert len(found.versions) > 1, "the readers saw versions come"


def test_the_versions_can_be_told_apart_by_their_answers() -> None:
    told = [repr(expected(rows)) for rows in range(FIRST_ROWS, FIRST_ROWS + 50)]
    assert len(set(told)) == 50
