"""A slice of the random filters whose costs `benchmarks/filter_costs.py` measures."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import filter_costs
from random_filters import RandomFilters, signatures

from storage.catalog import Catalog
from storage.where import ALLOWED_FUNCTIONS

COUNT = 200
# What DuckDB's parser makes something else of: these stand in no list of its functions.
_PARSED = {"!", "->", "ifnull"}


def test_no_filter_takes_long_and_most_are_evaluated(tmp_path: Path) -> None:
    filters, outcomes, slowest = RandomFilters(), Counter[str](), 0.0
    with Catalog.open(filter_costs.built(tmp_path, 300)) as catalog:
        for number in range(COUNT):
            started = time.monotonic()
            outcomes[filter_costs.outcome(catalog, filters.filter(f"slice {number}"))] += 1
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 2 * filter_costs.LIMIT_SECONDS + 5, "five for the start of a process on a busy machine"
    refused = sum(outcomes[kind] for kind in filter_costs.REFUSED)
    assert outcomes["answered"] > COUNT / 2
    assert refused < COUNT / 3


def test_every_function_that_a_filter_may_use_is_tried() -> None:
    assert {one.function for one in signatures()} == ALLOWED_FUNCTIONS - _PARSED


def test_a_filter_is_the_same_each_time() -> None:
    assert RandomFilters().filter("0 7") == RandomFilters().filter("0 7")
    assert RandomFilters().filter("0 7") != RandomFilters().filter("0 8")
