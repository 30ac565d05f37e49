"""An update that has nothing to encode loads no encoder; one that has something goes on as the version before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import paint
from tiny_clip import write_folder

from encoders import cpu_backends
from indexer import BuildError, build_index
from storage import IndexStore

UPDATE = """
import json, sys
from twinlens.commands.build import build
out = sys.argv.pop(1)
build.main(["--out", out, "--update", "--output", "json", *sys.argv[1:]], standalone_mode=False)
print("torch" in sys.modules, file=sys.stderr)
"""


@dataclass(frozen=True)
class Shop:
    """A table of images with captions and prices, one image of it damaged, and the index made of it."""

    folder: Path
    encoder: str

    @property
    def table(self) -> Path:
        return self.folder / "shop.csv"

    @property
    def index(self) -> Path:
        return self.folder / "shop.index"

    def write(self, *rows: str) -> None:
        self.table.write_text("\n".join(["image,text,price", *rows, "broken.jpg,a broken thing,4"]) + "\n", "utf-8")

    def build(self, **settings: Any) -> Any:
        return build_index(self.table, self.index, **settings)

    def update(self, corpus: Path | None = None) -> tuple[dict[str, Any], bool]:
        """Update in a new process; return its report and whether it imported torch."""
        given = [sys.executable, "-c", UPDATE, str(self.index), str(corpus or self.table)]
        done = subprocess.run(given, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr.splitlines()[-1] == "True"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def shop(tmp_path: Path, weights: Path) -> Shop:
    one = Shop(tmp_path, f"local-dir:{weights}")
    for name in ("red", "green", "blue"):
        paint(tmp_path / f"{name}.png", name)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    one.write("red.png,a red thing,1", "green.png,a green thing,2", "blue.png,a blue thing,3")
    one.build(encoder=one.encoder)
    return one


def nothing(shop: Shop) -> None:
    """Leave all as it is."""


def another_price(shop: Shop) -> None:
    shop.write("red.png,a red thing,100", "green.png,a green thing,2", "blue.png,a blue thing,3")


def another_order(shop: Shop) -> None:
    shop.write("blue.png,a blue thing,3", "red.png,a red thing,1", "green.png,a green thing,2")


def one_row_less(shop: Shop) -> None:
    shop.write("red.png,a red thing,1", "green.png,a green thing,2")


def another_name(shop: Shop) -> None:
    (shop.folder / "red.png").rename(shop.folder / "crimson.png")
    shop.write("crimson.png,a red thing,1", "green.png,a green thing,2", "blue.png,a blue thing,3")


@pytest.mark.parametrize("change", [nothing, another_price, another_order, one_row_less, another_name])
def test_an_update_with_nothing_to_encode_imports_no_torch(shop: Shop, change: Callable[[Shop], None]) -> None:
    before = IndexStore(shop.index).manifest()
    change(shop)
    report, torch = shop.update()
    assert not torch
    assert report["published"] is (change is not nothing)
    assert report["rejected"] == 1
    after = IndexStore(shop.index).manifest()
    assert (after.encoder, after.encoding) == (before.encoder, before.encoding)
    fresh = Shop(shop.folder / "fresh", shop.encoder)
    build_index(shop.table, fresh.index, encoder=shop.encoder)
    with IndexStore(shop.index).open_version() as a, IndexStore(fresh.index).open_version() as b:
        for name in ("images", "texts"):
            rows = np.arange(a.vectors(name).rows)
            assert a.catalog.table(name).equals(b.catalog.table(name))
            np.testing.assert_allclose(a.vectors(name).gather(rows), b.vectors(name).gather(rows), atol=2e-3)


def test_a_corpus_without_texts_is_measured_by_the_exported_text_tower(tmp_path: Path, weights: Path) -> None:
    photos = Shop(tmp_path / "photos", f"local-dir:{weights}")
    for name in ("red", "green", "blue"):
        paint(photos.folder / f"{name}.png", name)
    build_index(photos.folder, photos.index, encoder=photos.encoder)
    (photos.folder / "blue.png").unlink()
    report, torch = photos.update(photos.folder)
    assert (report["published"], report["images"], torch) == (True, 2, False)
    assert "text_to_image" in IndexStore(photos.index).manifest().collections["images"].tuning


def test_a_portable_index_takes_its_text_tower_along(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINLENS_CACHE", str(tmp_path / "cache"))
    shop.build(encoder=shop.encoder, portable=True)
    another_price(shop)
    report, torch = shop.update()
    assert (report["published"], torch) == (True, False)
    store = IndexStore(shop.index)
    towers = [store.version_path(number) / "text_tower" / "weights.safetensors" for number in (2, 3)]
    assert towers[0].read_bytes() == towers[1].read_bytes()
    assert not (tmp_path / "cache" / "text-towers").exists()


def test_other_weights_in_the_folder_are_noticed_though_nothing_is_to_be_encoded(shop: Shop, tmp_path: Path) -> None:
    model = write_folder(tmp_path / "model", seed=1)
    build_index(shop.table, tmp_path / "out", encoder=f"local-dir:{model}")
    file = model / "open_clip_model.safetensors"
    before = file.stat()
    file.write_bytes((write_folder(tmp_path / "other", seed=2) / file.name).read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    another_price(shop)
    with pytest.raises(BuildError, match="is another"):
        build_index(shop.table, tmp_path / "out", update=True)
    assert IndexStore(tmp_path / "out").current() == 1


def test_a_new_image_is_encoded_as_the_version_before_was(shop: Shop) -> None:
    paint(shop.folder / "grey.png", "black", noise=40)
    shop.write("red.png,a red thing,1", "green.png,a green thing,2", "blue.png,a blue thing,3", "grey.png,grey,5")
    report = shop.build(update=True)
    assert (report.changes["images"]["added"], report.changes["images"]["kept"]) == (1, 3)
    assert report.manifest.encoding.precision == "fp32"
    build_index(shop.table, shop.folder / "fresh.index", encoder=shop.encoder)
    with IndexStore(shop.index).open_version() as a, IndexStore(shop.folder / "fresh.index").open_version() as b:
        np.testing.assert_allclose(a.vectors("images").gather([3]), b.vectors("images").gather([3]), atol=2e-3)


def test_an_encoder_that_cannot_be_computed_as_before_begins_anew(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(shop.table, tmp_path / "out", encoder=shop.encoder, precision="bf16")
    paint(shop.folder / "grey.png", "black", noise=40)
    shop.write("red.png,a red thing,1", "green.png,a green thing,2", "blue.png,a blue thing,3", "grey.png,grey,5")
    monkeypatch.setattr(
        cpu_backends, "GATE", 1.1
    )  # which nothing passes, as on a processor that computes bf16 otherwise
    report = build_index(shop.table, tmp_path / "out", update=True)
    assert (report.manifest.encoding.precision, report.manifest.counts.images) == ("fp32", 4)
    assert not any((tmp_path / "out" / "staging").iterdir())


FIRST = """
import sys, time
from indexer.progress import LineProgress
from twinlens.commands.build import build
def note(self, text):
    print(time.process_time(), sorted({"duckdb", "faiss", "torch"} & set(sys.modules)), text, file=sys.stderr, sep="|")
LineProgress.note = note
build.main(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--encoder", "lite"), "building new.index from shop.csv with encoder lite"),
        ((), "building new.index from shop.csv with encoder ViT-B-32/laion2b_s34b_b79k"),
        (("--update",), "updating new.index from shop.csv"),
    ],
)
def test_the_first_line_comes_before_the_slow_imports(arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    given = [sys.executable, "-c", FIRST, "shop.csv", "--out", "new.index", *arguments]
    home = Path(__file__).parents[2]
    # There is no such table, which is found out only after the line.
    done = subprocess.run(
        given, capture_output=True, text=True, cwd=tmp_path, check=False, env={**os.environ, "PYTHONPATH": str(home)}
    )
    seconds, imported, text = done.stderr.splitlines()[0].split("|")
    assert (imported, text) == ("[]", line)
    assert float(seconds) < 1.5  # 0.2 on a quiet machine
    assert done.returncode != 0
