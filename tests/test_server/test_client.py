"""A search that asks a running server prints what a search of the index prints, or says in one line what is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from colour import ColourEncoder
from served_index import Served, colour_index, serving

from searcher import Searcher, SearchError
from searcher.client import Client
from searcher.hits import table
from searcher.query import image_part, text_part
from searcher.request import OPTIONS, SearchRequest
from searcher.server import ServerSettings
from twinlens.commands.search import search


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_index(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def served(index: Path) -> Iterator[Served]:
    with serving(index, encoder=ColourEncoder()) as server:
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("encoders.load_encoder", lambda *_: ColourEncoder())
    return lambda *arguments: CliRunner().invoke(search, [*map(str, arguments)])


# One value for each option of a request that a small index can answer.
GIVEN: dict[str, Any] = {
    "into": "texts",
    "k": 3,
    "where": "file_bytes > 10",
    "ann_recall": 0.5,
    "nprobe": 2,
    "oversample": 4,
    "exact": None,
    "columns": "width, height",
    "offset": 2,
    "min_score": 0.9,
    "diversity": 0.5,
    "words": "square",
    "hybrid": None,
    "collapse": None,
    "explain": None,
    "sort": "-item_id",
}


def flags(name: str) -> list[str]:
    flag = f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
    return [flag] if GIVEN[name] is None else [flag, str(GIVEN[name])]


def without_paths(printed: str) -> Any:
    answers = json.loads(printed)
    for answer in answers if isinstance(answers, list) else [answers]:
        for hit in answer["hits"]:
            hit.pop("uri")
            hit.pop("path", None)
    return answers


def table_without_paths(index: Path, query: Any, by: str, name: str | None) -> str:
    """Return what a search of the index prints, but for where the images are, which no server tells."""
    given = {} if name is None else {name: OPTIONS[name].parse(name, True if GIVEN[name] is None else GIVEN[name])}
    part = text_part(query) if by == "text" else image_part(query)
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        hits = searcher.search(SearchRequest(parts=(part,), **given))
    return table([replace(hits, hits=tuple(replace(hit, root=None, uri=None) for hit in hits))]) + "\n"


@pytest.mark.parametrize("name", [*(name for name in OPTIONS if name != "min_probability"), None])
@pytest.mark.parametrize("by", ["text", "image"])
def test_it_prints_what_a_search_of_the_index_prints(
    run: Callable[..., Result], served: Served, index: Path, name: str | None, by: str
) -> None:
    """Each option of `SearchRequest`, those that come later too, is passed on."""
    options = [] if name is None else flags(name)
    if (name, by) == ("hybrid", "image"):
        pytest.skip("an image has no words")
    query = ["a red square"] if by == "text" else ["--image", index.parent / "photos" / "red" / "0000.png"]
    there = run("--server", served.url, *query, *options)
    assert (there.exit_code, there.stderr) == (0, "")
    assert there.stdout == table_without_paths(index, query[-1], by, name)
    asked = ("--output", "json")
    here, there = run(index, *query, *options, *asked), run("--server", served.url, *query, *options, *asked)
    assert without_paths(there.stdout) == without_paths(here.stdout)


def test_several_queries_are_answered_in_their_order(run: Callable[..., Result], served: Served, index: Path) -> None:
    queries = ("--text", "a blue square", "--image", index.parent / "photos" / "red" / "0000.png", "--text", "green")
    here, there = (run(*where, *queries, "--output", "json").stdout for where in ((index,), ("--server", served.url)))
    assert without_paths(there) == without_paths(here)


def test_an_address_behind_a_prefix_and_a_slash_at_its_end_work(served: Served, run: Callable[..., Result]) -> None:
    assert run("--server", f"{served.url}/", "red").exit_code == 0
    there = run("--server", f"{served.url}/photos", "red")
    assert there.exit_code == 1
    assert "answered 404: there is nothing at this address" in str(there.exception)


def test_what_the_server_refuses_is_said_in_its_words(served: Served) -> None:
    address = Client(served.url)
    with pytest.raises(SearchError, match=r"answered 400: .*no_such_column"):
        address.search(SearchRequest(parts=(text_part("red"),), where="no_such_column = 1"))
    with pytest.raises(SearchError, match="answered 400: k=2000 is above this server's limit of 1000"):
        address.search(SearchRequest(parts=(text_part("red"),), k=2000))
    with pytest.raises(SearchError, match=r"answered 422: min_probability=0\.5 needs an index that was fitted"):
        address.search(SearchRequest(parts=(text_part("red"),), min_probability=0.5))


def test_the_token_comes_from_the_environment(
    index: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(index, ServerSettings(token="a-long-secret"), ColourEncoder()) as server:
        assert "answered 401" in str(run("--server", server.url, "red").exception)
        assert "give the token by TWINLENS_TOKEN" in str(run("--server", server.url, "red").exception)
        monkeypatch.setenv("TWINLENS_TOKEN", "a-long-secret")
        assert run("--server", server.url, "red").exit_code == 0


@contextmanager
def answering(status: int, body: bytes, *, wait: threading.Event | None = None) -> Iterator[str]:
    """A server of something else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if wait is not None:
                wait.wait(20)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


