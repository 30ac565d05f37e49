"""A slice of the crafted files whose decoding `benchmarks/decode_fuzz.py` times."""

from __future__ import annotations

import decode_fuzz as fuzz


def test_no_crafted_file_takes_long() -> None:
    results = fuzz.fuzz(150, seed=3, largest=1_000_000)
    assert max(result.seconds for result in results) < fuzz.MOST_SECONDS
    # The slice reaches the decoders, and each format.
    outcomes = {result.outcome for result in results}
    assert {"RGB", "corrupt"} <= outcomes
    assert len({result.name.split()[0].rstrip(",").upper() for result in results}) >= 5


def test_a_case_is_the_same_each_time() -> None:
    files = fuzz.valid_files()
    assert fuzz.case(7, 1, files) == fuzz.case(7, 1, files)
    assert fuzz.case(7, 1, files) != fuzz.case(7, 2, files)
