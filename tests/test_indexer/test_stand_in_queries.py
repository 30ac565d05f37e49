"""Short texts stand in for queries when a build fits how probable it is that a hit fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from colour import COLOURS, ColourEncoder
from PIL import Image

from indexer import build_index
from indexer.stand_in_queries import absent_things, everyday_things, phrases
from searcher import Searcher
from storage.lexical.build_inverted import write_inverted_index
from storage.lexical.inverted_index import InvertedIndex

CAPTIONS = [f"a {colour} square of paper number {number}" for number in range(10) for colour in COLOURS]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> InvertedIndex:
    path = tmp_path_factory.mktemp("words") / "words.safetensors"
    write_inverted_index(path, len(CAPTIONS), [(np.arange(len(CAPTIONS)), pa.chunked_array([CAPTIONS]))])
    return InvertedIndex.open(path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    lines = []
    for number, caption in enumerate(CAPTIONS):
        pixels = np.clip(rng.normal(0, 25, (16, 16, 3)) + COLOURS[caption.split()[1]], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines += [f"{number}.png,{number},{caption}", f"{number}.png,{number},{caption.split()[1]} it is"]
    (folder / "squares.csv").write_text("\n".join(["image,price,text", *lines]), encoding="utf-8")
    return folder


def test_phrases_end_in_a_word_that_some_images_have_and_not_most(words: InvertedIndex) -> None:
    found = phrases(CAPTIONS.__getitem__, range(16), words, 12, np.random.default_rng(0))
    assert [one.own for one in found] == list(range(12))
    for one in found:
        colour = CAPTIONS[one.own].split()[1]
        assert one.text in (colour, f"a {colour}")  # "paper" is of all, a number is no word
        assert one.images.tolist() == list(range(list(COLOURS).index(colour), len(CAPTIONS), len(COLOURS)))


def test_absent_things_are_everyday_ones_without_a_word_in_the_index(tmp_path: Path) -> None:
    captions = ["a TIGER cub", "the washing line", *["nothing"] * 8]
    write_inverted_index(tmp_path / "w", 10, [(np.arange(10), pa.chunked_array([captions]))])
    things = absent_things(InvertedIndex.open(tmp_path / "w"), 10**6, np.random.default_rng(0))
    gone = set(everyday_things()) - set(things)
    assert gone >= {"tiger", "washing machine"}
    assert all({"tiger", "washing", "line", "cub", "a", "the", "of"} & set(name.split()) for name in gone)
    assert len(set(things)) == len(things) > 300


def test_short_queries_are_judged_and_an_update_of_a_price_keeps_the_calibration(corpus: Path, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    index = tmp_path / "squares.index"
    build_index(corpus / "squares.csv", index, encoder=encoder)
    with Searcher.open(index, encoder=encoder) as searcher:
        fitted = searcher.manifest.calibrations
        assert fitted["text_to_image"].with_words is not None
        assert fitted["image_to_text"].with_words is None
        for colour in COLOURS:
            assert float(searcher.text_to_image(colour, 1)[0].probability or 0) > 0.8
        foreign = [searcher.text_to_image(name, 1)[0].probability for name in ("tiger", "washing machine", "Rathaus")]
        assert max(float(one or 0) for one in foreign) < 0.2
        assert searcher.text_to_image("washing machine", 5, min_probability=0.5).nothing_fits
    table = (corpus / "squares.csv").read_text(encoding="utf-8")
    (corpus / "squares.csv").write_text(table.replace(",0,", ",999,"), encoding="utf-8")
    encoded = encoder.texts_encoded
    notes = build_index(corpus / "squares.csv", index, encoder=encoder, update=True)
    assert notes.manifest.version == 2
    assert notes.manifest.calibrations == fitted
    assert encoder.texts_encoded == encoded
