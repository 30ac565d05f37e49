"""A build that was killed, at any moment, goes on and gives the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from colour import ColourEncoder
from damage import flip

from indexer import build_index
from indexer.report import BuildReport
from storage import IndexStore
from storage.staging import Staging

SUPPORT = Path(__file__).parents[1] / "support"
CHILD = """
import sys, time
sys.path[:0] = [{support!r}, {home!r}]
from pathlib import Path
from colour import ColourEncoder
from indexer import build_index

class Slow(ColourEncoder):
    def encode_pixels(self, pixels):
        time.sleep(0.02)
        return super().encode_pixels(pixels)

print("ready", flush=True)
build_index(Path({photos!r}), Path({out!r}), encoder=Slow(), shard_cost=2, batch_size=2)
"""


def start(photos: Path, out: Path, home: Path) -> subprocess.Popen[str]:
    code = CHILD.format(support=str(SUPPORT), home=str(home), photos=str(photos), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def checksums(out: Path) -> dict[str, str]:
    manifest = IndexStore.open(out).open_version().manifest
    return {name: entry.sha256 for name, entry in manifest.files.items() if name.endswith("vectors.arrow")}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_build_killed_again_and_again_ends_with_the_same_vectors(photos: Path, tmp_path: Path, home: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build_index(photos, whole, encoder=ColourEncoder(), shard_cost=2, batch_size=2)
    chance = random.Random(1)
    for _ in range(4):
        process = start(photos, killed, home)
        time.sleep(chance.uniform(0.02, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(photos, killed, home)
    process.communicate()
    assert process.returncode == 0
    assert checksums(whole) == checksums(killed)


def test_finished_shards_are_taken_over(photos: Path, tmp_path: Path) -> None:
    class Failing(ColourEncoder):
        def encode_pixels(self, pixels):  # type: ignore[no-untyped-def]
            if self.images_encoded >= 20:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    settings = {"shard_cost": 5, "batch_size": 5}
    with pytest.raises(KeyboardInterrupt):
        build_index(photos, tmp_path / "out", encoder=Failing(), **settings)
    encoder = ColourEncoder()
    report = build_index(photos, tmp_path / "out", encoder=encoder, **settings)
    assert 0 < encoder.images_encoded <= 25
    assert report.manifest.build["encode"]["resumed"] > 0


def test_an_image_that_changed_since_the_kill_is_encoded_again(photos: Path, tmp_path: Path) -> None:
    settings = {"shard_cost": 5, "batch_size": 5}
    (photos / "zzz.jpg").write_bytes(b"broken")
    with pytest.raises(Exception, match="rejected"):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), max_rejected=0, **settings)
    first = photos / "black" / "0005.png"
    first.write_bytes((photos / "white" / "0004.png").read_bytes())
    build_index(photos, tmp_path / "out", encoder=(encoder := ColourEncoder()), **settings)
    assert encoder.images_encoded <= 5
    with IndexStore.open(tmp_path / "out").open_version() as version:
        rows = version.catalog.table("images").to_pylist()
    by_id = {row["item_id"]: row["sha256"] for row in rows}
    assert by_id["black/0005.png"] == by_id["white/0004.png"]


def stopped_while_tidying(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> BuildReport:
    """Build, and leave the shards as a kill after publishing would."""
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "discard", lambda staging: (staging.path / "00000000.arrow").unlink())
        return build_index(photos, out, encoder=ColourEncoder(), shard_cost=5, batch_size=5, **settings)


@pytest.mark.parametrize("update", [False, True])
def test_a_build_that_had_published_when_it_was_stopped_only_tidies_up(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    out = tmp_path / "out"
    before = stopped_while_tidying(photos, out, monkeypatch)
    assert list((out / "staging").iterdir()) != []
    report = build_index(photos, out, encoder=(encoder := ColourEncoder()), shard_cost=5, batch_size=5, update=update)
    assert (report.version, report.published, encoder.images_encoded) == (before.version, False, 0)
    assert "stopped while it removed its shards" in report.to_text()
    assert list((out / "staging").iterdir()) == []
    # From then on the same command means it: all is encoded anew.
    if not update:
        assert build_index(photos, out, encoder=ColourEncoder(), shard_cost=5, batch_size=5).version == 2


@pytest.mark.parametrize("what", ["corpus", "settings", "damage"])
def test_what_has_changed_since_a_build_had_published_is_built(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out, settings = tmp_path / "out", dict[str, Any]()
    stopped_while_tidying(photos, out, monkeypatch)
    if what == "corpus":
        (photos / "white" / "0004.png").unlink()
    elif what == "settings":
        settings = {"ann": "flat"}
    else:
        flip(out / "versions" / "00000001" / "images" / "vectors.arrow")
    report = build_index(photos, out, encoder=ColourEncoder(), shard_cost=5, batch_size=5, **settings)
    assert (report.version, report.published) == (2, True)
    assert list((out / "staging").iterdir()) == []
