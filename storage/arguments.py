"""Arguments of public functions and fields of options, checked against what their annotations say."""

from __future__ import annotations

import ast
import functools
import os
import reprlib
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np

from .errors import TwinlensError

_BUILT_IN = (str, bytes, int, float, list, tuple, dict, set, NoneType)
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


def check_arguments(of: Callable[..., Any], given: Mapping[str, Any], error: Callable[[str], Exception]) -> None:
    """Raise `error` for the first value that is not of the type annotated; it names the value and what is expected.

    Numbers may be NumPy's, `tuple[X, ...]` may be any list, and `str | Path` is a path, without NUL. What an annotation
    says in words that are not known here, such as an array's, is not looked at.

    Args:
        of: A function, or a dataclass; its annotations are texts, as `from __future__ import annotations` leaves them.
        given: Values by name, such as `locals()` at the start of the function, or `vars(self)`.
        error: What to raise, from a message.
    """
    for name, kind in _kinds(of).items():
        if name in given and not kind.fits(given[name]):
            value = given[name]
            shown = " ".join(_SHOWN.repr(value).split())
            typed = "" if type(value) in kind.types else f", of type {type(value).__name__}"
            raise error(f"{name} is {shown}{typed}; {'choose' if kind.types else 'give'} {kind.words}")


def check_fields(options: Any, error: Callable[[str], Exception]) -> None:
    """Check the fields of a frozen dataclass by `check_arguments`, from its `__post_init__`; paths become a `Path`."""
    kind: Callable[..., Any] = type(options)
    defaults = _defaults(kind)
    check_arguments(kind, {name: it for name, it in vars(options).items() if it is not defaults.get(name, ...)}, error)
    for name in _path_fields(kind):
        if isinstance(given := getattr(options, name), str | os.PathLike):
            object.__setattr__(options, name, Path(given))


def exits_as_typed_wrong(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Give whatever error a `__post_init__` raises the exit code 2: options that cannot be were typed wrong."""

    @functools.wraps(check)
    def checked(options: Any) -> None:
        try:
            check(options)
        except TwinlensError as error:
            error.exit_code = 2
            raise

    return checked


@dataclass(frozen=True)
class _Kind:
    """What is expected, as a test and in words; `types` are those of the choices, where there are any."""

    fits: Callable[[Any], bool]
    words: str
    types: frozenset[type] = frozenset()


@functools.cache
def _kinds(of: Callable[..., Any]) -> dict[str, _Kind]:
    kinds: dict[str, _Kind] = {}
    for owner in _owners(of):
        names = vars(sys.modules[owner.__module__])
        for name, text in getattr(owner, "__annotations__", {}).items():
            kinds[name] = _kind(str(text), names)
    kinds.pop("return", None)
    return kinds


@functools.cache
def _defaults(kind: Any) -> dict[str, Any]:
    """The defaults of a dataclass, which need no check: most of the many options of a search are left at theirs."""
    return {field.name: field.default for field in fields(kind)}


def _owners(of: Callable[..., Any]) -> list[Any]:
    return [one for one in reversed(of.__mro__) if one is not object] if isinstance(of, type) else [of]


@functools.cache
def _path_fields(kind: Callable[..., Any]) -> tuple[str, ...]:
    annotations = ChainMap(*(vars(one).get("__annotations__", {}) for one in _owners(kind)))
    return tuple(name for name, text in annotations.items() if {*str(text).split(" | ")} <= {"Path", "None"})


def _kind(text: str, names: Mapping[str, Any]) -> _Kind:
    """Read an annotation; one with a part that is not known fits everything."""
    parts = _flat(ast.parse(text, mode="eval").body)
    is_path = any(isinstance(part, ast.Name) and part.id == "Path" for part in parts)
    kinds = [_PATH if is_path and ast.unparse(part) in ("str", "Path") else _alternative(part, names) for part in parts]
    known = [kind for kind in dict.fromkeys(kinds) if kind is not None]
    if None in kinds:
        return _Kind(lambda _: True, "")
    words = ", ".join(kind.words for kind in known[:-1]) + (" or " if len(known) > 1 else "") + known[-1].words
    types = frozenset[type]().union(*(kind.types for kind in known))
    return _Kind(lambda value: any(kind.fits(value) for kind in known), words, types)


def _flat(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [*_flat(node.left), *_flat(node.right)]
    return [node]


def _alternative(node: ast.expr, names: Mapping[str, Any]) -> _Kind | None:
    text = ast.unparse(node)
    if text in _PLAIN:
        return _PLAIN[text]
    if isinstance(node, ast.Subscript):
        return _subscript(node, names)
    if isinstance(node, ast.Name) and text not in names:
        return _object(text)  # imported for its type alone
    return _resolved(names.get(text))


def _subscript(node: ast.Subscript, names: Mapping[str, Any]) -> _Kind | None:
    of = ast.unparse(node.value)
    if of == "Literal":
        choices = ast.literal_eval(node.slice)
        return _choice(choices if isinstance(choices, tuple) else (choices,))
    if of in ("Callable", "Mapping"):
        return _FUNCTION if of == "Callable" else _MAPPING
    if of not in ("tuple", "Sequence", "list"):
        return None
    first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
    several = not isinstance(node.slice, ast.Tuple) or ast.unparse(node.slice.elts[-1]) == "..."
    part = _kind(ast.unparse(first), names) if several else _Kind(lambda _: True, "")
    return _Kind(
        lambda value: _is_list(value) and all(part.fits(one) for one in value),
        "a list" + (f", each of it {part.words}" if part.words else ""),
    )


def _resolved(value: Any) -> _Kind | None:
    """What a name of the module stands for: choices, several types, or a class."""
    if get_origin(value) is Literal:
        return _choice(get_args(value))
    if get_origin(value) is Callable:
        return _FUNCTION
    if value is Any or not isinstance(value, type):
        return None
    if getattr(value, "_is_protocol", False):
        return _object(value.__name__)
    return _Kind(lambda given: isinstance(given, value), _with_article(value.__name__))


def _object(name: str) -> _Kind:
    """An object of a class that cannot be asked for: any that is of none of Python's own types."""
    return _Kind(lambda given: not isinstance(given, _BUILT_IN), _with_article(name))


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _choice(values: Sequence[Any]) -> _Kind:
    types = frozenset(type(value) for value in values)
    words = ("one of " if len(values) > 1 else "") + ", ".join(map(str, values))
    return _Kind(lambda given: type(given) in types and given in values, words, types)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and "\0" not in str(value)


def _is_number(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool)


_PATH = _Kind(_is_path, "a path, as a text without NUL or as a Path")
_FUNCTION = _Kind(callable, "a function")
_MAPPING = _Kind(lambda value: isinstance(value, Mapping), "a dict")
_PLAIN = {
    "None": _Kind(lambda value: value is None, "None"),
    "bool": _Kind(lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "bytes": _Kind(lambda value: isinstance(value, bytes), "bytes"),
    "float": _Kind(_is_number(Real), "a number"),
    "int": _Kind(_is_number(Integral), "a whole number"),
    "str": _Kind(lambda value: isinstance(value, str), "a text"),
}
