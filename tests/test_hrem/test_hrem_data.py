from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from concepts import write_concepts
from PIL import Image

from encoders import ImageError
from training import ExamplesError, TrainingError
from training.errors import RegionError
from training.hrem.grid_features import RegionsConfig, write_regions
from training.hrem.towers.region_features import file_names, open_split, read_regions, splits_of


@pytest.fixture
def folder(tmp_path: Path, precomp: Path) -> Path:
    return Path(shutil.copytree(precomp, tmp_path / "x_precomp"))


def plain(folder: Path, rows: int, captions: int, ids: int | None = None, split: str = "dev") -> Path:
    """Write a split with these numbers of lines."""
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{split}_ims.npy", np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3))
    (folder / f"{split}_caps.txt").write_text("".join(f"caption {n}\n" for n in range(captions)), encoding="utf-8")
    if ids is not None:
        lines = [str(n * 5 // 5 if ids < captions else n // 5) for n in range(ids)]
        (folder / f"{split}_ids.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(("rows", "ids"), [(3, None), (3, 3), (3, 15), (15, None), (15, 15)])
def test_one_row_an_image_and_one_row_a_caption_are_the_same_split(tmp_path: Path, rows: int, ids: int | None) -> None:
    split = open_split(plain(tmp_path / "a", rows, 15, ids), "dev")
    assert len(split) == 3
    assert split.owners.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    each = 5 if rows == 15 else 1
    assert split.regions(np.array([2, 0]))[:, 0, 0].tolist() == [2 * each * 6, 0]
    assert len(set(split.ids)) == 3


def test_with_one_id_a_caption_any_number_of_captions_is_fine(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 2, 5)
    (folder / "dev_ids.txt").write_text("7\n7\n7\n9\n9\n", encoding="utf-8")
    split = open_split(folder, "dev")
    assert split.ids == ["7", "9"]
    assert split.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 3], [1, 4]]


def test_a_split_cut_short_keeps_whole_images(precomp: Path) -> None:
    split = open_split(precomp, "train").first(5)
    assert (len(split), len(split.captions), split.owners[-1]) == (5, 10, 4)


def test_the_splits_of_a_folder_are_found(precomp: Path) -> None:
    assert splits_of(precomp) == ("dev", "test", "train")
    assert file_names(precomp) == {}


@pytest.mark.parametrize(
    ("rows", "captions", "ids", "words"),
    [
        (4, 15, None, "dev_ims.npy has 4 rows, but dev_caps.txt 15 captions; there must be the same number"),
        (7, 7, None, "same number of captions .five. for each row"),
        (3, 15, 4, "dev_ids.txt has 4 lines for 3 images and 15 captions"),
    ],
)
def test_captions_that_do_not_fit_are_one_clear_line(
    tmp_path: Path, rows: int, captions: int, ids: int | None, words: str
) -> None:
    with pytest.raises(RegionError, match=words) as caught:
        open_split(plain(tmp_path / "a", rows, captions, ids), "dev")
    assert "\n" not in str(caught.value)


def test_features_that_are_not_finite_name_their_row(folder: Path) -> None:
    features = np.load(folder / "dev_ims.npy")
    features[3, 1, 2] = np.nan
    np.save(folder / "dev_ims.npy", features)
    with pytest.raises(RegionError, match=r"row 3 of dev_ims.npy has a feature that is NaN or infinite"):
        open_split(folder, "dev").regions(np.arange(6))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 7), (0, 5, 6)])
def test_features_of_another_shape_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    np.save(folder / "dev_ims.npy", np.zeros(shape, dtype=np.float32))
    with pytest.raises(RegionError, match=r"region features are floats of shape .images, regions, dim."):
        open_split(folder, "dev")


