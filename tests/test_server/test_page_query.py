"""The address of the page says what is searched with, comes back from every view, and is refused in one line."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served_index import Served

from searcher.errors import ParameterError
from searcher.server.page.page_query import PagePart, PageQuery, added, page_query, view_of

KINDS = st.sampled_from(["text", "item", "images", "texts", "image"])
PARTS = st.builds(
    PagePart,
    kind=KINDS,
    value=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip),
    weight=st.sampled_from([1.0, -1.0, 0.5, -2.0, 0.25]),
)


@given(part=PARTS)
def test_a_part_comes_back_from_its_text(part: PagePart) -> None:
    assert PagePart.parse(str(part)) == part
    assert not {"\n", "\r"} & set(str(part))
    assert part.flipped.flipped == part


@given(parts=st.lists(PARTS, max_size=4), words=st.sampled_from(["", "red", "a & b"]))
def test_a_view_comes_back_from_its_address(parts: list[PagePart], words: str) -> None:
    view = PageQuery(q=words, options={"k": 5, "min_score": 0.0}).with_beside(parts)
    assert view.beside == tuple(parts)
    again = view_of(view.link())
    assert again.every == tuple(part for part in view.every)
    assert again.link() == view.link()
    assert dict(parse_qsl(view.link()[1:]))["min_score"] == "0.0"


def test_one_item_alone_is_shown_itself_and_with_others_it_is_a_part() -> None:
    one = PageQuery().with_beside([PagePart(kind="images", value="a.jpg")])
    assert one.link() == "?item=a.jpg&of=images"
    assert (one.kind, one.changed(0, None).kind) == ("item", "nothing")
    two = added(one, [("mark", "images:b.jpg"), ("sign", "-")])
    assert two is not None
    assert [str(part) for part in two.beside] == ["images:a.jpg", "-images:b.jpg"]
    assert two.changed(1, None) == one
    assert page_query({"q": "red", "item": "a.jpg"}).kind == "composed"


def test_what_is_added_begins_at_the_first_page() -> None:
    view = added(page_query({"q": "red", "offset": "24", "k": "12"}), [("more", " blue "), ("sign", "+")])
    assert view is not None
    assert view.link() == "?q=red&k=12&part=text%3Ablue"
    first = added(PageQuery(), [("more", "blue"), ("sign", "+")])
    assert first is not None
    assert first.link() == "?q=blue"
    assert added(view, [("q", "red")]) is None


WRONG = [
    "",
    "red",
    "text:",
    "text: ",
    ":x",
    "sound:x",
    "0*text:x",
    "nan*text:x",
    "1.2.3*text:x",
    "--text:x",
    "1e3*text:x",
]


@pytest.mark.parametrize("part", WRONG)
def test_what_is_no_part_is_refused(part: str) -> None:
    with pytest.raises(ParameterError, match="must be such as text:people, -text:people"):
        PagePart.parse(part)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"part": "sound:x"}, 422, "must be such as"),
        ({"part": ["text:x"] * 50}, 422, "give 32 at most"),
        ({"part": "9999999*text:red"}, 422, "must be a number up to 1000"),
        ({"part": ["text:red", "images:nothing"]}, 404, "there is no item"),
        ({"part": ["text:red", "image:nothing"]}, 404, "does not remember that image"),
        ({"part": ["text:red", "-text:red", "-text:red"]}, 400, "cancel one another"),
        ({"q": "red", "offset": "2000"}, 400, "offset=2000 reaches beyond"),
        ({"q": "red", "mark": "x"}, 422, "must be such as"),
    ],
)
def test_an_address_that_cannot_be_shown_says_why(
    server: Served, query: dict[str, str | list[str]], status: int, said: str
) -> None:
    page = server.get("/", params=query)
    assert page.status_code == status
    assert said in page.text
    assert page.text.count('role="alert"') == 1
