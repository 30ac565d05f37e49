"""Whatever is sent: a status from 400 to 499 and one clear line of JSON, never 500, and the server goes on."""

from __future__ import annotations

import io
import json
import socket
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from served_index import Served

SURE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(max_size=60)
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}


def clear(answer: Any, *statuses: int) -> str:
    """The message of an answer that must be an error, one line of JSON."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert not statuses or answer.status_code in statuses, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.count("\n") == 1
    assert set(answer.json()) == {"error"}
    message: str = answer.json()["error"]
    assert 10 < len(message) <= 600
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing to search with"),
        ({"text": ""}, "0 characters"),
        ({"text": "   "}, "3 characters"),
        ({"text": "a", "item": "b"}, "one of text, item, image and vector"),
        ({"text": "a", "k": "0"}, "k='0'"),
        ({"text": "a", "k": "-5"}, "k='-5'"),
        ({"text": "a", "k": "ten"}, "k='ten'"),
        ({"text": "a", "k": "1e3"}, "k='1e3'"),
        ({"text": "a", "k": "1001"}, "limit of 1000"),
        ({"text": "a", "k": "9" * 400}, "k="),
        ({"text": "a", "kk": "3"}, "no parameter 'kk'"),
        ({"text": "a", "ann_recall": "nan"}, "ann_recall='nan'"),
        ({"text": "a", "ann_recall": "0"}, "ann_recall='0'"),
        ({"text": "a", "ann_recall": "1.01"}, "ann_recall='1.01'"),
        ({"text": "a", "direction": "up"}, "direction='up'"),
        ({"text": "a", "into": "sounds"}, "into='sounds' must be one of images, texts"),
        ({"text": "a", "into": "texts", "direction": "text_to_image"}, "does not search texts"),
        ({"text": "a", "exact": "maybe"}, "exact='maybe' must be true or false"),
        ({"text": "a", "nprobe": "0"}, "nprobe='0' must be a whole number"),
        ({"text": "a", "columns": "uri, widht"}, "no column 'widht'"),
        ({"vector": "1, 2"}, "must be a list of 1 to 100,000 numbers"),
        ({"item": "blue/0002.png", "direction": "text_to_text"}, "is among the images"),
        ({"item": "x", "collection": "texts", "direction": "image_to_text"}, "does not start from a text"),
        ({"text": "a", "direction": "image_to_image"}, "does not start from a text"),
        ({"text": "a", "collection": "images"}, "says where an item is"),
        ({"item": "no such item"}, "no item 'no such item'"),
        ({"item": "../../../etc/passwd"}, "no item"),
        ({"item": "blue/0002.png", "collection": "texts"}, "no item"),
        ({"text": "a", "where": "widht > 3"}, "do you mean width"),
        ({"text": "a", "where": "1=1; DROP TABLE images"}, "not SQL"),
        ({"text": "a", "where": "item_id IN (SELECT item_id FROM images)"}, "subquery"),
        ({"text": "a", "where": "read_text('/etc/passwd') = ''"}, "may not call"),
        ({"text": "a", "where": "width > 'many'"}, "cannot be used"),
        ({"text": "a", "where": "("}, "not SQL"),
        ({"text": "a", "where": "x" * 60_000}, "where="),
    ],
)
def test_a_search_that_cannot_be_says_why(server: Served, given: dict[str, str], said: str) -> None:
    assert said in clear(
        server.get("/search", params=given) if len(str(given)) < 9_000 else server.post("/search", json=given)
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[1]", "type list"),
        (b"null", "type NoneType"),
        (b"\xff\xfe", "no JSON"),
        (b'{"text": NaN}', "NaN is no number"),
        (b'{"text": 5}', "text=5"),
        (b'{"text": "a", "k": true}', "k=True must be a whole number"),
        (b'{"text": "a", "k": 2.5}', "k=2.5"),
        (b'{"text": "a", "k": ' + b"1" * 5000 + b"}", "no JSON"),
        (b'{"text": "\\ud800"}', "text="),
        (b'{"item": "\\ud800"}', "item="),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"vector": []}', "vector=[]"),
        (b'{"vector": [1, 2, 3]}', "takes (n, 48)"),
        (b'{"vector": "abc"}', "vector='abc'"),
        (json.dumps({"vector": [0] * 48}).encode(), "all zeros"),
        (json.dumps({"vector": [1e308] * 47 + [1]}).encode().replace(b"1e+308", b"1e999"), "finite"),
        (json.dumps({"vector": [1] * 48, "direction": "text_to_sound"}).encode(), "direction="),
        (b'{"image": "/etc/passwd"}', "no parameter 'image'"),
    ],
)
def test_json_that_cannot_be_says_why(server: Served, body: bytes, said: str) -> None:
    assert said in clear(server.post("/search", content=body, headers=JSON))


@pytest.mark.parametrize("kind", ["", "text/html", "application/x-www-form-urlencoded", "what/ever; charset=no"])
def test_a_body_of_another_kind_is_refused_with_the_kinds_there_are(server: Served, kind: str) -> None:
    assert "application/json" in clear(server.post("/search", content=b"x", headers={"Content-Type": kind}), 415)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=a", b""),
        ("multipart/form-data; boundary=a", b"--a"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n"),
        (
            "multipart/form-data; boundary=a; charset=utf-99",
            b'--a\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--a--\r\n',
        ),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b"),
    ],
)
def test_a_broken_form_is_told_so_by_both_who_take_one(server: Served, kind: str, body: bytes) -> None:
    clear(server.post("/search", content=body, headers={"Content-Type": kind}))
    answer = server.post("/", content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500


def test_a_form_of_many_fields_or_files_is_refused(server: Served, folder: Path) -> None:
    data = (folder / "photos/blue/0002.png").read_bytes()
    clear(server.post("/search", files={"image": data}, data={f"f{n}": "1" for n in range(50)}), 400)
    clear(server.post("/search", files=[("image", data), ("image", data)]), 400)
    assert "under the name image" in clear(server.post("/search", files={"picture": data}), 400)
    clear(server.post("/search", files={"image": data}, data={"text": "and words"}), 400)


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = (30_000).to_bytes(4, "big") * 2
    rows = zlib.compress(bytes(3_000_000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 400, "empty"),
        (b"no picture at all", 415, "not_an_image"),
        (b"%PDF-1.7 ...", 415, "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), 400, "corrupt"),
        (b"P6 60000 60000 255 " + bytes(40), 413, "too_many_pixels"),
        (bomb(), 413, "too_many_pixels"),
    ],
)
def test_what_is_no_picture_is_refused_before_it_is_decoded(
    server: Served, data: bytes, status: int, said: str
) -> None:
    assert said in clear(server.post("/search", content=data, headers=PNG), status)
    assert said in clear(server.post("/search", files={"image": ("x.png", data)}), status) if data else True
    page = server.post("/", files={"image": ("x.png", data)}, headers={"Accept": "text/html"})
    assert page.status_code == status
    assert 'role="alert"' in page.text


def test_a_picture_cut_short_is_refused(server: Served, folder: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((200, 200), 60).save(file, "JPEG")
    for share in (3, 2):
        clear(server.post("/search", content=file.getvalue()[: len(file.getvalue()) // share], headers=PNG), 400)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROB"])
@pytest.mark.parametrize("path", ["/search", "/", "/items", "/thumbnails", "/healthz", "/metrics", "/openapi.json"])
def test_a_method_that_a_route_has_not_is_refused(server: Served, method: str, path: str) -> None:
    answer = server.client.request(method, path)
    clear(answer, 405)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/search/",
        "/items/",
        "/items",
        "/thumbnails",
        "/thumbnails?id=",
        "/items?id=%00",
        "/items/%2e%2e/%2e%2e",
        "/thumbnails?id=blue/0002.png&size=huge",
        "/thumbnails?id=blue/0002.png&v=x",
        "/items?id=a&collection=sounds",
        "/static/../cli.py",
        "/static/%2e%2e%2fcli.py",
        "/static/page.html",
        "/images/none",
        "/images/..%2f..%2fx",
        "/items/" + "x" * 20_000,
        "/%ff%fe",
        "/thumbnails/%2Fetc%2Fpasswd",
        "/docs",
        "/redoc",
    ],
)
def test_hostile_addresses_find_nothing(server: Served, path: str) -> None:
    clear(server.get(path), 400, 404, 422)


@SURE
@given(
    parameters=st.dictionaries(st.sampled_from(["text", "item", "k", "where", "ann_recall", "direction", "x"]), TEXT)
)
def test_no_parameters_break_the_search(server: Served, parameters: dict[str, str]) -> None:
    answer = server.get("/search", params=parameters)
    assert answer.status_code == 200 or clear(answer)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(["text", "item", "k", "where", "ann_recall", "direction", "vector", "collection"])


@SURE
@given(body=st.dictionaries(NAMES, VALUES, max_size=4) | VALUES)
def test_no_json_breaks_the_search(server: Served, body: Any) -> None:
    answer = server.post("/search", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code == 200 or clear(answer)


@SURE
@given(where=st.text(alphabet="width<>=()'\"1 ,;-%.*[]{}andorcaption\n\0é", max_size=40))
def test_no_filter_breaks_the_search(server: Served, where: str) -> None:
    answer = server.post("/search", json={"text": "red", "where": where})
    assert answer.status_code == 200 or clear(answer)
    page = server.get("/", params={"q": "red", "where": where})
    assert page.status_code in (200, 400)


@SURE
@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"]),
)
def test_no_bytes_break_the_upload(server: Served, data: bytes, start: bytes) -> None:
    answer = server.post("/search", content=start + data, headers=PNG)
    assert answer.status_code == 200 or clear(answer)


@SURE
@given(
    query=st.text(alphabet=st.characters(codec="utf-8"), max_size=50),
    name=st.sampled_from(["q", "item", "image", "into", "where", "k", "of", "part", "mark", "more", "offset"]),
)
def test_no_address_breaks_the_page(server: Served, query: str, name: str) -> None:
    answer = server.get("/", params={name: query}, follow_redirects=True)
    assert answer.status_code < 500
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.status_code == 200 or 'role="alert"' in answer.text


@SURE
@given(item=st.text(max_size=30))
def test_no_item_id_breaks_the_look_up(server: Served, item: str) -> None:
    safe = item.encode("utf-8", "replace").decode()
    clear(server.get("/items", params={"id": safe}), 404, 422)
    clear(server.get("/thumbnails", params={"id": safe}), 404, 422)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_one_line(server: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        got = b""
        while part := raw.recv(65536):
            got += part
    if got:
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))
        assert head.startswith(b"HTTP/1.1 200") or set(json.loads(body.splitlines()[0])) == {"error"}
    assert server.get("/healthz").status_code == 200
