"""An option of a search, given by name: its type, range and help text, and how a value of it is read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

from .errors import ParameterError
from .query import shown_value


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a value is given by name, on every surface alike.

    Attributes:
        type: `int`, `float`, `bool`, `str`, or `list` for several texts (separated by commas where they come as one).
        help: One sentence for people.
        most: The largest number.
        least: The smallest one; None for 1 of a whole number, and for just above 0 of a fraction.
        choices: The texts that a `str` may be; empty for any.
        hint: What an error adds.
    """

    type: type
    help: str
    most: int = 1
    least: int | None = None
    choices: tuple[str, ...] = ()
    hint: str = ""

    def parse(self, name: str, value: Any) -> Any:
        """Return a value of this type from one that came as text, as JSON or typed.

        Raises:
            ParameterError: It is none, or out of range.
        """
        typed = _TYPES[self.type].parse(value)
        if typed is None or not _TYPES[self.type].is_valid(typed, self):
            raise self._refusal(name, value)
        return typed

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that is of another type, or out of range.

        Raises:
            ParameterError: It is.
        """
        if not _TYPES[self.type].is_valid(value, self):
            raise self._refusal(name, value)

    def _refusal(self, name: str, value: Any) -> ParameterError:
        must = f"must be one of {', '.join(self.choices)}" if self.choices else _TYPES[self.type].must_be
        words = must.format(most=self.most, range=self._range(), name=name, value=value)
        return ParameterError(f"{name}={shown_value(value)} {words}{self.hint}")

    def _range(self) -> str:
        if self.type is float and self.least is None:
            return f"above 0 and at most {self.most:g}"
        return f"from {1 if self.least is None else self.least} to {self.most:,}"

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value."""
        schema: dict[str, Any] = {"type": _TYPES[self.type].json_name, "description": self.help}
        if self.type is int:
            schema |= {"minimum": 1 if self.least is None else self.least, "maximum": self.most}
        elif self.type is float:
            lowest = {"exclusiveMinimum": 0} if self.least is None else {"minimum": self.least}
            schema |= {**lowest, "maximum": self.most}
        elif self.choices:
            schema["enum"] = list(self.choices)
        return schema | ({"items": {"type": "string"}} if self.type is list else {})


def option_of(kind: type, help: str, **limits: Any) -> dict[str, Option]:
    """Return the metadata of a dataclass field that is an option; `limits` are the other attributes of `Option`."""
    return {"option": Option(type=kind, help=help, **limits)}


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        digits = value.strip().removeprefix("+")
        return int(digits) if digits.isascii() and digits.removeprefix("-").isdecimal() and len(digits) < 20 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _fraction(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else _TRUTH.get(value.lower()) if isinstance(value, str) else None


def _names(value: Any) -> tuple[str, ...] | None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None


def _is_whole(value: Any, option: Option) -> bool:
    least = 1 if option.least is None else option.least
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= option.most


def _is_share(value: Any, option: Option) -> bool:
    # NaN is not in the range either.
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    return 0 < float(value) <= option.most if option.least is None else option.least <= float(value) <= option.most


def _is_choice(value: Any, option: Option) -> bool:
    return not option.choices or (isinstance(value, str) and value in option.choices)


class _Type(NamedTuple):
    """What values of a type are: read, checked, refused with words, and described in JSON's terms."""

    parse: Callable[[Any], Any]
    is_valid: Callable[[Any, Option], bool]
    must_be: str
    json_name: str


_TYPES: Mapping[type, _Type] = {
    int: _Type(_whole, _is_whole, "must be a whole number {range}", "integer"),
    float: _Type(_fraction, _is_share, "must be {range}", "number"),
    bool: _Type(_truth, lambda value, option: True, "must be true or false", "boolean"),
    # What else a text must be is for those who read it.
    str: _Type(lambda value: value if isinstance(value, str) else None, _is_choice, "must be a text", "string"),
    list: _Type(
        _names,
        lambda value, option: not isinstance(value, str),
        "is one string; give a list of names: {name}=[{value!r}]",
        "array",
    ),
}
