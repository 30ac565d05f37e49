"""The command `twinlens serve-ray`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click

from indexer.ray.connection import connect_ray

from ..console import emit, output_option
from .serve import check_packages, server_options, server_settings

# What Ray takes, beside the grace of its replicas, to take an application down.
_RAY_SECONDS = 15.0
_TICK = 0.1


@click.command("serve-ray")
@click.argument("indexes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INDEX...")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of each index.")
@click.option(
    "--fronts", type=click.IntRange(min=1), default=1, show_default=True, help="Front ends, which encode queries."
)
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Processors for each copy and front end.")
@click.option("--address", help="The Ray cluster.  [default: RAY_ADDRESS, the one here, or a new one]")
@server_options
@output_option
def serve_ray(
    indexes: tuple[Path, ...], output: str, address: str | None, replicas: int, fronts: int, cpus: float, **options: Any
) -> None:
    """Serve INDEX on a Ray cluster: copies of it, or several indexes that are searched as one. Ends with Ctrl-C.

    The page and the API are those of `twinlens serve`, with the same limits and the same token.

    \b
      twinlens serve-ray photos.index --replicas 4
      twinlens serve-ray part-0.index part-1.index part-2.index --address auto
      curl 'http://127.0.0.1:8000/search?text=a+dog+in+the+snow&k=5'
    """
    settings = server_settings(options)
    check_packages()
    connect_ray(address, "serve-ray")
    from searcher.server.ray_service import APPLICATION, deploy

    url = deploy(
        indexes, settings, replicas=replicas, fronts=fronts, cpus=cpus, host=options["host"], port=options["port"]
    )
    until_signal(
        settings.grace, lambda: emit(output, {"url": url, "indexes": [*map(str, indexes)]}, f"serving at {url}")
    )
    import_module("ray.serve").delete(APPLICATION)


def until_signal(grace: float, ready: Callable[[], object]) -> None:
    """Wait for Ctrl-C or SIGTERM; from then on the process ends within its grace and what Ray takes to end replicas.

    `ready` is called when a signal ends the wait rather than the program.
    """
    from searcher.server.watchdog import Watchdog

    watchdog = Watchdog(grace + _RAY_SECONDS)
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        watchdog.signalled(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ready()
    while not signals:
        time.sleep(_TICK)  # a handler may take no lock, so there is none to wait for
