"""The page in a real browser: searching, uploading, filtering, following; and that everybody can use it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from colour import ColourEncoder
from served_index import Served, colour_index, serving

from searcher import Query, Searcher

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")
CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("there is no Chromium to test the page in", allow_module_level=True)

VIEWS = {
    "home": "/",
    "words": "/?q=a+red+square",
    "texts": "/?q=green&into=texts",
    "filtered": "/?q=red&where=width+%3E+3",
    "item": "/?item=blue%2F0002.png",
    "error": "/?q=red&where=widht+%3E+3",
    "empty": "/?q=red&where=width+%3E+9999",
    "gone": "/?image=unknown",
    "composed": "/?q=red&part=-0.5*text:a+long+text+of+what+nobody+wants+to+see+here&part=images:blue/0002.png",
}

# Each visible text beside what is behind it, by the formula of WCAG 2: (lighter + 0.05) / (darker + 0.05).
CONTRAST = """() => {
  const rgba = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const note = (node, colour, text) => {
    const [a, b] = [light(rgba(colour)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), text.trim().slice(0, 40)]);
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility() || node.closest(".hidden, .skip")) continue;
    const own = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data).join("");
    if (own.trim()) note(node, getComputedStyle(node).color, own);
    if (node.placeholder) note(node, getComputedStyle(node, "::placeholder").color, node.placeholder);
  }
  return found;
}"""

# What a screen reader would find without a name.
UNNAMED = """() => {
  const bad = [];
  for (const one of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (![...(one.labels || [])].some((label) => label.textContent.trim())) bad.push(one.outerHTML);
  for (const one of document.querySelectorAll("img")) if (!one.hasAttribute("alt")) bad.push(one.outerHTML);
  for (const one of document.querySelectorAll("a, button, summary")) {
    const name = one.textContent.trim() || [...one.querySelectorAll("img")].map((image) => image.alt).join("");
    if (!name) bad.push(one.outerHTML);
  }
  for (const one of document.querySelectorAll("section")) {
    const by = document.getElementById(one.getAttribute("aria-labelledby") || "none");
    if (!one.getAttribute("aria-label") && !by?.textContent.trim()) bad.push(one.outerHTML);
  }
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) bad.push("an id twice");
  if (document.querySelectorAll("main").length !== 1) bad.push("main");
  if (document.querySelectorAll("h1").length !== 1) bad.push("h1");
  if (!document.documentElement.lang || !document.title) bad.push("lang or title");
  return bad;
}"""

DROP = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  const how = {bubbles: true, cancelable: true};
  const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, ...how})
    : new DragEvent("drop", {dataTransfer: transfer, ...how});
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that remembers what it asked for and what it complained about."""

    def __init__(self, browser: Any, url: str, **settings: Any) -> None:
        self.context = browser.new_context(base_url=url, **settings)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))


@pytest.fixture
def visit(browser: Any, server: Served) -> Iterator[Visit]:
    visit = Visit(browser, server.url)
    yield visit
    visit.context.close()


def captions(page: Any) -> list[str]:
    found: list[str] = page.locator(".images .caption").all_inner_texts()
    return found


def test_words_find_pictures_with_score_and_caption_and_no_complaint(visit: Visit, server: Served) -> None:
    page = visit.page
    page.goto("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("a red square")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=a+red+square*")
    page.wait_for_load_state("networkidle")
    expected = server.ask(text="a red square", k=24)["hits"]
    assert captions(page) == [hit["caption"] for hit in expected]
    assert page.locator(".images .score").all_inner_texts() == [f"{hit['score']:.3f}" for hit in expected]
    assert page.locator("h2").first.inner_text() == "24 images for “a red square”"
    assert page.title().startswith("24 images for “a red square”")
    sizes = page.evaluate(
        "[...document.querySelectorAll('.frame img')].slice(0, 12)"
        ".map((one) => [one.naturalWidth / one.naturalHeight, one.clientWidth / one.clientHeight])"
    )
    for natural, shown in sizes:
        assert natural == pytest.approx(40 / 30, rel=0.02)
        assert shown == pytest.approx(natural, rel=0.02)
    assert visit.complaints == []
    assert all(url.startswith(server.url) for url in visit.asked)


