"""Painted pictures with a colour encoder for the rules, and real photographs with `lite` for the promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from colour import COLOURS, ColourEncoder, paint
from matching import Painted, Photographs

from encoders import Encoder, load_encoder
from matcher import Matcher

PHOTOGRAPHS = 40


@pytest.fixture
def encoder() -> ColourEncoder:
    """A real encoder without weights, which counts what it encodes."""
    return ColourEncoder()


@pytest.fixture
def matcher(encoder: ColourEncoder) -> Matcher:
    """Captions ask, images answer."""
    return Matcher(encoder=encoder)


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Painted:
    folder = tmp_path_factory.mktemp("painted")
    colours = [name for name in COLOURS for _ in range(3)]
    images = [str(paint(folder / f"{row:02}.png", name, noise=row)) for row, name in enumerate(colours)]
    captions = [f"a {name} square, number {row}" for row, name in enumerate(colours)]
    return Painted(folder, images, captions, colours)


@pytest.fixture(scope="session")
def lite() -> Encoder:
    """The encoder that ships inside ordinary packages."""
    return load_encoder("lite", device="cpu")


@pytest.fixture(scope="session")
def photographs(data: Path) -> Photographs:
    lines = (data / "flickr8k" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "dev"][:PHOTOGRAPHS]
    return Photographs([str(data / "flickr8k" / row["image"]) for row in rows], [row["captions"] for row in rows])
