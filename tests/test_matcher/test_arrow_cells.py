"""Arrow tables whose columns have extension types, and texts in which nothing shows."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest

from matcher.errors import DataError
from matcher.tables import CellError, read_table, text_of

KEY = uuid.uuid5(uuid.NAMESPACE_URL, "0")


@pytest.mark.parametrize("whole", [pa.table, pa.RecordBatch.from_pydict])
def test_values_of_extension_types_are_those_of_a_file(whole: object) -> None:
    columns = {"key": pa.array([KEY.bytes], pa.uuid()), "text": pa.array(["a"]).dictionary_encode()}
    table = read_table(whole(columns), ["key", "text"])  # type: ignore[operator]
    assert table.columns == {"key": [str(KEY)], "text": ["a"]}


def test_a_column_alone_is_read_alike() -> None:
    assert read_table(pa.array([KEY.bytes], pa.uuid()), ["key"], "key").columns == {"key": [str(KEY)]}


def test_a_date_beyond_the_calendar_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="outside the years 1 to 9999"):
        read_table(pa.table({"day": pa.array([400_000 * 365], pa.date32())}), ["day"])


@pytest.mark.parametrize("text", ["\u200b\u2060", "\ufeff", "\u00ad "])
def test_a_text_in_which_nothing_shows_is_empty(text: str) -> None:
    with pytest.raises(CellError, match="is empty"):
        text_of(text)
