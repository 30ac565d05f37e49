"""The encoder of a server: loaded while it answers, and missed by texts and images alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from colour import ColourEncoder
from paired_index import build_paired, captioned
from served_index import Served, colour_index, serving
from served_process import CODE, running

import encoders
from indexer import build_index
from searcher.server import ServerSettings, encoding
from searcher.server.errors import ServerError
from searcher.server.live_index import LiveIndex

VECTOR = np.linspace(-1, 1, 48).tolist()
PNG = {"Content-Type": "image/png"}


class Loader:
    """Loads the encoder of the index when it is let, as a model of a few gigabytes is."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.loaded = 0
        self.problem: Exception | None = None

    def __call__(self, spec: str, device: str = "auto", precision: str = "auto") -> ColourEncoder:
        assert self.may.wait(20)
        if self.problem is not None:
            raise self.problem
        self.loaded += 1
        return ColourEncoder(spec)


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    loader = Loader()
    monkeypatch.setattr(encoders, "load_encoder", loader)
    yield loader
    loader.may.set()


def until(server: Served, state: str) -> dict[str, Any]:
    end = time.monotonic() + 10
    while (health := server.get("/healthz").json())["encoder"] != state:
        assert time.monotonic() < end, health
        time.sleep(0.01)
    return dict(health)


def search_image(server: Served, folder: Path) -> httpx.Response:
    data = (folder / "photos/blue/0002.png").read_bytes()
    return server.post("/search", content=data, headers=PNG)


def test_while_the_encoder_loads_all_else_is_answered(index: Path, folder: Path, loader: Loader) -> None:
    with serving(index) as server:
        assert server.get("/healthz").json() == {"status": "ok", "version": 1, "encoder": "loading"}
        ready = server.get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert ready.json() == {
            "status": "not ready",
            "version": 1,
            "encoder": "loading",
            "reason": "the encoder is being loaded",
        }
        assert server.post("/search", json={"vector": VECTOR}).status_code == 200
        assert server.ask(item="blue/0002.png")["hits"]
        assert server.get("/thumbnails/blue/0002.png").status_code == 200
        assert 'id="image"' in server.get("/").text
        threading.Timer(0.3, loader.may.set).start()
        assert server.ask(text="a blue square", k=1)["hits"][0]["item_id"].startswith("blue/")  # waits for it
        until(server, "ready")
        ready = server.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["reason"]) == (200, "ready", None)
        assert search_image(server, folder).json()["hits"][0]["item_id"].startswith("blue/")
        assert loader.loaded == 1


def test_without_the_encoder_texts_and_images_are_told_so_and_all_else_works(
    index: Path, folder: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.problem = encoders.EncoderError(f"no weights at {folder}/weights; download them")
    loader.may.set()
    with serving(index, ServerSettings(token="a-long-secret")) as server:
        server.client.headers["Authorization"] = "Bearer a-long-secret"
        until(server, "failed")
        ready = httpx.get(f"{server.url}/readyz")  # without the token
        assert (ready.status_code, ready.json()["encoder"]) == (503, "failed")
        assert ready.json()["reason"].startswith("the encoder cannot be loaded, the log says why")
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for answer in (server.get("/search?text=red"), search_image(server, folder)):
            assert answer.status_code == 501
            said = answer.json()["error"]
            assert "cannot encode" in said
            assert "weights; download them" in said
            assert "by vector and by item" in said
            assert str(folder / "photos") not in said
        page = server.get("/", params={"q": "red"}, headers={"Accept": "text/html"})
        assert page.status_code == 501
        assert "no encoder for words" in page.text
        assert server.post("/search", json={"vector": VECTOR}).status_code == 200
        assert server.ask(item="blue/0002.png")["hits"]
        loader.problem = None
        assert server.get("/search?text=red").status_code == 501  # not tried again so soon
        monkeypatch.setattr(encoding, "_AGAIN_SECONDS", 0.0)
        until(server, "ready")  # by itself: nobody is sent to a server that is not ready
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.ask(text="red")["hits"]
        assert search_image(server, folder).status_code == 200


def test_an_encoder_that_is_asked_for_is_loaded_at_once_or_refused(index: Path, loader: Loader) -> None:
    loader.may.set()
    with serving(index, ServerSettings(encoder="colour")) as server:
        assert (server.live.current.encoding.state, loader.loaded) == ("ready", 1)
    with pytest.raises(ServerError, match="was made with 'colour'"):
        LiveIndex(index, ServerSettings(encoder="another"))


def test_a_version_whose_encoder_cannot_be_loaded_does_not_replace_one_that_works(
    tmp_path: Path, loader: Loader
) -> None:
    colour_index(tmp_path, 16)
    loader.may.set()
    with serving(tmp_path / "photos.index", ServerSettings(watch_seconds=0.02)) as server:
        until(server, "ready")
        loader.problem = encoders.EncoderError("no weights")
        publish_with(tmp_path, "another")
        while "swap_failures_total 1.0" not in server.get("/metrics").text:
            time.sleep(0.01)
        assert server.ask(text="red")["version"] == 1
        publish_with(tmp_path, "colour")  # the first encoder again, which is still there
        while server.get("/healthz").json()["version"] != 3:
            time.sleep(0.01)
        assert len(server.ask(text="red", k=100)["hits"]) == 16
        assert loader.loaded == 1


def publish_with(folder: Path, name: str) -> None:
    build_index(folder / "photos", folder / "photos.index", encoder=ColourEncoder(name))


@pytest.mark.parametrize("missing", ["torch", "open_clip"])
def test_an_installation_without_torch_serves_all_but_texts_and_images(
    home: Path, tmp_path: Path, missing: str
) -> None:
    index = lite_index(tmp_path)
    code = f"import sys; sys.modules[{missing!r}] = None; {CODE}"
    with running(home, index, code=code, XDG_CACHE_HOME=str(tmp_path)) as (process, said):
        url = said["url"]
        while httpx.get(url + "healthz").json()["encoder"] == "loading":
            time.sleep(0.05)
        assert httpx.post(url + "search", json={"vector": [1.0] * 384}).status_code == 200
        assert httpx.get(url + "search", params={"item": "images-3"}).status_code == 200
        text = httpx.get(url + "search", params={"text": "a dog"}, timeout=30)
        assert text.status_code == 501
        assert "pip install" in text.json()["error"]
        process.terminate()
        assert process.wait(20) == 0


def lite_index(folder: Path) -> Path:
    """Return an index that says that `lite` made its vectors."""
    named = ColourEncoder("lite")
    named.dim = 384
    images, texts, pairs = captioned(30, 2, dim=384)
    return build_paired(folder, images, texts, pairs, encoder=named)
