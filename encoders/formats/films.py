"""Films as images: which frames stand for a film, and each of them as `film.mp4#t=12.5`, seconds from its start."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from storage.child_process import ChildProcess, ProcessEndedError, ProcessPool
from storage.errors import install_hint

from ..errors import ImageError, ImageReason
from ..file_facts.film import film_facts
from ..remembered import read_cached, write_cached

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv")
"""Suffixes of films, in lower case and with the dot."""
EXTRA = "video"
SCENES = "scenes"
MOST_FRAMES = 100_000
"""Images of one film; what comes after them is left out, with a rejection that says so."""
LEAST_STEP = 0.01
_STEP = re.compile(r"(\d+(?:\.\d+)?)s")
_MARK = re.compile(r"(?P<film>.+)#t=(?P<seconds>\d+(?:\.\d+)?)", re.DOTALL)
# Seconds of one core: for reading through a file, for one look for scenes, and how often that of an image for a frame.
_READ, _LOOK, _FRAME = 600.0, 90.0, 15.0
_WAITS, _STRIKES = 4.0, 3
_CACHE = "films"
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_ROUNDING = 0.0005
# A film that is cut short says in its head how long it was.
_SHORT_SECONDS, _SHORT_SHARE = 2.0, 0.05


@dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """Which frames stand for a film.

    Attributes:
        times: Seconds from the start, ascending.
        duration: Seconds, as far as it can be read; None where that is not known.
        reason: Why not all of it could be read, in a word of `ImageError`; None where it could.
        problem: The same as a sentence; empty where it could.
    """

    times: tuple[float, ...] = ()
    duration: float | None = None
    reason: ImageReason | None = None
    problem: str = ""


def step_of(frames: str) -> float | None:
    """Return the seconds between frames that `2s` names; None for `scenes`.

    Raises:
        ValueError: It is neither.
    """
    if frames == SCENES:
        return None
    match = _STEP.fullmatch(frames)
    if match is None or float(match[1]) < LEAST_STEP:
        raise ValueError(f"frames {frames!r} are neither seconds, as 2s or 0.5s, nor {SCENES!r}")
    return float(match[1])


def check_can_read_films() -> None:
    """Raise `ImageError` where the extra `video` is not installed."""
    if find_spec("av") is None:
        raise ImageError("unsupported_format", f"films need the extra {EXTRA}; {install_hint(EXTRA)}")


def frame_name(film: str, seconds: float) -> str:
    """Return the name of a frame, `film.mp4#t=12.5`."""
    return f"{film}#t={seconds:.3f}".rstrip("0").removesuffix(".")


def film_of(name: str) -> tuple[str, float] | None:
    """Return the film and the seconds that the name of a frame says; None for any other name."""
    match = _MARK.fullmatch(name)
    if match is None or not match["film"].lower().endswith(VIDEO_SUFFIXES):
        return None
    return match["film"], float(match["seconds"])


def file_behind(path: Path) -> Path:
    """Return the file that holds an image: of a frame its film, any other path as it is."""
    film = film_of(str(path))
    return path if film is None or path.exists() else Path(film[0])


def plan_frames(path: Path, frames: str, max_pixels: int) -> FilmPlan:
    """Return which frames stand for a film: every so many seconds, or the first of each scene.

    Every so many seconds nothing is decoded, and a frame that is shown for longer stands once. For scenes all of it is,
    once for a film, wherever it lies: the outcome is kept in the user's cache.

    Raises:
        ImageError: Nothing of it can be read.
    """
    check_can_read_films()
    step = step_of(frames)
    plan = _every(path, step, max_pixels) if step is not None else _known_scenes(path, max_pixels)
    if len(plan.times) > MOST_FRAMES:
        problem = f"at most {MOST_FRAMES} images are taken from a film; name more seconds"
        plan = replace(plan, times=plan.times[:MOST_FRAMES], reason="too_large", problem=problem)
    if not plan.times:
        raise ImageError(plan.reason or "corrupt", plan.problem or "the film holds no frames")
    return plan


@dataclass(frozen=True)
class FilmFrame:
    """A frame, upright, as the bytes of a PPM, and what is known of when, where and with what it was taken."""

    data: bytes
    facts: Mapping[str, Any]


def read_frame(path: Path, seconds: float, max_bytes: int, max_pixels: int, limit: float) -> FilmFrame:
    """Return the frame that a film shows at a time, in at most `max_bytes`.

    Raises:
        ImageError: It cannot be decoded, or takes longer than 15 times `limit` seconds of one core.
    """
    check_can_read_films()
    most = max(1024, max_bytes - 32)
    with _lock_of(str(path)):  # two threads would decode the same frames twice
        told, pixels = _ask(path, max_pixels, _FRAME * limit, want="frame", seconds=seconds, max_bytes=most)
    width, height = told["size"]
    return FilmFrame(b"P6\n%d %d\n255\n" % (width, height) + pixels, film_facts(told["told"], seconds))


def _every(path: Path, step: float, max_pixels: int) -> FilmPlan:
    told, data = _ask(path, max_pixels, _READ, want="times")
    shown = np.frombuffer(data, dtype=np.float64)
    if not len(shown):
        return FilmPlan(reason="corrupt", problem=told["problem"])
    last = max(float(shown[-1]), 0.0)
    stated = told["duration"]
    cut = stated is not None and stated - last > _SHORT_SECONDS + _SHORT_SHARE * stated
    problem = told["problem"] or (f"it says that it takes {stated:.1f} seconds" if cut else "")
    return FilmPlan(
        times=tuple(_steps(shown, step, last)),
        duration=round(last if problem or stated is None else max(stated, last), 3),
        reason="corrupt" if problem else None,
        problem=f"nothing can be read from {last:.1f} seconds on: {problem}" if problem else "",
    )


def _steps(shown: NDArray[np.float64], step: float, last: float) -> list[float]:
    """Return the multiples of `step` at which a frame is shown that was not shown at the one before."""
    # The multiples at or after each frame: between two frames that are far apart there are none to look at.
    first = np.ceil((shown - _ROUNDING) / step)
    first[0] = 0  # which some containers show a little late
    ticks = np.unique(np.clip(first, 0, None))
    ticks = ticks[ticks * step <= last + _ROUNDING][: MOST_FRAMES + 1]
    return [round(float(tick) * step, 3) for tick in ticks]


def film_sha256(path: Path) -> str:
    """Return the checksum of a film's bytes; it is kept in the user's cache for a film that stays as it is.

    Raises:
        ImageError: The file cannot be read.
    """
    try:
        state = path.stat()
        return _sha256(path.absolute(), state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError as error:
        raise ImageError("missing", f"no film can be read at {str(path)!r}") from error


@lru_cache(maxsize=4096)
def _sha256(path: Path, *state: int) -> str:
    key = f"{path} {state} sha256"
    known = read_cached(_CACHE, key)
    if known is not None and _SHA256.fullmatch(known):
        return known.decode()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_cached(_CACHE, key, digest.encode())
    return digest


def _known_scenes(path: Path, max_pixels: int) -> FilmPlan:
    key = f"{film_sha256(path)} {max_pixels} {SCENES}"
    known = read_cached(_CACHE, key)
    if known is not None:
        try:
            values = json.loads(known)
            return FilmPlan(**{**values, "times": tuple(values["times"])})
        except (ValueError, TypeError, KeyError):
            pass  # it is made anew
    plan = _scenes(path, max_pixels)
    if plan.times:
        write_cached(_CACHE, key, json.dumps(asdict(plan)).encode())
    return plan


def _scenes(path: Path, max_pixels: int) -> FilmPlan:
    plan, end, going_on = FilmPlan(), 0.0, False
    times: list[float] = []
    while True:
        try:
            told, _ = _ask(path, max_pixels, _LOOK, want="scenes", goes_on=going_on)
        except ImageError as error:
            if not times:
                raise
            problem = f"nothing can be read from {end:.1f} seconds on: {error.detail}"
            return replace(plan, times=tuple(times), duration=round(end, 3), reason=error.reason, problem=problem)
        times += told["times"]
        end, going_on = told["end"], True
        if told["last"]:
            return _ended(times, end, told)


def _ended(times: list[float], end: float, told: Mapping[str, Any]) -> FilmPlan:
    stated = told["duration"]
    cut = stated is not None and stated - end > _SHORT_SECONDS + _SHORT_SHARE * stated
    problem = f"nothing can be read from {end:.1f} seconds on: it says that it takes {stated:.1f}" if cut else ""
    return FilmPlan(
        times=tuple(times),
        duration=round(end if cut or stated is None else max(stated, end), 3),
        reason="corrupt" if cut else None,
        problem=problem,
    )


def _ask(path: Path, max_pixels: int, limit: float, **request: Any) -> tuple[dict[str, Any], bytes]:
    name = str(path.absolute())
    if _strikes.get(name, 0) >= _STRIKES:
        raise ImageError("too_slow", f"{_STRIKES} frames of this film took too long or broke the decoder off")
    wanted = {**request, "path": name, "max_pixels": max_pixels, "limit": limit}
    try:
        told, data = _pool().ask(wanted, seconds=60 + _WAITS * limit, subject=name)
    except (ProcessEndedError, TimeoutError) as error:
        _strikes[name] = _strikes.get(name, 0) + 1
        if isinstance(error, ProcessEndedError) and error.code != -signal.SIGPROF:
            raise ImageError("corrupt", f"the decoder of films broke off on it (exit {error.code})") from error
        raise ImageError(
            "too_slow", f"decoding takes longer than the limit of {limit:g} seconds of one core"
        ) from error
    if "failed" in told:
        raise ImageError(*told["failed"])
    return told, data


# Films on which processes ended, by path: a hostile one would cost the time of a limit for each of its frames.
_strikes: dict[str, int] = {}


class _Lock:
    """A lock that goes when nobody holds it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


_locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()
_guard = threading.Lock()


def _lock_of(name: str) -> _Lock:
    with _guard:
        lock = _locks.get(name)
        if lock is None:
            lock = _locks[name] = _Lock()
        return lock


@lru_cache(maxsize=1)
def _pool() -> ProcessPool:
    return ProcessPool(lambda: ChildProcess("encoders.formats.film_worker"), os.cpu_count() or 1)
