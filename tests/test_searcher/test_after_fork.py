"""A process that was forked after a search searches on, without the threads that its parent had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Several cores, whatever the tests themselves run with: one core starts no threads that could be missed.
SEVERAL = {**os.environ, "OMP_NUM_THREADS": "2"}
IN_A_FORK = """
import os, sys, threading

def in_a_fork(work):
    '''Run `work` in a forked process, from its first thread and from one that it starts; end with its exit status.'''
    child = os.fork()
    if child == 0:
        outcomes = [work()]
        thread = threading.Thread(target=lambda: outcomes.append(work()))
        thread.start()
        thread.join()
        os._exit(0 if outcomes == [True, True] else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", IN_A_FORK + code, *arguments]
    # What hangs is killed, child and parent.
    done = subprocess.run(command, env=SEVERAL, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_candidates_of_many_queries() -> None:
    run("""
import faiss, numpy as np
from storage.ann import AnnIndex

faiss.omp_set_num_threads(2)
vectors = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
index = faiss.IndexFlatIP(64)
index.add(vectors)
before = index.search(vectors[:2000], 5)[1]
sys.exit(in_a_fork(lambda: bool((index.search(vectors[:2000], 5)[1] == before).all())))
""")


def test_batches_of_an_encoder() -> None:
    run("""
import torch
from encoders.open_clip_encoder import CorePool

torch.set_num_threads(2)
pool, matrix = CorePool(2), torch.ones(600, 600)
parts = [matrix * number for number in range(4)]
before = pool.map(lambda part: float((part @ matrix).sum()), parts)
whole = float((matrix @ matrix).sum())

def again():
    same = pool.map(lambda part: float((part @ matrix).sum()), parts) == before
    return same and float((matrix @ matrix).sum()) == whole and pool.map(float, [1], small=True) == [1.0]

sys.exit(in_a_fork(again))
""")


def test_searches_by_vector_with_and_without_a_filter(wide_index: Path, wide_vectors: np.ndarray) -> None:
    run(
        """
import numpy as np
from searcher import Searcher

searcher = Searcher.open(sys.argv[1])
queries = np.random.default_rng(0).standard_normal((300, int(sys.argv[2]))).astype(np.float32)

def found(where):
    return [[hit.item_id for hit in hits] for hits in searcher.text_to_image(queries, k=3, where=where)]

before = [found(None), found("row_id % 2 = 0")]
sys.exit(in_a_fork(lambda: [found(None), found("row_id % 2 = 0")] == before))
""",
        str(wide_index),
        str(wide_vectors.shape[1]),
    )
