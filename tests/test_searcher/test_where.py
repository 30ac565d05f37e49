"""Filters let through what Python lets through; hostile ones are refused or harmless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searcher import FilterError, Searcher
from searcher.errors import ParameterError
from storage.store import IndexStore
from storage.where import ALLOWED_FUNCTIONS

Row = dict[str, Any]

SAME: dict[str, Callable[[Row], Any]] = {
    "width >= 80": lambda row: row["width"] >= 80,
    "width >= 80 -- the large ones": lambda row: row["width"] >= 80,
    "/* the large ones */ WIDTH >= 80": lambda row: row["width"] >= 80,
    '"width" < 50 or "height" < 50': lambda row: row["width"] < 50 or row["height"] < 50,
    "width * height > 6000 and stars in (1, 2)": lambda row: (
        row["width"] * row["height"] > 6000 and row["stars"] in (1, 2)
    ),
    "stars between 2 and 4": lambda row: 2 <= row["stars"] <= 4,
    "not (stars = 3)": lambda row: row["stars"] != 3,
    "owner is null": lambda row: row["owner"] is None,
    "owner = 'O''Neil 1'": lambda row: row["owner"] == "O'Neil 1",
    "caption like 'a red %'": lambda row: row["caption"].startswith("a red "),
    "caption ilike '%BOAT%'": lambda row: "boat" in row["caption"],
    "starts_with(caption, 'a blue')": lambda row: row["caption"].startswith("a blue"),
    "length(caption) > 30": lambda row: len(row["caption"]) > 30,
    "regexp_matches(caption, 'sky|wall')": lambda row: "sky" in row["caption"] or "wall" in row["caption"],
    "split_part(uri, '.', 1)::integer % 7 = 0": lambda row: int(row["uri"].split(".")[0]) % 7 == 0,
    "case when stars > 3 then width > 60 else height > 60 end": lambda row: (
        row["width"] > 60 if row["stars"] > 3 else row["height"] > 60
    ),
    "coalesce(owner, 'nobody') = 'nobody'": lambda row: row["owner"] is None,
    "list_contains([1, 5], stars)": lambda row: row["stars"] in (1, 5),
    "true": lambda row: True,
    "1 = 0": lambda row: False,
}


def rows_of(corpus: Any) -> list[Row]:
    return [{**row, "stars": n % 6, "owner": f"O'Neil {n % 3}" if n % 5 else None} for n, row in enumerate(corpus.rows)]


@pytest.mark.parametrize("where", SAME)
def test_a_filter_lets_through_what_python_lets_through(
    searcher: Searcher, corpus: Any, oracle: Any, where: str
) -> None:
    passing = [n for n, row in enumerate(rows_of(corpus)) if SAME[where](row)]
    hits = searcher.text_to_image("a red door", 400, where=where)
    oracle.check(hits, corpus.images, corpus.encoder.encode_texts(["a red door"])[0], 400, passing)
    assert hits.ann["filtered_rows"] == len(passing)


numbers = st.tuples(
    st.sampled_from(["width", "height", "stars"]), st.sampled_from(["<", "<=", "=", "<>", ">"]), st.integers(0, 120)
)
words = st.tuples(
    st.just("owner"), st.sampled_from(["=", "<>"]), st.text(max_size=5).filter(lambda text: "\0" not in text)
)
conditions = st.recursive(
    st.one_of(numbers, words), lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner), max_leaves=6
)


def as_sql(condition: Any) -> str:
    left, operator, right = condition
    if operator in ("and", "or"):
        return f"({as_sql(left)} {operator} {as_sql(right)})"
    value = "'" + right.replace("'", "''") + "'" if isinstance(right, str) else right
    return f"{left} {operator} {value}"


def as_truth(condition: Any, row: Row) -> bool | None:
    """SQL's logic of three values."""
    left, operator, right = condition
    if operator in ("and", "or"):
        sides = [as_truth(left, row), as_truth(right, row)]
        deciding = operator == "or"
        return deciding if deciding in sides else None if None in sides else not deciding
    if row[left] is None:
        return None
    value = row[left]
    return {"<": value < right, "<=": value <= right, "=": value == right, "<>": value != right, ">": value > right}[
        operator
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conditions)
def test_any_filter_lets_through_what_python_lets_through(searcher: Searcher, corpus: Any, condition: Any) -> None:
    ids, _ = searcher.search_vectors("images", corpus.images[0], 320, where=as_sql(condition))
    passing = {f"img-{n}" for n, row in enumerate(rows_of(corpus)) if as_truth(condition, row)}
    assert {item_id for item_id in ids[0] if item_id} == passing


