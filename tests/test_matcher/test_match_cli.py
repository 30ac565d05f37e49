"""The command `match`: a row each, in order, with what could not be read said and counted."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from click.testing import CliRunner, Result
from matching import Photographs

from storage.errors import TwinlensError
from twinlens.commands.match import match

ROLES = ["--image", "image", "--text", "caption", "--encoder", "lite", "--device", "cpu"]


def write(path: Path, rows: list[tuple[str, str]], header: str = "image,caption") -> Path:
    lines = [header, *(f'"{image}","{caption}"' for image, caption in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(match, [str(one) for one in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def pairs(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(image, texts[0]) for image, texts in zip(photographs.images[:4], photographs.captions, strict=False)]
    rows += [(photographs.images[0], "a plate of spaghetti"), ("gone.jpg", "a dog"), (photographs.images[1], "")]
    return write(tmp_path_factory.mktemp("cli") / "pairs.csv", rows)


def test_json_has_a_row_each_in_their_order(pairs: Path) -> None:
    done = run(pairs, *ROLES, "--output", "json")
    rows = json.loads(done.stdout)
    assert done.exit_code == 0
    assert [row["row"] for row in rows] == list(range(7))
    for row in rows[:5]:
        assert -1 <= row["cosine"] <= 1
        assert 0 <= row["probability"] <= 1
        assert row["match"] is (row["probability"] >= 0.5)
        assert "error" not in row
    assert rows[4]["caption"] == "a plate of spaghetti"
    assert rows[4]["probability"] < min(row["probability"] for row in rows[:4])


def test_rows_that_cannot_be_read_say_why_and_are_counted(pairs: Path) -> None:
    done = run(pairs, *ROLES, "--output", "json")
    rows = json.loads(done.stdout)
    assert [(row["cosine"], row["probability"], row["match"]) for row in rows[5:]] == [(None, None, None)] * 2
    assert rows[5]["error"].startswith("image: no file at ")
    assert rows[6]["error"] == "caption: the text '' is empty"
    assert "7 pairs, " in done.stderr
    assert "2 rows could not be used" in done.stderr


def test_tables_are_read_as_for_an_index(pairs: Path, tmp_path: Path) -> None:
    """Packed, with another delimiter that is found, with line ends of its own and a row that is cut short."""
    lines = (
        pairs.read_text(encoding="utf-8").replace('","', '";"').replace("image,caption", "image;caption").splitlines()
    )
    packed = tmp_path / "pairs.csv.gz"
    packed.write_bytes(gzip.compress("\r\n".join([*lines, "cut short"]).encode()))
    rows = json.loads(run(packed, *ROLES, "--output", "json").stdout)
    assert rows[:7] == [{**row, "error": ANY} if "error" in row else row for row in json_of(pairs)]
    assert rows[7] == {
        "row": 7,
        "caption": None,
        "image": None,
        "cosine": None,
        "probability": None,
        "match": None,
        "error": "caption: row 8 of pairs.csv.gz has 1 cells where the header has 2",
    }


def json_of(pairs: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run(pairs, *ROLES, "--output", "json").stdout)
    return rows


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl.gz", "pairs.tsv"])
def test_every_kind_of_table_gives_the_same_rows(name: str, photographs: Photographs, tmp_path: Path) -> None:
    rows = [
        {"image": image, "caption": texts[0]}
        for image, texts in zip(photographs.images[:3], photographs.captions, strict=False)
    ]
    forms = {
        "pairs.json": json.dumps(rows).encode(),
        "pairs.jsonl.gz": gzip.compress("\n".join(map(json.dumps, rows)).encode()),
        "pairs.tsv": "\n".join(["image\tcaption", *("\t".join(row.values()) for row in rows)]).encode(),
    }
    (tmp_path / name).write_bytes(forms[name])
    expected = json_of(write(tmp_path / "plain.csv", [(row["image"], row["caption"]) for row in rows]))
    assert json_of(tmp_path / name) == expected


def test_text_is_a_table(pairs: Path) -> None:
    lines = run(pairs, *ROLES).stdout.splitlines()
    assert lines[0].split() == ["row", "cosine", "prob.", "match", "caption", "|", "image"]
    assert len(lines) == 8
    assert "! image: no file at" in lines[6]


def test_a_threshold_decides(pairs: Path) -> None:
    low = json.loads(run(pairs, *ROLES, "--output", "json", "--threshold", 0).stdout)
    high = json.loads(run(pairs, *ROLES, "--output", "json", "--threshold", 1).stdout)
    assert {row["match"] for row in low[:5]} == {True}
    assert {row["match"] for row in high[:5]} == {False}


def test_what_is_learned_from_true_pairs_can_be_kept(pairs: Path, photographs: Photographs, tmp_path: Path) -> None:
    known = tmp_path / "known.jsonl"
    rows = zip(photographs.images, photographs.captions, strict=True)
    lines = [json.dumps({"image": image, "caption": texts}) for image, texts in rows]
    known.write_text("\n".join(lines), encoding="utf-8")
    kept = tmp_path / "lite.json"
    learned = run(pairs, *ROLES, "--output", "json", "--calibrate", known, "--save-calibration", kept)
    again = run(pairs, *ROLES, "--output", "json", "--calibration", kept)
    assert "calibrated: 600 pairs, roc_auc" in learned.stderr
    assert json.loads(learned.stdout) == json.loads(again.stdout)


def test_cosines_alone_are_given_on_request(pairs: Path) -> None:
    rows = json.loads(run(pairs, *ROLES, "--output", "json", "--uncalibrated").stdout)
    assert [row["probability"] for row in rows] == [None] * 7
    assert [row["match"] for row in rows] == [None] * 7
    assert rows[0]["cosine"] is not None


def test_pictures_are_matched_with_pictures(photographs: Photographs, tmp_path: Path) -> None:
    one, two = photographs.images[:2]
    table = write(tmp_path / "images.csv", [(one, one), (one, two)], "left,right")
    options = ["--image", "left", "--image", "right", "--encoder", "lite", "--uncalibrated", "--output", "json"]
    rows = json.loads(run(table, *options).stdout)
    assert rows[0]["cosine"] == pytest.approx(1)
    assert rows[1]["cosine"] < 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "image", "--text", "words"], "has no column 'words'; it has 'image', 'caption'"),
        ([*ROLES, "--threshold", "2"], "threshold 2.0 is no probability"),
        ([*ROLES, "--calibration", "gone.json"], "cannot read the calibration 'gone.json'"),
    ],
)
def test_options_that_cannot_be_followed(options: list[str], message: str, pairs: Path) -> None:
    with pytest.raises(TwinlensError) as caught:
        run(pairs, *options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "image"], "1 columns are named, and a pair has 2"),
        ([*ROLES, "--uncalibrated", "--threshold", "0.5"], "no calibration and no threshold go with it"),
        ([*ROLES, "--save-calibration", "x.json"], "give --calibrate PAIRS as well"),
        ([*ROLES, "--calibration", "a", "--calibrate", "b"], "exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_typed_wrong(options: list[str], message: str, pairs: Path) -> None:
    done = CliRunner().invoke(match, [str(pairs), *options])
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_table_of_wrong_paths_is_an_error(tmp_path: Path) -> None:
    table = write(tmp_path / "pairs.csv", [("a.jpg", "a dog"), ("b.jpg", "a cat")])
    with pytest.raises(TwinlensError, match=r"none of the 2 rows of .* can be used: row 0: image: no file at"):
        run(table, *ROLES)


def test_the_installed_command_tells_errors_in_one_line(tmp_path: Path, home: Path) -> None:
    code = "from twinlens.console import main; main()"
    command = [sys.executable, "-c", code, "match", "gone.csv", "--image", "a", "--text", "b"]
    done: Any = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: there is no file 'gone.csv'; give the path of a table\n"


def test_help_and_bad_calls_load_no_torch(home: Path) -> None:
    code = "import sys, twinlens.commands.match; sys.exit(bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=False).returncode == 0
