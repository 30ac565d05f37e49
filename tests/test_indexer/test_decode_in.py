"""A build decodes in threads or in processes, with the same index; which of them pays is told by device and corpus."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder, paint_folder
from tiny_clip import write_folder

from encoders import load_encoder, transfer
from encoders.decoding import processes
from encoders.preprocess import PreprocessConfig
from indexer import BuildError, build_index
from indexer.config import BuildConfig
from indexer.encode import decode_pool
from indexer.encode.build_encoder import Computed, DeferredEncoder
from indexer.encode.decode_pool import decode_processes
from indexer.progress import SilentProgress
from storage import IndexStore
from storage.schema import EncodingInfo


def contents(index: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    with IndexStore.open(index).open_version() as version:
        table = version.vectors("images")
        return table.gather(np.arange(table.rows)), version.catalog.rows("images", np.arange(table.rows))


def test_a_build_in_processes_that_is_interrupted_leaves_none_and_goes_on_in_threads(tmp_path: Path) -> None:
    corpus = paint_folder(tmp_path / "photos", count=12)
    (corpus / "red" / "0000.png").write_bytes(b"\x89PNG and no more")
    encoder: Any = load_encoder(f"local-dir:{write_folder(tmp_path / 'model')}", device="cpu")
    settings: dict[str, Any] = {"encoder": encoder, "decode_workers": 1, "batch_size": 3, "shard_cost": 8}
    encode, calls, before = encoder.encode_pixels, list[int](), children()

    def interrupted(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        if len(calls) == 4:
            raise KeyboardInterrupt
        vectors: np.ndarray = encode(pixels)
        return vectors

    encoder.encode_pixels = interrupted
    with pytest.raises(KeyboardInterrupt):
        build_index(corpus, tmp_path / "index", decode_in="processes", **settings)
    assert (calls[:4], children()) == ([3, 3, 1, 3], before)
    encoder.encode_pixels = encode
    report = build_index(corpus, tmp_path / "index", decode_in="threads", **settings)
    assert report.manifest.build["encode"]["resumed"] > 0
    assert sum(report.rejected.values()) == 1
    build_index(corpus, tmp_path / "anew", decode_in="threads", **settings)
    (vectors, rows), (expected, known) = contents(tmp_path / "index"), contents(tmp_path / "anew")
    assert len(vectors) == 11
    np.testing.assert_array_equal(vectors, expected)
    assert rows == known


def test_an_encoder_with_a_way_of_its_own_to_open_images_is_refused(tmp_path: Path) -> None:
    corpus = paint_folder(tmp_path / "photos", count=2)
    with pytest.raises(BuildError, match=r"'colour' opens images in its own way.*; leave --decode-in out"):
        build_index(corpus, tmp_path / "index", encoder=ColourEncoder(), decode_in="processes")
    with pytest.raises(BuildError, match="--decode-in processes is for builds on one machine"):
        BuildConfig(executor="ray", decode_in="processes")


class OnGpu(ColourEncoder):
    device = "cuda"
    preprocess_config = PreprocessConfig()


@pytest.mark.parametrize(
    ("encoder", "settings", "images", "starts"),
    [
        (OnGpu(), {"decode_workers": 4}, 10_000, True),
        (OnGpu(), {"decode_workers": 3}, 10_000, False),
        (OnGpu(), {"decode_workers": 4}, 9_999, False),
        (OnGpu(), {"decode_workers": 4, "decode_in": "threads"}, 10_000, False),
        (OnGpu(), {"decode_workers": 2, "decode_in": "processes"}, 1, True),
        (ColourEncoder(), {"decode_workers": 4}, 10_000, False),
    ],
)
def test_processes_are_taken_where_they_pay(
    encoder: Any, settings: dict[str, Any], images: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[tuple[int, int]]()
    monkeypatch.setattr(
        decode_pool, "DecodeProcesses", lambda *_, processes, slots: started.append((processes, slots)) or "started"
    )
    assert decode_processes(encoder, BuildConfig(**settings), images, window=20) == ("started" if starts else None)
    assert started == ([(settings["decode_workers"], 20 + 4 * encoder.batch_size)] if starts else [])


def test_a_deferred_encoder_is_loaded_for_processes_that_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "DecodeProcesses", lambda *_, processes, slots: "started")
    encoder, encoding = OnGpu(), EncodingInfo(device="cuda", precision="fp32", backend="torch")
    deferred = DeferredEncoder(encoder.info, encoding, lambda: Computed(encoder))
    assert decode_processes(deferred, BuildConfig(decode_workers=4), 10_000, window=20) is None
    assert not deferred.is_loaded
    asked = BuildConfig(decode_workers=4, decode_in="processes")
    assert decode_processes(deferred, asked, 1, window=20) == "started"


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_where_no_process_can_be_started_threads_decode_and_the_build_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(processes, "_IMAGES_FROM", 1)
    monkeypatch.setattr(transfer, "pinned", lambda memory, device: nullcontext(False))  # there is no GPU
    progress, encoder = Notes(), OnGpu()
    corpus = paint_folder(tmp_path / "photos", count=8, captions=False)
    build_index(corpus, tmp_path / "index", encoder=encoder, decode_workers=4, progress=progress)
    assert encoder.images_encoded == 8
    notes = "\n".join(progress.notes)
    assert "images were decoded in threads: a process that decodes images cannot be started" in notes
    assert "CUDA cannot pin" in notes


def children() -> set[str]:
    own = Path(f"/proc/{os.getpid()}/task")
    if not own.exists():
        pytest.skip("which processes a process has started is told by Linux alone")
    return {pid for task in own.iterdir() for pid in (task / "children").read_text().split()}
