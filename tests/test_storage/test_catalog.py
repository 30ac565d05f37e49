from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import tables

from storage.catalog import RESERVED_NAMES, Catalog, restored_keyboard_interrupt, write_catalog
from storage.errors import CorruptIndexError, DuplicateItemError, SearchParameterError, StorageError

ROWS = 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "catalog.duckdb"
    write_catalog(path, **tables(ROWS))
    return path


@pytest.fixture(scope="module")
def catalog(path: Path) -> Catalog:
    return Catalog.open(path)


def write_changed(path: Path, name: str, table: pa.Table) -> None:
    write_catalog(path, **{**tables(ROWS), name: table})


def with_column(name: str, values: pa.Array) -> pa.Table:
    return tables(ROWS)["images"].append_column(name, values)


def test_nothing_lies_beside_the_written_file(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == ["catalog.duckdb"]


@pytest.mark.parametrize("name", ["images", "texts", "pairs", "rejected"])
def test_a_table_comes_back_as_it_was_written(catalog: Catalog, name: str) -> None:
    assert catalog.table(name).to_pydict() == tables(ROWS)[name].to_pydict()  # type: ignore[arg-type]
    assert catalog.counts[name] == tables(ROWS)[name].num_rows


def test_columns_have_names_and_types_with_metadata_last(catalog: Catalog) -> None:
    assert catalog.columns("texts")[:2] == [("row_id", "BIGINT"), ("item_id", "VARCHAR")]
    assert catalog.columns("images")[-1] == ("Year", "BIGINT")


def test_rows_come_in_the_order_asked_with_duplicates(catalog: Catalog) -> None:
    found = catalog.rows("images", np.array([7, 2, 7]), ["Year", "item_id"])
    assert found == [
        {"Year": 2007, "item_id": "item_id-7"},
        {"Year": 2002, "item_id": "item_id-2"},
        {"Year": 2007, "item_id": "item_id-7"},
    ]
    assert list(catalog.rows("texts", [1])[0]) == ["row_id", "item_id", "uri", "caption", "sha256", "split"]
    assert catalog.rows("texts", []) == []


def test_an_unknown_column_or_row_is_named(catalog: Catalog) -> None:
    with pytest.raises(SearchParameterError, match="images have no column 'year2'; they have row_id, item_id"):
        catalog.rows("images", [1], ["year2"])
    with pytest.raises(SearchParameterError, match="row id 20 is not in texts, which have rows 0 to 19"):
        catalog.rows("texts", [3, 20])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("width >= 170", [17, 18, 19]),
        ("year = 2003 OR Year IS NULL", [3]),
        ("item_id IN ('item_id-4', 'x') -- a comment", [4]),
        ("caption LIKE '%-1' /* one */ and images.width > 5", [1]),
        ("false", []),
    ],
)
def test_a_predicate_gives_sorted_row_ids(catalog: Catalog, where: str, expected: list[int]) -> None:
    found = catalog.filter_rows("images", where)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_typo_is_answered_with_the_columns_on_one_line(catalog: Catalog) -> None:
    with pytest.raises(
        SearchParameterError, match=r'"widht" not found.*; the columns of images are row_id, .*Year'
    ) as error:
        catalog.filter_rows("images", "widht > 3")
    assert "\n" not in str(error.value)
    with pytest.raises(SearchParameterError, match="cannot be used: Conversion Error"):
        catalog.filter_rows("images", "width > 'wide'")


NO_EXPRESSION = (
    "",
    "  ",
    "width >",
    "width > 1)",
    "width > 1) -- ",
    "1 = 1; DROP TABLE images",
    "true) UNION (SELECT 1",
    "true) ORDER BY (1",
    "true) LIMIT (1",
    "true) GROUP BY (width",
    "true) USING SAMPLE (1",
    "\0",
    "x" * 100_001,
    "true) QUALIFY (true",
    "true) HAVING (true",
    "true); ATTACH 'x' AS (y",
)


@pytest.mark.parametrize("where", NO_EXPRESSION)
def test_what_is_not_one_expression_is_refused(catalog: Catalog, where: str) -> None:
    with pytest.raises(SearchParameterError, match=r"is not a predicate|is not SQL|is not one expression"):
        catalog.filter_rows("images", where)


