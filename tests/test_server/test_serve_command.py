"""The command `serve`: what it prints, when it stops, what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from served_process import CODE, running, start


def refused(home: Path, *arguments: object, code: str = CODE, **environment: str) -> str:
    process = start(home, *arguments, code=code, **environment)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_answers_and_stops_when_told(home: Path, ready_made: Path, number: int) -> None:
    with running(home, ready_made) as (process, said):
        assert said["version"] == 1
        assert said["items"] == {"images": 30, "texts": 60}
        assert said["url"].startswith("http://127.0.0.1:")
        vector = np.ones(16).tolist()
        found = httpx.post(said["url"] + "search", json={"vector": vector, "k": 3}).json()
        assert len(found["hits"]) == 3
        assert len(httpx.get(said["url"] + "search", params={"item": "images-3"}).json()["hits"]) == 10
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 0
        assert error == ""


def test_without_an_encoder_words_are_refused_with_the_way_out(home: Path, ready_made: Path) -> None:
    with running(home, ready_made) as (_, said):
        answer = httpx.get(said["url"] + "search", params={"text": "a dog"})
        assert answer.status_code == 400
        assert "--encoder" in answer.json()["error"]
        picture = httpx.post(said["url"] + "search", content=b"x", headers={"Content-Type": "image/png"})
        assert "--encoder" in picture.json()["error"]
        missing = httpx.get(said["url"] + "thumbnails", params={"id": "images-3"})
        assert missing.status_code == 404
        page = httpx.get(said["url"]).text
        assert "no encoder" in page
        assert 'type="file"' not in page


def test_a_token_comes_from_a_file_or_from_the_environment(home: Path, ready_made: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-long-secret\n", "utf-8")
    shown = {"Authorization": "Bearer a-long-secret"}
    with running(home, ready_made, "--token-file", tmp_path / "token") as (_, said):
        assert httpx.get(said["url"]).status_code == 401
        assert httpx.get(said["url"], headers=shown).status_code == 200
    with running(home, ready_made, TWINLENS_TOKEN="a-long-secret") as (_, said):
        assert httpx.get(said["url"] + "metrics").status_code == 401
        assert httpx.get(said["url"] + "metrics", headers=shown).status_code == 200


def test_an_address_for_others_is_warned_about_without_a_token(home: Path, ready_made: Path) -> None:
    with running(home, ready_made, "--host", "0.0.0.0") as (process, said):
        port = said["url"].rstrip("/").rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": "any.name"}).status_code == 200
        process.terminate()
        _, error = process.communicate(timeout=20)
        assert error.startswith("warning: whoever reaches this address can search")


def test_a_start_that_cannot_be_is_one_line(home: Path, ready_made: Path, tmp_path: Path) -> None:
    assert "no index at" in refused(home, tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(home, tmp_path / "file")
    assert "no folder" in refused(home, ready_made, "--root", tmp_path / "none")
    assert "max_k=99999" in refused(home, ready_made, "--max-k", 99_999)
    assert "is empty" in refused(home, ready_made, "--token-file", os.devnull)
    assert "token file" in refused(home, ready_made, "--token-file", tmp_path / "none")
    assert "3 characters" in refused(home, ready_made, TWINLENS_TOKEN="abc")
    assert "give a --host of this machine" in refused(
        home, ready_made, "--host", "256.1.1.1", "--port", 0, TWINLENS_TOKEN="a-long-secret"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "another --port" in refused(home, ready_made, "--port", taken.getsockname()[1])


def test_without_the_extra_it_names_what_to_install(home: Path, ready_made: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; " + CODE
    assert 'pip install ".[cpu,server]"' in refused(home, ready_made, code=code)


def test_ids_that_are_paths_are_warned_about(home: Path, tmp_path: Path) -> None:
    from storage.store import IndexStore

    images = np.eye(4, dtype=np.float32)
    (tmp_path / "ids.txt").write_text("".join(f"/data/photos/{n}.jpg\n" for n in range(4)), "utf-8")
    np.save(tmp_path / "images.npy", images)
    build = "from twinlens.commands.build import main; main()"
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            build,
            "--image-embeddings",
            tmp_path / "images.npy",
            "--image-ids",
            tmp_path / "ids.txt",
            "--out",
            tmp_path / "it.index",
        ],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert IndexStore.open(tmp_path / "it.index").current() == 1
    with running(home, tmp_path / "it.index") as (process, _):
        process.terminate()
        assert "absolute paths" in process.communicate(timeout=20)[1]


def test_neither_the_library_nor_the_command_imports_a_server_before_it_must(home: Path) -> None:
    code = (
        "import sys, searcher, searcher.server, twinlens.commands.serve;"
        "sys.exit(bool({'fastapi', 'uvicorn', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=False).returncode == 0
