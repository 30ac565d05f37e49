"""What turns a server's queries into vectors: loaded while it answers, and missed by texts and images alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from storage.errors import first_line

from ..errors import QueryError
from ..query import QueryPart, text_part
from ..query_encoder import QueryEncoder, Vectors
from .errors import RefusedError

if TYPE_CHECKING:
    from encoders import Encoder
    from encoders.image_tower import ImageTower

log = logging.getLogger(__name__)

# Whether texts can be encoded: nobody knows how, not yet, yes, or it was tried and failed.
State = Literal["none", "loading", "ready", "failed"]
# What failed may work later, when weights or memory are there; until then every query would try again.
_AGAIN_SECONDS = 30.0
_OTHER_WAYS = "searches by vector and by item work all the same"


class Encoding:
    """The encoder of a version. Safe from many threads.

    Attributes:
        query_encoder: From queries to vectors.
        key: Names the encoder: vectors of equal keys are of one space. Empty where nobody knows the encoder.
    """

    def __init__(self, query_encoder: QueryEncoder, key: str, *, loaded: bool = False) -> None:
        """Take a query encoder, which loads its encoder when it is first needed.

        Args:
            query_encoder: From queries to vectors.
            key: Names the encoder; empty where nobody knows it.
            loaded: Whether the encoder is there already.
        """
        self.query_encoder = query_encoder
        self.key = key
        self._texts = _Need("text queries", lambda: query_encoder.encode([text_part("a photo")]), met=loaded)
        self._images = _Need("image queries", query_encoder.image_encoder, met=loaded)

    @property
    def state(self) -> State:
        """Whether texts can be encoded."""
        return self._texts.state if self.key else "none"

    def prepare(self) -> str:
        """Load what texts need, and return what is wrong; empty where they can be encoded."""
        return self._texts.meet() if self.key else ""

    def texts(self, parts: Sequence[QueryPart]) -> Vectors:
        """Return the vectors of texts.

        Raises:
            QueryError: Nobody knows the encoder.
            RefusedError: 501, it cannot be loaded here; the message says why.
        """
        self._check(self._texts)
        return self.query_encoder.encode(parts)

    def image_encoder(self) -> ImageTower | Encoder:
        """Return what encodes images.

        Raises:
            QueryError: Nobody knows the encoder.
            RefusedError: 501, it cannot be loaded here; the message says why.
        """
        self._check(self._images)
        return self.query_encoder.image_encoder()

    def _check(self, need: _Need) -> None:
        if not self.key:
            raise QueryError(
                "this index was built from ready-made vectors and this server has no encoder for it; "
                "search by item or by vector, or start the server with --encoder"
            )
        if problem := need.meet():
            raise RefusedError(501, f"this server cannot encode {need.name}: {problem}; {_OTHER_WAYS}")


class _Need:
    """Something that is loaded when it is first needed, once; what went wrong is kept for a while."""

    def __init__(self, name: str, load: Callable[[], Any], *, met: bool) -> None:
        self.name = name
        self.state: State = "ready" if met else "loading"
        self._load = load
        self._lock = Lock()
        self._problem = ""
        self._tried = 0.0

    def meet(self) -> str:
        """Load it unless that was done, and return what is wrong; empty for nothing."""
        if self.state == "ready":
            return ""
        with self._lock:
            if self._is_due():
                self._try()
            return self._problem

    def _is_due(self) -> bool:
        if self.state == "failed":
            return time.monotonic() - self._tried > _AGAIN_SECONDS
        return self.state == "loading"

    def _try(self) -> None:
        started = time.monotonic()
        try:
            self._load()
        except Exception as error:  # noqa: BLE001 - libraries raise what they like, and none of it ends the server
            before, self._problem = self._problem, first_line(error)
            self.state, self._tried = "failed", time.monotonic()
            if self._problem != before:  # it is tried again and again
                log.warning("%s cannot be encoded: %s; %s", self.name, self._problem, _OTHER_WAYS)
        else:
            self._problem, self.state = "", "ready"
            log.info("%s can be encoded, after %.1f s", self.name, time.monotonic() - started)
