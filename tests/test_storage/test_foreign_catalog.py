"""A catalog from elsewhere may hold tables alone: nothing in it runs by being opened."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from small_index import tables

from storage.catalog import Catalog, write_catalog
from storage.errors import CorruptIndexError

DEEP = ";".join(f"CREATE VIEW v{n} AS SELECT 1 AS x FROM v{n - 1} AS a, v{n - 1} AS b" for n in range(1, 11))
FOREIGN = {
    "a view, 'more'": "CREATE VIEW more AS SELECT 1",
    "a view, 'v0'": f"CREATE VIEW v0 AS SELECT 1 AS x; {DEEP}",
    "a view, 'rejected'": "DROP TABLE rejected; CREATE VIEW rejected AS WITH RECURSIVE x AS "
    "(SELECT 1 AS n UNION ALL SELECT n FROM x) SELECT * FROM x",
    "a macro, 'abs'": "CREATE MACRO abs(x) AS 5",
    "a macro, 'rows'": "CREATE MACRO rows() AS TABLE SELECT 1",
    # Each of these would hide what the file holds from whoever asks for it by its bare name.
    "a macro, 'duckdb_functions'": "CREATE MACRO duckdb_functions() AS TABLE "
    "SELECT 'none' AS function_name, 'none' AS database_name WHERE false",
    "a macro, 'current_database'": "CREATE MACRO current_database() AS 'none'",
    "system": "CREATE SCHEMA system",
    "a sequence, 'counter'": "CREATE SEQUENCE counter",
    "an index, 'widths'": "CREATE INDEX widths ON images (width)",
    "a type, 'mood'": "CREATE TYPE mood AS ENUM ('a', 'b')",
    "a schema, 'other'": "CREATE SCHEMA other; CREATE TABLE other.images AS FROM images",
    "a constraint, 'images'": "ALTER TABLE images ALTER COLUMN item_id SET NOT NULL",
    "a computed column, 'extra'": "ALTER TABLE images ADD COLUMN extra DOUBLE DEFAULT random()",
    "a table, 'other'": "CREATE TABLE other (x INTEGER)",
    "images": "ALTER TABLE images ALTER COLUMN width TYPE VARCHAR",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_catalog(tmp_path / "c.duckdb", **tables(5))
    return tmp_path / "c.duckdb"


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_plain_table_of_ours_is_refused_and_not_run(path: Path, what: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(FOREIGN[what])
    with pytest.raises(CorruptIndexError, match=what) as caught:
        Catalog.open(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_has_been_opened_is_looked_at_again_once_it_has_changed(path: Path) -> None:
    Catalog.open(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE MACRO abs(x) AS 5")
    with pytest.raises(CorruptIndexError, match="a macro, 'abs'"):
        Catalog.open(path)


def test_a_generated_column_is_refused(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE copy AS FROM rejected; DROP TABLE rejected")
        connection.execute("CREATE TABLE rejected (item_id VARCHAR, collection VARCHAR AS (upper(item_id)))")
        connection.execute("DROP TABLE copy")
    with pytest.raises(CorruptIndexError, match="a computed column, 'collection'"):
        Catalog.open(path)


def test_the_same_tables_written_by_anybody_are_read(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE copy AS FROM images; DROP TABLE images; ALTER TABLE copy RENAME TO images")
    with Catalog.open(path) as catalog:
        assert catalog.filter_rows("images", "width >= 30").tolist() == [3, 4]
