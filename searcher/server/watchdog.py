"""The end of a server's process: within its grace after a signal, whatever its threads are doing."""

from __future__ import annotations

import atexit
import logging
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

# What `timeout` ends with as well.
EXIT_STUCK = 124
# A second signal means at once; what is nearly done may finish.
_HASTE = 1.0
_TICK = 0.05
# What it takes, on a busy machine, to say so and to end: after it the kernel ends the process.
_LAST_WORDS = 2.0
_SHOWN = 4
_OWN_THREADS = "twinlens-"


class Watchdog:
    """Ends the process where it has not ended by itself within its grace after a signal.

    A thread that computes cannot be stopped from outside, and Python waits for every thread before it ends; so does the
    service, whose files a search may still read. Nothing is lost by ending it there: a server writes nothing.

    The process ends with one line in the log and exit code 124; should even that be held up, or Python's own end,
    SIGALRM ends it.
    """

    def __init__(self, grace: float) -> None:
        """Begin to watch, in a thread that holds up nobody.

        Args:
            grace: Seconds from the first signal to the end; a second signal leaves one second.
        """
        self._grace = grace
        self._signals = 0
        # Set by the signal handler alone, which may take no lock that the interrupted code might hold.
        self._deadline = math.inf
        self._first = 0.0
        threading.Thread(target=self._watch, name="twinlens-watchdog", daemon=True).start()

    def signalled(self, number: int, frame: FrameType | None = None) -> None:
        """Count the time from now; to be called by the handler of a signal that ends the server."""
        del number, frame
        now = time.monotonic()
        self._signals += 1
        left = self._grace if self._signals == 1 else min(self._grace, _HASTE)
        left -= min(_LAST_WORDS, left / 5)
        self._first = self._first or now
        self._deadline = min(self._deadline, now + left)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, left + _LAST_WORDS)

    def finish(self) -> NoReturn:
        """End the process with exit code 0, now that all is answered and closed.

        Python would take all libraries down one by one, which was seen to hang in the collection of garbage; where a
        thread is stuck, the grace is waited for.
        """
        for thread in threading.enumerate():
            if thread.name.startswith(_OWN_THREADS) and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(_TICK)
        log.error(
            "the process has not ended %.1f s after it was told to: %s; it ends now, with exit code %d",
            time.monotonic() - self._first,
            _running(),
            EXIT_STUCK,
        )
        os._exit(EXIT_STUCK)


def _running() -> str:
    """Return which threads run, and in which function each is."""
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate() if not thread.daemon}
    shown = [f"{names[ident]} in {_function(frame)}" for ident, frame in frames.items() if ident in names]
    # The main thread waits for the others; it is of interest where it is alone.
    others = [line for line in shown if not line.startswith(threading.main_thread().name)] or shown
    return ", ".join(sorted(others)[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")


def _function(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
