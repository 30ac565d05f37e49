"""The files for deploying name what there is: extras, folders, commands and options. The shell completes quickly."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from searcher.server.settings import ServerSettings
from twinlens.commands.serve import serve
from twinlens.console import COMMANDS

DOCKERFILES = ("Dockerfile.build", "Dockerfile.search")
INSTRUCTIONS = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "STOPSIGNAL", "USER"),
    *("VOLUME", "WORKDIR"),
}


@pytest.fixture(scope="module")
def project(home: Path) -> dict[str, Any]:
    return tomllib.loads((home / "pyproject.toml").read_text("utf-8"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with what follows their names, on one line each."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    split = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in split]


def options_of(command: click.Command, words: list[str]) -> None:
    """Fail unless a command takes these words; it is not run."""
    command.make_context(command.name or "", words, resilient_parsing=False)


@pytest.mark.parametrize("name", DOCKERFILES)
class TestDockerfiles:
    def test_every_instruction_is_one(self, home: Path, name: str) -> None:
        found = instructions(home / "docs" / "deploy" / name)
        assert {one for one, _ in found} <= INSTRUCTIONS
        assert found[0][0] == "FROM"

    def test_the_base_is_pinned_to_a_release(self, home: Path, name: str, project: dict[str, Any]) -> None:
        bases = [rest.split(" AS ")[0] for one, rest in instructions(home / "docs" / "deploy" / name) if one == "FROM"]
        assert bases
        for base in bases:
            release = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-[a-z]+", base)
            assert release, base
            least = int(project["project"]["requires-python"].removeprefix(">=3."))
            assert int(release[1]) >= least

    def test_what_is_copied_is_there_and_nothing_of_the_wheel_is_missing(
        self, home: Path, name: str, project: dict[str, Any]
    ) -> None:
        copied = [shlex.split(rest) for one, rest in instructions(home / "docs" / "deploy" / name) if one == "COPY"]
        sources = [source for words in copied if not words[0].startswith("--") for source in words[:-1]]
        assert [source for source in sources if not (home / source).exists()] == []
        packages = {package.partition(".")[0] for package in project["tool"]["setuptools"]["packages"]}
        assert packages | {"pyproject.toml", "README.md", "LICENSE"} <= set(sources)

    def test_the_extras_exist(self, home: Path, name: str, project: dict[str, Any]) -> None:
        runs = " ".join(rest for one, rest in instructions(home / "docs" / "deploy" / name) if one == "RUN")
        (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', runs)
        assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])

    def test_it_does_not_run_as_root_and_calls_a_command_that_exists(
        self, home: Path, name: str, project: dict[str, Any]
    ) -> None:
        last = dict(instructions(home / "docs" / "deploy" / name))
        runs = " ".join(rest for one, rest in instructions(home / "docs" / "deploy" / name) if one == "RUN")
        assert f"useradd --system --no-create-home --shell /usr/sbin/nologin {last['USER']}" in runs
        (program,) = json.loads(last["ENTRYPOINT"])
        assert program in project["project"]["scripts"]
        words = json.loads(last["CMD"])
        if program == "twinlens":
            assert words[0] in COMMANDS
            options_of(serve, words[1:])
        else:
            assert words == ["--help"]


def test_the_health_check_asks_the_port_that_is_served(home: Path) -> None:
    last = dict(instructions(home / "docs" / "deploy" / "Dockerfile.search"))
    port = last["EXPOSE"]
    assert f"http://127.0.0.1:{port}/readyz" in last["HEALTHCHECK"]
    assert json.loads(last["CMD"])[-2:] == ["--port", port]
    code = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])[2]
    compile(code, "HEALTHCHECK", "exec")


def test_the_script_that_trims_is_a_script_and_names_modules_that_exist(home: Path) -> None:
    script = home / "docs" / "deploy" / "trim.sh"
    subprocess.run(["sh", "-n", script], check=True)
    for imports in re.findall(r"-c 'import ([a-z_., ]+)'", script.read_text("utf-8")):
        for module in imports.split(", "):
            path = home / module.replace(".", "/")
            is_there = path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
            assert is_there or module == "sysconfig", module


@pytest.fixture
def unit(home: Path) -> dict[str, str]:
    lines = (home / "docs" / "deploy" / "twinlens.service").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class TestTheUnit:
    def test_it_starts_a_server_with_options_that_exist(self, unit: dict[str, str]) -> None:
        program, command, *words = shlex.split(unit["ExecStart"])
        assert (Path(program).name, command) == ("twinlens", "serve")
        options_of(serve, words)

    def test_it_is_left_the_grace_that_a_server_has(self, unit: dict[str, str]) -> None:
        words = shlex.split(unit["ExecStart"])
        assert float(words[words.index("--grace") + 1]) == ServerSettings().grace
        assert float(unit["TimeoutStopSec"]) > ServerSettings().grace
        assert unit["KillSignal"] == "SIGTERM"

    def test_it_is_hardened(self, unit: dict[str, str]) -> None:
        for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp"):
            assert unit[name] == "yes"
        assert unit["ProtectSystem"] == "strict"
        assert unit["CapabilityBoundingSet"] == ""
        assert unit["MemoryMax"]
        assert unit["Restart"] == "on-failure"

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
    def test_systemd_finds_nothing_wrong_with_it(self, home: Path, tmp_path: Path) -> None:
        # The program is to be there, and may be anything.
        text = (home / "docs" / "deploy" / "twinlens.service").read_text("utf-8")
        path = tmp_path / "twinlens.service"
        path.write_text(text.replace("/opt/twinlens/bin/twinlens", sys.executable), encoding="utf-8")
        command = ["systemd-analyze", "verify", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def completed(home: Path, words: str) -> tuple[list[str], list[str]]:
    """What the shell is told for the last of some words, and which heavy packages were imported for it."""
    program = words.partition(" ")[0]
    function = "twinlens.console:main" if program == "twinlens" else "twinlens.commands.build:main"
    module, _, name = function.partition(":")
    code = (
        f"import sys; sys.argv = [{program!r}]\nfrom {module} import {name}\ntry:\n    {name}()\nfinally:\n    "
        "print(sorted({'torch', 'duckdb', 'faiss', 'numpy', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    count = str(len(words.split(" ")) - 1)
    environment = {**os.environ, variable: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()], json.loads(done.stderr.replace("'", '"'))


class TestCompletion:
    def test_commands_complete_without_any_import(self, home: Path) -> None:
        assert completed(home, "twinlens se") == (["search", "serve", "serve-ray"], [])
        names, heavy = completed(home, "twinlens ")
        assert (names, heavy) == (sorted(COMMANDS), [])

    def test_options_of_a_command_complete_without_torch(self, home: Path) -> None:
        names, heavy = completed(home, "twinlens search --exa")
        assert names == ["--exact"]
        assert heavy == ["numpy"]
        assert completed(home, "twinlens search --into te")[0] == ["texts"]
        assert "torch" not in completed(home, "build-index --port")[1]


def test_the_list_of_commands_says_what_each_command_says(home: Path) -> None:
    from importlib import import_module

    from twinlens.console import summary

    for name, where in COMMANDS.items():
        module, _, function = where.partition(":")
        command = getattr(import_module(f"twinlens.commands.{module}"), function)
        assert summary(name).split("\n\n")[0].split() == command.help.split("\n\n")[0].split(), name
        assert len(summary(name)) > 20