def test_the_address_shows_others_the_same(visit: Visit) -> None:
    page = visit.page
    page.goto("/?q=blue&where=caption+ILIKE+%27%25number+1%25%27&k=5")
    assert page.locator("#q").input_value() == "blue"
    assert page.locator("#where").input_value() == "caption ILIKE '%number 1%'"
    assert all("number 1" in text for text in captions(page))


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_finds_others_like_it_and_texts(visit: Visit, folder: Path, way: str) -> None:
    page, picture = visit.page, folder / "photos/yellow/0003.png"
    page.goto("/")
    if way == "choose":
        page.set_input_files("#image", picture)
    else:
        page.evaluate(DROP, [way, base64.b64encode(picture.read_bytes()).decode()])
    page.wait_for_url("**/?image=*")
    page.wait_for_load_state("networkidle")
    assert "yellow" in captions(page)[0]
    assert "yellow" in page.locator(".texts a").first.inner_text()
    assert page.evaluate("document.querySelector('.asked').naturalWidth") > 0
    again = page.context.new_page()  # the link works for whoever gets it
    again.goto(page.url)
    assert captions(again) == captions(page)
    assert visit.complaints == []


def test_a_filter_narrows_what_was_found_and_can_be_removed(visit: Visit) -> None:
    page = visit.page
    page.goto("/?q=a+square")
    page.get_by_text("Filter", exact=True).click()
    listed = page.locator("#where-help tbody th").all_inner_texts()
    assert {"item_id", "caption", "width", "height"} <= set(listed)
    assert "uri" not in listed
    page.get_by_role("button", name="caption", exact=True).click()
    page.keyboard.type("ILIKE '%green%'")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=*")
    assert len(captions(page)) == 5
    assert all("green" in text for text in captions(page))
    page.get_by_role("link", name="remove the filter").click()
    page.wait_for_url(lambda url: "where" not in url)
    assert len(captions(page)) == 24


def test_a_click_gives_more_like_it_and_its_texts(visit: Visit) -> None:
    page = visit.page
    page.goto("/?q=purple")
    page.locator(".images .frame").first.click()
    page.wait_for_url("**item=*")
    assert page.locator(".subject .captions li").count() == 2
    shown = page.locator(".subject dd").first.inner_text()
    assert shown not in page.locator(".images .facts dd").all_inner_texts()
    assert "purple" in captions(page)[0]
    page.locator(".subject").get_by_role("link", name="Matching texts").click()
    assert page.evaluate("document.querySelector('#h-texts').getBoundingClientRect().top < innerHeight")
    page.locator(".texts a").first.click()
    page.wait_for_url("**of=texts*")
    assert page.locator(".subject h2").inner_text() == "This text"
    assert "purple" in captions(page)[0]


def test_more_is_shown_when_asked(visit: Visit) -> None:
    page = visit.page
    page.goto("/?q=red")
    first = captions(page)
    page.get_by_role("link", name="Show more").click()
    page.wait_for_url("**k=48*")
    assert page.locator("h2").first.inner_text() == "40 images for “red”"
    shown = captions(page)
    assert (shown[:24], len(set(shown))) == (first, 40)
    assert page.get_by_role("link", name="Show more").count() == 0
    assert page.evaluate("document.activeElement.closest('li').id") == "i25"
    page.reload()  # the address shows the same to others
    assert captions(page) == shown
    assert visit.complaints == []


def labels(page: Any) -> list[str]:
    found: list[str] = page.locator(".chip").evaluate_all(
        "(all) => all.map((one) => one.querySelector('.sign > span').innerText + one.querySelector('.name').innerText)"
    )
    return found


def test_parts_are_added_turned_weighed_and_removed(visit: Visit, direct: Searcher) -> None:
    page = visit.page
    page.goto("/?q=a+red+square")
    page.fill("#more", "blue")
    page.get_by_role("button", name="Without").click()
    assert labels(page) == ["−blue"]
    hits = direct.search(Query.text("a red square") - Query.text("blue"), k=24)
    assert captions(page) == [hit.caption for hit in hits]
    page.get_by_role("link", name="Weight 1 of blue").click()
    assert "part=-2*text:blue" in unquote(page.url)
    hits = direct.search(Query.text("a red square") - 2 * Query.text("blue"), k=24)
    assert captions(page) == [hit.caption for hit in hits]
    page.get_by_role("link", name="Unwanted; make wanted: blue").click()
    assert labels(page) == ["+blue"]
    assert page.locator("h2").first.inner_text() == "24 images for “a red square + blue”"
    page.get_by_role("link", name="Remove blue").click()
    assert labels(page) == []
    assert page.url.endswith("/?q=a+red+square")
    assert visit.complaints == []


