"""Map of a collection: clusters with names, and items on a plane where like is near to like."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.schema import Collection
from storage.version import IndexVersion

from ..clusters import find_clusters
from .contents import describe

Positions = NDArray[np.float64]
MOST_CLUSTERS = 16
# Items that are clustered and laid out, and those that a report holds.
_SAMPLED, MOST_POINTS = 4096, 1000
# UMAP's own default of neighbors; more room between points than its default of .1, as images are drawn at them.
_NEIGHBORS, _ROOM = 15, 0.4


def draw_map(version: IndexVersion, collection: Collection) -> dict[str, Any] | None:
    """Return clusters and up to 1,000 items with coordinates in [0, 1] as JSON values; None for under 16 items.

    Items are laid out by UMAP where `umap-learn` is installed, else by their two principal components.
    """
    found = find_clusters(version, collection, sampled=_SAMPLED, most=MOST_CLUSTERS)
    if not found.members:
        return None
    cluster = np.empty(len(found.rows), dtype=np.int64)
    for number, members in enumerate(found.members):
        cluster[members] = number
    method = "umap" if find_spec("umap") else "pca"
    positions = by_umap(found.vectors) if method == "umap" else by_principal_components(found.vectors)
    shown = np.arange(min(MOST_POINTS, len(found.rows))) * len(found.rows) // min(MOST_POINTS, len(found.rows))
    items = describe(version, collection, found.rows[shown])
    return {
        "collection": collection,
        "method": method,
        "looked_at": len(found.rows),
        "of": found.total,
        "clusters": [
            {"name": name, "count": found.estimated(members), **_at(np.median(positions[members], axis=0))}
            for name, members in zip(found.names, found.members, strict=True)
        ],
        "points": [
            {**item, "cluster": int(cluster[position]), **_at(positions[position])}
            for item, position in zip(items, shown, strict=True)
        ],
    }


def by_principal_components(vectors: NDArray[np.float32]) -> Positions:
    """Return where rows (n, dim) stand along their two principal components, (n, 2) in [0, 1], spread evenly by rank.

    By value most images would lie in one heap at the middle.
    """
    centred = vectors - vectors.mean(axis=0)
    if centred.shape[1] == 1:
        centred = np.pad(centred, ((0, 0), (0, 1)))
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, [0, 1]])  # the sign of a component is anybody's choice
    ranks = np.argsort(np.argsort(centred @ axes, axis=0, kind="stable"), axis=0, kind="stable")
    return ranks / max(1, len(vectors) - 1)


def by_umap(vectors: NDArray[np.float32]) -> Positions:
    """Return rows (n, dim) laid out by UMAP (McInnes et al. 2018), (n, 2) in [0, 1]; the same for the same rows."""
    import umap

    neighbors = min(_NEIGHBORS, len(vectors) - 1)
    layout = umap.UMAP(n_neighbors=neighbors, min_dist=_ROOM, metric="cosine", random_state=7, n_jobs=1)
    positions = np.asarray(layout.fit_transform(vectors), dtype=np.float64)
    low, high = np.percentile(positions, [2, 98], axis=0)  # a few islands would else take most of the plane
    within: Positions = np.clip((positions - low) / np.maximum(high - low, 1e-9), 0, 1)
    return within


def _at(position: Positions) -> dict[str, float]:
    return {"x": round(float(position[0]), 4), "y": round(float(position[1]), 4)}
