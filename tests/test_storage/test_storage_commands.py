from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from small_index import ENCODER, collections, counts, fill, publish

from storage import IndexStore, OperatingPoint
from storage.files import mapped
from storage.schema import Tuning
from twinlens.commands.info import info
from twinlens.commands.verify import verify
from twinlens.commands.versions import rollback, vacuum, versions
from twinlens.console import run

COMMANDS: tuple[click.Command, ...] = (info, verify, versions, rollback, vacuum)


def text(command: click.Command, *arguments: str | Path) -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def json_of(command: click.Command, *arguments: str | Path) -> Any:
    return json.loads(text(command, *arguments, "--output", "json"))


def test_info_tells_what_the_current_version_holds(index: Path) -> None:
    found = json_of(info, index)
    assert found["encoder"]["spec"] == "test"
    assert {name: found[name] for name in ("version", "images", "texts", "pairs", "rejected", "versions")} == {
        "version": 2,
        "images": 6,
        "texts": 6,
        "pairs": 6,
        "rejected": 1,
        "versions": [1, 2],
    }
    folder = index / "versions" / "00000002"
    assert found["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_info_tells_the_plan_and_the_operating_points(index: Path) -> None:
    images = json_of(info, index)["ann"]["images"]
    assert images["factory"] == "HNSW32_SQfp16"
    assert images["operating_points"]["text_to_image"] == [
        {"k": 10, "nprobe": 16, "oversample": 1, "ann_recall": 0.5, "ms_per_query": 0.25}
    ]
    assert images["queries"] == {"text_to_image": {"source": "corpus", "count": 6}}


def test_info_reads_well(index: Path) -> None:
    lines = text(info, index, "--points").splitlines()
    assert lines[0].startswith(f"index     {index}, version 2 of 20")
    assert "encoder   test (8-d), fingerprint ffffffffffff..." in lines
    assert "text_to_image: ann_recall@10 0.500 in 0.25 ms a query (nprobe 16, oversample 1)" in lines[4]
    assert lines[-1] == "versions  1, 2"


def publish_measured(path: Path, recalls: Sequence[float]) -> None:
    """Publish a version whose operating points for 10 hits have these recalls, each dearer than the one before."""
    store = IndexStore.open(path)
    points = tuple(
        OperatingPoint(k=k, nprobe=2**step, oversample=4, ann_recall=recall, ms_per_query=1.0 + step)
        for k in (1, 10, 100)
        for step, recall in enumerate(recalls)
    )
    with store.lock():
        draft = store.draft()
        halves = collections(5, fill(draft, 5))
        tuning = {"text_to_image": Tuning(query_source="bank", queries=100_000, points=points)}
        halves["images"] = replace(halves["images"], tuning=tuning)
        store.publish(draft, encoder=ENCODER, collections=halves, counts=counts(5), build={})


def test_info_says_which_vectors_are_more_than_memory_holds(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json_of(info, index)["read_from_disk"] == []
    sizes = [entry.bytes for name, entry in IndexStore.open(index).manifest().files.items() if "vectors" in name]
    monkeypatch.setattr(mapped, "memory_bytes", lambda: min(sizes))
    assert json_of(info, index)["read_from_disk"] == ["images", "texts"]
    assert "images and texts: vectors are more than half of the memory here, so" in text(info, index)


def test_info_shows_the_cheapest_points_for_the_usual_recalls_and_all_of_them_on_request(index: Path) -> None:
    publish_measured(index, [step / 100 + 0.002 for step in range(60, 100)])
    lines = [line.strip() for line in text(info, index).splitlines() if "text_to_image" in line]
    assert lines == [
        "text_to_image: ann_recall@10 0.902 in 31.00 ms a query (nprobe 1073741824, oversample 4)",
        "text_to_image: ann_recall@10 0.952 in 36.00 ms a query (nprobe 34359738368, oversample 4)",
        "text_to_image: ann_recall@10 0.992 in 40.00 ms a query (nprobe 549755813888, oversample 4)",
    ]
    assert text(info, index, "--points").count("text_to_image: ") == 3 * 40
    assert len(json_of(info, index)["ann"]["images"]["operating_points"]["text_to_image"]) == 3 * 40


def test_info_names_a_point_once_and_says_which_recall_only_an_exact_search_reaches(index: Path) -> None:
    publish_measured(index, [0.5, 0.96])
    lines = [line.strip() for line in text(info, index).splitlines() if "text_to_image" in line]
    assert lines == [
        "text_to_image: ann_recall@10 0.960 in 2.00 ms a query (nprobe 2, oversample 4)",
        "text_to_image: ann_recall@10 0.99 and more by comparing every vector",
    ]


def test_info_lists_what_was_rejected_and_why(index: Path) -> None:
    (row,) = json_of(info, index, "--rejected")["rejected_items"]
    assert set(row) == {"item_id", "collection", "uri", "stage", "reason", "detail"}
    last = text(info, index, "--rejected").splitlines()[-1]
    assert last.startswith(f"rejected  {row['uri']}: {row['reason']} ({row['stage']})")


def test_verify_is_silent_about_nothing(index: Path) -> None:
    found = json_of(verify, index)
    assert found["ok"]
    assert len(found["files"]) == 5
    assert text(verify, index, "--version", "1").count("checksum ok") == 5


def test_verify_fails_and_names_the_damaged_file(index: Path) -> None:
    (index / "versions" / "00000002" / "images" / "ann.faiss").write_bytes(b"x")
    done = CliRunner().invoke(verify, [str(index)])
    assert done.exit_code == 3
    assert "ann.faiss has 1 bytes and the manifest says" in done.stdout
    value = json.loads(CliRunner().invoke(verify, [str(index), "--output", "json"]).stdout)
    assert not value["ok"]
    assert sum(file["problem"] is not None for file in value["files"]) == 1


def test_versions_marks_the_current_one_and_names_damage(index: Path) -> None:
    (index / "versions" / "00000001" / "manifest.json").write_bytes(b"x")
    found = json_of(versions, index)
    assert found["current"] == 2
    assert [row["current"] for row in found["versions"]] == [False, True]
    assert "is damaged" in found["versions"][0]["problem"]
    assert found["versions"][1]["images"] == 6
    first, second = text(versions, index).splitlines()
    assert "is damaged" in first
    assert second.startswith("* 2  20")


def test_versions_of_an_empty_index(tmp_path: Path) -> None:
    store = IndexStore.create(tmp_path / "index")
    assert text(versions, store.path) == "nothing published yet\n"


def test_rollback_and_vacuum(index: Path) -> None:
    publish(IndexStore.open(index), 7)
    assert json_of(rollback, index) == {"path": str(index), "current": 2}
    assert text(rollback, index, "--to", "3") == f"version 3 of {index} is current\n"
    assert json_of(vacuum, index, "--keep", "1") == {"path": str(index), "removed": [1, 2], "kept": [3]}
    assert text(vacuum, index) == f"removed nothing of {index}; kept version 3\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_in_one_line_that_there_is_no_index(
    command: click.Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["twinlens", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="1"):
        run(command)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: there is no index at")
    assert err.count("\n") == 1


def test_looking_at_an_index_loads_no_search_library(index: Path, home: Path) -> None:
    code = (
        "import sys, storage; light = {'pyarrow', 'duckdb', 'faiss', 'torch', 'numpy'} & set(sys.modules); "
        "storage.IndexStore.open(sys.argv[1]).manifest(); print(light, 'faiss' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(index)], cwd=home, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set() False False\n"


def test_an_unknown_name_is_no_export() -> None:
    import storage

    with pytest.raises(AttributeError, match="module 'storage' has no attribute 'Nothing'"):
        _ = storage.Nothing
