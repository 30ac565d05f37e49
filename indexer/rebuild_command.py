"""The command line that builds a version again: corpus, options and settings as they stand in its manifest."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from storage import Manifest

from .config import BuildConfig
from .corpus import EmbeddingSource, Source, SourceOptions
from .corpus.remote.url import is_remote

# Options of the command whose names are not those of the settings.
_OPTIONS = {"memory_bytes": "memory", "ray_workers": "workers", "splits": "split", "words_columns": "words-column"}
# The encoder and the prompt are typed in the manifest; an update is not how a damaged version is replaced.
_ELSEWHERE = frozenset({"encoder", "prompt", "update"})
_VECTORS = {"vectors": "embeddings", "ids": "ids", "table": "metadata"}


def corpus_of(source: str | Path | Source | EmbeddingSource) -> dict[str, Any]:
    """Return what a build was given to read, as JSON values for its manifest; nothing for an opened source."""
    if isinstance(source, EmbeddingSource):
        return {"embeddings": _plain(asdict(source.options))}
    if not isinstance(source, str | Path):
        return {}
    return {"corpus_path": source if isinstance(source, str) and is_remote(source) else _absolute(source)}


def rebuild_command(manifest: Manifest, out: Path) -> str:
    """Return the command that makes a version again from what it was made of, fit to be pasted into a shell.

    What came from Python objects, which no command line can name, stands there as CORPUS.
    """
    build = manifest.build
    embeddings = build.get("embeddings")
    parts = ["build-index"]
    if isinstance(embeddings, Mapping):
        parts += _embedding_options(embeddings)
    else:
        parts.append(str(build.get("corpus_path") or "CORPUS"))
    parts += ["--out", str(out)]
    if manifest.encoder is not None and manifest.encoder.fingerprint is not None:
        parts += ["--encoder", manifest.encoder.spec]
    if manifest.encoding.prompt is not None:
        parts += ["--prompt", manifest.encoding.prompt]
    options = {} if embeddings else build.get("source_options") or {}
    parts += _changed(options, {one.name: one.default for one in fields(SourceOptions)})
    parts += _changed(build.get("config") or {}, {one.name: one.default for one in fields(BuildConfig)})
    return shlex.join(parts)


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for name, default in defaults.items():
        value = values.get(name, default)
        plain = list(default) if isinstance(default, tuple) else default
        if name in _ELSEWHERE or value in (plain, None):
            continue
        option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
        if value is True:
            yield option
        elif isinstance(value, list | tuple):
            for one in value:
                yield from (option, str(one))
        else:
            yield from (option, _written(name, value))


def _written(name: str, value: Any) -> str:
    if name == "max_rejected":
        return f"{value * 100:g}%" if 0 < value < 1 else f"{value:.0f}"
    return _absolute(value) if name == "cache" else str(value)


def _embedding_options(embeddings: Mapping[str, Any]) -> Iterator[str]:
    for side in ("image", "text"):
        files = embeddings.get(f"{side}s") or {}
        for name, option in _VECTORS.items():
            if files.get(name):
                yield from (f"--{side}-{option}", str(files[name]))
    if embeddings.get("pairs"):
        yield from ("--pairs", str(embeddings["pairs"]))
    if embeddings.get("normalize"):
        yield "--normalize"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return _absolute(value) if isinstance(value, Path) else value


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (a pattern stays one)