RED = SearchRequest(parts=(text_part("red"),))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "cannot be read"),
        (200, b"[]", "cannot be read"),
        (200, b'{"hits": []}', "is it a `twinlens serve` of this release"),
        (200, b'{"hits": [], "direction": "text_to_image", "ann": {"nonsense": 1}}', "cannot be read"),
        (302, b"", "answered 302 and is no `twinlens serve`"),
        (502, b"<h1>Bad gateway</h1>", "answered 502 and is no `twinlens serve`"),
        (503, b'{"error": "full\\n\\u001b[31m"}', "answered 503: full \ufffd"),
    ],
)
def test_another_server_is_told_apart(status: int, body: bytes, message: str) -> None:
    with answering(status, body) as url, pytest.raises(SearchError) as caught:
        Client(url).search(RED)
    assert message in str(caught.value)


def test_one_that_does_not_answer_is_given_up() -> None:
    done = threading.Event()
    with answering(200, b"{}", wait=done) as url:
        with pytest.raises(SearchError, match=r"did not answer within 0.2 seconds; try again"):
            Client(url, timeout=0.2).search(RED)
        done.set()


def test_where_nothing_listens_the_way_out_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SearchError, match=r"Connection refused; start one by `twinlens serve INDEX`"):
        Client(f"http://127.0.0.1:{port}").search(RED)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/", "http://", "http://x:0/", "http://x:y/", "http://x/?a=1", "http://é/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SearchError, match="is no address of a server"):
        Client(url)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SearchError, match="TWINLENS_TOKEN") as caught:
        Client("http://me:secret@localhost:8000/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("it.index", "red"), "--server takes no INDEX"),
        (("red", "--verify", "size"), "--verify is for an INDEX of this machine"),
        (("red", "--contact-sheet", "hits.png"), "--contact-sheet is for an INDEX"),
        (("red", "--text", "blue"), "and --text were given"),
    ],
)
def test_what_does_not_go_with_a_server_is_typed_wrong(
    run: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    answer = run("--server", "http://127.0.0.1:1/", *arguments)
    assert answer.exit_code == 2
    assert message in answer.output


def test_without_an_index_and_a_server_the_index_is_missing(run: Callable[..., Result]) -> None:
    answer = run("--text", "red")
    assert answer.exit_code == 2
    assert "INDEX" in answer.output


def test_it_starts_without_what_opens_an_index(home: Path, served: Served) -> None:
    heavy = ("duckdb", "faiss", "pyarrow", "torch", "tokenizers")
    code = (
        "import sys; from click.testing import CliRunner; from twinlens.commands.search import search; "
        f"done = CliRunner().invoke(search, ['--server', {served.url!r}, 'red']); assert done.exit_code == 0, done; "
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "[]\n")
