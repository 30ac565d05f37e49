"""Filters that could cost much are evaluated in a process that can be ended; plain ones are not."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from small_index import tables

from storage.catalog import Catalog, write_catalog
from storage.errors import SearchParameterError
from storage.filtering.cost import is_plain

ROWS = 3_000
PLAIN = (
    "width >= 640",
    "caption ilike '%dog%' and not (width < 5 or split = 'train')",
    "lower(trim(caption)) like 'a%'",
    "caption like '%a%b%'",
    "item_id in ('a', 'b', 'c')",
    "width between 1 and 5 or caption is null",
    "cast(width as double) / height > 1.5",
    "case when width > 3 then true else false end",
    "list_contains(tags, 'x')",
    "year(taken) = 2020 and date_trunc('month', taken) = date '2020-05-01'",
)
NOT_PLAIN = (
    "caption ilike caption",
    "regexp_matches(caption, 'dog|cat')",
    "levenshtein(caption, 'dog') < 3",
    "caption || caption = 'x'",
    "lower(lower(lower(lower(caption)))) = 'x'",
    "cast(caption as integer[]) is null",
    "json_extract(caption, '$') is null",
    "width in (height, 2)",
    "a.b.c.d.e = 1",
    "1 = (select 1)",
    '"~~"(caption)',
    " or ".join(["width = 1"] * 201),
    f"caption like '{'a_' * 101}'",
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Rows with texts long enough to make distances work hard."""
    images = tables(ROWS)["images"]
    long = pa.array([f"{'ab' * 1500}{row}" for row in range(ROWS)])
    path = tmp_path_factory.mktemp("costly") / "c.duckdb"
    write_catalog(path, **{**tables(ROWS), "images": images.append_column("long", long), "pairs": tables(0)["pairs"]})
    with Catalog.open(path) as opened:
        yield opened


@pytest.mark.parametrize("where", PLAIN)
def test_what_costs_no_more_than_reading_is_plain(catalog: Catalog, where: str) -> None:
    assert is_plain(catalog.parse_predicate(where))


@pytest.mark.parametrize("where", NOT_PLAIN, ids=lambda where: where[:40])
def test_what_may_cost_more_is_not(catalog: Catalog, where: str) -> None:
    assert not is_plain(catalog.parse_predicate(where))


SAME = {
    "regexp_matches(item_id, '^item_id-[0-4]$')": [0, 1, 2, 3, 4],
    "levenshtein(item_id, 'item_id-7') = 0": [7],
    "item_id || 'x' = 'item_id-12x'": [12],
    "contains(long || '', 'b2999')": [2999],
    "json_valid(item_id) or false": [],
    "regexp_matches(item_id, '')": list(range(ROWS)),
}


@pytest.mark.parametrize("where", SAME)
def test_it_gives_the_same_rows_and_one_process_serves_them_all(catalog: Catalog, where: str) -> None:
    catalog.filter_rows("images", "regexp_matches(item_id, 'x')")
    (process,) = catalog._processes.idle
    assert catalog.filter_rows("images", where).tolist() == SAME[where]
    assert catalog._processes.idle == [process]


COSTLY = {
    # Distances of long texts: no interruption reaches into one, and each takes 8 bytes for each pair of letters.
    "damerau_levenshtein(repeated, repeated) > 1": "too much memory|took longer",
    # A block of rows takes half a minute; the clock ends the process after one second more than it was given.
    "levenshtein(long, reverse(long)) > 1": "took longer than 0.5 s",
}


@pytest.mark.parametrize("where", COSTLY)
def test_what_takes_too_long_or_too_much_ends_soon_and_harms_no_other(catalog: Catalog, where: str) -> None:
    expected, where = COSTLY[where], where.replace("repeated", "||".join(["long"] * 8))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(SearchParameterError, match=expected):
        catalog.filter_rows("images", where, timeout=0.5)
    assert time.monotonic() - start < 20, "the process starts, and ends some seconds after the limit at most"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert catalog.filter_rows("images", "regexp_matches(item_id, '-8$')").tolist() == [8]


def test_what_a_library_prints_in_the_process_is_no_answer(catalog: Catalog) -> None:
    """DuckDB prints a progress bar once a filter has taken two seconds."""
    assert catalog.filter_rows("images", "regexp_matches(item_id, '-8$')").tolist() == [8]
    (worker,) = catalog._processes.idle
    assert Path(f"/proc/{worker._process.pid}/fd/1").readlink() == Path(os.devnull)


def test_a_process_that_has_ended_is_replaced(catalog: Catalog) -> None:
    for signal in (9, 15):
        catalog.filter_rows("images", "regexp_matches(item_id, 'x')")
        for worker in catalog._processes.idle:
            os.kill(worker._process.pid, signal)
            worker._process.wait()
        assert catalog.filter_rows("images", "regexp_matches(item_id, '-8$')").tolist() == [8]


def test_many_threads_ask_at_once(catalog: Catalog) -> None:
    gate = threading.Barrier(6)

    def ask(row: int) -> list[int]:
        gate.wait()
        return catalog.filter_rows("images", f"regexp_matches(item_id, '-{row}$')").tolist()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == [[row] for row in range(6)]
    assert len(catalog._processes.idle) <= 2


def test_a_removed_catalog_is_still_filtered_and_closing_ends_the_processes(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", **tables(9))
    catalog = Catalog.open(tmp_path / "c")
    (tmp_path / "c").unlink()
    assert catalog.filter_rows("images", "regexp_matches(item_id, '-8$')").tolist() == [8]
    (worker,) = catalog._processes.idle
    catalog.close()
    assert not worker.is_alive()


@pytest.mark.parametrize("name", ["a?b", "back\\slash"])
def test_a_catalog_below_an_odd_name_is_filtered(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    write_catalog(tmp_path / name / "c", **tables(9))
    with Catalog.open(tmp_path / name / "c") as catalog:
        assert catalog.filter_rows("images", "regexp_matches(item_id, '-8$')").tolist() == [8]


def test_the_process_reads_no_file_either(catalog: Catalog) -> None:
    for where in ("exists (from read_text('/etc/passwd'))", "getenv('HOME') = 'x'"):
        with pytest.raises(SearchParameterError, match=r"cannot be used: (Permission|Catalog) Error"):
            catalog.filter_rows("images", where)
