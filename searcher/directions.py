"""The four directions of a search, by what is asked with and what is looked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Unpack, overload

from numpy.typing import NDArray
from PIL import Image

from storage.spec import Direction

from .hits import Hits
from .params import SearchOptions

Vector = NDArray[Any]
Picture = str | Path | bytes | Image.Image
Many = list[Any] | tuple[Any, ...]


class Directions(ABC):
    """The four methods of a searcher, with what each takes and gives."""

    @overload
    def text_to_image(self, query: str, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def text_to_image(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def text_to_image(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def text_to_image(self, query: str | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the images that a text describes best.

        Args:
            query: A text or a ready vector (dim,); or several: a list of them, or an array (n, dim).
            k: Hits wanted, 1 to 10,000; fewer come back where there are fewer.
            **options: `where`, `ann_recall`, `nprobe`, `oversample`, `exact`, `columns`; `SearchParams` says what they
                mean.

        Returns:
            `Hits` for one query, a list of `Hits` for several, in their order.

        Raises:
            SearchError: The query, an option or the filter cannot be used; the message says why.
        """
        return self._search("text_to_image", query, k, options)

    @overload
    def image_to_text(self, query: Picture, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def image_to_text(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def image_to_text(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def image_to_text(self, query: Picture | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the texts that describe a picture best; see `text_to_image`.

        A query is a path, the bytes of a file, a PIL image or a vector; a `str` is a path, and nothing is fetched.
        """
        return self._search("image_to_text", query, k, options)

    @overload
    def image_to_image(self, query: Picture, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def image_to_image(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def image_to_image(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def image_to_image(self, query: Picture | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the images most like a picture; queries as in `image_to_text`, the rest as in `text_to_image`."""
        return self._search("image_to_image", query, k, options)

    @overload
    def text_to_text(self, query: str, k: int = ..., **options: Unpack[SearchOptions]) -> Hits: ...
    @overload
    def text_to_text(self, query: Many, k: int = ..., **options: Unpack[SearchOptions]) -> list[Hits]: ...
    @overload
    def text_to_text(self, query: Vector, k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...
    def text_to_text(self, query: str | Vector | Many, k: int = 10, **options: Unpack[SearchOptions]) -> Any:
        """Return the texts nearest in meaning to a text; see `text_to_image`."""
        return self._search("text_to_text", query, k, options)

    @abstractmethod
    def _search(self, direction: Direction, query: Any, k: int, options: SearchOptions) -> Hits | list[Hits]:
        """Answer one query or several."""
