"""A real Ray cluster of two small nodes on this machine; its workers can import what tests bring."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
# 80 MB is the least that Ray takes.
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start a cluster of a head and one further node with a processor each; both end with the block."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    paths = [str(HOME), str(HOME / "tests" / "support"), *filter(None, [before.get("PYTHONPATH")])]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    # A node that is gone is noticed within seconds; on a busy machine one that lives may be silent for two.
    os.environ.update(RAY_health_check_period_ms="500", RAY_health_check_failure_threshold="12")
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def other_node(cluster: Any) -> Any:
    """Return the node that is not the head."""
    return next(node for node in cluster.list_all_nodes() if not node.is_head())
