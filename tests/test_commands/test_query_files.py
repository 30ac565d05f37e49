"""Queries from a file: in order, as many as there are, each with its line where it is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from colour import ColourEncoder
from served_index import colour_index

from searcher import Searcher, SearchRequest
from searcher.query import image_part, item_part, text_part
from twinlens.commands.search import search


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_index(tmp_path_factory.mktemp("queries"))


@pytest.fixture
def run(index: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("encoders.load_encoder", lambda *_: ColourEncoder())
    return lambda *arguments, **given: CliRunner().invoke(search, [str(index), *map(str, arguments)], **given)


def lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_of_a_text_file_is_answered_in_order(run: Any, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_bytes(b"\xef\xbb\xbfa red square\r\n\n  green \nblue")
    answers = lines(run("--queries", tmp_path / "queries.txt", "-k", 3, "--output", "jsonl"))
    assert [one["query"] for one in answers] == ["a red square", "green", "blue"]
    for one in answers:
        assert one == json.loads(run(one["query"], "-k", 3, "--output", "json").stdout)


def test_more_queries_than_are_encoded_together(run: Any, tmp_path: Path) -> None:
    words = ["red", "green", "blue", "a red square"]
    (tmp_path / "queries.txt").write_text("\n".join(words[n % 4] for n in range(600)))
    answers = lines(run("--queries", tmp_path / "queries.txt", "-k", 1, "--output", "jsonl"))
    assert [one["query"] for one in answers] == [words[n % 4] for n in range(600)]
    assert len({json.dumps(one) for one in answers}) == 4


def test_objects_may_be_texts_images_items_and_queries(run: Any, index: Path, tmp_path: Path) -> None:
    image = next(iter(sorted((index.parent / "photos").rglob("*.png"))))
    item = image.relative_to(index.parent / "photos").as_posix()
    composed = [{"image": str(image)}, {"item": item, "collection": "images"}, {"text": "blue", "weight": -0.5}]
    objects = [{"image": str(image)}, {"text": "blue"}, {"item": item}, {"query": composed}]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    answers = lines(run("--queries", tmp_path / "queries.jsonl", "--output", "jsonl"))
    assert [one["query"] for one in answers] == [image.name, "blue", item, f"{image.name} + {item} - 0.5 x blue"]
    assert answers[0]["hits"][0]["item_id"].split("/")[0] == item.split("/")[0]
    assert item not in [hit["item_id"] for hit in answers[2]["hits"]]


def test_lines_come_from_stdin_and_after_what_was_typed(run: Any) -> None:
    answers = lines(run("--text", "red", "--queries", "-", "--output", "jsonl", input="green\n"))
    assert [one["query"] for one in answers] == ["red", "green"]


def test_one_line_of_a_file_is_still_a_list_of_one(run: Any, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("red\n")
    assert [one["query"] for one in json.loads(run("--queries", tmp_path / "one.txt", "--output", "json").stdout)] == [
        "red"
    ]


def test_an_empty_file_has_no_answers(run: Any, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n")
    assert lines(run("--queries", tmp_path / "none.txt", "--output", "jsonl")) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"red\n" + b"x" * 200_000, "line 2 of .*has 200000 characters"),
        ("a.txt", b"red\n" + b"x" * 2_000_000, "line 2 of .*has more than 1,000,000 characters"),
        ("a.txt", b"red\n\xff\xfe\n", "is no UTF-8 text"),
        ("a.jsonl", b'{"text": "red"}\n{"text": 5}\n', "line 2 of .*is no query; give one of"),
        ("a.jsonl", b'{"text": "red", "k": 3}\n', "line 1 of .*is no query"),
        ("a.jsonl", b"red\n", "line 1 of .*is no JSON"),
        ("a.jsonl", b'["red"]\n', "line 1 of .*is no query"),
        ("a.jsonl", b'{"image": "gone.png"}\n', "line 1 of .*there is no query image at 'gone.png'"),
        ("a.jsonl", b'{"item": "gone"}\n', "there is no item 'gone'"),
        ("a.jsonl", b'{"query": []}\n', "line 1 of .*query has 0 parts"),
        ("a.jsonl", b'{"query": "red"}\n', "line 1 of .*is no query"),
        ("a.jsonl", b'{"query": [{"text": "red", "image": "a.png"}]}\n', r"line 1 of .*query\[0\]"),
        ("a.jsonl", b'{"query": [{"text": "red", "weight": -1}]}\n', "'red' is unwanted and nothing is wanted"),
        ("a.jsonl", b'{"query": [{"text": "red", "weight": NaN}]}\n', "weight=nan of 'red' must be a number"),
        ("a.jsonl", b'{"query": [{"image": "gone.png"}]}\n', "there is no query image at 'gone.png'"),
        ("a.jsonl", b"[" * 90_000 + b"\n", "line 1 of .*is no JSON"),
    ],
)
def test_a_line_that_is_no_query_is_named(run: Any, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=message):
        run("--queries", tmp_path / name, "--output", "jsonl", catch_exceptions=False)


@pytest.mark.parametrize("name", ["gone.txt", "."])
def test_a_file_that_cannot_be_read_is_named(run: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(Exception, match=r"the queries .* cannot be read"):
        run("--queries", tmp_path / name, catch_exceptions=False)


def test_who_reads_one_line_alone_ends_the_search(index: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/support')\n"
        "import encoders; from colour import ColourEncoder\n"
        "encoders.load_encoder = lambda *given: ColourEncoder()\n"
        "from twinlens.console import run; from twinlens.commands.search import search; run(search)"
    )
    (tmp_path / "many.txt").write_text("red\n" * 20_000)
    command = [sys.executable, "-c", code, str(index), "--queries", str(tmp_path / "many.txt"), "--output", "jsonl"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["query"] == "red"
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""


def test_several_requests_are_answered_as_each_alone(index: Path) -> None:
    image = next(iter(sorted((index.parent / "photos").rglob("*.png"))))
    requests = [
        SearchRequest(parts=(text_part("red"),), k=3),
        SearchRequest(parts=(image_part(image),), k=3),
        SearchRequest(parts=(text_part("green"),), into="texts", k=2),
        SearchRequest(parts=(item_part(image.relative_to(index.parent / "photos").as_posix()),), k=4),
        SearchRequest(parts=(text_part("blue"),), k=3, columns=["width"]),
    ]
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        together = searcher.search(requests)
        assert [hits.to_json() for hits in together] == [searcher.search(one).to_json() for one in requests]
        assert searcher.search([]) == []
        with pytest.raises(Exception, match="the request is of type str; give a SearchRequest"):
            searcher.search(["red"])
