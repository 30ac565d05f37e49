"""The page opens on what is in the index: clusters, a time line, columns with few values; each leads to its items."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from colour import COLOURS, ColourEncoder, paint
from PIL import Image
from served_index import Served, serving

from indexer import build_index
from searcher import Searcher
from searcher.server.browse import Overview, overview
from storage import IndexStore

YEARS = ("2019", "2021", "2024")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsed")
    lines = ["image,caption,brand,sku,taken_at"]
    for number in range(48):
        colour = [*COLOURS][number % 3]  # 24 of each brand but for one in three
        paint(folder / f"{number}.png", colour, noise=number)
        brand = "O'Neil" if number % 4 else "Zeiss"
        lines.append(
            f"{number}.png,a {colour} square {number},{brand},S{number},{YEARS[number % 3]}-05-0{number % 9 + 1}"
        )
    (folder / "shop.csv").write_text("\n".join(lines), encoding="utf-8")
    build_index(folder / "shop.csv", folder / "shop.index", encoder=ColourEncoder())
    return folder / "shop.index"


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Served]:
    with serving(index, encoder=ColourEncoder()) as served:
        yield served


@pytest.fixture(scope="module")
def known(index: Path) -> Overview:
    with IndexStore.open(index).open_version() as version:
        return overview(version)


def test_clusters_are_of_images_alike_and_named_by_a_caption_of_theirs(known: Overview) -> None:
    assert sum(cluster.count for cluster in known.clusters) == 48
    assert len(known.clusters) >= 3
    assert len({cluster.name for cluster in known.clusters}) == len(known.clusters)
    for cluster in known.clusters:
        colours = {[*COLOURS][row % 3] for row in cluster.rows}
        assert len(colours) == 1
        assert cluster.name.split()[1] in colours


def test_facets_are_columns_with_few_values_the_most_frequent_first(known: Overview) -> None:
    by_title = {facet.title: facet for facet in known.facets["images"]}
    assert [(one.label, one.count, one.share) for one in by_title["brand"].choices] == [
        ("O'Neil", 36, 1.0),
        ("Zeiss", 12, pytest.approx(1 / 3)),
    ]
    assert "sku" not in by_title
    assert by_title["brand"].choices[0].where == "\"brand\" = 'O''Neil'"


def test_the_page_leads_from_each_to_its_items(server: Served, index: Path) -> None:
    page = server.get("/").text
    assert "What is here" in page
    links = [unescape(link) for link in re.findall(r'<a href="(\?where=[^"]*)"', page)]
    assert links
    with Searcher.open(index, encoder=ColourEncoder()) as searcher:
        for link in links:
            shown = server.get(f"/{link}").text
            where = unescape(re.search(r"where ([^<]*?), \d+ ms", shown)[1])  # type: ignore[index]
            expected = len(searcher.text_to_image("square", 48, where=where, exact=True))
            some = "24 of " if expected > 24 else ""
            assert f">{some}{expected} images</h2>" in shown
            assert "remove the filter" in shown
            assert "What is here" not in shown


def test_a_filter_that_nothing_passes_or_that_is_none_says_so(server: Served) -> None:
    nothing = server.get("/", params={"where": "brand = 'none'"})
    assert nothing.status_code == 200
    assert "Nothing passes the filter" in re.sub(r"\s+", " ", nothing.text)
    wrong = server.get("/", params={"where": "bran = 'x'"}, headers={"accept": "text/html"})
    assert wrong.status_code == 400
    assert "do you mean brand" in wrong.text or "did you mean brand" in wrong.text


def test_a_time_line_has_a_bar_a_year(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"{YEARS[number % 3]}:0{number % 9 + 1}:15 12:00:00"
        Image.new("RGB", (40, 30), (20 * number, 90, 200)).save(tmp_path / "photos" / f"{number}.jpg", exif=exif)
    build_index(tmp_path / "photos", tmp_path / "it.index", encoder=ColourEncoder())
    with IndexStore.open(tmp_path / "it.index").open_version() as version:
        (when, *_) = overview(version).facets["images"]
    assert when.is_time
    assert [(one.label, one.count) for one in when.choices] == [(year, 4) for year in YEARS]
    assert when.choices[1].where == "taken_at >= DATE '2021-01-01' AND taken_at < DATE '2022-01-01'"


def test_ready_made_vectors_and_a_handful_have_nothing_to_browse_by(ready_made: Path, tmp_path: Path) -> None:
    with IndexStore.open(ready_made).open_version() as version:
        assert all(not facets for facets in overview(version).facets.values())
    paint(tmp_path / "one" / "a.png", "red")
    build_index(tmp_path / "one", tmp_path / "one.index", encoder=ColourEncoder())
    with IndexStore.open(tmp_path / "one.index").open_version() as version:
        assert list(overview(version).clusters) == []
