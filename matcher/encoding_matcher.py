"""What a matcher encodes with: roles of columns, an encoder loaded on first use, remembered vectors, a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder, load_encoder
from encoders.catalogue import resolve_preset
from encoders.load import DEFAULT_ENCODER
from storage.arguments import check_arguments

from .calibration import Calibration, check_encoder, check_not_unknown, find_calibration
from .embed import CellEncoder, Column, Vectors
from .errors import DataError, MatcherError
from .keywords import own_keywords
from .matches import embedding_form, embeddings_as
from .pairs import Reader, is_column, side_of_column, sides_in
from .tables import IdMappings, Kind, RoleOptions, Roles, Side, read_table
from .vector_memory import DEFAULT_BYTES, VectorMemory


class EncodingMatcher:
    """Declares columns and encodes them; what `Matcher` builds on.

    Attributes:
        roles: Which column plays which part.
        spec: The encoder's spec.
        index: A built index to search and evaluate in, in place of response data; None for none.
    """

    @own_keywords("Matcher", *RoleOptions.__annotations__)
    def __init__(
        self,
        query: str = "caption",
        response: str = "image",
        encoder: str | Encoder = DEFAULT_ENCODER,
        *,
        device: str = "auto",
        precision: str = "auto",
        calibration: Calibration | None = None,
        remember_bytes: int = DEFAULT_BYTES,
        remember_in: str | Path | None = None,
        **roles: Unpack[RoleOptions],
    ) -> None:
        """Declare what is matched.

        Args:
            query: The column of the queries.
            response: The column of what is searched for.
            encoder: The spec of an encoder, or an encoder.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: `auto`, `fp32`, `bf16` or `fp16`.
            calibration: What cosines of this encoder mean; None looks for the stored one.
            remember_bytes: Memory for vectors of contents that were encoded, so that no later call encodes them again;
                256 MiB hold 130,000 of 512 dimensions. 0 remembers nothing from one call to the next.
            remember_in: A folder to remember them in instead, also for later programs.
            **roles: `query_type`, `response_type`, `label`, `match_label`, `root`, `quoting`.

        Raises:
            MatcherError: The roles contradict each other.
        """
        check_arguments(type(self).__init__, locals(), MatcherError)
        if remember_bytes < 0:
            raise MatcherError(f"remember_bytes={remember_bytes!r} is no size; give 0 or more")
        self.roles = Roles(query=query, response=response, **roles)
        self.spec = resolve_preset(encoder, device) if isinstance(encoder, str) else encoder.spec
        self.index: Path | None = None
        self._placement = {"device": device, "precision": precision}
        self._encoder: Encoder | None = None if isinstance(encoder, str) else encoder
        self._calibration = calibration
        self._remember_bytes = remember_bytes
        self._remember_in = None if remember_in is None else Path(remember_in)
        self._memory: VectorMemory | None = None

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded on first use; `build_index(..., encoder=matcher.encoder)` takes it."""
        if self._encoder is None:
            self._encoder = load_encoder(self.spec, **self._placement)
        return self._encoder

    @property
    def calibration(self) -> Calibration:
        """What turns cosines into probabilities: the one given or fitted, else the stored one of the encoder.

        Raises:
            CalibrationError: There is none; the message says how to fit one. Of an encoder of the catalogue it is told
                before anything is fetched.
        """
        if self._calibration is None:
            if self._encoder is None:
                check_not_unknown(self.spec)
            self._calibration = find_calibration(self.encoder.spec, self.encoder.fingerprint)
        return self._calibration

    def use(self, calibration: Calibration) -> None:
        """Judge by this calibration from now on.

        Raises:
            CalibrationError: It belongs to another encoder.
        """
        check_encoder(calibration, self.spec, self.encoder.fingerprint)
        self._calibration = calibration

    @own_keywords("Matcher.extract_embedding")
    def extract_embedding(
        self,
        data: Any,
        *,
        signature: Side | None = None,
        as_tensor: bool = False,
        as_pandas: bool = False,
        as_arrow: bool = False,
        id_mappings: IdMappings | None = None,
    ) -> Any:
        """Return the unit vectors of columns.

        Args:
            data: A table with the query column, the response column or both; or one column alone, a list or a series,
                whose side is that of its name, else that of its cells (image files, images, texts).
            signature: `query` or `response`: the column to take.
            as_tensor: As a torch tensor on the CPU.
            as_pandas: As a frame, one column a dimension, with the index of a frame given.
            as_arrow: As an Arrow table with a column `embedding`, fixed_size_list<float32>[dim].
            id_mappings: What ids in the columns stand for.

        Returns:
            Of a table a dict from column name to (n, dim) float32, also where it has one of the columns; of a column
            alone, and with a signature, the (n, dim) float32 themselves.

        Raises:
            DataError: There is no such column, rows cannot be used, or a list holds texts and images.
        """
        form = embedding_form(as_tensor, as_pandas, as_arrow)
        reader = self._reader(id_mappings)
        if is_column(data):
            signature = signature or side_of_column(data, self.roles)
        if signature is not None:
            return embeddings_as(reader.side(_one_column(data, self.roles), signature), form, data)
        sides = sides_in(data, self.roles)
        return {self.roles.column(side): embeddings_as(reader.side(data, side), form, data) for side in sides}

    def embed_images(self, images: Any) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors of a list or series of images, whatever the roles of this matcher.

        Raises:
            DataError: Some cannot be used; the message names them.
        """
        return self._embed("images", "image", images)

    def embed_texts(self, texts: Any) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors of a list or series of texts, whatever the roles of this matcher.

        Raises:
            DataError: Some cannot be used; the message names them.
        """
        return self._embed("texts", "text", texts)

    def similarity(self, query_data: Any, response_data: Any) -> NDArray[np.float64]:
        """Return the cosine of every query with every response, (n, m) float64.

        Raises:
            DataError: The data cannot be used.
        """
        reader = self._reader()
        queries, responses = reader.side(query_data, "query"), reader.side(response_data, "response")
        return np.clip(queries.astype(np.float64) @ responses.T.astype(np.float64), -1, 1)

    def cell_encoder(self) -> CellEncoder:
        """Return what encodes cells for one task, and takes what earlier tasks of this matcher have encoded."""
        if self._memory is None:
            self._memory = VectorMemory(self.encoder, self._remember_bytes, self._remember_in)
        return CellEncoder(self.encoder, self._memory)

    def _reader(self, mappings: IdMappings | None = None) -> Reader:
        return Reader(self.roles, self.cell_encoder(), mappings)

    def _take_encoder(self, spec: str) -> None:
        """Use another encoder from now on, which is loaded when it is needed; nothing is remembered of it yet."""
        self.spec, self._encoder, self._memory = spec, None, None

    def _embed(self, name: str, kind: Kind, cells: Any) -> Vectors:
        if not is_column(cells):
            raise DataError(f"embed_{name} takes a list or a series of {name}, not a {type(cells).__name__}")
        column = read_table(cells, [name], header=name).column(name)
        folder = None if self.roles.root is None else Path(self.roles.root)
        return self._reader().vectors(Column(name=name, kind=kind, cells=column, folder=folder))


def _one_column(data: Any, roles: Roles) -> Any:
    """Return the cells of a dict with one column under a name that nobody has declared; all else as it is."""
    if isinstance(data, dict) and len(data) == 1 and not {roles.query, roles.response} & set(data):
        return next(iter(data.values()))
    return data
