"""Vectors remembered by content across the calls of a matcher: in memory, on disk, within bounds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from colour import DIM, ColourEncoder, paint
from matching import Painted

from matcher import Matcher, MatcherError
from matcher.vector_memory import VectorMemory, text_key

ONE = DIM * 4


def test_a_second_call_encodes_nothing(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder)
    first = matcher.evaluate(painted.pairs, directions="both")
    assert (encoder.texts_encoded, encoder.images_encoded) == (24, 24)
    assert matcher.evaluate(painted.pairs, directions="both") == first
    matcher.semantic_search(painted.captions, painted.images)
    matcher.extract_embedding(painted.pairs)
    assert (encoder.texts_encoded, encoder.images_encoded) == (24, 24)


def test_an_image_is_known_by_its_content_and_not_by_its_path(encoder: ColourEncoder, tmp_path: Path) -> None:
    matcher, image = Matcher(encoder=encoder), paint(tmp_path / "a.png", "red")
    red = matcher.embed_images([image])
    copy = tmp_path / "b.png"
    copy.write_bytes(image.read_bytes())
    assert np.array_equal(matcher.embed_images([copy, copy.read_bytes()]), [red[0], red[0]])
    assert encoder.images_encoded == 1
    paint(image, "blue")
    blue = matcher.embed_images([image])
    assert encoder.images_encoded == 2
    assert np.array_equal(blue, Matcher(encoder=ColourEncoder()).embed_images([image]))


def test_memory_is_bounded_in_bytes(encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, remember_bytes=3 * ONE)
    whole = matcher.embed_texts(["a", "b", "c", "d"])
    matcher.embed_texts(["b", "c", "d"])
    assert encoder.texts_encoded == 4
    assert np.array_equal(matcher.embed_texts(["a"]), whole[:1])
    assert encoder.texts_encoded == 5


def test_nothing_is_remembered_where_that_is_asked(encoder: ColourEncoder, tmp_path: Path) -> None:
    matcher = Matcher(encoder=encoder, remember_bytes=0, remember_in=tmp_path / "none")
    for _ in range(2):
        matcher.embed_texts(["a", "a"])
    assert encoder.texts_encoded == 2
    assert not (tmp_path / "none").exists()
    with pytest.raises(MatcherError, match="remember_bytes=-1 is no size; give 0 or more"):
        Matcher(remember_bytes=-1)


def test_a_folder_remembers_for_later_programs_with_the_same_encoder(painted: Painted, tmp_path: Path) -> None:
    first, again, other = ColourEncoder(), ColourEncoder(), ColourEncoder("other")
    wanted = Matcher(encoder=first, remember_in=tmp_path).extract_embedding(painted.pairs)
    found = Matcher(encoder=again, remember_in=str(tmp_path)).extract_embedding(painted.pairs)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert (again.texts_encoded, again.images_encoded) == (0, 0)
    Matcher(encoder=other, remember_in=tmp_path).embed_texts(painted.captions)
    assert other.texts_encoded == 24
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_a_folder_is_bounded_too(encoder: ColourEncoder, tmp_path: Path) -> None:
    memory = VectorMemory(encoder, 3 * ONE, tmp_path)
    for text in "abcde":
        memory.put({text_key(text): encoder.encode_texts([text])[0]})
    assert set(VectorMemory(encoder, 3 * ONE, tmp_path).get(map(text_key, "abcde"))) == set(map(text_key, "cde"))


def test_a_vector_damaged_on_disk_is_encoded_again(encoder: ColourEncoder, tmp_path: Path) -> None:
    wanted = Matcher(encoder=encoder, remember_in=tmp_path).embed_texts(["a", "b"])
    (file,) = tmp_path.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as disk, disk:
        disk.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE number = 1")
        disk.execute("UPDATE vectors SET vector = x'00' WHERE number = 2")
    assert np.array_equal(Matcher(encoder=encoder, remember_in=tmp_path).embed_texts(["a", "b"]), wanted)
    assert encoder.texts_encoded == 4
    assert np.array_equal(Matcher(encoder=encoder, remember_in=tmp_path).embed_texts(["a", "b"]), wanted)
    assert encoder.texts_encoded == 4


def test_a_file_that_is_no_memory_is_told(encoder: ColourEncoder, tmp_path: Path) -> None:
    Matcher(encoder=encoder, remember_in=tmp_path).embed_texts(["a"])
    (file,) = tmp_path.glob("*.sqlite")
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(MatcherError, match=r"the remembered vectors in '.*' cannot be used: .*; remove the file, or"):
        Matcher(encoder=encoder, remember_in=tmp_path).embed_texts(["a"])
    with pytest.raises(MatcherError, match=r"cannot make the folder remember_in='.*': .*; give another one"):
        Matcher(encoder=encoder, remember_in=file / "below").embed_texts(["a"])
