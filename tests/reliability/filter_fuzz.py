"""Random filters against plain Python, and hostile ones that must open no file."""

from __future__ import annotations

import json
import operator
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile_filters import hostile
from shim import read_record
from warm import Job, Warm

from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher.filters import Filters
from storage import IndexStore

Row = dict[str, Any]
Truth = Callable[[Row], Any]
ROWS = 240
KINDS = {"n": pa.int64(), "m": pa.int32(), "x": pa.float64(), "s": pa.string(), "t": pa.string(), "b": pa.bool_()}
WORDS = (
    "cat",
    "Cat",
    "a dog",
    "",
    "O'Neil",
    "50%",
    "under_score",
    "日本",
    "ünï",
    "a\nb",
    "zebra",
    "  ",
    "-- x",
    "/* y",
)


def facts() -> list[Row]:
    """Metadata of every kind, a fifth of it missing."""
    chance = random.Random(1)
    return [fact(chance) for _ in range(ROWS)]


def fact(chance: random.Random) -> Row:
    """Metadata of one row, by the columns of `KINDS`."""

    def maybe(value: Any) -> Any:
        return None if chance.random() < 0.2 else value

    return {
        "n": maybe(chance.randrange(0, 12)),
        "m": maybe(chance.randrange(-40, 40)),
        "x": maybe(chance.randrange(-8, 8) / 4),
        "s": maybe(chance.choice(WORDS)),
        "t": maybe(chance.choice(WORDS)),
        "b": maybe(chance.random() < 0.5),
    }


def build(folder: Path) -> Path:
    """Build an index whose images have these facts."""
    vectors = np.random.default_rng(0).standard_normal((ROWS, 4))
    np.save(folder / "v.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    pq.write_table(pa.Table.from_pylist(facts(), pa.schema(list(KINDS.items()))), folder / "facts.parquet")
    files = EmbeddingFiles(vectors=folder / "v.npy", table=folder / "facts.parquet")
    build_index(EmbeddingSource(EmbeddingOptions(images=files)), folder / "index")
    return folder / "index"


def predicates(count: int, seed: int) -> Iterator[tuple[str, Truth]]:
    """Random filters, each as SQL and as a function that gives True, False or None for a row."""
    chance = random.Random(seed)
    for _ in range(count):
        yield condition(chance, chance.randrange(4))


def differing(index: Path, count: int, seed: int) -> list[str]:
    """Return the filters that let other rows through than Python does."""
    rows, wrong = facts(), []
    with IndexStore.open(index).open_version() as version:
        filters = Filters(version.catalog)
        for sql, truth in predicates(count, seed):
            expected = [number for number, row in enumerate(rows) if truth(row) is True]
            if filters.rows("images", sql).tolist() != expected:
                wrong.append(sql)
    return wrong


def condition(chance: random.Random, depth: int) -> tuple[str, Truth]:
    """A comparison, or conditions joined by and, or, not."""
    if depth == 0:
        return chance.choice((compared, compared, listed, between, missing, likened, flagged, cased))(chance)
    left, left_truth = condition(chance, depth - 1)
    kind = chance.choice(("and", "or", "not", "is"))
    if kind == "not":
        return f"not ({left})", lambda row: negation(left_truth(row))
    if kind == "is":
        known = chance.choice(("true", "false", "not true", "not false"))
        wanted, same = known.endswith("true"), not known.startswith("not")
        return f"({left}) is {known}", lambda row: (left_truth(row) is wanted) == same
    right, right_truth = condition(chance, chance.randrange(depth))
    deciding = kind == "or"
    return f"({left}) {kind} ({right})", lambda row: joined(left_truth(row), right_truth(row), deciding)


def negation(value: bool | None) -> bool | None:
    """SQL's not."""
    return None if value is None else not value


def joined(left: bool | None, right: bool | None, deciding: bool) -> bool | None:
    """SQL's and, or: the deciding value wins over one that is not known."""
    return deciding if deciding in (left, right) else None if None in (left, right) else not deciding


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def number(chance: random.Random) -> tuple[str, Truth]:
    """A number of a row, or a sum of such."""
    name = chance.choice(("n", "m", "x"))
    kind = chance.randrange(5)
    if kind == 0:
        addend = chance.randrange(-5, 6)
        return f"{name} + ({addend})", lambda row: None if row[name] is None else row[name] + addend
    if kind == 1:
        return f"abs({name})", lambda row: None if row[name] is None else abs(row[name])
    if kind == 2:
        return f"coalesce({name}, 3)", lambda row: 3 if row[name] is None else row[name]
    if kind == 3:
        return "length(s)", lambda row: None if row["s"] is None else len(row["s"])
    return name, lambda row: row[name]


def text(chance: random.Random) -> tuple[str, Truth]:
    """A text of a row, as it is or changed."""
    name = chance.choice("st")
    kind = chance.choice(("lower", "upper", "trim", "", "", ""))
    changes: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "upper": str.upper,
        "trim": lambda value: value.strip(" "),
        "": str,
    }
    return f"{kind}({name})", lambda row: None if row[name] is None else changes[kind](row[name])


