"""A Ray cluster of two nodes builds the same index as one process, whatever happens to a node."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from colour import ColourEncoder, paint, paint_folder
from ray_cluster import other_node, two_nodes

from encoders.errors import EncoderError
from indexer import BuildError, ShrinkError, build_index
from indexer.progress import SilentProgress
from storage import IndexStore

ray = pytest.importorskip("ray", reason="ray is not installed: the extra `ray`")

# Ray leaves sockets and processes for the interpreter to close.
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"shard_cost": 4, "batch_size": 4}


class Slow(ColourEncoder):
    """Takes its time, so that both workers have work."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return super().encode_pixels(pixels)


class Together(ColourEncoder):
    """Begins when a second worker is there; leaves its process and that of its node, its parent, in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        (self.folder / f"{os.getpid()} {os.getppid()}").touch()
        for _ in range(600):
            if len(list(self.folder.iterdir())) >= 2:
                time.sleep(0.3)
                return super().encode_pixels(pixels)
            time.sleep(0.1)
        raise EncoderError("no second worker came")


class Deadly(ColourEncoder):
    """Takes the process with it."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        os._exit(7)


class Stillborn(ColourEncoder):
    """Takes every process with it that loads it elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    @property
    def device(self) -> str:  # type: ignore[override]
        if os.getpid() != self.home:
            os._exit(3)
        return "cpu"


class Failing(ColourEncoder):
    """Cannot encode."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        raise EncoderError("the weights have a crack")


class At(SilentProgress):
    """Does something once, when so many units are done."""

    def __init__(self, units: int, what: Any) -> None:
        self.units, self.what, self.notes = units, what, list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, units: int, hint: str = "", left: float | None = None) -> None:
        self.units -= units
        if self.units <= 0 and self.what is not None:
            what, self.what = self.what, None
            what()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def on_ray(cluster: Any) -> dict[str, Any]:
    return {"executor": "ray", "address": cluster.address, **SMALL}


def contents(index: Path) -> dict[str, Any]:
    """Everything that an index says of its items: checksums of the vectors, and the tables of the catalog."""
    with IndexStore.open(index).open_version() as version:
        files = version.manifest.files
        found: dict[str, Any] = {name: files[name].sha256 for name in files if name.endswith("vectors.arrow")}
        assert len(found) == 2
        for table in ("images", "texts", "pairs", "rejected"):
            rows: pa.Table = version.catalog.table(table)
            found[table] = rows.to_pylist()
        return found


@pytest.fixture
def whole(photos: Path, tmp_path: Path) -> Path:
    """What one process makes of the pictures, one of which is none."""
    (photos / "broken.jpg").write_bytes(b"no picture")
    build_index(photos, tmp_path / "whole", encoder=ColourEncoder(), **SMALL)
    return tmp_path / "whole"


def test_two_nodes_build_what_one_process_builds(
    photos: Path, whole: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    report = build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), **on_ray)
    assert contents(tmp_path / "ray") == contents(whole)
    assert report.rejected == {"not_an_image": 1}
    said = report.manifest.build["encode"]
    assert (said["executor"]["name"], said["executor"]["workers"], said["executor"]["lost"]) == ("ray", 2, 0)
    assert said["items"] == 121
    encoding = report.manifest.encoding
    assert (encoding.backend, encoding.device, encoding.precision) == ("torch", "cpu", "fp32")


def test_what_ray_has_finished_is_taken_over_by_any_build(
    photos: Path, whole: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(photos, tmp_path / "ray", encoder=Slow(), progress=At(60, interrupt), **on_ray)
    report = build_index(photos, tmp_path / "ray", encoder=(encoder := ColourEncoder()), **SMALL)
    assert report.manifest.build["encode"]["resumed"] >= 60
    assert encoder.images_encoded <= 20
    assert contents(tmp_path / "ray") == contents(whole)


def test_an_update_on_ray_encodes_what_changed(
    photos: Path, whole: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), **on_ray)
    paint(photos / "red" / "0000.png", "blue")
    paint(photos / "new.png", "green")
    (photos / "white" / "0004.txt").unlink()
    build_index(photos, whole, encoder=ColourEncoder(), update=True, **SMALL)
    report = build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), update=True, **on_ray)
    assert report.manifest.build["encode"]["reused"] == 39 + 78
    assert contents(tmp_path / "ray") == contents(whole)


def test_an_update_on_ray_encodes_nothing_of_a_folder_that_was_renamed(
    photos: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    build_index(photos, tmp_path / "ray", encoder=ColourEncoder())
    (photos / "red").rename(photos / "crimson")
    report = build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), update=True, **on_ray)
    assert report.manifest.build["encode"]["reused"] == 120
    assert report.changes is not None
    assert [report.changes[name]["moved"] for name in ("images", "texts")] == [5, 10]


