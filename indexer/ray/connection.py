"""The connection to a Ray cluster that builds and services share; importing this does not import Ray."""

from __future__ import annotations

import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from storage.errors import TwinlensError, first_line, install_hint

SECONDS_TO_ANSWER = 5.0


def connect_ray(address: str | None, wanted_by: str) -> tuple[Any, bool]:
    """Return the module of Ray, connected to a cluster, and whether the connection is the caller's to end.

    Args:
        address: The cluster, e.g. `10.0.0.1:6379`; None takes the one that this process is connected to already, else
            the one that `RAY_ADDRESS` names or that runs on this machine, else starts one that ends with this process.
        wanted_by: What needs it, for messages, e.g. `--executor ray`.

    Raises:
        TwinlensError: Ray is not installed, or no cluster answers at the address.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise TwinlensError(f"{wanted_by} needs Ray: {error}; {install_hint('ray')}") from error
    if ray.is_initialized():
        return ray, False
    # Nothing is reported to anybody unless the user wants it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        _check_answers(named)
    target = named or running_here()
    if target is None:
        ray.init(address="local", include_dashboard=False, **quiet)
        return ray, True
    try:
        ray.init(address=target, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TwinlensError(f"no Ray cluster answers at {target!r}: {first_line(error)}; start it there") from error
    return ray, True


def running_here() -> str | None:
    """Return the address of the cluster that Ray has noted for this machine; None where nobody listens there any more.

    Ray does not look: a note that a killed cluster has left would make it try for minutes.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
        _check_answers(address)
    except (OSError, ValueError, TwinlensError):
        return None
    return address or None


def _check_answers(address: str) -> None:
    """Refuse an address at which nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # `auto`, `local`, or something that Ray will explain
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise TwinlensError(
            f"no Ray cluster answers at {address!r}: {error}; start it there with `ray start --head`, or name another"
        ) from error
