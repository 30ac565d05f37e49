"""Every shell block of the documentation runs as it stands, or says in its fence why it cannot run here.

So does every Python block that asks a server.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doc_pages import Block, blocks, environment, fill, pages, run
from PIL import Image

HOME = Path(__file__).resolve().parents[2]
SHELL = ("sh", "bash")
COMMANDS = ("twinlens ", "build-index ", "pip ", "python ", "make ", "curl ", "ray ", "git ")
NO_TEST = "no-test:"
SERVER = "server"
SHELL_BLOCKS = [block for page in pages(HOME) for block in blocks(page) if block.language in SHELL]
ASKING = [block for page in pages(HOME) for block in blocks(page) if (block.language, block.note) == ("python", SERVER)]
TESTED = [block for block in SHELL_BLOCKS if not block.note.startswith(NO_TEST)] + ASKING
# How many blocks of a page are left out. A new one has to be entered here, by somebody who has read its reason.
LEFT_OUT = {"README.md": 1, "CONTRIBUTING.md": 1, "encode.md": 2, "export.md": 1, "scale.md": 2, "server.md": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pages begin with: photographs, captions, and an index of both."""
    skimage = pytest.importorskip("skimage", reason="real photographs ship in scikit-image")
    folder = tmp_path_factory.mktemp("pages") / "prepared"
    folder.mkdir()
    fill(folder, Path(skimage.__file__).parent / "data")
    run(["build-index", "captions.jsonl", "--out", "photos.index", "--encoder", "lite", "--quiet"], folder)
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve `photos.index`, and give the address; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["twinlens", "serve", "photos.index", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(1200):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None
                time.sleep(0.1)
            yield f"localhost:{port}"
        finally:
            server.terminate()


def execute(block: Block, folder: Path, address: str = "") -> str:
    code = block.code
    if block.note == SERVER:
        code = code.replace("curl ", "curl --fail --silent --globoff ").replace("localhost:8000", address)
    if block.language == "python":
        return run(["python", "-c", code], folder)
    return run(["bash", "-euo", "pipefail", "-c", code], folder)


@pytest.mark.parametrize("page", sorted({block.page for block in TESTED}))
def test_the_shell_blocks_of_a_page_run_in_their_order(page: str, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder)
    if page == "README.md":
        # It builds the index of that name itself, of a folder without captions.
        shutil.rmtree(folder / "photos.index")
    here = [block for block in TESTED if block.page == page]
    for block in here:
        if block.note != SERVER:
            execute(block, folder)
    if asking := [block for block in here if block.note == SERVER]:
        with serving(folder) as address:
            for block in asking:
                execute(block, folder, address)
    if page == "README.md":
        with Image.open(folder / "hits.png") as sheet:
            assert sheet.width > 200


def test_a_block_that_is_left_out_says_why_and_is_known() -> None:
    left_out = [block for block in SHELL_BLOCKS if block.note.startswith(NO_TEST)]
    for block in left_out:
        assert len(block.note.removeprefix(NO_TEST).split()) >= 4, block
    assert {page: sum(block.page == page for block in left_out) for page in LEFT_OUT} == LEFT_OUT
    assert len(left_out) == sum(LEFT_OUT.values())


def test_every_block_of_commands_is_marked_as_shell_and_every_note_is_known() -> None:
    for page in pages(HOME):
        for block in blocks(page):
            if block.language not in SHELL:
                assert not block.code.startswith(COMMANDS), block
            else:
                assert block.note in ("", SERVER) or block.note.startswith(NO_TEST), block
