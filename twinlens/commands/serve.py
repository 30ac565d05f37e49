"""The command `serve`."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from searcher.server.errors import ServerError
from searcher.server.settings import LOG_STYLES, LOOPBACK_HOSTS, LogStyle, ServerSettings
from storage.errors import install_hint

from ..console import TOKEN, emit, output_option

_BACKLOG = 2_048
_DEFAULTS = ServerSettings()
# The parser of forms writes a line for each byte that it does not like, which is for callers to choose.
_LOGGED = (("searcher.server", logging.INFO), ("uvicorn", logging.ERROR), ("python_multipart", logging.CRITICAL))


F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all."),
    click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 takes a free one."),
    click.option(
        "--token-file", type=click.Path(path_type=Path), help=f"A file with the token callers must show; or {TOKEN}."
    ),
    click.option("--allow-host", multiple=True, metavar="NAME", help="A further name that the server answers to."),
    click.option("--root", type=click.Path(path_type=Path), help="Where the images are, if the corpus was moved."),
    click.option(
        "--encoder", help="The encoder, for an index of ready-made vectors.  [default: the one that made the index]"
    ),
    click.option("--device", default="auto", show_default=True, help="Where to encode queries: auto, cpu, cuda."),
    click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16."),
    click.option(
        "--verify",
        type=click.Choice(["full", "size"]),
        default="full",
        show_default=True,
        help="Check the files' checksums, or only their sizes.",
    ),
    click.option(
        "--max-body", type=int, default=_DEFAULTS.max_body, show_default=True, help="Bytes of a request's body."
    ),
    click.option(
        "--max-pixels", type=int, default=_DEFAULTS.max_pixels, show_default=True, help="Pixels of a query image."
    ),
    click.option(
        "--max-k", type=int, default=_DEFAULTS.max_k, show_default=True, help="Hits that one request may ask for."
    ),
    click.option(
        "--timeout", "seconds", type=float, default=_DEFAULTS.seconds, show_default=True, help="Seconds a request."
    ),
    click.option(
        "--grace",
        type=float,
        default=_DEFAULTS.grace,
        show_default=True,
        help="Seconds from Ctrl-C or SIGTERM to the end, at most.",
    ),
    click.option(
        "--concurrency",
        type=int,
        default=_DEFAULTS.concurrency,
        show_default=True,
        help="Requests at once; further ones are answered 503.",
    ),
    click.option(
        "--batch", type=int, default=_DEFAULTS.batch, show_default=True, help="Queries that are answered together."
    ),
    click.option(
        "--batch-wait",
        "wait_ms",
        type=float,
        default=_DEFAULTS.wait_ms,
        show_default=True,
        help="Milliseconds to wait for others when others came just before.",
    ),
)


def server_options(command: F) -> F:
    """Add the options of every server to a command: address, token, limits, encoder."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@server_options
@click.option(
    "--measure-every",
    type=int,
    default=_DEFAULTS.measure_every,
    show_default=True,
    help="Compare one search in so many with the exact search, while there is nothing else to do; 0 for none.",
)
@click.option(
    "--access-log",
    type=click.Choice(LOG_STYLES),
    default=_DEFAULTS.access_log,
    show_default=True,
    help="A line for each request on stderr; with json, all other lines are JSON too.",
)
@click.option("--log-queries", is_flag=True, help="Put the texts that are searched with into those lines.")
@output_option
def serve(index: Path, output: str, **options: Any) -> None:
    """Serve INDEX over HTTP: an API, and a page to search with.

    Listens on this machine alone unless --host says otherwise. A version that is published while it runs takes over
    without a request being lost. Stop it with Ctrl-C: requests under way are answered first, for as long as --grace;
    what is stuck by then is left, with exit code 124. A second Ctrl-C stops it at once.
    """
    settings = server_settings(options)
    check_packages()
    with _listening(options["host"], options["port"]) as listener:
        _serve(index, listener, settings, output)


def server_settings(options: dict[str, Any]) -> ServerSettings:
    """Return the settings that the options of a server say.

    Raises:
        ServerError: A value is out of range, or a file or folder is not there.
    """
    names = (
        "root",
        "encoder",
        "device",
        "precision",
        "verify",
        "max_body",
        "max_pixels",
        "max_k",
        "seconds",
        "grace",
        "concurrency",
        "batch",
        "wait_ms",
        "measure_every",
        "access_log",
        "log_queries",
    )
    given = {name: options[name] for name in names if name in options}
    settings = ServerSettings(token=_token(options["token_file"]), **given)
    if options["root"] is not None and not options["root"].is_dir():
        raise ServerError(f"--root {str(options['root'])!r} is no folder; name the one that the images are in")
    if _is_loopback(options["host"]):
        return replace(settings, hosts=(*LOOPBACK_HOSTS, options["host"], *options["allow_host"]))
    if settings.token is None:
        click.echo("warning: whoever reaches this address can search; give --token-file to ask for a token", err=True)
    return replace(settings, hosts=tuple(options["allow_host"]))


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"cannot read the token file {str(file)!r}: {error}") from error
    if not token:
        raise ServerError(f"the token file {str(file)!r} is empty; write a token of 8 or more characters into it")
    return token


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_packages() -> None:
    """Refuse to go on where the extra `server` is not installed.

    Raises:
        ServerError: A package is missing; the message says how to get it.
    """
    try:
        import fastapi
        import prometheus_client
        import python_multipart
        import uvicorn
    except ImportError as error:
        raise ServerError(f"serving needs the extra server: {error}; {install_hint('server')}") from error
    del fastapi, prometheus_client, python_multipart, uvicorn


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections already: whoever reads the address may connect at once."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        not_here = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        step = "give a --host of this machine" if not_here else "give another --port (0 for a free one)"
        raise ServerError(f"cannot listen at {host!r}, port {port}: {error.strerror or error}; {step}") from error
    listener.setblocking(False)
    return listener


def _serve(index: Path, listener: socket.socket, settings: ServerSettings, output: str) -> None:
    from searcher.server.app import create_app
    from searcher.server.live_index import LiveIndex, check_index
    from searcher.server.uvicorn_server import run_until_stopped

    check_index(index)
    live = LiveIndex(index, settings)
    _follow_log(settings.access_log)
    _warn_of_paths(live)
    app = create_app(live, settings)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    counts = {name: live.current.count(name) for name in live.current.collections}
    held = " and ".join(f"{count:,} {name}" for name, count in counts.items())
    value = {"url": address, "index": live.name, "version": live.current.number, "items": counts}
    line = f"{address}  serves version {live.current.number} of {live.name}: {held}"
    run_until_stopped(app, settings, listener, lambda: emit(output, value, line))


def _follow_log(style: LogStyle) -> None:
    """Say on stderr what the server has to say: requests, versions that come, and what it could not answer."""
    from searcher.server.watching.access_log import LOGGER, JsonLines

    lines, requests = logging.StreamHandler(), logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    lines.setFormatter(JsonLines() if style == "json" else plain)
    for name, level in (*_LOGGED, (LOGGER, logging.INFO)):
        logger = logging.getLogger(name)
        # A request's line is whole as it comes.
        logger.handlers, logger.propagate = [requests if name == LOGGER else lines], False
        logger.setLevel(level)


def _warn_of_paths(live: Any) -> None:
    """Item ids are the user's own and are shown; where they are paths, say so."""
    if live.current.has_path_ids():
        click.echo(
            "warning: item ids of this index are absolute paths, and callers see item ids; build it with --id, "
            "or with --root above the images",
            err=True,
        )
