"""The route of films: the file that a frame is of, in the pieces that a player asks for."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from ..engine import Service
from ..errors import RefusedError

# A player asks for the next piece when it needs it; a long answer would run into the limit of time.
_PIECE = 4 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# Browsers play a MOV with the codecs of an MP4 by this name.
_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
# What a browser makes around a film that is opened by itself.
_POLICY = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def film_routes(service: Service) -> APIRouter:
    """Return the route of the films of frames."""
    router = APIRouter(tags=["items"])

    @router.get("/films", summary="The film of a frame, in pieces by Range", response_class=Response)
    async def film(request: Request, id: str) -> Response:
        with service.live.acquire() as snapshot:
            path = await service.engine.run("thumbnail", service.thumbnails.film_of, snapshot, id)
        return await run_in_threadpool(_piece, path, request.headers.get("range"))

    return router


def _piece(path: Path, wanted: str | None) -> Response:
    """Return the bytes of a file that a `Range` asks for, at most 4 MiB of them; without one all of it."""
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", "Content-Security-Policy": _POLICY}
    kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
    if wanted is None and path.is_file():
        return FileResponse(path, headers=headers, media_type=kind)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start, end = _span(wanted, size)
            if start >= size:
                return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
            file.seek(start)
            data = file.read(min(end - start, _PIECE))
    except OSError as error:
        raise RefusedError(404, "the film is not where the index was built; start the server with --root") from error
    headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{size}"
    return Response(data, 206, headers, media_type=kind)


def _span(wanted: str | None, size: int) -> tuple[int, int]:
    """Return where the first range begins and ends; all of the file for none that is understood."""
    match = _RANGE.match(wanted or "")
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
