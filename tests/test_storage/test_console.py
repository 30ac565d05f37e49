"""What every command does with errors, interrupts, pipes and terminals of few signs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from small_index import publish

from storage import IndexStore
from twinlens import console
from twinlens.commands.versions import versions


def command(home: Path, body: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = f"import click\nfrom twinlens.console import emit, run\n@click.command()\ndef c():\n    {body}\nrun(c)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=home, env={**os.environ, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (
            "raise OSError(28, 'No space left on device', 'a.arrow')",
            1,
            b"error: a.arrow: No space left on device; free some space and run the same command again",
        ),
        ("raise MemoryError", 1, b"error: there is not enough memory; ask for less at once, or end other programs"),
        ("from storage import StorageError; raise StorageError('two\\nlines')", 1, b"error: two lines"),
        (
            "from storage.errors import CorruptIndexError; raise CorruptIndexError('it is damaged')",
            3,
            b"error: it is damaged",
        ),
        ("raise click.UsageError('no such thing.')", 2, b"error: no such thing. See"),
        ("raise KeyboardInterrupt", 130, b"error: interrupted; nothing was changed; run the same command again"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(home: Path, body: str, code: int, line: bytes) -> None:
    done = command(home, body)
    assert done.returncode == code
    assert line in done.stderr
    assert done.stderr.strip().count(b"\n") == 0


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("serch", "error: there is no command 'serch'; did you mean 'search' or 'serve'? See `"),
        ("exprot", "did you mean 'export'?"),
        ("xyz", "there is no command 'xyz'; there are audit, build, compare, duplicates, encoders,"),
    ],
)
def test_a_command_that_is_misspelt_is_answered_with_those_like_it(home: Path, typed: str, words: str) -> None:
    code = "from twinlens.console import main; main()"
    done = subprocess.run([sys.executable, "-c", code, typed], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("build", "finished shards are kept"),
        ("fit", "goes on from the last evaluation"),
        ("search", "nothing was changed; run the same command again"),
        ("audit", "nothing was changed; run the same command again"),
        ("compare", "what was encoded is kept"),
    ],
)
def test_an_interrupted_command_says_what_it_has_kept(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_context: click.Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(console.twinlens.get_command(click.Context(console.twinlens), name), "invoke", interrupted)
    needed = {"build": ["--out", "b"], "fit": ["--out", "b"], "compare": ["--encoders", "b"]}.get(name, [])
    monkeypatch.setattr("sys.argv", ["twinlens", name, "a", *needed])
    with pytest.raises(SystemExit) as ended:
        console.main()
    assert ended.value.code == 130
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: interrupted; ")
    assert words in said
    assert "\n" not in said


def test_what_is_kept_is_said_for_commands_that_there_are() -> None:
    assert console.KEPT.keys() <= console.COMMANDS.keys()


def test_a_defect_of_ours_keeps_its_traceback(home: Path) -> None:
    done = command(home, "raise ZeroDivisionError")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


def test_json_stays_json_on_a_terminal_of_few_signs(home: Path) -> None:
    done = command(home, "emit('json', {'caption': 'œuf 狗'}, '')", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout) == {"caption": "œuf 狗"}


def test_text_shows_signs_that_a_terminal_lacks_as_escapes(home: Path) -> None:
    done = command(home, "emit('text', {}, 'caf\\u00e9 \\u72d7')", PYTHONIOENCODING="latin-1")
    assert done.stdout == b"caf\xe9 \\u72d7\n"


def test_a_reader_that_has_gone_is_no_error(home: Path) -> None:
    code = "import click\nfrom twinlens.console import emit, run\n@click.command()\ndef c():\n"
    code += "    import time; time.sleep(0.3); emit('text', {}, 'words ' * 100_000)\nrun(c)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        (">&-", 0, ""),
        (">/dev/full", 1, "error: the result cannot be written to stdout: No space left on device; free some space"),
    ],
)
def test_a_stdout_that_takes_nothing_is_told_in_a_line_at_most(home: Path, where: str, code: int, said: str) -> None:
    body = "import click\nfrom twinlens.console import emit, run\n@click.command()\ndef c():\n"
    body += "    emit('json', {'a': 'é'}, '')\nrun(c)"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {where}', sys.executable, body],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == (1 if said else 0)


def test_a_working_directory_that_is_gone_is_told(home: Path, tmp_path: Path) -> None:
    code = (
        "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); from twinlens.console import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "encoders"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: the working directory is gone; go to another one and run the command again\n"


def test_versions_are_listed_when_current_is_damaged(tmp_path: Path) -> None:
    store = IndexStore.create(tmp_path / "index")
    publish(store, 3)
    (store.path / "CURRENT").write_text("nonsense", encoding="utf-8")
    done = CliRunner().invoke(versions, [str(store.path), "--output", "json"])
    assert done.exit_code == 0
    assert [row["version"] for row in json.loads(done.stdout)["versions"]] == [1]
    assert "warning: " in done.stderr


def test_an_option_that_is_misspelt_is_answered_with_those_like_it(home: Path) -> None:
    code = "from twinlens.console import main; main()"
    command = [sys.executable, "-c", code, "info", "x", "--pionts"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: No such option '--pionts'")
    assert "--points'? See `" in done.stderr
