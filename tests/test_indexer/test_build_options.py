"""What the command line makes of its words, and what a build says while it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from colour import ColourEncoder

from indexer import build_index
from indexer.ann.build_ann import ann_budget, generic_captions, used_bytes
from indexer.config import BuildConfig
from indexer.progress import LineProgress, console_progress
from twinlens.commands.build import ByteSize, CountOrShare, build


@pytest.mark.parametrize(
    ("words", "value"),
    [("500", 500), ("500M", 500 * 2**20), ("4GB", 4 * 2**30), ("4 GiB", 4 * 2**30), ("1.5k", 1536), ("2T", 2 * 2**40)],
)
def test_sizes_are_read_as_people_write_them(words: str, value: int) -> None:
    assert ByteSize().convert(words, None, None) == value


@pytest.mark.parametrize("words", ["", "GB", "four", "-3M", "4 XB"])
def test_what_is_no_size_is_refused(words: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        ByteSize().convert(words, None, None)


@pytest.mark.parametrize(
    ("words", "value"), [("0", 0), ("100", 100), ("5%", 0.05), ("0.5%", 0.005), ("100%", float("inf"))]
)
def test_rejections_are_limited_by_count_or_share(words: str, value: float) -> None:
    assert CountOrShare().convert(words, None, None) == value


@pytest.mark.parametrize("words", ["", "many", "1.5", "-1", "%"])
def test_what_is_neither_count_nor_share_is_refused(words: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a count like 100 nor a share"):
        CountOrShare().convert(words, None, None)


def test_a_share_counts_against_all_items() -> None:
    assert BuildConfig(max_rejected=0.05).rejection_limit(1000) == 50
    assert BuildConfig(max_rejected=3).rejection_limit(1000) == 3
    assert BuildConfig().rejection_limit(1000) == float("inf")


def test_memory_left_for_the_index_is_what_the_process_does_not_hold_yet() -> None:
    assert used_bytes() > 10 * 2**20
    assert ann_budget(BuildConfig()) is None
    budget = ann_budget(BuildConfig(memory_bytes=2**40))
    assert budget is not None
    assert 2**39 < budget < 2**40


def test_lines_tell_stage_count_rate_and_hint() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.stage("encode", 10)
    progress.advance(4, "limit: encoding images")
    progress.advance(6, "limit: encoding images")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("encode: 10 of 10, ")
    assert line.endswith("limit: encoding images")


def test_a_build_tells_what_it_found_and_does(photos: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    with console_progress(stream) as progress:
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), progress=progress)
    said = stream.getvalue()
    assert "40 images and 80 texts; encoder colour (48-d) on cpu by torch in fp32" in said
    assert "encode: 120 of 120" in said
    assert "measure text_to_image" in said


def test_the_report_is_json_with_every_count(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"broken")
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    value = json.loads(json.dumps(report.to_json()))
    assert (value["images"], value["texts"], value["rejected"]) == (40, 80, 1)
    assert value["rejected_by_reason"] == {"not_an_image": 1}
    assert value["build"]["encode"]["bottleneck"]
    assert "1 of 121 items were rejected: 1 not_an_image" in report.to_text()


def test_corpus_and_embeddings_together_are_refused(photos: Path, tmp_path: Path) -> None:
    arguments = [str(photos), "--image-embeddings", "a.npy", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(build, arguments)
    assert result.exit_code == 2
    assert "not both" in result.output


def test_generic_captions_are_many_and_all_different() -> None:
    captions = generic_captions()
    assert len(captions) == len(set(captions)) > 200
