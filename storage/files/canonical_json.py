"""Canonical JSON for the manifest: frozen dataclasses to the same bytes always, and strictly back."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MAX_INT = 2**63


def to_plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as dicts and lists, and NumPy's scalars as Python's."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


def canonical(value: Any) -> bytes:
    """Return plain values as JSON with sorted keys: equal values give equal bytes.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value is none of JSON's.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def parse(data: bytes) -> Any:
    """Parse JSON; a repeated key, NaN, infinity, too deep a nesting or bytes that are not UTF-8 are a ValueError."""
    try:
        text = data.decode("utf-8", "surrogatepass")
        return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def build(kind: Any, value: Any, path: str) -> Any:
    """Make a value of the annotated type from plain JSON.

    Dataclasses take exactly their fields, integers are in [0, 2^63).

    Raises:
        ValueError: The value does not fit; the message starts with `path`, where the value stands.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _one_of(get_args(kind), value, path)
    if origin in (Union, types.UnionType):
        return _optional(get_args(kind), value, path)
    if origin is tuple:
        return tuple(
            build(get_args(kind)[0], item, f"{path}[{number}]")
            for number, item in enumerate(_exactly(list, value, path))
        )
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(get_args(kind), value, path)
    return _dataclass(kind, value, path) if is_dataclass(kind) else _scalar(kind, value, path)


def _dataclass(kind: Any, value: Any, path: str) -> Any:
    hints = _hints(kind)
    names = {field.name for field in fields(kind)}
    given = set(_exactly(dict, value, path))
    if given != names:
        raise ValueError(f"{path} lacks {sorted(names - given)} and has {sorted(given - names)} unasked")
    return kind(**{name: build(hints[name], value[name], f"{path}.{name}") for name in sorted(names)})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _mapping(arguments: tuple[Any, ...], value: Any, path: str) -> Mapping[Any, Any]:
    key_kind, item_kind = arguments
    return {
        build(key_kind, key, f"{path} key"): build(item_kind, item, f"{path}.{key}")
        for key, item in _exactly(dict, value, path).items()
    }


def _optional(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and types.NoneType in arguments:
        return None
    (kind,) = (argument for argument in arguments if argument is not types.NoneType)
    return build(kind, value, path)


def _scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    value = _exactly(kind, value, path)
    if kind is int and not 0 <= value < _MAX_INT:
        raise ValueError(f"{path} is {value}, which is not in [0, 2^63)")
    return value


def _one_of(allowed: tuple[Any, ...], value: Any, path: str) -> Any:
    if value not in allowed:
        raise ValueError(f"{path} is {value!r}, which is none of {list(allowed)}")
    return value


def _exactly(kind: type[T], value: Any, path: str) -> T:
    # `type() is`: True is an int to isinstance, and no count.
    if type(value) is not kind:
        raise ValueError(f"{path} is {type(value).__name__} and not {kind.__name__}")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
