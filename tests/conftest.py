"""Shared by all tests: where the real data lies, and one small corpus of photographs."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Tests run side by side: threads of each, and of the commands they start, would wait for one another, which takes twice
# as long on two cores. Set before torch and faiss are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What tests keep for later runs is not for the user's own, nor the other way round. It goes with the run.
if "TWINLENS_CACHE" not in os.environ:
    os.environ["TWINLENS_CACHE"] = tempfile.mkdtemp(prefix="twinlens-cache-")
    atexit.register(shutil.rmtree, os.environ["TWINLENS_CACHE"], ignore_errors=True)

import pytest
from hypothesis import settings

from twinlens.console import check_origins

check_origins()

# A deadline for one example says how busy the machine is, not whether the code is right.
settings.register_profile("twinlens", deadline=None)
settings.load_profile("twinlens")

HOME = Path(__file__).resolve().parents[1]
DATA = HOME.parent / "shared" / "data"


@pytest.fixture(scope="session")
def home() -> Path:
    """The root of the project."""
    return HOME


@pytest.fixture(scope="session")
def data() -> Path:
    """Real photographs, captions and CLIP vectors that are not part of the project."""
    if not DATA.is_dir():
        pytest.skip("the folder shared/data beside the project is absent: real photographs and CLIP vectors are needed")
    return DATA
