"""JSON bodies: whatever stands in them, an answer or one clear line, and never a fault of the server."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_index import Served

from searcher.request import OPTIONS

SURE = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = {"Content-Type": "application/json"}
NAMES = ["text", "item", "vector", "collection", "direction", "image", "query", "queries", "cursor", *OPTIONS]
VECTOR = json.dumps([1.0] * 48)


def posted(server: Served, body: bytes | str) -> httpx.Response:
    return server.post(
        "/search", content=body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body, headers=JSON
    )


def clear(answer: httpx.Response) -> str:
    """Return the message of an answer that must be an error of the caller, on one line."""
    assert answer.status_code in (400, 404, 413, 422), (answer.status_code, answer.text)
    assert answer.text.count("\n") == 1
    assert set(answer.json()) == {"error"}
    message: str = answer.json()["error"]
    assert 10 < len(message) <= 600
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"text": "red", "text": "blue"}', "'text' stands in one object twice"),
        ('{"vector": ' + VECTOR + ', "k": 3, "k": 3}', "'k' stands in one object twice"),
        ('{"text": "red", "x": {"a": 1, "a": 2}}', "'a' stands in one object twice"),
        ('{"text": "red", "k": NaN}', "NaN is no number"),
        ('{"text": "red", "k": Infinity}', "Infinity is no number"),
        ('{"text": "red", "k": -Infinity}', "-Infinity is no number"),
        ('{"vector": [NaN]}', "NaN is no number"),
        ('{"text": "red", "k": 1e999}', "k=inf"),
        ('{"text": "red", "k": 1e308}', "k=1e+308"),
        ('{"text": "red", "k": ' + "9" * 400 + "}", "k="),
        ('{"text": "red", "k": ' + "9" * 5_000 + "}", "no JSON"),
        ('{"text": "red", "k": -0}', "k=0"),
        ('{"text": "red", "ann_recall": 1e-400}', "ann_recall=0.0"),
        ('{"text": "red", "exact": 1}', "exact=1"),
        ('{"text": "red", "columns": {"a": 1}}', "columns="),
        ('{"text": "red", "where": ["width > 1"]}', "where="),
        ('{"text": ["red"]}', "text="),
        ('{"text": {"red": 1}}', "text="),
        ('{"item": 7}', "item=7"),
        ('{"vector": [[' + "1," * 47 + "1]]}", "vector="),
        ('{"vector": [' + "1," * 47 + '"1"]}', "vector="),
        ('{"vector": [' + "1," * 47 + "true]}", "vector="),
        ('{"vector": [' + "1," * 47 + "null]}", "vector="),
        ('{"vector": [' + "1," * 47 + "1" * 400 + "]}", "vector"),
        ('{"vector": [' + "1," * 47 + "-1e999]}", "finite"),
        ('{"vector": [' + "0," * 120_000 + "1]}", "100,000 numbers"),
        ('{"text": "red", "x": [' + "[]," * 400_000 + "[]]}", "too many lists"),
        ("{" + ",".join(f'"{n}": 1' for n in range(250_000)) + "}", "too many lists or values"),
        ('{"text": "red", "x": ' + "[" * 5_000 + "]" * 5_000 + "}", ""),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" * 2_000_000, "nested too deeply"),
        ("[" * 9_000, "nested too deeply"),
        ('"text"', "type str"),
        ("3", "type int"),
        ("\ufeff", "no JSON"),
        ('{"text": "a\x00b\n"}', "no JSON"),
        ('{"t\\u0065xt": "red", "text": "red"}', "twice"),
        ('{"text": "red"} {"text": "red"}', "no JSON"),
        ('{"\ud800": 1}', "no parameter"),
        ('{"\\ud800\\n\\u001b": 1}', "no parameter"),
    ],
)
def test_what_json_allows_and_a_search_does_not_is_said(server: Served, body: str, said: str) -> None:
    assert said in clear(posted(server, body))


@pytest.mark.parametrize("given", ['"k": 3.0', '"k": "3"', '"k": 3, "where": null, "into": null', '"k": 30e-1'])
def test_a_number_may_be_spelt_as_json_spells_it(server: Served, given: str) -> None:
    for text in ("red", "a\\u0000b"):
        answer = posted(server, f'{{"text": "{text}", {given}}}')
        assert len(answer.json()["hits"]) == 3


def test_a_body_of_many_small_lists_is_refused_before_it_fills_the_memory(server: Served) -> None:
    started = time.monotonic()
    answer = posted(server, b'{"vector": [' + b"[]," * 5_000_000 + b"[]]}")
    assert answer.status_code == 413
    assert "4194304 bytes" in clear(answer)
    assert time.monotonic() - started < 5


def test_the_longest_vector_is_read(server: Served) -> None:
    body = json.dumps({"vector": [-1.2345678901234567e-100] * 100_000})
    assert "takes (n, 48)" in clear(posted(server, body))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_json_may_come_in_any_of_its_encodings(server: Served, encoding: str) -> None:
    answer = posted(server, '{"text": "a blue square ☃", "k": 1}'.encode(encoding))
    assert answer.json()["query"] == {"kind": "text", "text": "a blue square ☃"}


SCALARS = st.one_of(
    st.sampled_from(
        ["null", "true", "false", "NaN", "Infinity", "-Infinity", "-0", "1e999", "1E-999", "0.0", "1e2", VECTOR]
    ),
    st.integers().map(str),
    st.integers(min_value=1, max_value=6_000).map(lambda digits: "7" * digits),
    st.floats(allow_nan=False).map(repr),
    st.text(max_size=20).map(json.dumps),
    st.sampled_from(["images", "texts", "text_to_image", "width > 1", "red", "blue/0002.png", "1", "true"]).map(
        json.dumps
    ),
)


def joined(texts: list[str], signs: str) -> str:
    return signs[0] + ",".join(texts) + signs[1]


def objects(values: st.SearchStrategy[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(names.map(json.dumps), values).map(":".join)
    return st.lists(pairs, max_size=6).map(lambda texts: joined(texts, "{}"))


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=60).map(lambda texts: joined(texts, "[]")) | objects(inner, st.text(max_size=5))
    ),
    max_leaves=60,
)
NESTED = st.integers(min_value=1, max_value=30_000).map(lambda depth: "[" * depth + "]" * depth)


@SURE
@given(body=objects(VALUES | NESTED, st.sampled_from(NAMES)))
def test_no_json_of_the_schemas_names_is_a_fault(server: Served, body: str) -> None:
    answer = posted(server, body)
    assert answer.status_code == 200 or clear(answer)


PARTS = objects(SCALARS, st.sampled_from(["text", "item", "image", "vector", "weight", "collection", "modality"]))
QUERIES = st.lists(PARTS, max_size=4).map(lambda texts: joined(texts, "[]"))


@settings(SURE, max_examples=20)
@given(query=QUERIES, other=QUERIES, cursor=SCALARS)
def test_no_parts_or_queries_are_a_fault(server: Served, query: str, other: str, cursor: str) -> None:
    for body in (f'{{"query":{query},"cursor":{cursor}}}', f'{{"queries":[{{"query":{query}}},{{"query":{other}}}]}}'):
        answer = posted(server, body)
        assert answer.status_code == 200 or clear(answer)


@st.composite
def nearly_right(draw: Any) -> str:
    """A search that would be answered, with one value or the text of it changed."""
    right: dict[str, Any] = {"text": "red", "k": 3, "into": "images", "where": "width > 1", "exact": True}
    right |= {"ann_recall": 0.9, "nprobe": 2, "oversample": 4, "columns": ["width"]}
    parts = {name: json.dumps(value) for name, value in right.items()}
    parts[draw(st.sampled_from(sorted(parts)))] = draw(VALUES)
    text = joined([f'"{name}":{value}' for name, value in parts.items()], "{}")
    if draw(st.booleans()):
        return text
    start = draw(st.integers(min_value=0, max_value=len(text)))
    return text[:start] + draw(st.text(max_size=3)) + text[start + draw(st.integers(min_value=0, max_value=3)) :]


@SURE
@given(body=nearly_right())
def test_no_search_that_is_nearly_right_is_a_fault(server: Served, body: str) -> None:
    answer = posted(server, body)
    assert answer.status_code == 200 or clear(answer)