def test_an_update_on_ray_that_finds_no_image_any_more_is_refused(
    photos: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    build_index(photos, tmp_path / "ray", encoder=ColourEncoder())
    for path in photos.rglob("*.png"):
        path.write_bytes(b"an error page")
    with pytest.raises(ShrinkError, match="none of 40 images could be indexed"):
        build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), update=True, **on_ray)
    assert IndexStore.open(tmp_path / "ray").manifest().counts.images == 40


def test_tar_shards_and_relative_paths_are_read_by_workers(
    tmp_path: Path, on_ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tarfile

    monkeypatch.chdir(tmp_path)
    paint_folder(Path("flat"), 8)
    with tarfile.open("a.tar", "w") as archive:
        for path in sorted(Path("flat").rglob("*.*")):
            archive.add(path, arcname=path.name)
    for corpus in ("a.tar", "flat"):
        build_index(corpus, f"{corpus}.one", encoder=ColourEncoder(), **SMALL)
        build_index(corpus, f"{corpus}.ray", encoder=ColourEncoder(), **on_ray)
        assert contents(tmp_path / f"{corpus}.ray") == contents(tmp_path / f"{corpus}.one")


def test_a_node_without_the_corpus_is_an_error_and_loses_no_item(
    photos: Path, tmp_path: Path, on_ray: dict[str, Any]
) -> None:
    # A path through a descriptor of this process: no other one can follow it.
    descriptor = os.open(photos.parent, os.O_RDONLY)
    try:
        here = Path(f"/proc/self/fd/{descriptor}/photos")
        with pytest.raises(BuildError, match=r"sees no file at '.*png'.*under the same path"):
            build_index(here, tmp_path / "ray", encoder=ColourEncoder(), **on_ray)
    finally:
        os.close(descriptor)
    assert not (tmp_path / "ray").exists()


def test_an_error_of_an_encoder_comes_through_as_it_is(photos: Path, tmp_path: Path, on_ray: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="the weights have a crack"):
        build_index(photos, tmp_path / "ray", encoder=Failing(), **on_ray)


def test_a_shard_that_takes_every_worker_with_it_is_named(photos: Path, tmp_path: Path, on_ray: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=r"4 workers were lost over shard \d, which begins with '.*--shard-cost"):
        build_index(photos, tmp_path / "ray", encoder=Deadly(), **on_ray)


def test_workers_that_never_begin_end_the_build(photos: Path, tmp_path: Path, on_ray: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="4 workers in a row were lost before they could begin"):
        build_index(photos, tmp_path / "ray", encoder=Stillborn(), **on_ray, ray_workers=1)


def test_workers_that_do_not_fit_are_refused_at_once(photos: Path, tmp_path: Path, on_ray: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="2 CPUs and 0 GPUs on 2 nodes, too few for 5 workers"):
        build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), **on_ray, ray_workers=5)
    with pytest.raises(BuildError, match="nodes of the cluster have no GPU"):
        build_index(photos, tmp_path / "ray", encoder=ColourEncoder(), **on_ray, device="cuda")


def test_a_spec_that_a_worker_loads_itself_gives_the_same_index(tmp_path: Path, on_ray: dict[str, Any]) -> None:
    from two_tone import save_tiny

    spec = save_tiny(tmp_path / "tiny")
    paint_folder(tmp_path / "photos", 16)
    for name, settings in (("one", SMALL), ("ray", {**on_ray, "ray_workers": 1})):
        build_index(tmp_path / "photos", tmp_path / name, encoder=spec, **settings)
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


# The last one: nobody starts the node again.
def test_a_node_that_is_killed_loses_nothing(
    photos: Path, whole: Path, tmp_path: Path, on_ray: dict[str, Any], cluster: Any
) -> None:
    (tmp_path / "workers").mkdir()

    def kill() -> None:
        node = other_node(cluster)
        (raylet,) = node.all_processes["raylet"]
        # A machine that fails takes its workers along at once; a raylet alone would leave them time to finish.
        for path in (tmp_path / "workers").iterdir():
            worker, parent = map(int, path.name.split())
            if parent == raylet.process.pid:
                os.kill(worker, signal.SIGKILL)
        raylet.process.kill()

    progress = At(1, kill)
    encoder = Together(tmp_path / "workers")
    report = build_index(photos, tmp_path / "ray", encoder=encoder, progress=progress, **on_ray)
    assert contents(tmp_path / "ray") == contents(whole)
    assert report.manifest.build["encode"]["executor"]["lost"] >= 1
    assert any("is lost; its shards go to others" in note for note in progress.notes)
