"""Commands that look after an index: `info`, `verify`, `versions`, `rollback`, `vacuum`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from storage.errors import CorruptIndexError, StorageError
from storage.files.canonical_json import to_plain
from storage.files.layout import MANIFEST
from storage.manifest import Manifest
from storage.store import IndexStore

from ..console import emit, output_option

index_argument = click.argument("index", type=click.Path(path_type=Path))


@click.command()
@index_argument
@click.option("--rejected", "with_rejected", is_flag=True, help="List the items that could not be indexed, and why.")
@output_option
def info(index: Path, with_rejected: bool, output: str) -> None:
    """Show what the current version of INDEX holds and how well it finds things."""
    store = IndexStore.open(index)
    summary = summarise(store, store.manifest())
    text = _info_text(summary)
    if with_rejected:
        summary["rejected_items"] = rows = _rejected_items(store)
        text = "\n".join([text, *(_rejected_line(row) for row in rows)])
    emit(output, summary, text)


@click.command()
@index_argument
@output_option
def versions(index: Path, output: str) -> None:
    """List the published versions of INDEX; the current one is marked."""
    store = IndexStore.open(index)
    try:
        current = store.current()
    except CorruptIndexError as error:
        # The list is needed just then, to choose what to go back to.
        current = None
        click.echo(f"warning: {error}", err=True)
    rows = [_version_row(store, number, current) for number in store.versions()]
    lines = [(_mark(row), row["created_at"] or "", row["problem"] or _counted(row)) for row in rows]
    emit(output, {"path": str(index), "current": current, "versions": rows}, _aligned(lines) or "nothing published yet")


@click.command()
@index_argument
@click.option("--to", type=int, help="Which version; the parent of the current one by default.")
@output_option
def rollback(index: Path, to: int | None, output: str) -> None:
    """Make an older version of INDEX current again, after verifying it."""
    store = IndexStore.open(index)
    number = store.rollback(to)
    emit(output, {"path": str(index), "current": number}, f"version {number} of {index} is current")


@click.command()
@index_argument
@click.option(
    "--keep", type=click.IntRange(min=1), default=2, show_default=True, help="How many of the newest to keep."
)
@output_option
def vacuum(index: Path, keep: int, output: str) -> None:
    """Remove old versions of INDEX and what killed builds left; the current version always stays."""
    store = IndexStore.open(index)
    removed = store.vacuum(keep)
    kept = store.versions()
    text = f"removed {_listed(removed)} of {index}; kept {_listed(kept)}"
    emit(output, {"path": str(index), "removed": removed, "kept": kept}, text)


def summarise(store: IndexStore, manifest: Manifest) -> dict[str, Any]:
    """Return what `info` prints, as JSON values."""
    counts = manifest.counts
    size = (store.version_path(manifest.version) / MANIFEST).stat().st_size
    return {
        "path": str(store.path),
        "version": manifest.version,
        "parent": manifest.parent,
        "created_at": manifest.created_at,
        "images": counts.images,
        "texts": counts.texts,
        "pairs": counts.pairs,
        "rejected": counts.rejected,
        "encoder": to_plain(manifest.encoder),
        "ann": {name: _ann(to_plain(info)) for name, info in manifest.collections.items()},
        "bytes": size + sum(entry.bytes for entry in manifest.files.values()),
        "versions": store.versions(),
    }


def _rejected_items(store: IndexStore) -> list[dict[str, Any]]:
    with store.open_version(verify="size") as version:
        rows: list[dict[str, Any]] = version.catalog.table("rejected").to_pylist()
        return rows


def _rejected_line(row: dict[str, Any]) -> str:
    return f"rejected  {row['uri']}: {row['reason']} ({row['stage']}), {row['detail']}"


def _ann(info: dict[str, Any]) -> dict[str, Any]:
    tuning = info["tuning"].items()
    return {
        **info["ann"],
        "operating_points": {direction: found["points"] for direction, found in tuning},
        "queries": {
            direction: {"source": found["query_source"], "count": found["queries"]} for direction, found in tuning
        },
    }


def _info_text(summary: dict[str, Any]) -> str:
    encoder = summary["encoder"]
    model = f"{encoder['spec']} ({encoder['dim']}-d)" if encoder else "unknown: ready-made embeddings"
    lines = [
        ("index", f"{summary['path']}, version {summary['version']} of {summary['created_at']}"),
        ("holds", f"{_counted(summary)}, {summary['bytes'] / 1e6:,.1f} MB"),
        ("encoder", model),
    ]
    for name, plan in summary["ann"].items():
        lines.append((name, " ".join(filter(None, (plan["kind"], plan["factory"])))))
        for direction, points in plan["operating_points"].items():
            lines += _point_lines(direction, points)
    return _aligned([*lines, ("versions", _listed(summary["versions"]))])


def _point_lines(direction: str, points: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (
            "",
            f"{direction}: ann_recall@{point['k']} {point['ann_recall']:.3f} in {point['ms_per_query']:.2f} ms a query "
            f"(nprobe {point['nprobe']}, oversample {point['oversample']})",
        )
        for point in points
    ]


def _version_row(store: IndexStore, number: int, current: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"version": number, "current": number == current, "created_at": None, "problem": None}
    try:
        manifest = store.manifest(number)
    except StorageError as error:
        return {**row, "problem": str(error)}
    return {**row, "created_at": manifest.created_at, **to_plain(manifest.counts)}


def _mark(row: dict[str, Any]) -> str:
    return f"{'*' if row['current'] else ' '} {row['version']}"


def _counted(row: dict[str, Any]) -> str:
    return ", ".join(f"{row[name]:,} {name}" for name in ("images", "texts", "pairs", "rejected"))


def _listed(numbers: Sequence[int]) -> str:
    noun = "version" if len(numbers) == 1 else "versions"
    return f"{noun} {', '.join(map(str, numbers))}" if numbers else "nothing"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines, their columns padded to one width, the last one left as it is."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
