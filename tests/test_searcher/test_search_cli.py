"""The command `search`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from searcher import SearchError
from searcher.errors import ParameterError
from searcher.hits import about, table
from searcher.request import OPTIONS
from storage.errors import TwinlensError
from twinlens.commands.search import search


@pytest.fixture
def run(corpus: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # The spec in this index names an encoder that only these tests have.
    monkeypatch.setattr("encoders.load_encoder", lambda spec, device, precision: encoder)

    def run(*arguments: object, index: Path = corpus.index) -> Result:
        return CliRunner().invoke(search, [str(index), *map(str, arguments)], catch_exceptions=False)

    return run


def test_one_text_gives_one_object(run: Any) -> None:
    answer = json.loads(run("--text", "a red door", "-k", 3, "--output", "json").stdout)
    assert answer["query"] == "a red door"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert {"rank", "item_id", "score", "uri", "caption", "width", "height"} <= set(answer["hits"][0])
    assert answer["ann"]["exact"] is True


def test_words_may_stand_without_an_option(run: Any) -> None:
    assert run("a red door", "-k", 3).stdout == run("--text", "a red door", "-k", 3).stdout


def test_words_and_the_option_for_them_are_too_much(run: Any) -> None:
    answer = run("a red door", "--text", "a blue door")
    assert answer.exit_code == 2
    assert "the text 'a red door' and --text were given" in answer.output


@pytest.mark.parametrize("name", [*OPTIONS])
def test_every_option_of_a_request_is_an_option_of_the_command(run: Any, name: str) -> None:
    listed = run("--help").stdout
    assert f"-{name} " in listed if len(name) == 1 else f"--{name.replace('_', '-')}" in listed


def test_only_the_columns_asked_for_come_back(run: Any) -> None:
    (hit,) = json.loads(run("red", "-k", 1, "--columns", "stars, width", "--output", "json").stdout)["hits"]
    assert set(hit) == {"rank", "item_id", "score", "uri", "path", "caption", "stars", "width"}


def test_several_queries_give_a_list_in_their_order(run: Any, corpus: Any) -> None:
    arguments = ["--text", "red", "--image", corpus.picture(1), "--text", "blue", "-k", 2, "--output", "json"]
    answers = json.loads(run(*arguments).stdout)
    assert [answer["query"] for answer in answers] == ["red", "blue", "0001.png"]


def test_text_is_an_aligned_table(run: Any) -> None:
    lines = run("--text", "a red door", "-k", 12).stdout.splitlines()
    assert lines[0] == "a red door  (12 images, exact)"
    assert lines[1].split() == ["rank", "score", "item_id", "path", "caption"]
    assert len({line.index("a red") for line in lines[2:]}) == 1
    assert len(lines) == 14


def test_no_hits_are_said(run: Any) -> None:
    assert "nothing passes" in run("--text", "red", "--where", "width > 100000").stdout


def test_escape_codes_in_captions_do_not_reach_the_terminal(run: Any) -> None:
    assert "\x1b" not in run("--text", "red \x1b[2J").stdout


def test_a_picture_finds_texts_and_images(run: Any, corpus: Any) -> None:
    texts = json.loads(run("--image", corpus.picture(1), "--into", "texts", "--output", "json").stdout)
    images = json.loads(run("--image", corpus.picture(1), "--output", "json").stdout)
    assert texts["hits"][0]["item_id"].startswith("txt-")
    assert images["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert len(texts["hits"]) == 10


def test_options_reach_the_search(run: Any) -> None:
    arguments = [
        "--where",
        "stars = 2",
        "--exact",
        "--ann-recall",
        0.9,
        "--nprobe",
        3,
        "--oversample",
        2,
        "--version",
        1,
    ]
    answer = json.loads(run("--text", "red", *arguments, "--verify", "size", "--output", "json").stdout)
    assert {hit["stars"] for hit in answer["hits"]} == {2}
    assert answer["ann"]["reason"] == "asked for"
    assert answer["where"] == "stars = 2"


def test_a_contact_sheet_and_a_gallery_are_written(run: Any, tmp_path: Path) -> None:
    sheet, page = tmp_path / "hits.png", tmp_path / "hits.html"
    result = run("--text", "a red door", "-k", 5, "--contact-sheet", sheet, "--gallery", page, "--output", "json")
    assert len(json.loads(result.stdout)["hits"]) == 5
    with Image.open(sheet) as image:
        assert (200, 30, 30) in {image.getpixel((x, 300)) for x in range(0, image.width, 10)}
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 5


def test_a_corpus_that_was_moved_is_found_with_root(run: Any, corpus: Any, tmp_path: Path) -> None:
    page = tmp_path / "hits.html"
    told = run("--text", "red", "-k", 5, "--gallery", page, "--root", tmp_path).stderr
    assert "file not found" in page.read_text(encoding="utf-8")
    assert "note: 5 image files are not there, first " in told
    assert told.endswith("if the images were moved, name their folder by --root\n")
    told = run("--text", "red", "--gallery", page, "--root", corpus.root).stderr
    assert "file not found" not in page.read_text(encoding="utf-8")
    assert "image files" not in told


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP"), ("", "PNG")])
def test_the_name_of_a_contact_sheet_says_its_format(run: Any, tmp_path: Path, suffix: str, kind: str) -> None:
    sheet = tmp_path / f"hits{suffix}"
    run("--text", "a red door", "-k", 5, "--contact-sheet", sheet)
    with Image.open(sheet) as image:
        assert image.format == kind


def test_a_contact_sheet_of_another_format_is_refused_before_the_search(run: Any, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"cannot be written as '.pdf'; end its name in .png, .jpg"):
        run("--text", "a red door", "--contact-sheet", tmp_path / "hits.pdf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "red", "-k", "0"], "k=0 must be a whole number from 1 to 10,000"),
        (["--text", "red", "--where", "wdith > 3"], "names no column 'wdith'; do you mean width"),
        (["--image", "nowhere.jpg"], "there is no query image at 'nowhere.jpg'"),
        (["--text", "red", "--contact-sheet", "no/such/hits.png"], "there is no folder 'no/such'; make it first"),
        (["--text", "red", "--root", "no/such"], "--root 'no/such' is no folder"),
        (["--text", "red", "--version", "7"], "has no version 7"),
    ],
)
def test_a_mistake_is_one_clear_line(run: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(TwinlensError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


def test_a_search_for_nothing_is_typed_wrong(run: Any) -> None:
    done = run()
    assert done.exit_code == 2
    assert 'nothing to search with; give "a dog in the snow" or --image query.jpg' in done.stderr
    assert ParameterError.exit_code == 2


def test_an_index_without_an_encoder_asks_for_one(run: Any, wide_index: Path) -> None:
    with pytest.raises(SearchError, match=r"pass encoder= \(--encoder\)"):
        run("--text", "red", index=wide_index)


def test_as_a_program_a_mistake_ends_with_one_and_no_traceback(home: Path, tmp_path: Path) -> None:
    code = "from twinlens.console import run; from twinlens.commands.search import search; run(search)"
    command = [sys.executable, "-c", code, str(tmp_path / "no.index"), "--text", "red"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no index at")
    assert "Traceback" not in done.stderr


def test_the_table_says_how_an_approximate_search_went(wide: Any, wide_vectors: Any) -> None:
    hits = wide.text_to_image(wide_vectors[:2], 3, where="row_id >= 0")
    heading = "a vector of 16 values  (3 images, where row_id >= 0, ivf-flat nprobe 8 oversample 2)"
    assert table(hits).splitlines()[0] == heading
    hits = wide.text_to_image(wide_vectors[0], 1)
    assert about(hits) == "1 image, ivf-flat nprobe 8 oversample 2, ann_recall@10 0.960"


def test_an_encoder_is_named_by_its_spec(run: Any) -> None:
    assert run("--text", "red", "--encoder", "test-colours").exit_code == 0
