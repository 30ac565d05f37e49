"""What the API answers, field by field, as /openapi.json describes it; a test holds real answers against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.schema import Collection, Direction


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(_Exact):
    """What is wrong and what to do, in one line."""

    error: str


class AskedPart(_Exact):
    """What was searched with, or one part of it; images and vectors are not repeated."""

    kind: Literal["text", "item", "image", "vector", "words"]
    text: str | None = None
    item: str | None = None
    words: str | None = None


class WeightedPart(AskedPart):
    """A part of a composed query."""

    weight: float


class ComposedQuery(_Exact):
    """A query of several parts."""

    kind: Literal["composed"]
    parts: list[WeightedPart]


class ExplanationAnswer(_Exact):
    """The caption of an image that is nearest to the query."""

    item_id: str
    caption: str
    score: float


class HitAnswer(BaseModel):
    """One hit; further fields are columns of the catalog, one that is named like a field here as `metadata.NAME`."""

    model_config = ConfigDict(extra="allow")
    rank: int
    item_id: str
    score: float | None = Field(description="Exact cosine of query and item; null by words alone.", ge=-1, le=1)
    probability: float | None = Field(
        None, description="How likely it is that it fits; left out where the index has no calibration.", ge=0, le=1
    )
    words_score: float = Field(default=0.0, description="BM25 of the words that were looked up, where any were.")
    caption: str | None
    copies: list[str] = Field(default=[], description="Item ids that it stands for, where copies were collapsed.")
    explanation: ExplanationAnswer | None = Field(None, description="Of an image with captions, by `explain`.")


class AnnAnswer(_Exact):
    """How the search was carried out; settings that play no part are null."""

    kind: str
    exact: bool
    nprobe: int | None
    oversample: int | None
    ann_recall: float | None = Field(description="What this setting found when it was measured.")
    k: int | None = Field(description="The number of hits it was measured with.")
    reason: str
    filtered_rows: int | None = Field(description="Rows that pass the filter.")
    score_within: float | None = Field(
        None, description="How far a score may be from that of the float16 vector, of an index with one byte a value."
    )


class QueryAnswer(_Exact):
    """The hits of one query."""

    query: AskedPart | ComposedQuery
    direction: Direction
    k: int
    offset: int
    where: str | None
    min_score: float | None
    min_probability: float | None
    nothing_fits: bool = Field(description="A floor was asked for, and no hit reaches it.")
    words: str | None = Field(description="What was looked up in captions and ids.")
    hits: list[HitAnswer]
    ann: AnnAnswer
    cursor: str | None = Field(
        description="What gives the next page, sent with the same search; null where this one was not full, or the "
        "next would reach beyond the server's limit of hits."
    )


class SearchAnswer(QueryAnswer):
    """The answer to one query."""

    version: int = Field(description="The version of the index that was searched.")
    ms: float = Field(description="Milliseconds that the search took in the server.")


class SearchAnswers(_Exact):
    """The answers to `queries`, in their order."""

    version: int = Field(description="The version of the index that was searched.")
    answers: list[QueryAnswer]
    ms: float = Field(description="Milliseconds that all of them took in the server.")


class PairAnswer(_Exact):
    """An item of the other collection that the corpus pairs with one."""

    item_id: str
    caption: str | None


class ItemAnswer(BaseModel):
    """One item; further fields are columns of the catalog."""

    model_config = ConfigDict(extra="allow")
    version: int
    collection: Collection
    item_id: str
    caption: str | None
    pairs: list[PairAnswer] = Field(description="The first hundred.")


class HealthAnswer(_Exact):
    """Whether the server answers, from which version, and whether texts can be encoded."""

    status: Literal["ok"]
    version: int
    encoder: Literal["loading", "ready", "failed", "none"]


class ReadyAnswer(_Exact):
    """Whether requests should be sent to the server, and if not, why."""

    status: Literal["ready", "not ready"]
    version: int
    encoder: Literal["loading", "ready", "failed", "none"]
    reason: str | None


def answers(model: Any, description: str = "The answer") -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer, for its description: a model, or one line that says what is wrong."""
    error = {"model": ErrorAnswer, "description": "What is wrong, in one line"}
    return {200: {"model": model, "description": description}, "4XX": error, 503: error}
