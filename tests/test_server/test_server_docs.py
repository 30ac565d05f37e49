"""The pages about the server name what there is: options, routes, figures of the metrics, defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from served_index import Served

from twinlens.commands.search import search
from twinlens.commands.serve import serve


@pytest.fixture(scope="module")
def text(home: Path) -> str:
    return (home / "docs" / "server.md").read_text(encoding="utf-8")


def test_every_option_they_name_exists_with_the_default_they_say(text: str, home: Path) -> None:
    watching = (home / "docs" / "watching.md").read_text("utf-8")
    shown = "".join(CliRunner().invoke(command, ["--help"]).output for command in (serve, search))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text + watching)) - {"--id"}
    assert len(named) > 8
    assert {name for name in named if name not in shown} == set()
    defaults = {name: value for param in serve.params for name, value in ((param.opts[0], param.default),)}
    said = re.findall(r"^\| `(--[a-z-]+)` \| (\d+) \|", text, re.MULTILINE)
    for option, default in [*said, *re.findall(r"`(--[a-z-]+)`\s*\((\d+)\)", text + watching)]:
        assert float(defaults[option]) == float(default), option


def test_every_route_it_names_answers(text: str, server: Served) -> None:
    described = set(server.get("/openapi.json").json()["paths"])
    for method, route in re.findall(r"`(GET|POST) (/[a-z.]*)", text):
        assert route in described | {"/openapi.json"}, method


def test_every_metric_of_the_page_is_there_and_the_other_way_round(home: Path, server: Served) -> None:
    text = (home / "docs" / "watching.md").read_text("utf-8")
    server.get("/search?text=red")
    counted = set(re.findall(r"^# TYPE (twinlens_\w+) ", server.get("/metrics").text, re.MULTILINE))
    counted = {name for name in counted if not name.endswith("_created")}
    assert {name.removesuffix("_bucket") for name in re.findall(r"twinlens_[a-z_]+", text)} == counted
