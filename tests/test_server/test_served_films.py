"""Films on the server: hits open at their second, and files go out in pieces, those that were indexed alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from colour import ColourEncoder
from PIL import Image
from served_index import Served, serving

from indexer import build_index
from indexer.corpus import SourceOptions
from searcher.server import ServerSettings

pytest.importorskip("av", reason="films need the extra video")

from phone_files import film

CHROMIUM = Path("/usr/bin/chromium")
FRAME = "red.mp4#t=4"
LOADED = """() => new Promise((done) => {
  const film = document.querySelector("video"), tell = () => done(film.currentTime);
  film.readyState > 1 ? tell() : film.addEventListener("loadeddata", tell);
})"""


def index_films(folder: Path) -> Path:
    (folder / "films").mkdir()
    colours = [Image.new("RGB", (64, 48), colour) for colour in ("blue", "red")]
    film(folder / "films" / "red.mp4", [(0, colours[0]), (3, colours[1])], seconds=6)
    colours[0].save(folder / "films" / "blue.png")
    options = SourceOptions(frames="2s")
    build_index(folder / "films", folder / "f.index", encoder=ColourEncoder(), options=options)
    return folder / "f.index"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_films(tmp_path_factory.mktemp("cinema"))


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Served]:
    with serving(index, encoder=ColourEncoder()) as server:
        yield server


def test_a_film_goes_out_in_the_pieces_that_are_asked_for(server: Served, index: Path) -> None:
    whole = (index.parent / "films" / "red.mp4").read_bytes()
    size = len(whole)
    for wanted, start, end in (
        ("bytes=0-", 0, size),
        ("bytes=10-19", 10, 20),
        ("bytes=-5", size - 5, size),
        (f"bytes=9-{size + 99}", 9, size),
        ("bytes=0-3,8-9", 0, 4),
        ("lines=1-2", 0, size),
    ):
        answer = server.get("/films", params={"id": FRAME}, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, whole[start:end]), wanted
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-type"] == "video/mp4"
    plain = server.get("/films", params={"id": FRAME})
    assert (plain.status_code, plain.content, plain.headers["accept-ranges"]) == (200, whole, "bytes")
    beyond = server.get("/films", params={"id": FRAME}, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")


def test_what_is_no_frame_has_no_film(server: Served) -> None:
    for item, words in (
        ("blue.png", "no frame of a film"),
        ("red.mp4#t=99", "there is no item"),
        ("../red.mp4#t=4", "there is no item"),
    ):
        answer = server.get("/films", params={"id": item})
        assert answer.status_code == 404
        assert words in answer.json()["error"]


def test_another_film_in_its_place_goes_out_only_below_the_folder_that_was_given(tmp_path: Path) -> None:
    index = index_films(tmp_path)

    def asked(server: Served) -> list[int]:
        return [server.get(path, params={"id": FRAME}).status_code for path in ("/films", "/thumbnails")]

    with serving(index, encoder=ColourEncoder()) as server:
        assert server.get("/films", params={"id": FRAME}).status_code == 200
        film(tmp_path / "films" / "red.mp4", [(0, Image.new("RGB", (64, 48), "green"))], seconds=6)
        assert asked(server) == [404, 404]
        assert "is not the one that was indexed" in server.get("/films", params={"id": FRAME}).json()["error"]
    with serving(index, ServerSettings(root=tmp_path / "films"), ColourEncoder()) as server:
        assert asked(server) == [200, 200]


def test_hits_know_their_second(server: Served) -> None:
    hits = server.ask(text="red", k=1)["hits"]
    assert (hits[0]["item_id"], hits[0]["time"], hits[0]["duration"], hits[0]["film"]) == (FRAME, 4.0, 6.0, "red.mp4")
    thumbnail = server.get("/thumbnails", params={"id": FRAME})
    assert thumbnail.headers["content-type"] == "image/jpeg"


@pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no Chromium to test the page in")
def test_the_page_plays_a_film_from_the_second_of_a_hit(server: Served) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{server.url}/?q=red")
        link = page.locator("a.second").first
        assert (link.get_attribute("href"), link.inner_text().split()[-1]) == ("films?id=red.mp4%23t%3D4#t=4", "0:04")
        page.locator("a.frame").first.click()
        page.wait_for_selector("video")
        assert page.evaluate(LOADED) == 4
        assert said == []
        browser.close()
