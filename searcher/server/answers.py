"""JSON answers, and errors as one clear line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

_LONGEST = 600


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as one line of JSON; texts that are no Unicode show the replacement sign."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode("utf-8", errors="replace") + b"\n"
    return Response(body, status, headers=headers, media_type="application/json")


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return `{"error": message}`, the message on one line."""
    return json_answer({"error": one_line(message)}, status, headers)


def one_line(message: str) -> str:
    """Return a message on one line of bounded length."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