def test_files_that_are_missing_or_no_arrays_are_told(folder: Path) -> None:
    with pytest.raises(RegionError, match="has no split 'val'; it has dev, test, train"):
        open_split(folder, "val")
    with pytest.raises(RegionError, match=r"has no split 'dev'; it needs dev_ims.npy and dev_caps.txt"):
        open_split(folder / "nowhere", "dev")
    (folder / "dev_ims.npy").write_bytes(b"no array")
    with pytest.raises(RegionError, match=r"cannot be read as a \.npy array"):
        open_split(folder, "dev")


def test_an_empty_caption_names_its_line(folder: Path) -> None:
    path = folder / "dev_caps.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], "", *lines[3:]]), encoding="utf-8")
    with pytest.raises(RegionError, match=r"line 3 of dev_caps.txt is empty"):
        open_split(folder, "dev")


def test_pickled_arrays_are_never_opened(folder: Path) -> None:
    np.save(folder / "dev_ims.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RegionError, match="cannot be read"):
        open_split(folder, "dev")


def test_one_image_is_a_row_a_file_bytes_or_an_array(precomp: Path, tmp_path: Path) -> None:
    features = np.load(precomp / "dev_ims.npy")[4]
    np.save(tmp_path / "one.npy", features)
    sources = [f"{precomp / 'dev_ims.npy'}#4", tmp_path / "one.npy", (tmp_path / "one.npy").read_bytes(), features]
    found = [read_regions(source) for source in sources]
    assert len({one.info.sha256 for one in found}) == 1
    np.testing.assert_array_equal(found[0].pixels, features)


@pytest.mark.parametrize("kind", ["path", "bytes", "image"])
def test_a_photograph_has_no_regions(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGB", (8, 8))
    image.save(tmp_path / "a.png")
    source = {"path": tmp_path / "a.png", "bytes": (tmp_path / "a.png").read_bytes(), "image": image}[kind]
    with pytest.raises(ImageError, match="twinlens regions"):
        read_regions(source)


def test_rows_that_are_not_there_are_told(precomp: Path) -> None:
    with pytest.raises(ImageError, match="has 12 images, so none in row 99"):
        read_regions(f"{precomp / 'dev_ims.npy'}#99")
    with pytest.raises(ImageError, match="missing"):
        read_regions(precomp / "gone_ims.npy#1")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for number, split in enumerate(["train"] * 3 + ["dev"] * 2):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "split": split, "captions": [f"image {number}", "two\nlines"]})
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_regions_are_made_of_photographs(table: Path, tmp_path: Path) -> None:
    found = write_regions(table, tmp_path / "out", RegionsConfig(grid=2, device="cpu"))
    assert found["splits"]["train"] == {"images": 3, "captions": 6, "regions": 4, "dim": 512}
    split = open_split(tmp_path / "out", "dev")
    assert split.captions == ["image 3", "two lines", "image 4", "two lines"]
    assert [file_names(tmp_path / "out")[key] for key in split.ids] == ["3.png", "4.png"]
    assert split.features.dtype == np.float16
    assert not np.array_equal(split.regions(np.array([0])), split.regions(np.array([1])))


def test_too_many_unreadable_photographs_are_an_error_and_leave_nothing(table: Path, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"broken")
    with pytest.raises(ExamplesError, match="1 of 3 train images cannot be read: image 1: not_an_image"):
        write_regions(table, tmp_path / "out", RegionsConfig(grid=1, device="cpu"))
    assert not (tmp_path / "out").exists()


def test_settings_of_regions_are_checked() -> None:
    with pytest.raises(TrainingError, match="grid is 0"):
        RegionsConfig(grid=0)
    with pytest.raises(TrainingError, match="dtype is 'int8'"):
        RegionsConfig(dtype="int8")


def test_concepts_without_ids_are_numbered(tmp_path: Path) -> None:
    write_concepts(tmp_path / "a", {"train": 6}, np.random.default_rng(0), ids=False)
    # Two captions an image and one row each fit without ids too.
    assert open_split(tmp_path / "a", "train").ids[3] == "train:3"
