"""Top-k search in one version of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.rerank import exact_search
from storage.spec import COLLECTIONS, TARGETS, Collection, Direction
from storage.store import IndexStore

from .embedder import Embedder, EncoderChoice
from .errors import SearchError
from .gate import Gate
from .hits import OWN_COLUMNS, Hit, Hits
from .params import SearchParams
from .points import Choice, choose
from .query import Modality, Query, Vectors, split_queries, understand, unit_rows
from .where import Filters, RowIds

if TYPE_CHECKING:
    from encoders import Encoder
    from storage.manifest import Manifest
    from storage.store import IndexVersion

Found = Hits | list[Hits]


class _Answer(NamedTuple):
    """Row ids (n, k) padded with -1, scores (n, k) padded with -inf, and how they were found."""

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    choice: Choice


class Searcher:
    """Answers queries from one version of an index, the current one when it was opened, and keeps it.

    Safe from many threads. Close it, or use it in `with`.
    """

    def __init__(self, version: IndexVersion, choice: EncoderChoice, place: str) -> None:
        """Use an open version of an index, which the searcher then owns; see `open`."""
        self._version = version
        self._place = place
        self._gate = Gate(place)
        self._filters = Filters(version.catalog)
        held = [name for name in COLLECTIONS if name in version.manifest.collections]
        if not held:
            raise SearchError(f"the index {place} has neither images nor texts; build it again")
        self._embedder = Embedder(choice, version.manifest.encoder, version.vectors(held[0]).dim, place)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        version: int | None = None,
        encoder: Encoder | str | None = None,
        device: str = "auto",
        precision: str = "auto",
        verify: Literal["full", "size"] = "full",
    ) -> Searcher:
        """Return a searcher of the index at `path`.

        Args:
            path: The folder of the index.
            version: Its number; None for the current one.
            encoder: An encoder, or the spec of one, in place of the one that the manifest names. It is needed for
                indexes of ready-made vectors only; any other must be the one that made the index.
            device: Where queries are encoded: `auto`, `cpu`, `cuda`.
            precision: `auto`, `fp32`, `bf16`, `fp16`.
            verify: `full` reads every file once and compares checksums, about a second for 2 GB; `size` compares
                sizes only, for files that something else has checked.

        Raises:
            StorageError: There is no index or no such version, or its files are not what the manifest says.
            EncoderMismatchError: The encoder given is not the one that made the index.
        """
        opened = IndexStore.open(Path(path)).open_version(version, verify=verify)
        choice = EncoderChoice(encoder=encoder, device=device, precision=precision)
        try:
            return cls(opened, choice, str(path))
        except BaseException:
            opened.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself: counts, encoder, plans, operating points."""
        return self._version.manifest

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The halves that this index has, `images` before `texts`."""
        held = self._version.manifest.collections
        return tuple(name for name in COLLECTIONS if name in held and held[name].rows)

    def text_to_image(self, query: str | Any, k: int = 10, **options: Any) -> Any:
        """Return the images that a text describes best.

        Args:
            query: A text or a ready vector (dim,); or several: a list of them, or an array (n, dim).
            k: Hits wanted, 1 to 10,000.
            **options: `where`, `ann_recall`, `nprobe`, `oversample`, `exact`, `columns`; see `SearchParams`.

        Returns:
            `Hits` for one query, a list of `Hits` for several, in their order.

        Raises:
            SearchError: The query, an option or the filter cannot be used; the message says why.
        """
        return self._search("text_to_image", query, k, options)

    def image_to_text(self, query: Any, k: int = 10, **options: Any) -> Any:
        """Return the texts that describe a picture best; see `text_to_image`.

        A query is a path, the bytes of a file, a PIL image or a vector; a `str` is a path, and nothing is fetched.
        """
        return self._search("image_to_text", query, k, options)

    def image_to_image(self, query: Any, k: int = 10, **options: Any) -> Any:
        """Return the images most like a picture; queries as in `image_to_text`, the rest as in `text_to_image`."""
        return self._search("image_to_image", query, k, options)

    def text_to_text(self, query: Any, k: int = 10, **options: Any) -> Any:
        """Return the texts nearest in meaning to a text; see `text_to_image`."""
        return self._search("text_to_text", query, k, options)
