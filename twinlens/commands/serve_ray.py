"""The command `twinlens serve-ray`."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from indexer.ray.connection import connect_ray
from searcher.server.ray_service import APPLICATION, deploy

from ..console import emit, output_option


@click.command("serve-ray")
@click.argument("indexes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INDEX...")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of each index.")
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Processors for each copy.")
@click.option("--address", help="The Ray cluster.  [default: RAY_ADDRESS, the one here, or a new one]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; there is no password.")
@click.option("--port", type=int, default=8000, show_default=True)
@click.option("--encoder", help="The encoder, for indexes of ready-made vectors.")
@click.option("--device", default="auto", show_default=True, help="Where to encode queries: auto, cpu, cuda.")
@output_option
def serve_ray(indexes: tuple[Path, ...], output: str, address: str | None, **options: Any) -> None:
    """Serve INDEX on a Ray cluster: copies of it, or several indexes that are searched as one. Ends with Ctrl-C.

    \b
      twinlens serve-ray photos.index --replicas 4
      twinlens serve-ray part-0.index part-1.index part-2.index --address auto
      curl 'http://127.0.0.1:8000/search?text=a+dog+in+the+snow&k=5'
    """
    connect_ray(address, "serve-ray")
    url = deploy(indexes, **options)
    emit(output, {"url": url, "indexes": [str(path) for path in indexes]}, f"serving at {url}")
    try:
        threading.Event().wait()
    finally:
        import_module("ray.serve").delete(APPLICATION)
