"""Files whose time of modification no catalog column reaches, or that lies before 1970."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from storage import IndexStore
from storage.schema import ImageInfo

YEAR_2400, YEAR_1900, YEAR_1600 = 13_569_465_600, -2_208_988_800, -11_676_096_000


def kept(out: Path) -> dict[str, int | None]:
    """Modification times in the catalog, by item."""
    with IndexStore.open(out).open_version() as version:
        return {row["item_id"]: row["mtime_ns"] for row in version.catalog.table("images").to_pylist()}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(YEAR_2400, None), (YEAR_1600, None), (YEAR_1900, YEAR_1900 * 10**9), (-1, -(10**9)), (0, 0)],
)
def test_a_time_is_kept_where_64_bits_reach_it(
    tmp_path: Path, encoder: ColourEncoder, seconds: int, expected: int | None
) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    os.utime(paint(tmp_path / "photos" / "b.png", "blue"), (seconds, seconds))
    if (tmp_path / "photos" / "b.png").stat().st_mtime != seconds:
        pytest.skip("the file system cannot hold this time")
    report = build_index(tmp_path / "photos", tmp_path / "out", encoder=encoder)
    assert (report.manifest.counts.images, report.rejected) == (2, {})
    assert kept(tmp_path / "out")["b.png"] == expected
    again = build_index(tmp_path / "photos", tmp_path / "out", encoder=encoder, update=True)
    assert not again.published


def test_an_update_sees_that_a_file_of_the_year_2400_has_changed(tmp_path: Path, encoder: ColourEncoder) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name, colour in (("a.bmp", "red"), ("b.bmp", "blue")):
        os.utime(paint(photos / name, colour), (YEAR_2400, YEAR_2400))
    build_index(photos, out, encoder=encoder)
    os.utime(paint(photos / "b.bmp", "green"), (YEAR_2400 + 1, YEAR_2400 + 1))
    assert build_index(photos, out, encoder=encoder, update=True).published
    with IndexStore.open(out).open_version() as version:
        row = version.catalog.table("images").to_pylist()[1]
    assert row["sha256"] == hashlib.sha256((photos / "b.bmp").read_bytes()).hexdigest()


def test_facts_of_an_image_hold_no_time_that_a_column_cannot() -> None:
    def info(mtime_ns: int | None) -> int | None:
        return ImageInfo(width=1, height=1, sha256="", file_bytes=0, mtime_ns=mtime_ns).mtime_ns

    assert [info(value) for value in (2**63 - 1, 2**63, -(2**63), -(2**63) - 1, None)] == [
        2**63 - 1,
        None,
        -(2**63),
        None,
        None,
    ]
