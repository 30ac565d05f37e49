"""Ray Serve on a cluster of two nodes: copies of an index, and two halves that answer like the whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_cluster import two_nodes

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from indexer.ray.connection import connect_ray
from searcher import Hit, Hits, Searcher, SearchError
from searcher.operating_points import Choice
from searcher.query import vector_part
from searcher.request import SearchRequest
from searcher.server import ServerSettings
from searcher.server.ray_service import Replica, Served, check_alike, deploy, merge

# Ray leaves sockets and processes for the interpreter to close.
pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, DIM = 120, 16


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made = np.random.default_rng(5).standard_normal((ROWS, DIM)).astype(np.float32)
    made[60:70] = made[50:60]  # equal scores, which the item id decides
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def build(folder: Path, name: str, vectors: np.ndarray, rows: Sequence[int]) -> Path:
    table = {
        "item_id": [f"v{row:03}" for row in rows],
        "vector": list(vectors[rows]),
        "part": [row % 5 for row in rows],
    }
    pq.write_table(pa.table(table), folder / f"{name}.parquet")
    files = EmbeddingFiles(vectors=folder / f"{name}.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def whole(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whole"), "whole", vectors, range(ROWS))


@pytest.fixture(scope="module")
def halves(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("halves")
    odd = [row for row in range(ROWS) if row % 2]
    return [build(folder, "odd", vectors, odd), build(folder, "even", vectors, [*range(0, ROWS, 2)])]


@pytest.fixture(scope="module")
def place() -> Iterator[dict[str, Any]]:
    """Where to deploy; Serve keeps the port of the first deployment."""
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed: the extra `ray`")
    import ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with two_nodes() as cluster:
        connect_ray(cluster.address, "the tests")
        yield {"port": port, "cpus": 0.5}
        ray.serve.shutdown()


def ask(
    url: str, body: Any = None, kind: str = "application/json", headers: Any = None, **asked: Any
) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of one request."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url}?{urllib.parse.urlencode(asked)}", data, {"Content-Type": kind, **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def url(halves: list[Path], place: dict[str, Any]) -> str:
    return deploy(halves, ServerSettings(max_k=200, max_body=1_000_000), **place) + "search"


def expected(whole: Path, vector: np.ndarray, k: int, **options: Any) -> list[tuple[str, float]]:
    with Searcher.open(whole) as searcher:
        hits = searcher.text_to_image(vector, k=ROWS, **options)
        return sorted(((hit.item_id, hit.score) for hit in hits), key=lambda one: (-one[1], one[0]))[:k]


def test_two_halves_answer_like_the_whole(url: str, whole: Path, vectors: np.ndarray) -> None:
    for row in (3, 55, 90):
        status, answer = ask(url, {"vector": vectors[row].tolist(), "k": 12})
        assert status == 200
        assert [(hit["item_id"], hit["score"]) for hit in answer["hits"]] == expected(whole, vectors[row], 12)
        assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 13))
        assert {hit["index"] for hit in answer["hits"]} == {"odd", "even"}


def test_a_filter_reaches_every_half(url: str, whole: Path, vectors: np.ndarray) -> None:
    _, answer = ask(url, {"vector": vectors[7].tolist(), "k": 9, "where": "part = 2"})
    assert [(hit["item_id"], hit["score"]) for hit in answer["hits"]] == expected(
        whole, vectors[7], 9, where="part = 2"
    )
    assert {hit["part"] for hit in answer["hits"]} == {2}


@pytest.mark.parametrize(
    ("body", "asked", "status", "words"),
    [
        (None, {}, 400, "nothing to search with"),
        (None, {"text": "a dog"}, 400, "has no encoder for it"),
        (None, {"text": "a", "k": "many"}, 422, "k='many' must be a whole number"),
        ({"vector": [1.0, 2.0]}, {}, 400, "shape (1, 2)"),
        ({"vector": "red"}, {}, 422, "must be a list"),
        ({"vector": [0.0] * DIM}, {}, 400, "all zeros"),
        ({"vector": [1.0] * DIM, "k": 10**9}, {}, 422, "k=1000000000 must be"),
        ({"vector": [1.0] * DIM, "k": 201}, {}, 400, "above this server's limit of 200"),
        ({"vector": [1.0] * DIM, "k": [3]}, {}, 422, "k=[3] must be"),
        (b'{"vector": [1], "k": Infinity}', {}, 400, "is no number of JSON"),
        ({"vector": [1.0] * DIM, "where": "colour = 1"}, {}, 400, "colour"),
        ({"vector": [1.0] * DIM, "where": "uri = 'x'"}, {}, 400, "names no column 'uri'"),
        ({"vector": [1.0] * DIM, "where": 5}, {}, 422, "where=5 must be a text"),
        ({"vector": [1.0] * DIM, "into": "texts"}, {}, 400, "has no texts"),
        ({"text": 5}, {}, 422, "text=5"),
        (b"\xff\xfe", {}, 400, "no JSON"),
        (b"[" * 100_000, {}, 400, "nested too deeply"),
        (b" " * 1_000_001, {}, 413, "this server's limit"),
        ([1], {}, 400, "type list"),
        (None, {"item": "no such"}, 404, "there is no item 'no such'"),
    ],
)
def test_bad_requests_get_the_errors_of_the_server(
    url: str, body: Any, asked: dict[str, Any], status: int, words: str
) -> None:
    got, answer = ask(url, body, **asked)
    assert (got, words in answer["error"]) == (status, True), answer
    assert "\n" not in answer["error"]


def test_an_item_of_either_half_finds_others_and_never_itself(url: str, whole: Path, vectors: np.ndarray) -> None:
    for row in (4, 7):
        status, answer = ask(url, item=f"v{row:03}", k=5)
        right = [one for one in expected(whole, vectors[row], 7) if one[0] != f"v{row:03}"][:5]
        assert status == 200
        assert [hit["item_id"] for hit in answer["hits"]] == [item_id for item_id, _ in right]
        assert ask(url.replace("/search", "/items"), id=f"v{row:03}")[1]["part"] == row % 5


def test_the_other_routes_are_those_of_the_server(url: str) -> None:
    base = url.removesuffix("search")
    assert ask(base + "etc/passwd")[0] == 404
    assert ask(base + "healthz") == (200, {"status": "ok", "version": 1, "encoder": "none"})
    with urllib.request.urlopen(base, timeout=60) as page:
        assert f"{ROWS} images" in page.read().decode()
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/search" in ask(base + "openapi.json")[1]["paths"]


def test_a_copy_that_dies_costs_no_answer(whole: Path, vectors: np.ndarray, place: dict[str, Any]) -> None:
    import ray

    url = deploy([whole], replicas=2, **place) + "search"
    handle = ray.serve.get_deployment_handle("index-0", "twinlens")
    pids = {handle.pid.remote().result(timeout_s=30) for _ in range(20)}
    assert len(pids) == 2
    right = expected(whole, vectors[3], 5)
    for number in range(40):
        if number == 10:
            os.kill(pids.pop(), signal.SIGKILL)
        status, answer = ask(url, {"vector": vectors[3].tolist(), "k": 5})
        assert (status, [(hit["item_id"], hit["score"]) for hit in answer["hits"]]) == (200, right)


def test_text_is_encoded_once_and_finds_what_a_searcher_finds(tmp_path: Path, place: dict[str, Any]) -> None:
    from colour import paint_folder
    from two_tone import save_tiny

    paint_folder(tmp_path / "photos", 12)
    build_index(tmp_path / "photos", tmp_path / "it", encoder=save_tiny(tmp_path / "tiny"))
    url = deploy([tmp_path / "it"], ServerSettings(token="a-secret-token"), **place) + "search"
    assert ask(url, text="a red square")[0] == 401
    headers = {"Authorization": "Bearer a-secret-token"}
    status, answer = ask(url, text="a red square", k=3, headers=headers)
    with Searcher.open(tmp_path / "it") as searcher:
        hits = searcher.text_to_image("a red square", k=3)
        assert status == 200
        assert [(hit["item_id"], hit["caption"]) for hit in answer["hits"]] == [
            (hit.item_id, hit.caption) for hit in hits
        ]
        picture = next((tmp_path / "photos").rglob("*.png"))
        # Texts need the exported tower alone; images the encoder, which is loaded meanwhile.
        deadline, answer = time.monotonic() + 90, {}
        while "hits" not in answer and time.monotonic() < deadline:
            _, answer = ask(url, picture.read_bytes(), kind="image/png", k=1, headers=headers)
        assert "hits" in answer, answer
        assert answer["hits"][0]["item_id"] == searcher.image_to_image(picture, k=1)[0].item_id


def test_other_bytes_under_the_path_are_no_copy(whole: Path) -> None:
    with pytest.raises(SearchError, match="is another one on this node"):
        Replica(replace(Served.of(whole), manifest_sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"dim": 8}, "length of vectors"), ({"prompt": "a photo of {}"}, "prompt"), ({"collections": ("texts",)}, "coll")],
)
def test_indexes_that_cannot_be_compared_are_refused(change: dict[str, Any], words: str, whole: Path) -> None:
    served = Served.of(whole)
    check_alike([served, replace(served, path="/elsewhere")])
    with pytest.raises(SearchError, match=words):
        check_alike([served, replace(served, path="/elsewhere", **change)])


def test_an_index_that_is_named_twice_is_refused(whole: Path) -> None:
    with pytest.raises(SearchError, match="named twice"):
        check_alike([Served.of(whole), Served.of(whole)])


SCORES = st.sampled_from([0.1, 0.2, 0.2000001, 0.9])


def some_hits(part: int, scores: list[float]) -> Hits:
    """Hits of one index, best first, as its searcher gives them."""
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    found = tuple(Hit(rank=rank, item_id=f"{part}-{row}", score=scores[row]) for rank, row in enumerate(order, start=1))
    return Hits(
        query=vector_part(np.ones(2), "text"),
        collection="images",
        row_ids=np.array(order, dtype=np.int64),
        scores=np.array([scores[row] for row in order], dtype=np.float32),
        choice=Choice(kind="flat", exact=True, reason="a test"),
        where=None,
        hits=found,
    )


@given(
    answers=st.lists(st.lists(SCORES, max_size=8), min_size=2, max_size=4), k=st.integers(1, 10), skip=st.integers(0, 9)
)
def test_the_best_of_each_are_the_best_of_all(answers: list[list[float]], k: int, skip: int) -> None:
    every = [some_hits(part, scores) for part, scores in enumerate(answers)]
    names, offsets = [f"index {part}" for part in range(len(every))], [8 * part for part in range(len(every))]
    merged = merge(every, SearchRequest(k=k, offset=skip), names, offsets)
    best = sorted(((hit.score, hit.item_id) for hits in every for hit in hits), key=lambda one: (-one[0], one[1]))
    assert [(hit.score, hit.item_id) for hit in merged] == best[skip : skip + k]
    assert [hit.rank for hit in merged] == list(range(skip + 1, skip + 1 + len(merged)))
    for hit, row in zip(merged, merged.row_ids.tolist(), strict=True):
        part, _, number = hit.item_id.partition("-")
        assert (row, hit.metadata["index"]) == (8 * int(part) + int(number), f"index {part}")


def test_the_best_of_all_are_sorted_together() -> None:
    every = [some_hits(0, [0.9, 0.1, 0.5]), some_hits(1, [0.2, 0.8])]
    merged = merge(every, SearchRequest(k=4, sort="-item_id"), ["a", "b"], [0, 8])
    assert [(hit.item_id, hit.rank) for hit in merged] == [("1-1", 2), ("1-0", 4), ("0-2", 3), ("0-0", 1)]
    assert merged.row_ids.tolist() == [9, 8, 2, 0]


RUN = "from twinlens.console import run; from twinlens.commands.serve_ray import serve_ray; run(serve_ray)"


def test_without_ray_the_error_is_one_line_with_the_way_to_get_it(whole: Path, home: Path) -> None:
    # None in sys.modules makes an import fail as if the package were absent.
    code = f"import sys; sys.modules['ray'] = None; {RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(whole)], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'pip install ".[cpu,ray]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_importing_it_loads_neither_ray_nor_torch(home: Path) -> None:
    code = "import sys, twinlens.commands.serve_ray; sys.exit(bool({'ray', 'torch', 'starlette'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=home, check=False).returncode == 0
