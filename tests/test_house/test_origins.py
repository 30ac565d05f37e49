"""A foreign package with one of our names is found and named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_foreign_searcher_is_named_with_the_way_to_mend_it(tmp_path: Path, home: Path) -> None:
    (tmp_path / "searcher").mkdir()
    (tmp_path / "searcher" / "__init__.py").write_text("")
    code = "from twinlens.console import main; main()"
    paths = os.pathsep.join([str(tmp_path), str(home)])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the package 'searcher' should come from")
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
