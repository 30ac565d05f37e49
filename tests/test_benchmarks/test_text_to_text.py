"""Captions asked for the other captions of their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_to_text
from colour import ColourEncoder
from PIL import Image

from evaluation import hit_rate_at_k
from storage import IndexStore


def measure(out: Path, *more: str, encoder: ColourEncoder | None = None) -> dict[str, Any]:
    argv = ["--encoder", "colour", "--limit", "60", "--work", str(out / "work"), "--results", str(out / "results")]
    return text_to_text.main([*argv, *more], {"colour": encoder or ColourEncoder()})


def test_every_caption_asks_for_the_others_of_its_image(data: Path, tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert (found["texts"], found["groups"], found["exact"]["queries"]) == (300, 60, 300)
    with IndexStore.open(tmp_path / "work" / "captions-colour-auto-60.index").open_version() as version:
        vectors = version.vectors("texts").gather(np.arange(300)).astype(np.float32)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    relevant = [[row for row in range(own // 5 * 5, own // 5 * 5 + 5) if row != own] for own in range(300)]
    for k in (1, 5, 10):
        assert found["exact"][f"R@{k}"] == pytest.approx(hit_rate_at_k(ranked, relevant, k), abs=0.01)
        assert found["exact_of_sample"][f"R@{k}"] == pytest.approx(found["exact"][f"R@{k}"], abs=0.01)


def test_operating_points_find_nearly_all_of_the_exact_answers(data: Path, tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert found["ann"] == "ivf-pq4"
    assert found["exact_of_sample"]["ann_recall@10"] == 1.0
    assert max(point["ann_recall@10"] for point in found["points"]) > 0.95
    assert all(point["ms_per_query"] > 0 for point in found["points"])


def test_a_second_run_encodes_nothing(data: Path, tmp_path: Path) -> None:
    first, again = measure(tmp_path), ColourEncoder()
    assert measure(tmp_path, encoder=again)["exact"] == first["exact"]
    assert again.texts_encoded == 0


def test_a_table_and_a_picture_are_left(data: Path, tmp_path: Path) -> None:
    measure(tmp_path, "--plot", str(tmp_path / "plot.png"))
    (table,) = (tmp_path / "results").glob("*_text_to_text_60.md")
    assert "exact, all captions: recall@1/5/10" in table.read_text("utf-8")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (1125, 690)


def test_a_plot_that_cannot_be_written_is_refused_first(data: Path, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    with pytest.raises(SystemExit, match=r"^error: [^\n]+$"):
        measure(tmp_path, "--plot", str(tmp_path / "nowhere" / "plot.png"), encoder=encoder)
    assert encoder.texts_encoded == 0
