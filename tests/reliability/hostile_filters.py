"""Filters written to read, write, wait or break out, in every way that DuckDB's SQL might offer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Functions of a table that read a file, a folder, a database, the settings or the process.
READERS = (
    "read_text", "read_blob", "read_csv", "read_csv_auto", "sniff_csv", "read_json", "read_json_auto",
    "read_json_objects", "read_ndjson", "read_ndjson_auto", "read_ndjson_objects", "read_parquet", "parquet_scan",
    "parquet_metadata", "parquet_schema", "parquet_file_metadata", "parquet_kv_metadata", "parquet_bloom_probe",
    "glob", "read_xlsx", "st_read", "st_read_meta", "sqlite_scan", "postgres_scan", "postgres_query", "mysql_scan",
    "iceberg_scan", "iceberg_metadata", "delta_scan", "arrow_scan", "arrow_scan_dumb", "pandas_scan", "python_scan",
    "read_duckdb", "read_avro", "lance_scan", "excel_scan", "seq_scan", "query", "query_table",
)  # fmt: skip
# Functions of the database and of the process.
INSIDE = (
    "duckdb_settings", "duckdb_secrets", "duckdb_databases", "duckdb_extensions", "duckdb_functions", "duckdb_logs",
    "pragma_database_list", "pragma_storage_info", "pragma_platform", "pragma_user_agent", "which_secret",
    "duckdb_temporary_files", "duckdb_memory", "checkpoint", "force_checkpoint", "test_all_types", "repeat_row",
    "summary", "duckdb_log_contexts", "enable_logging", "disable_logging", "set_log_level", "truncate_duckdb_logs",
)  # fmt: skip
SCALARS = (
    "getenv('HOME')", "current_setting('temp_directory')", "getvariable('x')", "current_database()", "current_user()",
    "pg_read_file('{file}')", "lo_import('{file}')", "load_file('{file}')", "readfile('{file}')", "version()",
    "nextval('s')", "currval('s')", "txid_current()", "in_search_path('main', 'x')", "write_log('x')", "error('x')",
    "sleep_ms(60000)", "random()", "uuid()", "gen_random_uuid()", "setseed(0.5)", "repeat('x', 1000000000)",
    "range(1000000000)", "generate_series(1, 1000000000)", "lpad('x', 1000000000, 'y')", "rpad('x', 1000000000, 'y')",
    "json_execute_serialized_sql('{{}}')", "json_serialize_sql('select 1')", "query('select 1')",
    "query_table('images')",
    "array_agg(n)", "string_agg(s)", "list_aggregate([1], 'sum')", "list_reduce([1], (x, y) -> x)", "unnest([1])",
    "add_parquet_key('k', 'v')", "vector_type(n)", "stats(n)", "can_cast_implicitly(n, 'x')", "hash(n)",
    "format('{{:>1000000000}}', s)", "printf('%1000000000d', n)", "bitstring('1', 1000000000)",
    "regexp_replace(s, '(a*)*b', '')",
)  # fmt: skip
# What stands after a closing parenthesis, and what is tried inside one.
BREAKOUTS = (
    "1) UNION SELECT 1 FROM read_text('{file}') WHERE (1", "1); COPY images TO '{new}'; --",
    "1); COPY images TO '{new}",
    "1; COPY (SELECT 1) TO '{new}'", "1) OR (SELECT count(*) FROM read_text('{file}')) > 0 --",
    "1); DROP TABLE images; --",
    "1); ATTACH '{new}' AS x; --", "1); INSTALL httpfs; --", "1); LOAD '{file}'; --", "1); PRAGMA enable_profiling; --",
    "1); SET lock_configuration = false; --", "1); RESET ALL; --", "1); EXPORT DATABASE '{new}'; --",
    "1); IMPORT DATABASE '{folder}'; --", "1); CALL pragma_version(); --", "1); CREATE TABLE x AS FROM '{file}'; --",
    "1); CREATE SECRET (TYPE s3); --", "1); DELETE FROM images; --", "1); UPDATE images SET n = 1; --",
    "1); INSERT INTO images SELECT * FROM images; --", "1); DETACH main; --", "1); USE temp; --", "1); VACUUM; --",
    "1); CHECKPOINT; --", "1); EXPLAIN ANALYZE SELECT 1; --", "1); BEGIN; --", "1); PREPARE p AS SELECT 1; --",
    "1); CREATE MACRO abs(x) AS (SELECT * FROM read_text('{file}')); --", "1) ORDER BY (1", "1) LIMIT (1",
    "1) GROUP BY (1",
    "1) WINDOW w AS (PARTITION BY 1", "1) QUALIFY (1", "1) USING SAMPLE (1", "1) INTERSECT SELECT (1",
    "1) EXCEPT SELECT (1",
    "1)) OR ((1", "(1", "1)", "')", "'", '"', "$$", "$a$ x", "/*", "*/", "--", "-- \n", "\\", "\\'; --", "%00",
    "1\u2028; --",
    "1\u037e COPY images TO '{new}'", "1 /* */ ; -- ", "1;;", ";", "1 -- \n) UNION SELECT 1 WHERE (1", "E'\\x27; --'",
    "n = 1 AND '{file}'", "FROM '{file}'", "(FROM '{file}')", "(TABLE '{file}')", "(SELECT * FROM '{file}')",
    "(SELECT * FROM '{folder}/*')", "(SUMMARIZE '{file}')", "(DESCRIBE '{file}')", "(PIVOT images ON n)",
    "(SHOW TABLES)",
    "(WITH x AS (SELECT 1) SELECT * FROM x)",
    "(WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT 1 FROM x) SELECT 1 FROM x)",
    "(VALUES (1))", "EXISTS (FROM '{file}')", "n IN (FROM '{file}')", "n = ANY (FROM '{file}')",
    "n > ALL (FROM '{file}')",
    "'{file}'.images.n = 1", '"{file}" = 1', '"{file}".n = 1', "main.images.n = 1", "images.n = 1", "temp.x = 1",
    "information_schema.tables.x = 1", "system.main.abs(n) = 1", "n::nosuchtype = 1", "n = ?", "n = $1", "n = $name",
    "n = @x", "#1 = 1", "* = 1", "columns('.*') = 1", "columns(*) is null", "unpack(columns(*)) = 1", "default = 1",
    "x -> x = 1", "list_filter([1], x -> x > 0) = [1]", "[x for x in [1]] = [1]", "{{'a': n}}.a.b = 1", "rowid = 1",
    "row_number() over () = 1", "count(*) > 1", "sum(n) over () > 1", "max(n) filter (where true) > 1",
    "grouping(n) = 1",
    "cast('{file}' as blob) is null and n", "n collate nosuch = 1", "n at time zone 'x' = 1", "interval '1' day = n",
    "struct_pack(a := 1).a = 1", "current_timestamp = 1", "current_date is null", "session_user = 'x'", "n = n.n.n.n",
    "__import__('os')", "os.system('true')", "hostile = 1", "Path = 1", "secret = 1", "locals() = 1", "\ud800 = 1",
    "\0 = 1",
)  # fmt: skip


def hostile(folder: Path) -> list[str]:
    """Return all of them; `folder` holds a file to read, and nothing may be written there."""
    places = {"file": folder / "secret.csv", "new": folder / "written", "folder": folder}
    return list(dict.fromkeys(form.replace("{{", "{").replace("}}", "}") for form in _forms(places)))


def _forms(places: dict[str, Path]) -> Iterator[str]:
    for name in READERS:
        call = f"{name}('{places['file']}')"
        yield from (f"{call} is null", f"exists (select 1 from {call})", f"n in (select 1 from {call})")
        yield f"{name}('{places['folder']}/*') is not null or true"
    for name in INSIDE:
        yield from (f"{name}() is null", f"exists (from {name}())")
    for form in (*SCALARS, *BREAKOUTS):
        filled = form
        for key, path in places.items():
            filled = filled.replace("{" + key + "}", str(path))
        yield filled if form in BREAKOUTS else f"{filled} is null"
    yield from ("not " * 3000 + "true", "(" * 5000 + "1" + ")" * 5000, "+".join(["n"] * 20000) + " > 1")
    yield from ("n in (" + "1," * 6000 + "1)", "n = 1 or " * 5000 + "true", "'" + "x" * 200000 + "' = s")