def test_the_marked_ones_make_a_query(visit: Visit, direct: Searcher) -> None:
    page = visit.page
    page.goto("/?q=purple")
    button = page.get_by_role("button", name="More like these")
    assert not button.is_visible()
    marks = page.locator(".images .mark input")
    chosen = [marks.nth(number).get_attribute("value").partition(":")[2] for number in (0, 1)]
    for number in (0, 1):
        marks.nth(number).focus()
        page.keyboard.press("Space")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**part=*")
    query = Query.text("purple") + Query.item(chosen[0]) + Query.item(chosen[1])
    assert captions(page) == [hit.caption for hit in direct.search(query, k=24)]
    page.fill("#q", "")
    page.get_by_role("button", name="Search", exact=True).click()
    query = Query.item(chosen[0]) + Query.item(chosen[1])
    assert captions(page) == [hit.caption for hit in direct.search(query, k=24)]
    page.get_by_role("link", name="Remove").first.click()
    assert page.locator(".subject h2").inner_text() == "This image"  # one alone is shown itself


def test_an_image_goes_together_with_what_is_searched(visit: Visit, folder: Path) -> None:
    page = visit.page
    page.goto("/?q=a+red+square&k=5")
    page.get_by_label("together with this search").check()
    page.set_input_files("#image", folder / "photos/yellow/0003.png")
    page.wait_for_url("**part=image*")
    assert labels(page) == ["+your image"]
    assert page.locator("#q").input_value() == "a red square"
    assert len(captions(page)) == 5
    assert page.evaluate("document.querySelector('.chip img').naturalWidth") > 0
    assert visit.complaints == []


