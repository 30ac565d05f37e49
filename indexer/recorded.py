"""What a version remembers of how it was built, so that an update need not be told again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .config import BuildConfig
from .errors import BuildError
from .sources import SourceOptions

# What decides which items and which approximate index there are; how fast a run may be is its own affair.
KEPT_SETTINGS = ("ann", "prompt", "min_ann_recall", "max_pixels", "max_file_bytes", "seed", "cache")


def options_json(options: SourceOptions) -> dict[str, Any]:
    """Return source options as JSON values, so that an update can read the corpus the same way."""
    return {**asdict(options), "root": str(options.root.resolve()) if options.root else None}


def recorded_options(build: Mapping[str, Any], given: SourceOptions | None = None) -> SourceOptions:
    """Return the source options that a version was built with; what `given` says otherwise than by default wins.

    Raises:
        BuildError: URLs were fetched for that version, and `given` does not allow it again: an index that came from
            elsewhere may not make this machine fetch anything.
    """
    values = dict(build.get("source_options") or {})
    if values.pop("allow_urls", False) and not (given is not None and given.allow_urls):
        raise BuildError("the index was built from URLs; give --allow-urls again, or build without --update")
    values.pop("allow_private", None)
    for name in ("metadata", "splits"):
        values[name] = tuple(values[name]) if values.get(name) is not None else None
    values["splits"] = values["splits"] or ()
    values["root"] = Path(values["root"]) if values.get("root") else None
    chosen = given or SourceOptions()
    named = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    changed = {name: value for name, value in named.items() if value != getattr(SourceOptions(), name)}
    return replace(SourceOptions(**values), **changed)


def recorded_prompt(build: Mapping[str, Any]) -> str | None:
    """Return the template that the texts of a version went through; None where they were encoded as they are."""
    prompt: str | None = (build.get("config") or {}).get("prompt")
    return prompt


def recorded_config(build: Mapping[str, Any], config: BuildConfig, named: frozenset[str]) -> BuildConfig:
    """Return `config` with the settings of the version that is updated, where they are not in `named`."""
    before = build.get("config") or {}
    return replace(config, **{name: before[name] for name in KEPT_SETTINGS if name in before and name not in named})