@settings(max_examples=200, deadline=None)
@given(where=st.text(alphabet="()wa1' \";-/*\n=<>,", max_size=30))
def test_any_text_is_answered_with_rows_or_refused(catalog: Catalog, where: str) -> None:
    try:
        found = catalog.filter_rows("images", where)
    except SearchParameterError:
        return
    assert set(found.tolist()) <= set(range(ROWS))


def test_the_tree_of_a_predicate_is_duckdbs_own(catalog: Catalog) -> None:
    tree = catalog.parse_predicate("width >= 640")
    assert tree["type"] == "COMPARE_GREATERTHANOREQUALTO"
    assert tree["left"]["column_names"] == ["width"]
    assert catalog.parse_predicate("(SELECT 1) = 1")["left"]["class"] == "SUBQUERY"


def test_parentheses_without_end_are_refused(catalog: Catalog) -> None:
    with pytest.raises(SearchParameterError, match=r"is not SQL|cannot be parsed"):
        catalog.parse_predicate("(" * 20_000 + "1" + ")" * 20_000)
    with pytest.raises(SearchParameterError, match=r"cannot be parsed: .*; write a simpler one"):
        catalog.parse_predicate("NOT " * 900 + "true")


SLOW = "1 = (SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = width)"


def test_a_slow_predicate_is_interrupted(catalog: Catalog) -> None:
    with pytest.raises(SearchParameterError, match=r"took longer than 0.2 s; simplify it"):
        catalog.filter_rows("images", SLOW, timeout=0.2)
    assert catalog.filter_rows("images", "width = 0").tolist() == [0]


ESCAPES = (
    "EXISTS (SELECT * FROM read_csv('/etc/passwd'))",
    "EXISTS (SELECT * FROM read_text('/etc/passwd'))",
    "EXISTS (SELECT * FROM '/etc/passwd')",
    "EXISTS (SELECT * FROM glob('/etc/*'))",
    "EXISTS (SELECT * FROM secret)",
    "getenv('HOME') = 'x'",
)


@pytest.mark.parametrize("where", ESCAPES)
def test_a_predicate_reads_neither_files_nor_python_variables(catalog: Catalog, where: str) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(SearchParameterError, match=r"cannot be used: (Permission|Catalog) Error"):
        catalog.filter_rows("images", where)
    assert secret.num_rows == 1


