"""An item that could not be indexed, with the stage and the reason: never silent."""

from __future__ import annotations

from dataclasses import dataclass

from storage.spec import Collection


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """What is kept of an item that could not be indexed; one row of the catalog's `rejected` table.

    Attributes:
        item_id: The id that the item would have had.
        collection: The half of the index that it is missing from.
        uri: Where it came from, as in `Item.uri`.
        stage: Where it fell out: `read`, `decode`, `encode`.
        reason: A short machine word, e.g. `empty_text`, so that reasons can be counted.
        detail: One line for people: the value and the place.
    """

    item_id: str
    collection: Collection
    uri: str
    stage: str
    reason: str
    detail: str
