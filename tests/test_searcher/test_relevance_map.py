"""Which parts of an image match a query, in Python and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from colour import COLOURS, ColourEncoder
from PIL import Image
from served_index import Served, serving

from indexer import build_index
from searcher import Searcher, SearchError
from searcher.relevance_map import CELLS, map_of, shaded, windows


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves")
    half_red().save(folder / "half red.png")
    Image.new("RGB", (90, 60), COLOURS["green"]).save(folder / "green.png")
    build_index(folder, folder / "halves.index", encoder=ColourEncoder())
    return folder / "halves.index"


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Served]:
    with serving(index, encoder=ColourEncoder()) as served:
        yield served


def half_red(size: tuple[int, int] = (120, 80)) -> Image.Image:
    image = Image.new("RGB", size, COLOURS["blue"])
    image.paste(COLOURS["red"], (0, 0, size[0] // 2, size[1]))
    return image


def test_the_parts_that_match_are_high_in_the_map(index: Path) -> None:
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        red = searcher.relevance_map("red", half_red())
        again = searcher.relevance_map(ColourEncoder().encode_texts(["red"])[0], index.parent / "half red.png")
        blue = searcher.relevance_map("blue", half_red())
        with pytest.raises(SearchError, match="cannot be used"):
            searcher.relevance_map("red", b"no image")
    assert red.shape == (CELLS, CELLS)
    assert red.dtype == np.float32
    assert red[:, :2].min() > 0.9 > 0.3 > red[:, 6:].max()
    assert blue[:, 6:].min() > 0.9 > 0.3 > blue[:, :2].max()
    assert again.tolist() == red.tolist()


def test_a_map_is_the_mean_of_the_windows_over_each_part() -> None:
    cosines = np.arange(36, dtype=np.float32)
    relevance = map_of(cosines)
    assert relevance[0, 0] == cosines[0]
    assert relevance[0, 1] == cosines[:2].mean()
    assert relevance[7, 7] == cosines[35]
    assert relevance[3, 4] == cosines.reshape(6, 6)[1:4, 2:5].mean()


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (7, 5)])
def test_an_image_of_any_shape_has_windows_of_a_pixel_at_least(size: tuple[int, int]) -> None:
    assert min(min(window.size) for window in windows(Image.new("RGB", size))) >= 1


def test_a_shaded_image_is_itself_where_the_map_is_high_and_dark_elsewhere() -> None:
    relevance = np.zeros((CELLS, CELLS), dtype=np.float32)
    relevance[:, :4] = 1
    pixels = np.asarray(shaded(Image.new("RGB", (64, 64), (200, 200, 200)), relevance)).mean(axis=2)
    assert pixels[:, :24].min() > 195
    assert pixels[:, 40:].max() < 70


def test_the_page_shows_where_an_image_matches_on_request(server: Served) -> None:
    assert 'class="map"' not in server.get("/?q=red").text
    page = server.get("/?q=red&explain=1").text
    assert f"maps?q=red&amp;{urlencode({'show': 'half red.png', 'v': 1})}".replace("&v", "&amp;v") in page
    answer = server.get("/maps", params={"q": "red", "show": "half red.png", "v": 1})
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"]
    pixels = np.asarray(Image.open(BytesIO(answer.content)), dtype=float).mean(axis=2)
    blue_grey = np.mean(COLOURS["blue"])
    assert pixels[:, :30].mean() == pytest.approx(np.mean(COLOURS["red"]), abs=5)
    assert pixels[:, 90:].mean() < 0.6 * blue_grey


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"show": "half red.png"}, 400, "nothing to compare the image with"),
        ({"q": "red", "show": "none.png"}, 404, "none.png"),
        ({"q": "red"}, 400, "show"),
        ({"image": "gone", "show": "green.png"}, 404, "does not remember that image"),
    ],
)
def test_a_map_that_cannot_be_drawn_says_why(
    server: Served, parameters: dict[str, str], status: int, message: str
) -> None:
    answer = server.get("/maps", params=parameters)
    assert answer.status_code in (status, 422 if status == 400 else status)
    assert message in answer.text


def test_words_count_on_the_page_where_there_are_words(server: Served) -> None:
    assert "Words count too" in server.get("/").text
    answer = server.get("/?q=green&hybrid=1")
    assert answer.status_code == 200
    assert answer.text.index("green.png") < answer.text.index("half red.png")
    assert server.get("/?item=green.png&hybrid=1").status_code == 200
