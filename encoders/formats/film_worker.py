"""The process in which films are read: FFmpeg sees untrusted bytes, and may be ended at any moment.

A film that was asked for stays open, so that the next frame of it is decoded on from the one before.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from storage.child_process import data_bytes, own_output, serve

from ..errors import ImageError
from ..file_facts.film import FILM_KEYS
from .scenes import Scenes

# Containers that hold their film themselves; a playlist would have further files and addresses opened.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,h264,hevc"
MOST_PACKETS = 5_000_000
"""Of one film: 55 hours at 25 frames a second."""
_ROUNDING = 0.0005
_MOST_TOLD = 1000
_MOST_ERRORS = 200
_MOST_BYTES = 3 << 30
_STEP_SECONDS = 5.0
_SKIP_SECONDS = 3.0  # by how much further on the next frame is sought and not decoded up to, where nothing tells
_THREADS = min(4, os.cpu_count() or 1)


class Film:
    """One film that is open, and where in it decoding stands."""

    def __init__(self, path: str, max_pixels: int) -> None:
        """Open a film.

        Raises:
            ImageError: It cannot be opened, holds no film, or its frames are too large.
        """
        self._path, self._max_pixels = path, max_pixels
        self._seeks = True
        self._scan: Iterator[dict[str, Any]] | None = None
        self._open()

    def _open(self) -> None:
        self._file = Path(self._path).open("rb")  # noqa: SIM115 - stays open
        # A file that is read by us, so that FFmpeg opens nothing by a name.
        self._container: Any = av.open(self._file, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")
        pictures = av.stream.Disposition.attached_pic
        films = [one for one in self._container.streams.video if not one.disposition & pictures]
        if not films:
            raise ImageError("not_an_image", "the file holds no film")
        self._stream = films[0]
        if self._stream.codec_context is None:
            raise ImageError("unsupported_format", "FFmpeg has no decoder for this film; convert it to H.264")
        self._check(self._stream.codec_context)
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", _THREADS
        self._base = float(self._stream.time_base or 1)
        self._start = self._stream.start_time or 0
        self._begin()

    def _begin(self) -> None:
        """Decode from where the file stands."""
        self._shown: Any = None
        self._next: Any = None
        self._broken = False
        self._frames = self._decoded()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    @property
    def told(self) -> dict[str, str]:
        """What the container says of when, where and with what the film was taken."""
        told = self._container.metadata
        return {key: str(told[key])[:_MOST_TOLD] for key in FILM_KEYS if key in told}

    @property
    def duration(self) -> float | None:
        """Seconds, as the file says."""
        if self._stream.duration:
            return float(self._stream.duration * self._base)
        return self._container.duration / 1e6 if self._container.duration else None

    def times(self) -> tuple[list[float], str]:
        """Return when each frame is to be shown, in seconds, and what broke the reading off. Nothing is decoded."""
        stamps, problem = array("q"), ""
        try:
            for packet in self._container.demux(self._stream):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None and packet.size:
                    stamps.append(stamp)
                if len(stamps) >= MOST_PACKETS:
                    problem = f"it has more than {MOST_PACKETS} frames"
                    break
        except (av.FFmpegError, OSError) as error:
            problem = _words(error)
        seconds = np.sort((np.frombuffer(stamps, dtype=np.int64) - self._start) * self._base)
        return seconds.tolist(), problem

    def frame_at(self, seconds: float) -> Any:
        """Return the frame that is shown at a time.

        Raises:
            ImageError: It cannot be decoded.
        """
        target = self._start + math.floor((seconds + _ROUNDING) / self._base)
        if self._is_ahead(target):
            self._seek(target)
        self._decode_to(target)
        if self._shown is None and target > self._start and self._seeks:
            # Some containers find what comes after it, or nothing: such a film is read from its start on.
            self._seeks = False
            self._seek(target)
            self._decode_to(target)
        shown = self._shown or self._next
        if shown is None or self._broken:
            raise ImageError("corrupt", f"the film cannot be decoded at {seconds:g} seconds")
        return shown

    def _is_ahead(self, target: int) -> bool:
        """Whether it is quicker to seek than to decode on to a frame, or there is no other way."""
        here = self._start if self._shown is None else _stamp(self._shown)
        if target < here:
            return True
        if not self._seeks:
            return False
        entries = self._stream.index_entries
        place = entries.search_timestamp(target, backward=True) if len(entries) else -1
        if place >= 0:
            nearest: int = entries[place].timestamp
            return nearest > (here if self._next is None else _stamp(self._next))
        return (target - here) * self._base > _SKIP_SECONDS

    def _seek(self, target: int) -> None:
        if not self._seeks:
            self.close()
            self._open()
            return
        with contextlib.suppress(av.FFmpegError):  # what cannot be sought is read from where it stands
            self._container.seek(target, stream=self._stream, backward=True)
        self._begin()

    def _decode_to(self, target: int) -> None:
        while self._next is None or _stamp(self._next) <= target:
            if self._next is not None:
                self._shown, self._next, self._broken = self._next, None, False
            self._next = next(self._frames, None)
            if self._next is None:
                return

    def _decoded(self) -> Iterator[Any]:
        """Yield the frames from here on; what cannot be decoded is passed over, and remembered."""
        errors = 0
        packets = self._container.demux(self._stream)
        while errors < _MOST_ERRORS:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                errors += 1
                self._broken = True
                continue
            for frame in frames:
                if _stamp(frame) is None or frame.is_corrupt:
                    self._broken = self._broken or frame.is_corrupt
                    continue
                self._check(frame)
                yield frame

    def scan(self) -> dict[str, Any]:
        """Go on looking for scenes for some seconds: the times that were found, and whether that was all."""
        if self._scan is None:
            self._scan = self._steps()
        return next(self._scan)

    def _steps(self) -> Iterator[dict[str, Any]]:
        scenes, found, count, last = Scenes(), [], 0, 0.0
        until = time.process_time() + _STEP_SECONDS
        for frame in self._decoded():
            count += 1
            last = (_stamp(frame) - self._start) * self._base
            if scenes.begins(_small(frame), last):
                found.append(round(max(last, 0.0), 3))
            if time.process_time() > until:
                yield {"times": found, "end": last, "last": False}
                found, until = [], time.process_time() + _STEP_SECONDS
            if count > MOST_PACKETS:
                break
        yield {"times": found, "end": last, "last": True, "whole": count <= MOST_PACKETS}

    def pixels_of(self, frame: Any, max_bytes: int) -> NDArray[np.uint8]:
        """Return a frame as it is to be seen, (height, width, 3), smaller where it has more bytes than are allowed."""
        width, height = frame.width, frame.height
        ratio = self._stream.sample_aspect_ratio
        if ratio and 0.1 < ratio < 10:
            width = max(1, round(width * float(ratio)))
        shrink = max(1.0, math.sqrt(width * height * 3 / max_bytes))
        samples = frame.to_ndarray(width=int(width / shrink), height=int(height / shrink), format="rgb24")
        turned: NDArray[np.uint8] = np.rot90(samples, round(frame.rotation / 90) % 4)
        return np.ascontiguousarray(turned)

    def _check(self, sized: Any) -> None:
        if sized.width * sized.height > self._max_pixels:
            size = f"{sized.width} x {sized.height}"
            raise ImageError("too_many_pixels", f"{size} is more than the limit of {self._max_pixels} pixels")


def _stamp(frame: Any) -> int:
    stamp: int = frame.pts if frame.pts is not None else frame.dts
    return stamp


def _small(frame: Any) -> NDArray[np.int16]:
    small: NDArray[np.int16] = frame.to_ndarray(width=32, height=18, format="rgb24").astype(np.int16)
    return small


def _words(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__


class _Answers:
    """Answers requests, and keeps the last film open."""

    def __init__(self) -> None:
        self._film: Film | None = None
        self._key: tuple[Any, ...] = ()

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            return self._answered(request)
        except ImageError as error:
            failed = [error.reason, error.detail]
        except MemoryError:
            failed = ["unreadable", "not enough memory to decode the film"]
        except FileNotFoundError:
            failed = ["missing", "there is no such film"]
        except (av.FFmpegError, OSError, ValueError, TypeError, ZeroDivisionError) as error:
            failed = ["corrupt", f"the film cannot be read: {_words(error)}"]
        self._forget()
        return {"failed": failed}, b""

    def _answered(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        film = self._opened(request)
        duration = film.duration
        if request["want"] == "times":
            times, problem = film.times()
            self._forget()  # at its end
            return {"duration": duration, "problem": problem}, np.array(times).tobytes()
        if request["want"] == "scenes":
            step = film.scan()
            if step["last"]:
                self._forget()
            return {**step, "duration": duration}, b""
        pixels = film.pixels_of(film.frame_at(request["seconds"]), request["max_bytes"])
        return {"size": [pixels.shape[1], pixels.shape[0]], "told": film.told}, pixels.tobytes()

    def _opened(self, request: dict[str, Any]) -> Film:
        state = Path(request["path"]).stat()
        key = (request["path"], state.st_size, state.st_mtime_ns, request["max_pixels"], request["want"])
        if self._film is None or key != self._key:
            if request.get("goes_on"):
                raise ImageError("corrupt", "decoding broke off")
            self._forget()
            self._film, self._key = Film(request["path"], request["max_pixels"]), key
        return self._film

    def _forget(self) -> None:
        if self._film is not None:
            self._film.close()
        self._film, self._key = None, ()


def main() -> None:
    """Answer requests on standard input."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = own_output()
    # FFmpeg's words go nowhere. With any level its threads would wait for Python's lock to say them, for ever where
    # Python waits for those threads meanwhile.
    av.logging.set_level(None)
    most, kept = data_bytes() + _MOST_BYTES, _Answers()
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))

    def answer_one(request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes, bool]:
        # Counted is what this process computes, not what it waits for.
        signal.setitimer(signal.ITIMER_PROF, request["limit"])
        told, data = kept.answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return told, data, False

    serve(sys.stdin.buffer, answers, answer_one)