def test_nothing_but_unwanted_parts_is_an_error_that_can_be_mended(visit: Visit) -> None:
    page = visit.page
    assert page.goto("/?part=-text:red").status == 400
    assert "'red' is unwanted and nothing is wanted" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Unwanted; make wanted: red").click()
    assert page.get_by_role("alert").count() == 0
    assert "red" in captions(page)[0]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of enough pairs to tell what fits."""
    with serving(colour_index(tmp_path_factory.mktemp("fitted"), 64), encoder=ColourEncoder()) as server:
        yield server


def test_what_is_unlikely_to_fit_is_below_a_line(browser: Any, fitted: Served) -> None:
    visit = Visit(browser, fitted.url)
    page = visit.page
    hits = fitted.ask(text="a red square", k=24)["hits"]
    fitting = [hit["probability"] >= 0.2 for hit in hits]
    assert 0 < sum(fitting) < 24
    page.goto("/?q=a+red+square")
    page.wait_for_load_state("networkidle")
    assert page.locator(".images li").nth(sum(fitting)).inner_text() == "Unlikely to fit:"
    assert page.locator(".images li.weak").count() == 24 - sum(fitting)
    told = page.locator(".images details.facts").first.text_content()
    assert f"likely to fit{hits[0]['probability']:.0%}" in told
    page.get_by_role("link", name="Show more").click()
    page.wait_for_url("**k=48*")
    assert page.locator(".below").count() == 1
    assert page.locator("h2").first.inner_text().startswith("48 images")
    assert [one for one in page.evaluate(CONTRAST) if one[0] < 4.5] == []
    page.goto("/?q=a+red+square&min_probability=0.2")
    assert len(captions(page)) == sum(fitting)
    page.goto("/?q=something+quite+else&min_probability=0.9")
    assert page.locator(".empty").inner_text().startswith("Nothing in this index fits.")
    page.get_by_role("link", name="Show the nearest all the same").click()
    assert page.locator(".images li").first.inner_text().startswith("Nothing in this index seems to fit")
    assert visit.complaints == []
    visit.context.close()


def test_varied_results_are_switched_on_and_off(visit: Visit, direct: Searcher) -> None:
    page = visit.page
    page.goto("/?q=red&k=8")
    page.get_by_label("Varied results").check()
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url("**diversity=0.4*")
    expected = direct.text_to_image("red", k=24, diversity=0.4)
    assert captions(page) == [hit.caption for hit in expected]
    page.get_by_label("Varied results").uncheck()
    page.get_by_label("Without copies").check()
    page.get_by_label("Say why").check()
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url(lambda url: "diversity" not in url and "collapse=1" in url)
    copies = [len(hit.copies) for hit in direct.text_to_image("red", k=24, collapse=True)]
    shown = page.locator(".images .foot").all_inner_texts()
    assert sum(copies) > 0
    assert page.locator(".images .why").first.inner_text().startswith("Nearest caption: ")
    assert [f"+ {count} cop" in text for count, text in zip(copies, shown, strict=True)] == [one > 0 for one in copies]


@pytest.mark.parametrize(
    ("view", "status", "said", "way"),
    [
        ("error", 400, "do you mean width", "Search without the filter"),
        ("gone", 404, "does not remember that image", "Start again"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(visit: Visit, view: str, status: int, said: str, way: str) -> None:
    answer = visit.page.goto(VIEWS[view])
    assert answer.status == status
    alert = visit.page.get_by_role("alert")
    assert said in alert.inner_text()
    alert.get_by_role("link", name=way).click()
    visit.page.wait_for_load_state()
    assert visit.page.get_by_role("alert").count() == 0


def test_nothing_found_says_so_with_a_way_on(visit: Visit) -> None:
    visit.page.goto(VIEWS["empty"])
    assert "Nothing passes the filter" in visit.page.locator(".empty").inner_text()
    visit.page.get_by_role("link", name="Search without the filter").click()
    visit.page.wait_for_load_state()
    assert len(captions(visit.page)) == 24


def test_what_is_no_picture_is_an_error_on_the_page(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    visit.page.goto("/")
    visit.page.set_input_files("#image", tmp_path / "words.png")
    visit.page.get_by_role("alert").wait_for()
    assert "not_an_image" in visit.page.get_by_role("alert").inner_text()


def test_it_works_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    page.goto("/?q=white")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement.matches('.frame')"):
        page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    page.wait_for_url("**item=*")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


def test_it_works_without_scripts(browser: Any, server: Served, folder: Path) -> None:
    visit = Visit(browser, server.url, java_script_enabled=False)
    page = visit.page
    page.goto("/")
    page.fill("#q", "orange")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "orange" in captions(page)[0]
    page.get_by_role("link", name="Show more").click()
    assert len(captions(page)) == 16
    assert page.locator("h2").first.inner_text() == "25 to 40 of the images for “orange”"
    page.get_by_role("link", name="Show those before").click()
    page.locator(".mark input").first.check()
    page.get_by_role("button", name="Less like these").click()
    assert labels(page)[0].startswith("−")
    page.set_input_files("#image", folder / "photos/green/0001.png")
    page.get_by_role("button", name="Search with it").click()
    assert "green" in captions(page)[0]
    visit.context.close()


def test_a_picture_that_cannot_be_shown_says_so(visit: Visit, folder: Path) -> None:
    visit.page.route("**/thumbnails?*0000.png*", lambda route: route.fulfill(status=404, body="{}"))
    visit.page.goto("/?q=red")
    visit.page.locator(".frame.broken").first.wait_for()
    assert "No image to show: a red square" in visit.page.locator(".frame.broken").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_text_can_be_read_and_everything_has_a_name(browser: Any, server: Served, scheme: str, view: str) -> None:
    visit = Visit(browser, server.url, color_scheme=scheme)
    visit.page.goto(VIEWS[view])
    for details in visit.page.locator("details:not([open]) > summary").all()[:3]:
        details.click()
    found = visit.page.evaluate(CONTRAST)
    assert len(found) > 10
    assert [one for one in found if one[0] < 4.5] == []
    assert visit.page.evaluate(UNNAMED) == []
    visit.context.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_narrow_screens(browser: Any, server: Served, width: int) -> None:
    visit = Visit(browser, server.url, viewport={"width": width, "height": 800})
    for view in VIEWS.values():
        visit.page.goto(view)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.context.close()


def test_captions_cannot_run_scripts_on_the_page(visit: Visit) -> None:
    visit.page.goto("/?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E&into=images")
    assert visit.page.locator("#q").input_value() == "<script>alert(1)</script>"
    assert visit.page.locator("main script").count() == 0
    assert visit.complaints == []
