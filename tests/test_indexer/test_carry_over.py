"""An update that leaves every vector as it was keeps the approximate index, and the recall measured on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import SourceOptions
from storage import IndexStore

ROWS = 60


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    for number in range(ROWS):
        paint(tmp_path / f"{number}.png", ("red", "green", "blue")[number % 3], noise=number)

    def write(price: int, order: int = 1, captions: bool = True) -> Path:
        rows = [f"{n}.png,{f'a picture {n}' if captions else ''},{price + n}\n" for n in range(ROWS)][::order]
        (tmp_path / "corpus.csv").write_text("image,caption,price\n" + "".join(rows))
        return tmp_path / "corpus.csv"

    return write


OPTIONS = SourceOptions(image="image", text="caption")


def built(corpus: Path, out: Path, **settings: Any) -> tuple[ColourEncoder, list[str]]:
    """Build or update, and return the encoder with what it counted, and the notes of the build."""
    encoder, notes = ColourEncoder(), []

    class Said:
        def __getattr__(self, name: str) -> Any:
            return notes.append if name == "note" else lambda *given, **named: None

    build_index(corpus, out, encoder=encoder, options=OPTIONS, progress=Said(), **settings)
    return encoder, notes


def current(out: Path) -> tuple[bytes, Any]:
    with IndexStore.open(out).open_version() as version:
        assert version.manifest.counts.images == ROWS
        assert version.manifest.calibrations  # of how likely a hit fits, fitted anew on the same pairs
        kept = version.manifest.collections, version.manifest.calibrations
        return (version.path / "images/ann.faiss").read_bytes(), kept


def test_a_changed_column_keeps_the_index_and_what_was_measured(table: Callable[..., Path], tmp_path: Path) -> None:
    built(table(10), tmp_path / "out", ann="hnsw")
    before = current(tmp_path / "out")
    encoder, notes = built(table(20), tmp_path / "out", update=True)
    assert any("every vector is as in version 1" in note for note in notes)
    assert encoder.images_encoded == encoder.texts_encoded == 0
    assert current(tmp_path / "out") == before
    with IndexStore.open(tmp_path / "out").open_version(verify="full") as version:
        assert version.number == 2
        assert len(version.catalog.filter_rows("images", "price = 20")) == 1


def test_texts_are_not_encoded_to_measure_images_anew(table: Callable[..., Path], tmp_path: Path) -> None:
    first, _ = built(table(10, captions=False), tmp_path / "out", ann="hnsw")
    assert first.texts_encoded > 200  # generic captions
    encoder, _ = built(table(20, captions=False), tmp_path / "out", update=True)
    assert encoder.texts_encoded == 0


@pytest.mark.parametrize(
    ("change", "settings"),
    [({"order": -1}, {}), ({}, {"seed": 5}), ({}, {"ann": "flat"}), ({}, {"min_ann_recall": 0.95})],
)
def test_another_order_or_setting_builds_it_anew(
    table: Callable[..., Path], tmp_path: Path, change: dict[str, Any], settings: dict[str, Any]
) -> None:
    built(table(10), tmp_path / "out", ann="hnsw")
    _, notes = built(table(20, **change), tmp_path / "out", update=True, **settings)
    assert not any("every vector is as in" in note for note in notes)
    with IndexStore.open(tmp_path / "out").open_version() as version:
        assert version.number == 2
        assert version.manifest.collections["images"].ann.kind == settings.get("ann", "hnsw")


def test_a_changed_image_builds_it_anew(table: Callable[..., Path], tmp_path: Path) -> None:
    built(table(10), tmp_path / "out", ann="hnsw")
    paint(tmp_path / "7.png", "yellow", noise=1000)
    encoder, notes = built(table(10), tmp_path / "out", update=True)
    assert encoder.images_encoded == 1
    assert not any("every vector is as in" in note for note in notes)
