"""Where the file of an image is."""

from __future__ import annotations

from pathlib import Path

import pytest

from searcher.originals import corpus_root, resolve_uri
from storage.schema import CorpusInfo


@pytest.mark.parametrize(
    ("uri", "root", "expected"),
    [
        ("a/b.jpg", Path("/corpus"), Path("/corpus/a/b.jpg")),
        ("/elsewhere/b.jpg", Path("/corpus"), Path("/elsewhere/b.jpg")),
        ("b.jpg", None, Path("b.jpg")),
        ("../b.jpg", Path("/corpus"), None),
        ("a/../../b.jpg", Path("/corpus"), None),
        ("", Path("/corpus"), None),
        (None, Path("/corpus"), None),
        ("a\0.jpg", Path("/corpus"), None),
    ],
)
def test_a_uri_is_below_the_corpus_or_absolute(uri: str | None, root: Path | None, expected: Path | None) -> None:
    assert resolve_uri(uri, root) == expected


def test_the_root_is_the_given_one_else_the_recorded_one() -> None:
    recorded = CorpusInfo(root="/corpus", digest="d" * 64)
    assert corpus_root(recorded) == Path("/corpus")
    assert corpus_root(recorded, "moved") == Path("moved")
    assert corpus_root(None) is None
    assert corpus_root(None, "moved") == Path("moved")