STATEMENTS = (
    "COPY images TO '{}/out.csv'",
    "ATTACH '{}/other.db'",
    "EXPORT DATABASE '{}/out'",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE TABLE x (y INTEGER)",
    "DELETE FROM images",
)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_even_the_connection_itself_can_do_nothing_but_read(catalog: Catalog, tmp_path: Path, statement: str) -> None:
    with pytest.raises(duckdb.Error, match=r"disabled|locked|read-only|cannot|Cannot"):
        catalog._connection.cursor().execute(statement.format(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_many_threads_read_at_once(catalog: Catalog) -> None:
    gate = threading.Barrier(8)

    def read(worker: int) -> bool:
        gate.wait()
        for row in range(ROWS):
            assert catalog.filter_rows("images", f"row_id = {row}").tolist() == [row]
            assert catalog.rows("texts", [row, worker], ["row_id"]) == [{"row_id": row}, {"row_id": worker}]
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_a_file_may_be_open_twice_and_outlives_its_removal(tmp_path: Path) -> None:
    path = tmp_path / "c.duckdb"
    write_catalog(path, **tables(ROWS))
    with Catalog.open(path) as first, Catalog.open(path) as second:
        path.unlink()
        assert first.rows("images", [5], ["Year"]) == second.rows("images", [5], ["Year"])


def test_a_closed_catalog_says_so(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", **tables(2))
    catalog = Catalog.open(tmp_path / "c")
    catalog.close()
    with pytest.raises(StorageError, match="is closed; open the index again"):
        catalog.table("images")


def test_what_is_no_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptIndexError, match=r"c\.duckdb is missing"):
        Catalog.open(tmp_path / "c.duckdb")
    (tmp_path / "c.duckdb").write_bytes(b"x" * 20_000)
    with pytest.raises(CorruptIndexError, match=r"c\.duckdb is not a catalog"):
        Catalog.open(tmp_path / "c.duckdb")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    with pytest.raises(CorruptIndexError, match=r"has columns none in table 'images'"):
        Catalog.open(tmp_path / "other.duckdb")


def test_a_truncated_catalog_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(path.read_bytes()[:300_000])
    with (
        pytest.raises(CorruptIndexError, match=r"c is not a catalog|c cannot be read"),
        Catalog.open(tmp_path / "c") as c,
    ):
        c.table("images")


def test_metadata_of_many_types_comes_back(tmp_path: Path) -> None:
    day = datetime(2020, 1, 2)
    images = with_column("tags", pa.array([["a", "b"]] * ROWS))
    images = images.append_column("kind", pa.array(["x", "y"] * (ROWS // 2)).dictionary_encode())
    images = images.append_column("nothing", pa.nulls(ROWS)).append_column('odd "name"', pa.array([day] * ROWS))
    images = images.append_column("half", pa.array(np.ones(ROWS, dtype=np.float16)))
    write_changed(tmp_path / "c", "images", images)
    with Catalog.open(tmp_path / "c") as catalog:
        (row,) = catalog.rows("images", [1], ["tags", "kind", "nothing", 'odd "name"', "half"])
        assert list(row.values()) == [["a", "b"], "y", None, day, 1.0]
        assert catalog.filter_rows("images", "kind = 'a word it has not'").tolist() == []
        where = 'list_contains(tags, \'a\') AND "odd ""name""" > \'2020-01-01\''
        assert catalog.filter_rows("images", where).size == ROWS


def test_own_columns_are_brought_to_their_types(tmp_path: Path) -> None:
    texts = tables(ROWS)["texts"]
    texts = texts.set_column(1, "item_id", texts.column("item_id").cast(pa.large_string()))
    write_changed(tmp_path / "c", "texts", texts.set_column(5, "split", pa.nulls(ROWS)))
    with Catalog.open(tmp_path / "c") as catalog:
        assert ("split", "VARCHAR") in catalog.columns("texts")


@pytest.mark.parametrize("name", ["ROW_ID", "Caption", "rowid", "Width"])
def test_a_metadata_column_may_not_have_a_name_of_ours(tmp_path: Path, name: str) -> None:
    assert name.lower() in RESERVED_NAMES
    with pytest.raises(StorageError, match=f"metadata column '{name}' of 'images' has a name of Twinlens's own"):
        write_changed(tmp_path / "c", "images", with_column(name, pa.nulls(ROWS)))


def test_a_catalog_may_lack_a_column_that_came_later_and_no_other(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", **tables(ROWS))
    with duckdb.connect(str(tmp_path / "c")) as connection:
        connection.execute("ALTER TABLE images DROP COLUMN lens")
    with Catalog.open(tmp_path / "c") as catalog:
        assert "lens" not in dict(catalog.columns("images"))
    with duckdb.connect(str(tmp_path / "c")) as connection:
        connection.execute("ALTER TABLE images DROP COLUMN mtime_ns")
    with pytest.raises(CorruptIndexError, match=r"in table 'images' where .*mtime_ns BIGINT.* are expected"):
        Catalog.open(tmp_path / "c")


def test_a_column_of_the_user_may_be_called_like_one_that_came_later(tmp_path: Path) -> None:
    images = tables(ROWS)["images"].drop_columns(["rating", "title"])
    images = images.append_column("title", pa.array([f"title {row}" for row in range(ROWS)]))
    write_changed(tmp_path / "c", "images", images.append_column("Rating", pa.array(["good"] * ROWS)))
    with Catalog.open(tmp_path / "c") as catalog:
        assert dict(catalog.columns("images"))["Rating"] == "VARCHAR"
        assert catalog.filter_rows("images", "rating = 'good' AND title = 'title 1'").tolist() == [1]


def test_metadata_names_are_told_apart_without_case(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'Year' and 'YEAR' of 'images' differ only in case"):
        write_changed(tmp_path / "c", "images", with_column("YEAR", pa.nulls(ROWS)))
    with pytest.raises(StorageError, match="is called ''; give it a name"):
        write_changed(tmp_path / "c", "images", with_column("", pa.nulls(ROWS)))


def test_a_wrong_table_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = tables(ROWS)
    with pytest.raises(StorageError, match=r"table 'pairs' of the catalog lacks the columns \['text_row'\]"):
        write_changed(tmp_path / "c", "pairs", given["pairs"].select(["image_row"]))
    with pytest.raises(StorageError, match=r"no room for the columns \['more'\]"):
        write_changed(tmp_path / "c", "pairs", given["pairs"].append_column("more", pa.nulls(ROWS)))
    with pytest.raises(StorageError, match="column 'width' of 'images' is string and cannot become int32"):
        write_changed(tmp_path / "c", "images", given["images"].set_column(4, "width", pa.array(["wide"] * ROWS)))
    assert list(tmp_path.iterdir()) == []


def test_row_ids_count_from_zero_and_every_item_has_an_id(tmp_path: Path) -> None:
    images = tables(ROWS)["images"]
    with pytest.raises(StorageError, match="row ids of 'images' do not count from 0 to 19 in order"):
        write_changed(tmp_path / "c", "images", images.take(pa.array(range(ROWS - 1, -1, -1))))
    ids = pa.array([None if row == 4 else str(row) for row in range(ROWS)])
    with pytest.raises(StorageError, match="row 4 of 'images' has no item_id"):
        write_changed(tmp_path / "c", "images", images.set_column(1, "item_id", ids))


@pytest.mark.parametrize("row", [-1, ROWS, None])
def test_a_pair_names_rows_that_exist(tmp_path: Path, row: int | None) -> None:
    pairs = pa.table({"image_row": pa.array([row], pa.int64()), "text_row": pa.array([0], pa.int64())})
    with pytest.raises(StorageError, match="as image_row; there are 20 such rows"):
        write_changed(tmp_path / "c", "pairs", pairs)


def test_an_item_id_seen_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    ids = pa.array(["same" if row in (3, 11) else str(row) for row in range(ROWS)])
    with pytest.raises(DuplicateItemError, match="item_id 'same' stands for rows 3 and 11 of texts"):
        write_changed(tmp_path / "c", "texts", tables(ROWS)["texts"].set_column(1, "item_id", ids))


def test_a_catalog_is_written_once(path: Path) -> None:
    with pytest.raises(StorageError, match="exists already"):
        write_catalog(path, **tables(2))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*nowhere/c"):
        write_catalog(tmp_path / "nowhere" / "c", **tables(2))


def test_what_reads_a_catalog_takes_little_memory(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c.duckdb", **tables(3))
    with Catalog.open(tmp_path / "c.duckdb") as catalog, catalog._cursor() as cursor:
        (limit,) = cursor.execute("SELECT current_setting('memory_limit')").fetchone() or ("",)
        assert re.fullmatch(r"5\d\d\.\d MiB", limit), limit
    with (
        Catalog.open(tmp_path / "c.duckdb") as catalog,
        pytest.raises(StorageError, match="takes more memory to read than it may"),
        catalog._cursor() as cursor,
    ):
        cursor.execute("SELECT list(range) FROM range(200_000_000)")


def test_ctrl_c_during_a_query_is_a_keyboard_interrupt(catalog: Catalog) -> None:
    """DuckDB's own words for it; that it says them is seen where whole builds are interrupted."""
    with pytest.raises(KeyboardInterrupt), catalog._cursor():
        raise RuntimeError("Query interrupted")
    assert len(catalog.item_ids("images", 0, ROWS)) == ROWS, "it goes on working"


def test_other_errors_of_a_query_stay_what_they_are() -> None:
    told = "reading the schema of the object registered as 'source' failed: KeyboardInterrupt: "
    with pytest.raises(KeyboardInterrupt), restored_keyboard_interrupt():
        raise duckdb.InvalidInputException(told)
    with pytest.raises(duckdb.Error, match="no such column"), restored_keyboard_interrupt():
        raise duckdb.BinderException("no such column")
    with pytest.raises(RuntimeError, match="something else"), restored_keyboard_interrupt():
        raise RuntimeError("something else")
