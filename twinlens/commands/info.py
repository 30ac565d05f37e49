"""The command `info`: what an index holds, the encoder that made it, and how well its searches find things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from indexer.report import changes_text, rounding_text
from searcher.operating_points import cheapest, points_for
from storage.compiled import scan_lanes
from storage.files.canonical_json import to_plain
from storage.files.layout import MANIFEST, vectors_name
from storage.files.mapped import is_large
from storage.manifest import Manifest
from storage.schema import OperatingPoint, Tuning
from storage.store import IndexStore

from ..console import align_columns, emit, format_counts, index_argument, output_option

# What people ask of `--ann-recall`, and the number of hits that a search returns unless told otherwise.
RECALLS = (0.9, 0.95, 0.99)
USUAL_K = 10


@click.command()
@index_argument
@click.option("--points", "with_points", is_flag=True, help="Show every measured operating point.")
@click.option("--rejected", "with_rejected", is_flag=True, help="List the items that could not be indexed, and why.")
@output_option
def info(index: Path, with_points: bool, with_rejected: bool, output: str) -> None:
    """Show what the current version of INDEX holds, and the cheapest settings for the usual recalls.

    The JSON holds every measured operating point.
    """
    store = IndexStore.open(index)
    summary = summarize(store, store.manifest())
    text = _info_text(summary, with_points)
    if with_rejected:
        summary["rejected_items"] = rows = _rejected_items(store)
        text = "\n".join([text, *(_rejected_line(row) for row in rows)])
    emit(output, summary, text)


def summarize(store: IndexStore, manifest: Manifest) -> dict[str, Any]:
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
        "changes": manifest.build.get("changes"),
        "encoder": to_plain(manifest.encoder),
        "encoding": to_plain(manifest.encoding),
        "rounding": to_plain(manifest.rounding),
        "ann": {name: _ann(to_plain(info)) for name, info in manifest.collections.items()},
        "scan_lanes": scan_lanes(),
        "read_from_disk": [name for name in manifest.collections if is_large(manifest.files[vectors_name(name)].bytes)],
        "bytes": size + sum(entry.bytes for entry in manifest.files.values()),
        "versions": store.versions(),
    }


def _ann(info: dict[str, Any]) -> dict[str, Any]:
    tunings = info["tuning"].items()
    return {
        **info["ann"],
        "operating_points": {direction: tuning["points"] for direction, tuning in tunings},
        "queries": {
            direction: {"source": tuning["query_source"], "count": tuning["queries"]} for direction, tuning in tunings
        },
    }


def _rejected_items(store: IndexStore) -> list[dict[str, Any]]:
    with store.open_version(verify="size") as version:
        rows: list[dict[str, Any]] = version.catalog.table("rejected").to_pylist()
        return rows


def _rejected_line(row: Mapping[str, Any]) -> str:
    return f"rejected  {row['uri']}: {row['reason']} ({row['stage']}), {row['detail']}"


def _info_text(summary: Mapping[str, Any], with_points: bool) -> str:
    lines = [
        ("index", f"{summary['path']}, version {summary['version']} of {summary['created_at']}"),
        ("holds", f"{format_counts(summary)}, {summary['bytes'] / 1e6:,.1f} MB"),
        ("encoder", _encoder_text(summary["encoder"], summary["encoding"] or {})),
    ]
    if summary["rounding"]:
        lines.append(("vectors", rounding_text(summary["rounding"])))
    if summary["changes"]:
        lines.append(("changes", f"since version {summary['parent']}: {changes_text(summary['changes'])}"))
    for name, ann in summary["ann"].items():
        lines.append((name, " ".join(filter(None, (ann["kind"], ann["factory"])))))
        for direction, points in ann["operating_points"].items():
            if with_points:
                lines += [("", f"{direction}: {_point_text(point)}") for point in points]
            elif points:
                queries = ann["queries"][direction]["count"]
                lines += [("", f"{direction}: {line}") for line in _cheapest_lines(points, queries)]
    if any(ann["kind"] == "ivf-pq4" for ann in summary["ann"].values()):
        lines.append(("searched", _searched_text(summary["scan_lanes"])))
    if summary["read_from_disk"]:
        names = " and ".join(summary["read_from_disk"])
        lines.append(("", f"{names}: vectors are more than half of the memory here, so their rows are read from disk"))
    return align_columns([*lines, ("versions", ", ".join(map(str, summary["versions"])))])


def _encoder_text(encoder: Mapping[str, Any] | None, encoding: Mapping[str, Any]) -> str:
    if encoder is None:
        return "unknown: ready-made embeddings"
    fingerprint = f", fingerprint {encoder['fingerprint'][:12]}..." if encoder["fingerprint"] else ""
    how = "".join(f", {name} {encoding[name]}" for name in ("backend", "precision") if encoding.get(name))
    cut = encoder["details"].get("reduced")
    of = f", cut from {cut['of']} of {cut['full_dim']}-d with {cut['left']:.1%} left" if cut else ""
    return f"{encoder['spec']} ({encoder['dim']}-d{of}){fingerprint}{how}"


def _searched_text(lanes: int) -> str:
    if lanes:
        return f"here by the compiled scan, in lanes of {lanes} bits"
    return "here by FAISS and NumPy; the compiled scan, twice as fast, needs AVX2 and a C compiler at the installation"


def _cheapest_lines(points: Sequence[Mapping[str, Any]], queries: int) -> list[str]:
    """One line for each setting that a search for `USUAL_K` hits takes at one of the `RECALLS`."""
    measured = Tuning(query_source="", queries=queries, points=tuple(OperatingPoint(**point) for point in points))
    lines: list[str] = []
    for recall in RECALLS:
        point = cheapest(measured, USUAL_K, recall)
        if point is None:
            k = points_for(measured, USUAL_K)[0].k
            return [*lines, f"ann_recall@{k} {recall:g} and more by comparing every vector"]
        if (line := _point_text(asdict(point))) not in lines:
            lines.append(line)
    return lines


def _point_text(point: Mapping[str, Any]) -> str:
    return (
        f"ann_recall@{point['k']} {point['ann_recall']:.3f} in {point['ms_per_query']:.2f} ms a query "
        f"(nprobe {point['nprobe']}, oversample {point['oversample']})"
    )