REFUSED = {
    "wdith >= 640": "names no column 'wdith'; do you mean width",
    'caption = "dog"': "names no column 'dog'; values stand in single quotes",
    "rowid = 1": "names no column 'rowid'",
    "images.width > 1": "names no column 'images.width'",
    "main.images.width > 1": "names no column 'main.images.width'",
    "today() > '2020-01-01'": "may not call 'today': .*; do you mean current_date, without parentheses",
    "current_date.x = 1": "names no column 'current_date.x'",
    "within_km(width, 1, 2)": "within_km takes five values",
    "within_km(1, 2, 95, 4, 5)": "has 95 for a latitude; give degrees from -90 to 90",
    "within_km(1, 2, 3, 4, '5')": "has a text for a distance",
    "within_km(1, 2, 3, 4, if(within_km(1, 2, 3, 4, 5), 1, 2))": "stands within another one",
    "main.within_km(1, 2, 3, 4, 5)": "may not call 'within_km'",
    "current_user = 'x'": "names no column 'current_user'",
    "width > 'wide'": "cannot be used: Conversion Error",
    "cast(width as nosuchtype) = 1": "cannot be used: Catalog Error",
    "'/etc/passwd'": "cannot be used: Conversion Error",
    "": "is empty; give a condition",
    " \n ": "is empty; give a condition",
    "--": "must be one whole expression",
    "width >": "is not SQL",
    "width > 1)": "is not SQL",
    "width > 1) -- ": "is not SQL",
    "width > 1) or (1 = 1": "must be one whole expression",
    "false) or coalesce(true": "is not SQL|one whole expression",
    "width, height": "must be one whole expression",
    "width > 1 /* ": "is not SQL",
    "1; drop table images": "is not SQL",
    "1; --": "is not SQL",
    "1 union select 1": "is not SQL",
    "1 order by 1": "is not SQL",
    "1 limit 1": "is not SQL",
    "1 group by 1": "is not SQL",
    "1 qualify true": "is not SQL",
    "1 window w as ()": "is not SQL",
    "width := 1": "is not SQL",
    "distinct width": "is not SQL",
    "exists (select 1)": "may not use a subquery",
    "width = (select max(width) from images)": "may not use a subquery",
    "width in (from texts)": "may not use a subquery",
    "width = any (select 1)": "may not use a subquery",
    "(values (1))": "may not use a subquery",
    "(from read_text('/etc/passwd')) is null": "may not use a subquery",
    "array(select 1) = [1]": "may not use a subquery",
    "row_number() over () = 1": "may not use a window function",
    "width = ?": "may not use a parameter",
    "width = $1": "may not use a parameter",
    "width = $width": "may not use a parameter",
    "* = 1": "may not use a star expression",
    "columns('w.*') > 1": "may not use a star expression",
    "unpack(columns(*)) = 1": "may not use a star expression",
    "#1 = 1": "may not use a column by position",
    "default": "may not use the word DEFAULT",
    "width -> width = 1": "may not use a lambda",
    "grouping(width) = 1": "GROUPING_FUNCTION",
    "count(*) > 1": "may not call 'count_star'",
    "sum(width) > 1": "may not call 'sum'",
    "unnest([1]) = 1": "may not call 'unnest'",
    "list_filter([1], lambda x: x > 1) = [1]": "may not call 'list_filter'",
    "[x for x in [1]] = [1]": "may not call 'list_apply'",
    "read_text('/etc/passwd') is null": "may not call 'read_text'",
    "glob('/*') is null": "may not call 'glob'",
    "getenv('HOME') = 'x'": "may not call 'getenv'",
    "current_setting('threads') = 1": "may not call 'current_setting'",
    "getvariable('x') = 1": "may not call 'getvariable'",
    "nextval('s') = 1": "may not call 'nextval'",
    "query('select 1') = 1": "may not call 'query'",
    "json_execute_serialized_sql('x') is null": "may not call 'json_execute_serialized_sql'",
    "write_log('x') is null": "may not call 'write_log'",
    "error('x')": "may not call 'error'",
    "sleep_ms(100000) = 1": "may not call 'sleep_ms'",
    "random() > 0.5": "may not call 'random'",
    "repeat('x', 1000000000) = 'x'": "may not call 'repeat'",
    "range(1000000000) is null": "may not call 'range'",
    "replace(caption, 'a', 'aaaaaaaaaa') = ''": "may not call 'replace'",
    "system.main.abs(width) > 1": "may not call 'abs'",
    "abs(distinct width) > 1": "may not call 'abs'",
    "list_sun([1]) = 1": "do you mean list_sum",
    "width\0 = 1": "no NUL",
    "\ud800 = 1": "is not Unicode text",
    "+".join(["width"] * 100) + " > 1": "deeper than 32",
    "not " * 3000 + "true": "cannot be parsed|is not SQL|deeper than",
    "(" * 5000 + "1" + ")" * 5000: "cannot be parsed|is not SQL|whole expression",
    "width in (" + "1," * 6000 + "1)": "larger than 5000 parts",
    "width = 1 or " * 5000 + "true": "give at most 50000",
    f"damerau_levenshtein('{'a' * 24900}', '{'b' * 24900}') > 1": "a value of 24900 characters",
    f"width = {'1' * 5000}": "a value of 5000 characters",
    f"owner{'.a' * 6000} = 'x'": "a column by 6001 parts",
    f"owner{'.a' * 60}.lower() = 'x'": "may not call 'lower'",
    "owner.lower() = 'x'": "may not call 'lower'",
    f"cast(owner as {'a.' * 60}integer) = 1": "names the type",
    "cast(owner as struct(x main.integer)) is null": "names the type 'main.integer'",
}


