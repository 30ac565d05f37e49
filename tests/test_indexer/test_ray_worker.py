"""What a worker does, and what is refused before Ray is asked; no cluster is needed."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from colour import ColourEncoder

from indexer import BuildConfig, BuildError, build_index
from indexer.corpus import SourceOptions, open_source
from indexer.encode.shards import Shard, cut
from indexer.ray.connection import running_here
from indexer.ray.executor import Room
from indexer.ray.worker import EncodedShard, ShardOrder, Unlike, Worker, WorkerSetup, sights
from storage import TwinlensError


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(4), node(4)], {}, (2, 4, 0)),
        ([node(4), node(4)], {"ray_workers": 8}, (8, 1, 0)),
        ([node(2), node(8)], {"ray_workers": 2}, (2, 4, 0)),
        ([node(16, 4), node(16, 4)], {}, (8, 4, 1)),
        ([node(16, 4), node(16)], {"device": "cpu"}, (2, 16, 0)),
        ([node(4), node(4, alive=False)], {}, (1, 4, 0)),
    ],
)
def test_workers_take_as_many_processors_as_fit(
    nodes: list[dict[str, Any]], asked: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    room = Room.of(nodes, BuildConfig(executor="ray", **asked))
    assert (room.workers, room.cpus, room.gpus) == expected


@pytest.mark.parametrize(
    ("nodes", "asked", "words"),
    [
        ([node(1)], {"ray_workers": 2}, "1 CPUs and 0 GPUs on 1 nodes"),
        ([node(8, 1)], {"ray_workers": 2}, "1 GPUs"),
        ([node(8)], {"device": "cuda"}, "no GPU"),
        ([], {}, "on 0 nodes"),
    ],
)
def test_too_small_a_cluster_is_named(nodes: list[dict[str, Any]], asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BuildError, match=words):
        Room.of(nodes, BuildConfig(executor="ray", **asked))


@pytest.mark.parametrize(("name", "value"), [("address", "10.0.0.1:6379"), ("ray_workers", 2)])
def test_settings_of_a_cluster_need_one(name: str, value: Any) -> None:
    with pytest.raises(BuildError, match="goes with --executor ray"):
        BuildConfig(**{name: value})


@pytest.fixture
def shard(photos: Path) -> Shard:
    return next(cut(open_source(photos, SourceOptions()).items(), 4))


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    setup = WorkerSetup(
        spec="colour", given=ColourEncoder(), config=BuildConfig(), metadata=pa.schema([]), folder=str(Path.cwd())
    )
    worker = Worker(setup)
    worker.start()
    return worker


def test_a_shard_comes_back_whole(worker: Worker, shard: Shard) -> None:
    answer = worker.encode(ShardOrder(shard=shard, sights=sights(shard.entries), known={}))
    assert isinstance(answer, EncodedShard)
    assert answer.table.num_rows == len(shard.entries)
    assert answer.unread == []


def test_a_file_that_looks_otherwise_is_told_before_anything_is_encoded(worker: Worker, shard: Shard) -> None:
    before = sights(shard.entries)
    path = next(entry.content for entry in shard.entries if isinstance(entry.content, Path))
    path.unlink()
    answer = worker.encode(ShardOrder(shard=shard, sights=before, known={}))
    assert isinstance(answer, Unlike)
    assert (answer.position, answer.seen) == (0, None)


def test_what_cannot_be_read_is_pointed_out(worker: Worker, shard: Shard) -> None:
    gone = next(entry.content for entry in shard.entries if isinstance(entry.content, Path))
    gone.unlink()
    answer = worker.encode(ShardOrder(shard=shard, sights=sights(shard.entries), known={}))
    assert isinstance(answer, EncodedShard)
    assert answer.unread == [0]


def test_the_digest_of_a_shard_is_left_as_the_driver_made_it(worker: Worker, shard: Shard) -> None:
    shard = replace(shard, digest="d" * 64)
    answer = worker.encode(ShardOrder(shard=shard, sights=sights(shard.entries), known={}))
    assert isinstance(answer, EncodedShard)
    assert answer.table.schema.metadata[b"twinlens.shard.digest"] == b"d" * 64


RUN = "from twinlens.console import run; from twinlens.commands.build import build; run(build)"


def test_without_ray_the_error_is_one_line_with_the_way_to_get_it(photos: Path, tmp_path: Path, home: Path) -> None:
    # None in sys.modules makes an import fail as if the package were absent.
    code = f"import sys; sys.modules['ray'] = None; {RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(photos), "--out", str(tmp_path / "out"), "--executor", "ray", "-q"],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --executor ray needs Ray")
    assert 'pip install ".[cpu,ray]"' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("named", [True, False])
def test_nobody_at_the_address_is_told_at_once(
    named: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: the extra `ray`")
    if not named:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    where = {"address": "127.0.0.1:9"} if named else {}
    with pytest.raises(TwinlensError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'"):
        build_index(photos, tmp_path / "out", encoder=ColourEncoder(), executor="ray", **where)


def test_a_note_of_a_cluster_that_is_gone_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert running_here() is None
    (tmp_path / "ray").mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address, encoding="utf-8")
        assert running_here() == address
    assert running_here() is None


def test_importing_the_indexer_does_not_import_ray(home: Path) -> None:
    code = "import sys, indexer, indexer.build, indexer.ray.executor; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=home, check=False).returncode == 0
