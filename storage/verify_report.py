"""What `verify` prints of a full check, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .strict_json import to_plain
from .verification import FileCheck, Verification


def verification_json(index: Path, found: Verification) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {"path": str(index), "ok": found.ok, **to_plain(found)}


def verification_text(index: Path, found: Verification) -> str:
    """Return the result as lines: every file, then every rule, then the sum of it."""
    width = max(len(name) for name in [*(file.name for file in found.files), *(rule.name for rule in found.structure)])
    lines = [f"{check.name:{width}}  {_size(check):>19}  checksum {_file(check)}" for check in found.files]
    for rule in found.structure:
        told = f"{rule.outcome}: {rule.problem}" if rule.problem else rule.outcome
        lines.append(f"{rule.name:{width}}  {'':>19}  structure {told}")
    return "\n".join([*lines, _sum(index, found)])


def _size(check: FileCheck) -> str:
    return "" if check.bytes is None else f"{check.bytes:,} bytes"


def _file(check: FileCheck) -> str:
    return f"{check.checksum}: {check.problem}" if check.problem else check.checksum


def _sum(index: Path, found: Verification) -> str:
    name = f"version {found.version} of {index}" if found.version is not None else str(index)
    if found.ok:
        return f"{name} is whole"
    count = len(found.problems)
    return f"{name} has {count} problem{'' if count == 1 else 's'}"