@pytest.mark.parametrize("where", REFUSED, ids=lambda where: where[:40])
def test_what_is_no_condition_on_columns_is_refused_in_one_line(searcher: Searcher, where: str) -> None:
    with pytest.raises(FilterError, match=REFUSED[where]) as caught:
        searcher.text_to_image("red", where=where)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_refused_filter_lists_the_columns(searcher: Searcher) -> None:
    with pytest.raises(FilterError, match=r"there are: row_id, item_id, uri, caption, width, .*, stars, owner$"):
        searcher.text_to_image("red", where="star > 3")


def test_a_filter_that_is_no_text_is_refused(searcher: Searcher) -> None:
    with pytest.raises(ParameterError, match="where is 3, of type int; give a text or None"):
        searcher.text_to_image("red", where=3)  # type: ignore[arg-type]


def test_python_variables_cannot_be_read(searcher: Searcher) -> None:
    secret = np.array([1, 2, 3])
    with pytest.raises(FilterError, match="names no column 'secret'"):
        searcher.text_to_image("red", where="secret = 1")
    assert secret.sum() == 6


def test_hostile_filters_change_nothing(corpus: Any, searcher: Searcher) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.index.rglob("*")}
    for where in REFUSED:
        with pytest.raises(FilterError, match="where"):
            searcher.text_to_image("red", where=where)
    assert {path: path.stat().st_mtime_ns for path in corpus.index.rglob("*")} == before
    assert IndexStore.open(corpus.index).verify().problems == []


def test_no_allowed_function_reaches_outside() -> None:
    words = ("read", "file", "env", "setting", "variable", "query", "sql", "random", "sleep", "log_", "user", "nextval")
    paths = {"parse_filename", "parse_path", "parse_dirname", "parse_dirpath"}  # these only cut texts
    assert [name for name in ALLOWED_FUNCTIONS - paths if any(word in name for word in words)] == []


def test_a_filter_with_no_rows_gives_no_hits(searcher: Searcher) -> None:
    assert len(searcher.text_to_image("red", where="width > 100000")) == 0
    assert searcher.text_to_image(["red", "blue"], where="false")[1].hits == ()


def test_a_filter_is_evaluated_once(corpus: Any, searcher: Searcher) -> None:
    rows = searcher._ranker.filters.rows("images", "width > 60")
    assert searcher._ranker.filters.rows("images", "width > 60") is rows
    assert not rows.flags.writeable
    for number in range(40):
        searcher._ranker.filters.rows("images", f"width > {number}")
    assert searcher._ranker.filters.rows("images", "width > 60") is not rows


def test_a_filter_that_asks_the_clock_is_evaluated_again_in_another_minute(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters, where = searcher._ranker.filters, "current_timestamp > TIMESTAMP '2020-01-01'"
    monkeypatch.setattr("searcher.filters.time.time", lambda: 600.0)
    rows = filters.rows("images", where)
    assert filters.rows("images", where) is rows
    assert ("images", where) in filters
    monkeypatch.setattr("searcher.filters.time.time", lambda: 660.0)
    assert ("images", where) not in filters
    assert filters.rows("images", where) is not rows


def test_texts_are_filtered_by_their_own_columns(searcher: Searcher, corpus: Any) -> None:
    hits = searcher.image_to_text(corpus.picture(0), 5, where="caption like '%boat%'")
    assert all("boat" in (hit.caption or "") for hit in hits)
    with pytest.raises(FilterError, match="names no column 'width'"):
        searcher.image_to_text(corpus.picture(0), 5, where="width > 3")


def test_no_file_is_opened_by_a_filter(searcher: Searcher, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with pytest.raises(FilterError, match="where"):
        searcher.text_to_image("red", where=f"true) ; copy images to '{target}' --")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["part = 3", "part < 8", "part <> 5 and row_id % 3 = 0"])
def test_narrow_and_wide_filters_on_an_approximate_index_hold(
    wide: Searcher, wide_vectors: np.ndarray, oracle: Any, where: str
) -> None:
    numbers = np.arange(len(wide_vectors))
    passing = {
        "part = 3": numbers % 10 == 3,
        "part < 8": numbers % 10 < 8,
        "part <> 5 and row_id % 3 = 0": (numbers % 10 != 5) & (numbers % 3 == 0),
    }[where]
    found = 0
    for query in wide_vectors[:40]:
        hits = wide.text_to_image(query, 10, where=where)
        assert passing[hits.row_ids].all()
        assert len(hits) == 10
        best = np.sort(oracle.scores(wide_vectors, query)[passing])[-10:]
        found += int((hits.scores >= best[0] - 1e-6).sum())
    assert found >= 0.95 * 400
