"""No build replaces a good version by a much poorer one, and an update says what it changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint, paint_folder

from indexer import EmbeddingSource, ShrinkError, SourceOptions, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from storage import IndexStore
from twinlens.commands.build import build as build_command
from twinlens.commands.info import info
from twinlens.commands.versions import versions

NOTHING = {"added": 0, "changed": 0, "moved": 0, "removed": 0, "kept": 0, "relabelled": 0}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A table of eight pictures with a caption each, in the folder `im` beside it."""
    lines = ["image,caption,price"]
    for number in range(8):
        paint(tmp_path / "im" / f"{number}.png", "red", noise=number)
        lines.append(f"im/{number}.png,a red thing number {number},{number}")
    (tmp_path / "shop.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path / "shop.csv"


@pytest.fixture
def built(shop: Path, tmp_path: Path) -> Path:
    build_index(shop, tmp_path / "out", encoder=ColourEncoder())
    return tmp_path / "out"


def held(out: Path) -> tuple[int, int, int, int]:
    manifest = IndexStore.open(out).manifest()
    return manifest.version, manifest.counts.images, manifest.counts.texts, manifest.counts.pairs


def keep_rows(table: Path, count: int) -> None:
    table.write_text("\n".join(table.read_text("utf-8").splitlines()[: count + 1]) + "\n", "utf-8")


class TestImagesThatAreAway:
    @pytest.mark.parametrize("update", [True, False])
    def test_the_good_version_stays_and_nothing_is_encoded(self, shop: Path, built: Path, update: bool) -> None:
        (shop.parent / "im").rename(shop.parent / "elsewhere")
        encoder = ColourEncoder()
        with pytest.raises(ShrinkError, match=r"none of the 8 image files .* 'im/0.png'.*--allow-shrink"):
            build_index(shop, built, encoder=encoder, update=update)
        assert held(built) == (1, 8, 8, 8)
        assert encoder.images_encoded + encoder.texts_encoded == 0

    def test_a_first_build_publishes_no_index_without_images(self, shop: Path, tmp_path: Path) -> None:
        shutil.rmtree(shop.parent / "im")
        with pytest.raises(ShrinkError, match="none of the 8 image files"):
            build_index(shop, tmp_path / "out", encoder=ColourEncoder())
        assert not (tmp_path / "out").exists()

    def test_a_root_that_is_another_folder(self, shop: Path, built: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        with pytest.raises(ShrinkError, match="--root"):
            build_index(
                shop, built, encoder=ColourEncoder(), options=SourceOptions(root=tmp_path / "other"), update=True
            )
        assert held(built) == (1, 8, 8, 8)

    def test_columns_that_were_swapped(self, shop: Path, built: Path) -> None:
        with pytest.raises(ShrinkError, match="--image"):
            build_index(
                shop, built, encoder=ColourEncoder(), options=SourceOptions(image="caption", text="image"), update=True
            )
        assert held(built) == (1, 8, 8, 8)

    def test_files_that_are_no_images_any_more_and_insisting_encodes_nothing_again(
        self, shop: Path, built: Path
    ) -> None:
        for number in range(8):
            (shop.parent / "im" / f"{number}.png").write_text("an error page", "utf-8")
        shop.write_text(shop.read_text("utf-8").replace("thing", "whatever"), "utf-8")
        encoder = ColourEncoder()
        with pytest.raises(ShrinkError, match=r"none of 8 images could be indexed; the first, 'im/0.png', fell out"):
            build_index(shop, built, encoder=encoder, update=True)
        assert (held(built), encoder.texts_encoded) == ((1, 8, 8, 8), 8)
        report = build_index(shop, built, encoder=encoder, update=True, allow_shrink=True)
        assert (held(built), encoder.texts_encoded) == ((2, 0, 8, 0), 8)
        assert report.rejected == {"not_an_image": 8}

    def test_the_command_refuses_in_one_line_and_publishes_when_insisted(self, shop: Path, tmp_path: Path) -> None:
        build_lite = [str(shop), "--out", str(tmp_path / "lite.index"), "--encoder", "lite", "--quiet"]
        (shop.parent / "im").rename(shop.parent / "elsewhere")
        refused = CliRunner().invoke(build_command, build_lite)
        assert isinstance(refused.exception, ShrinkError)
        insisted = CliRunner().invoke(build_command, [*build_lite, "--allow-shrink"], catch_exceptions=False)
        assert insisted.exit_code == 0
        assert held(tmp_path / "lite.index") == (1, 0, 8, 0)


class TestHalfOfWhatThereIs:
    @pytest.mark.parametrize("update", [True, False])
    def test_more_than_half_going_is_refused_and_half_is_not(self, shop: Path, built: Path, update: bool) -> None:
        keep_rows(shop, 3)
        with pytest.raises(ShrinkError, match="version 1 holds 8 images, of which 3 would be left"):
            build_index(shop, built, encoder=ColourEncoder(), update=update)
        build_index(shop, built, encoder=ColourEncoder(), update=update, allow_shrink=True)
        assert held(built) == (2, 3, 3, 3)

    @pytest.mark.parametrize("update", [True, False])
    def test_half_may_go(self, shop: Path, built: Path, update: bool) -> None:
        keep_rows(shop, 4)
        build_index(shop, built, encoder=ColourEncoder(), update=update)
        assert held(built) == (2, 4, 4, 4)

    def test_captions_that_are_gone(self, shop: Path, built: Path) -> None:
        lines = shop.read_text("utf-8").splitlines()
        shop.write_text("\n".join([lines[0], *(f"im/{number}.png,,{number}" for number in range(8))]) + "\n", "utf-8")
        with pytest.raises(ShrinkError, match="version 1 holds 8 texts, of which 0 would be left"):
            build_index(shop, built, encoder=ColourEncoder(), update=True)

    def test_an_update_from_another_corpus_of_that_size(self, built: Path, tmp_path: Path) -> None:
        other = paint_folder(tmp_path / "other", count=8)
        with pytest.raises(ShrinkError, match="version 1 holds 8 images, of which 7 would go"):  # one is the same
            build_index(other, built, encoder=ColourEncoder(), update=True)
        assert held(built) == (1, 8, 8, 8)

    def test_a_version_that_cannot_be_read_is_replaced(self, shop: Path, built: Path) -> None:
        keep_rows(shop, 3)
        (built / "versions" / "00000001" / "manifest.json").write_bytes(b"{}")
        build_index(shop, built, encoder=ColourEncoder())
        assert held(built) == (2, 3, 3, 3)


class TestReadyMadeVectors:
    def source(self, tmp_path: Path, images: np.ndarray, texts: np.ndarray) -> EmbeddingSource:
        for name, rows in (("images", images), ("texts", texts)):
            np.save(tmp_path / f"{name}.npy", rows)
        files = {name: EmbeddingFiles(vectors=tmp_path / f"{name}.npy") for name in ("images", "texts")}
        return EmbeddingSource(EmbeddingOptions(**files))

    def test_fewer_than_half_of_the_rows_are_refused(self, tmp_path: Path) -> None:
        rows = np.eye(16, dtype=np.float32)
        build_index(self.source(tmp_path, rows, rows), tmp_path / "out")
        source = self.source(tmp_path, rows[:7], rows)
        with pytest.raises(ShrinkError, match="version 1 holds 16 images, of which 7 would be left"):
            build_index(source, tmp_path / "out")
        build_index(source, tmp_path / "out", allow_shrink=True)
        assert held(tmp_path / "out")[:3] == (2, 7, 16)

    def test_image_vectors_that_are_all_nan(self, tmp_path: Path) -> None:
        rows = np.eye(4, dtype=np.float32)
        with pytest.raises(ShrinkError, match="none of 4 images could be indexed"):
            build_index(self.source(tmp_path, np.full((4, 4), np.nan, np.float32), rows), tmp_path / "out")


class TestWhatAnUpdateSays:
    def test_items_are_counted_by_what_became_of_them(self, shop: Path, built: Path) -> None:
        paint(shop.parent / "im" / "0.png", "blue", size=(50, 50))
        (shop.parent / "im" / "1.png").rename(shop.parent / "im" / "renamed.png")
        paint(shop.parent / "im" / "new.png", "green", noise=99)
        lines = shop.read_text("utf-8").splitlines()
        lines[2] = lines[2].replace("im/1.png", "im/renamed.png")
        lines[3] = lines[3].replace("a red thing number 2", "quite another text")
        lines[4] = lines[4].replace(",3", ",3000")
        lines[8] = "im/new.png,a green thing,8"
        shop.write_text("\n".join(lines) + "\n", "utf-8")
        report = build_index(shop, built, encoder=ColourEncoder(), update=True)
        images = {**NOTHING, "added": 1, "changed": 1, "moved": 1, "removed": 1, "kept": 5, "relabelled": 2}
        texts = {**NOTHING, "added": 1, "changed": 1, "moved": 1, "removed": 1, "kept": 5, "relabelled": 1}
        assert report.to_json()["changes"] == {"images": images, "texts": texts}
        assert report.manifest.build["changes"] == {"images": images, "texts": texts}
        line = "since version 1: images 1 added, 1 changed, 1 moved, 1 removed, 5 kept (2 with other columns); texts 1"
        assert line in report.to_text()

    def test_nothing_to_do_is_said_in_the_same_words(self, shop: Path, built: Path) -> None:
        report = build_index(shop, built, encoder=ColourEncoder(), update=True)
        assert not report.published
        assert report.to_json()["changes"] == {name: {**NOTHING, "kept": 8} for name in ("images", "texts")}

    def test_a_build_that_is_no_update_compares_nothing(self, shop: Path, built: Path) -> None:
        assert build_index(shop, built, encoder=ColourEncoder()).to_json()["changes"] is None

    def test_versions_and_info_show_it(self, shop: Path, built: Path) -> None:
        keep_rows(shop, 6)
        build_index(shop, built, encoder=ColourEncoder(), update=True)
        changes = {name: {**NOTHING, "removed": 2, "kept": 6} for name in ("images", "texts")}
        listed = json.loads(CliRunner().invoke(versions, [str(built), "--output", "json"]).stdout)["versions"]
        assert [row["changes"] for row in listed] == [None, changes]
        assert json.loads(CliRunner().invoke(info, [str(built), "--output", "json"]).stdout)["changes"] == changes
        line = "images 2 removed, 6 kept; texts 2 removed, 6 kept"
        assert line in CliRunner().invoke(versions, [str(built)]).stdout.splitlines()[1]
        assert f"since version 1: {line}" in CliRunner().invoke(info, [str(built)]).stdout
