"""Random filters for DuckDB: most of them valid, by the signatures of its own functions, the rest wild.

A valid one is grown from the type that is wanted: a function that gives it, each argument of the type that its
signature asks for, down to columns and values. Texts go up to the longest that a filter may hold.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from storage.where import ALLOWED_FUNCTIONS

LONGEST_TEXT = 4_000
WILD = 0.1  # share of filters whose arguments are of any type

# The columns of the index that these filters are for, by type.
COLUMNS: Mapping[str, Sequence[str]] = {
    "VARCHAR": ("item_id", "caption", "uri", "notes"),
    "INTEGER": ("width", "height"),
    "BIGINT": ("row_id", "amount"),
    "DOUBLE": ("price",),
    "TIMESTAMP": ("taken",),
}
# Lists are stored as texts of JSON.
_LISTS = {"VARCHAR[]": "string_split(notes, ' ')", "BIGINT[]": "TRY_CAST(numbers AS BIGINT[])"}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_NUMBERS = (*_INTEGERS, "UHUGEINT", "BIGNUM", "FLOAT", "DOUBLE", "DECIMAL")
_TIMES = (
    *("DATE", "TIME", "TIME_NS", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ_NS"),
    *("TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE"),
)
_ANY = ("VARCHAR", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP", "BOOLEAN", "VARCHAR[]", "BIGINT[]", "JSON", "INTERVAL")
_PATTERNS = ("(a+)+$", "(a|b)*c", "dog|beach", "^.*x.*y.*z$", ".", "(.{1,50}){1,20}", "\\d+", "[^a-z]", "(?i)MAN", "")
_PIECES = ("a", "ab ", "dog ", "é", "日本", "/a.b", "👨\u200d👩", "ﷺ", "a\u0301", "0", "[", '{"a":[', "2020-01-01 ")
_MOMENTS = (
    *("'2020-02-29 12:34:56.789'", "'1677-09-22 00:00:00'", "taken", "to_timestamp(width)"),
    *("current_date", "current_timestamp"),
)
# Values for parameters that take certain texts alone, by their names.
_NAMED: Mapping[str, Sequence[str]] = {
    "part": ("'year'", "'day'", "'millennium'", "'microsecond'", "'week'", "'isoyear'"),
    "part_list": ("['year', 'day']", "['hour']"),
    "format": ("'%Y-%m-%d'", "'%A %d %B'", f"'{'%B' * 2000}'"),
    "format-list": ("['%Y', '%d.%m.%Y']",),
    "options": ("'i'", "'s'", "'c'"),
    "sort_order": ("'ASC'", "'DESC'"),
    "null_order": ("'NULLS FIRST'", "'NULLS LAST'"),
    "timezone": ("'Europe/Zurich'", "'UTC'"),
    "escape_character": ("'!'",),
    "name_list": ("['a']", "['a', 'b']"),
    "like_specifier": ("'%a%b%c%'", f"'{'%a' * 2000}'", "'a!%b'", "caption"),
    "pattern": ("'%a%b%c%'", f"'{'a%' * 2000}'", f"'{'_' * 4000}'", "'*[a-c]*'", "caption"),
    "regex": (*(f"'{pattern}'" for pattern in _PATTERNS), f"'{'(a|b)' * 800}'", f"'{'a?' * 1000 + 'a' * 1000}'"),
    "separator": ("' '", "'/'", "''", "'a'"),
    "trim_extension": ("true", "false"),
    "entry": ("'b'",),
    "needle": ("'[1]'", "'{\"a\": 1}'"),
    "group": ("0", "1"),
}


# Macros, whose types DuckDB does not list, and functions that give the type of a field.
_UNTYPED: Mapping[str, tuple[Sequence[str], str]] = {
    "date_add": (("DATE", "INTERVAL"), "TIMESTAMP"),
    "split_part": (("VARCHAR", "VARCHAR", "BIGINT"), "VARCHAR"),
    "fdiv": (("DOUBLE", "DOUBLE"), "DOUBLE"),
    "if": (("BOOLEAN", "T", "T"), "T"),
    "nullif": (("T", "T"), "T"),
    "list_count": (("T[]",), "BIGINT"),
    **{f"list_{name}": (("DOUBLE[]",), "DOUBLE") for name in ("avg", "median", "sum")},
    **{f"list_{name}": (("T[]",), "T") for name in ("any_value", "first", "last", "max", "min")},
}


@dataclass(frozen=True)
class Signature:
    """One way to call a function: names and types of its arguments, the type of any further ones, and what it gives."""

    function: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    further: str | None
    gives: str


# No function of DuckDB's.
_WITHIN_KM = Signature("within_km", ("latitude", "longitude", "of", "place", "km"), ("DOUBLE",) * 5, None, "BOOLEAN")


def signatures() -> list[Signature]:
    """Return every signature of every function that a filter may use, as DuckDB lists them."""
    columns = "function_name, parameters, parameter_types, varargs, return_type"
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT DISTINCT {columns} FROM duckdb_functions() ORDER BY ALL").fetchall()
    found = [
        Signature(name, tuple(names), tuple(one or "ANY" for one in types), further, gives or "ANY")
        for name, names, types, further, gives in rows
        if name in ALLOWED_FUNCTIONS
    ]
    return [*(_typed(one) for one in found), _WITHIN_KM]


def _typed(signature: Signature) -> Signature:
    if signature.function in ("struct_extract", "concat", "||") and signature.gives == "ANY":
        return replace(signature, gives="VARCHAR")
    if signature.function not in _UNTYPED:
        return signature
    types, gives = _UNTYPED[signature.function]
    return replace(signature, types=tuple(types), gives=gives)


class RandomFilters:
    """Gives the filter of a seed, always the same."""

    def __init__(self) -> None:
        self._all = signatures()
        self._giving: dict[str, list[Signature]] = defaultdict(list)
        by_function: dict[str, list[Signature]] = defaultdict(list)
        for one in self._all:
            self._giving[_erased(one.gives)].append(one)
            by_function[one.function].append(one)
        self._by_function = list(by_function.values())  # a function with many signatures is tried no more than another

    def filter(self, seed: str) -> str:
        """Return one condition."""
        rng = random.Random(seed)
        depth = rng.choice((1, 1, 2, 2, 2, 3, 4, 6))
        if rng.random() < WILD:
            return f"{_Wild(rng, self._all).value(depth)} IS NOT NULL"
        return _Valid(rng, self._giving).condition(rng.choice(rng.choice(self._by_function)), depth)


class _Valid:
    def __init__(self, rng: random.Random, giving: Mapping[str, Sequence[Signature]]) -> None:
        self.rng = rng
        self.giving = giving

    def condition(self, signature: Signature, depth: int) -> str:
        call = self.call(signature, {}, depth)
        return self.rng.choice(
            (f"{call} IS NOT NULL", f"({call})::VARCHAR > 'a'", f"length(({call})::VARCHAR) > 3", f"{call} = {call}")
        )

    def call(self, signature: Signature, bound: dict[str, str], depth: int) -> str:
        """A call, its free types bound to any that fit."""
        names, types = list(signature.names), list(signature.types)
        if signature.further:
            more = self.rng.choice((1, 2, 2, 3, 40))
            names, types = [*names, *["more"] * more], [*types, *[signature.further] * more]
        bound = {name: self.rng.choice(_ANY[:5]) for name in "TKV"} | {"ANY": self.rng.choice(_ANY)} | bound
        deep = self.rng.randrange(len(types)) if types else 0  # one argument is nested as far as the filter may be
        depths = [
            depth - 1 if number == deep else min(depth - 1, self.rng.randrange(2)) for number in range(len(types))
        ]
        parts = [
            self.argument(name, _substituted(kind, bound), below)
            for name, kind, below in zip(names, types, depths, strict=True)
        ]
        if signature.function == "struct_pack":
            return "struct_pack(" + ", ".join(f"f{n} := {part}" for n, part in enumerate(parts)) + ")"
        return f'"{signature.function}"({", ".join(parts)})'

    def argument(self, name: str, kind: str, depth: int) -> str:
        if name in _NAMED and (name not in ("path", "format") or kind == "VARCHAR"):
            return self.rng.choice(_NAMED[name])
        if name == "path" and self.rng.random() < 0.7:
            paths = ("'$..*'", "'$.a[0].b'", "'$'", "'/a/b'", f"'$.{'a.' * 1000}a'", f"'${'[0]' * 1000}'")
            return self.rng.choice(paths) if kind == "VARCHAR" else "['$.a', '$.b[0]']"
        if name == "index" and self.rng.random() < 0.9:
            return "2"
        return self.value(kind, depth)

    def value(self, kind: str, depth: int) -> str:
        giving = self.providers(kind) if depth > 0 else []
        if giving and self.rng.random() < 0.9:
            signature = self.rng.choice(giving)
            return self.call(signature, {signature.gives: kind} if signature.gives in ("T", "ANY") else {}, depth)
        return self.leaf(kind)

    def providers(self, kind: str) -> list[Signature]:
        """What gives a value of a type: functions of that type, and those that give the type of their arguments."""
        generic = [one for one in self.giving["ANY"] if one.gives in ("T", "ANY")] if kind in _ANY else []
        return [*self.giving[kind], *generic]

    def leaf(self, kind: str) -> str:
        if kind.startswith("MAP("):
            key, value = kind[4:-1].split(", ")
            return f"map([{self.leaf(key)}], [{self.leaf(value)}])"
        if kind.endswith("[]") and kind not in _OTHERS:
            return "[" + ", ".join(self.leaf(kind[:-2]) for _ in range(self.rng.choice((1, 2, 3)))) + "]"
        if kind in _LISTS and self.rng.random() < 0.5:
            return _LISTS[kind]
        if kind in COLUMNS and self.rng.random() < 0.5:
            return self.rng.choice(COLUMNS[kind])
        if kind in _NUMBERS:
            return self.number(kind)
        if kind in _TIMES:
            return f"TRY_CAST({self.rng.choice(_MOMENTS)} AS {kind})"
        return _OTHERS[kind](self.rng) if kind in _OTHERS else _text(self.rng)

    def number(self, kind: str) -> str:
        if self.rng.random() < 0.5:
            return f"TRY_CAST({self.rng.choice(('width', 'height', 'row_id', 'price', 'amount'))} AS {kind})"
        wide = ("-1", "1000000000", "9223372036854775807") if kind in ("BIGINT", "DOUBLE", "HUGEINT") else ()
        return f"{self.rng.choice(('0', '1', '2', '3', '17', '100', *wide))}::{kind}"


def _text(rng: random.Random) -> str:
    kind = rng.randrange(8)
    if kind <= 1:
        return "(" + " || ".join([rng.choice(COLUMNS["VARCHAR"])] * rng.choice((1, 2, 12))) + ")"
    return "'" + (rng.choice(_PIECES) * LONGEST_TEXT)[: rng.choice((1, 5, 50, 500, LONGEST_TEXT))] + "'"


def _json(rng: random.Random) -> str:
    depth = rng.choice((1, 3, 300, 1300))
    whole = rng.choice(
        (
            '{"a": [1, {"b": "x"}]}',
            '{"a":' * depth + "1" + "}" * depth if depth < 600 else "[" * depth + "]" * depth,
            "[" + ", ".join(["1"] * depth) + "]",
        )
    )
    return f"'{whole}'::JSON"


def _list(parts: Sequence[str], lengths: Sequence[int]) -> Callable[[random.Random], str]:
    return lambda rng: "[" + ", ".join(rng.choice(parts) for _ in range(rng.choice(lengths))) + "]"


_OTHERS: Mapping[str, Callable[[random.Random], str]] = {
    "BOOLEAN": lambda rng: rng.choice(("true", "false", "width > 5")),
    "INTERVAL": lambda rng: rng.choice(("interval 3 day", "interval 5 month", "to_days(width)", "to_seconds(price)")),
    "JSON": _json,
    "BIT": lambda rng: f"'{'01' * rng.choice((1, 30, 2000))}'::BIT",
    "BLOB": lambda rng: f"'{'ab' * rng.choice((1, 30, 2000))}'::BLOB",
    "BIGINT[]": _list(("1", "width", "row_id", "NULL", "-5"), (1, 10, 1000)),
    "VARCHAR[]": _list(("'a'", "item_id", "caption", "NULL", "notes"), (1, 10, 300)),
    "STRUCT": lambda _: "{'a': width, 'b': notes}",
    'STRUCT("year" BIGINT, "month" BIGINT, "day" BIGINT)': lambda _: "{'year': height, 'month': 2, 'day': 3}",
    "TUPLE": lambda _: "row(width, notes)",
}


def _erased(kind: str) -> str:
    return kind if re.fullmatch(r"[A-Z_ ]+(\[\])*", kind) and kind not in ("T", "K", "V") else "ANY"


def _substituted(kind: str, bound: Mapping[str, str]) -> str:
    """The type with its free names bound; a map or a struct with named fields is given as a value of that form."""
    return re.sub(r"\b(T|K|V|ANY)\b", lambda found: bound[found.group()], kind)


class _Wild:
    """Calls of any functions with arguments of any type and number."""

    def __init__(self, rng: random.Random, known: Sequence[Signature]) -> None:
        self.rng = rng
        self.known = known

    def value(self, depth: int) -> str:
        if depth == 0:
            return self.leaf()
        count = self.rng.choice((0, 1, 1, 2, 2, 3, 4, 40))
        parts = [self.value(depth - 1) if number == 0 else self.leaf() for number in range(count)]
        return f'"{self.rng.choice(self.known).function}"({", ".join(parts)})'

    def leaf(self) -> str:
        numbers = ("0", "-1", "1e308", "9223372036854775807", "NULL", "true", "item_id.a.a", "interval 3 day")
        return self.rng.choice((*numbers, *COLUMNS["VARCHAR"], _text(self.rng), _OTHERS["BIGINT[]"](self.rng)))
