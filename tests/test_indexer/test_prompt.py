"""The template that texts go through: where it is applied, where it is remembered, and what it must look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder
from hypothesis import given
from hypothesis import strategies as st

from indexer import BuildConfig, BuildError, EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from searcher import Searcher
from storage import IndexStore
from twinlens.commands.build import build

PROMPT = "a photo of {}"


def vectors(index: Path, collection: Any) -> np.ndarray:
    with IndexStore.open(index).open_version() as version:
        table = version.vectors(collection)
        return table.gather(np.arange(table.rows)).astype(np.float32)


def captions(index: Path) -> list[str]:
    with IndexStore.open(index).open_version() as version:
        return version.catalog.table("texts").column("caption").to_pylist()


def test_texts_are_encoded_with_the_prompt_and_kept_without_it(photos: Path, tmp_path: Path) -> None:
    report = build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=PROMPT)
    kept = captions(tmp_path / "out")
    assert kept[0] == "a black square, number 5"
    expected = ColourEncoder().encode_texts([f"a photo of {text}" for text in kept])
    np.testing.assert_allclose(vectors(tmp_path / "out", "texts"), expected, atol=1e-3)
    assert report.manifest.encoding.prompt == PROMPT


def test_images_do_not_depend_on_the_prompt(photos: Path, tmp_path: Path) -> None:
    for name, prompt in (("plain", None), ("prompted", PROMPT)):
        build_index(photos, tmp_path / name, encoder=ColourEncoder(), prompt=prompt)
    np.testing.assert_array_equal(vectors(tmp_path / "plain", "images"), vectors(tmp_path / "prompted", "images"))
    assert not np.array_equal(vectors(tmp_path / "plain", "texts"), vectors(tmp_path / "prompted", "texts"))


def test_a_text_query_goes_through_the_prompt_of_its_index(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=PROMPT)
    with Searcher.open(tmp_path / "out", encoder=ColourEncoder()) as searcher:
        (hit,) = searcher.text_to_text("something red", k=1)
        assert (hit.caption, round(hit.score, 3)) == ("something red", 1.0)


def test_a_text_query_of_an_index_without_prompt_is_encoded_as_it_is(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder())
    with Searcher.open(tmp_path / "out", encoder=ColourEncoder()) as searcher:
        assert round(searcher.text_to_text("something red", k=1)[0].score, 3) == 1.0


def test_an_update_keeps_the_prompt(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=PROMPT)
    (photos / "red" / "0000.txt").write_text("another red thing\n", encoding="utf-8")
    encoder = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=encoder, update=True)
    assert report.manifest.encoding.prompt == PROMPT
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 1)
    row = captions(tmp_path / "out").index("another red thing")
    expected = ColourEncoder().encode_texts(["a photo of another red thing"])[0]
    np.testing.assert_allclose(vectors(tmp_path / "out", "texts")[row], expected, atol=1e-3)


@pytest.mark.parametrize(("before", "after"), [(None, PROMPT), (PROMPT, "{}"), (PROMPT, "a picture of {}")])
def test_an_update_with_another_prompt_encodes_every_text_again(
    before: str | None, after: str, photos: Path, tmp_path: Path
) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=before)
    encoder = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=encoder, update=True, prompt=after)
    assert report.published
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 80)
    build_index(photos, tmp_path / "fresh", encoder=ColourEncoder(), prompt=after)
    np.testing.assert_array_equal(vectors(tmp_path / "out", "texts"), vectors(tmp_path / "fresh", "texts"))


def test_an_update_with_the_same_prompt_publishes_nothing(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=PROMPT)
    assert not build_index(photos, tmp_path / "out", encoder=ColourEncoder(), update=True, prompt=PROMPT).published


class Interrupted(ColourEncoder):
    """Encodes the first shards and stops where Ctrl-C would."""

    def encode_texts(self, texts: Any) -> np.ndarray:
        if self.texts_encoded >= 20:
            raise KeyboardInterrupt
        return super().encode_texts(texts)


@pytest.mark.parametrize(("after", "resumed"), [(PROMPT, True), (None, False)])
def test_a_resumed_build_takes_no_shards_of_another_prompt(
    after: str | None, resumed: bool, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_index(photos, tmp_path / "out", encoder=Interrupted(), prompt=PROMPT, shard_cost=6)
    encoder = ColourEncoder()
    build_index(photos, tmp_path / "out", encoder=encoder, prompt=after, shard_cost=6)
    assert (encoder.texts_encoded < 80) is resumed
    build_index(photos, tmp_path / "whole", encoder=ColourEncoder(), prompt=after)
    np.testing.assert_array_equal(vectors(tmp_path / "out", "texts"), vectors(tmp_path / "whole", "texts"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a photo of", "has 0 placeholders for the text; write {} once, as in 'a photo of {}'"),
        ("{} and {}", "has 2 placeholders"),
        ("", "has 0 placeholders"),
        ("{0}", "has 0 placeholders"),
        ("a photo\nof {}", "characters that cannot be printed"),
    ],
)
def test_a_template_without_one_place_is_refused(template: str, said: str) -> None:
    with pytest.raises(BuildError) as refused:
        BuildConfig(prompt=template)
    assert said in str(refused.value)
    assert repr(template) in str(refused.value)


@given(st.text(st.characters(exclude_characters="{}", categories=["L", "P", "S", "Zs"])))
def test_any_printable_words_around_one_place_are_a_template(words: str) -> None:
    template = f"x{words}{{}}".replace("\xa0", " ")
    if template.isprintable():
        assert BuildConfig(prompt=template).prompt == template


def test_a_place_alone_is_no_prompt() -> None:
    assert BuildConfig(prompt="{}").prompt is None
    assert BuildConfig(prompt=" {} ").prompt is None


def test_braces_in_a_text_stay_as_they_are(tmp_path: Path, encoder: ColourEncoder) -> None:
    (tmp_path / "texts.txt").write_text("a red {} thing\n{0} {name}\n", encoding="utf-8")
    build_index(tmp_path / "texts.txt", tmp_path / "out", encoder=encoder, prompt="see: {}")
    expected = ColourEncoder().encode_texts(["see: a red {} thing", "see: {0} {name}"])
    np.testing.assert_allclose(vectors(tmp_path / "out", "texts"), expected, atol=1e-3)


def test_a_prompt_for_ready_made_vectors_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32))
    source = EmbeddingSource(EmbeddingOptions(texts=EmbeddingFiles(vectors=tmp_path / "v.npy")))
    with pytest.raises(BuildError, match=r"the prompt 'a photo of \{\}' goes with texts that are yet to be encoded"):
        build_index(source, tmp_path / "out", prompt=PROMPT)


def test_the_command_refuses_a_bad_template(photos: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(build, [str(photos), "--out", str(tmp_path / "out"), "--prompt", "a photo"])
    assert isinstance(done.exception, BuildError)
    assert not (tmp_path / "out").exists()
    shown = CliRunner().invoke(build, ["--help"]).output
    assert "text queries of a search go through it too" in " ".join(shown.split())


def test_the_prompt_is_part_of_the_manifest_as_json(photos: Path, tmp_path: Path) -> None:
    build_index(photos, tmp_path / "out", encoder=ColourEncoder(), prompt=PROMPT)
    manifest = next((tmp_path / "out" / "versions").glob("*/manifest.json"))
    assert json.loads(manifest.read_text("utf-8"))["build"]["config"]["prompt"] == PROMPT