def operand(chance: random.Random) -> tuple[str, Truth, Callable[[], Any]]:
    """A side of a comparison, and what gives values to compare it with."""
    if chance.random() < 0.5:
        return (*number(chance), lambda: chance.choice((chance.randrange(-9, 13), chance.randrange(-8, 8) / 4)))
    return (*text(chance), lambda: chance.choice(WORDS))


def compared(chance: random.Random) -> tuple[str, Truth]:
    sql, value, other = operand(chance)
    sign, limit = chance.choice(list(COMPARISONS)), other()
    return f"{sql} {sign} {_sql(limit)}", _known(value, lambda found: COMPARISONS[sign](found, limit))


def listed(chance: random.Random) -> tuple[str, Truth]:
    sql, value, other = operand(chance)
    wanted = [other() for _ in range(chance.randrange(1, 5))]
    sql_list = ", ".join(map(_sql, wanted))
    if chance.random() < 0.5:
        return f"{sql} in ({sql_list})", _known(value, lambda found: found in wanted)
    return f"{sql} not in ({sql_list})", _known(value, lambda found: found not in wanted)


def between(chance: random.Random) -> tuple[str, Truth]:
    sql, value, other = operand(chance)
    low, high = other(), other()
    return f"{sql} between {_sql(low)} and {_sql(high)}", _known(value, lambda found: low <= found <= high)


def missing(chance: random.Random) -> tuple[str, Truth]:
    name = chance.choice(("n", "m", "x", "s", "t", "b"))
    if chance.random() < 0.5:
        return f"{name} is null", lambda row: row[name] is None
    return f"{name} is not null", lambda row: row[name] is not None


def likened(chance: random.Random) -> tuple[str, Truth]:
    sql, value = text(chance)
    pattern = "".join(chance.choice(("%", "_", "a", "c", "d", "o", "t", "日", "'")) for _ in range(chance.randrange(5)))
    how = chance.choice(("like", "not like", "starts_with", "contains"))
    expression = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern)
    matching = re.compile(expression, re.DOTALL)
    tests: dict[str, Callable[[str], bool]] = {
        "like": lambda found: matching.fullmatch(found) is not None,
        "not like": lambda found: matching.fullmatch(found) is None,
        "starts_with": lambda found: found.startswith(pattern),
        "contains": lambda found: pattern in found,
    }
    written = f"{sql} {how} {_sql(pattern)}" if "like" in how else f"{how}({sql}, {_sql(pattern)})"
    return written, _known(value, tests[how])


def flagged(chance: random.Random) -> tuple[str, Truth]:
    if chance.random() < 0.5:
        return "b", lambda row: row["b"]
    return "b = false", lambda row: negation(row["b"])


def cased(chance: random.Random) -> tuple[str, Truth]:
    test, truth = compared(chance)
    yes, yes_truth = compared(chance)
    no, no_truth = compared(chance)
    return f"case when {test} then {yes} else {no} end", lambda row: (yes_truth if truth(row) else no_truth)(row)


def _sql(value: float | str) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else f"({value})"


def _known(value: Truth, test: Callable[[Any], bool]) -> Truth:
    return lambda row: None if (found := value(row)) is None else test(found)


def attacked(warm: Warm, index: Path, folder: Path) -> dict[str, Any]:
    """Ask every hostile filter in a process whose every opened file is recorded, and say what became of them."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    strings, record = warm.folder / "hostile.json", warm.folder / "opened"
    strings.write_text(json.dumps(hostile(folder)), encoding="utf-8")
    told: list[str] = warm.told(Job(do="filters", index=index, arguments=(str(strings), str(record))))
    opened = [f"{call.name} /{call.path}" for call in read_record(record, Path("/"))]
    seen = sum(str(strings) in line for line in opened)
    assert seen >= 2, f"the record is blind: {opened}"  # the last two were opened to see that
    opened = [line for line in opened if str(strings) not in line]
    outcomes = Counter(one.split(" ")[0] for one in told)
    return {
        "hostile filters": sum(outcomes.values()),
        "refused": outcomes["refused"],
        "harmless": outcomes["rows"],
        "escaped": outcomes["escaped"],
        "files opened": len(opened),
        "opened": opened,
        "changed": sorted(str(p) for p in folder.rglob("*") if before.get(p) != p.stat().st_mtime_ns),
        "told": told,
    }
