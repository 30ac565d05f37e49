"""`twinlens encoders`: a table to choose from, that needs neither torch nor a hub; and speed on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import open_clip
import pytest
from click.testing import CliRunner, Result
from tiny_clip import TINY

from twinlens.console import twinlens


def run(*arguments: str) -> Result:
    return CliRunner().invoke(twinlens, ["encoders", *arguments])


def shown(*arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(run("--output", "json", *arguments).stdout)["encoders"])


def test_the_table_shows_unknown_figures_as_unknown_and_says_loudly_what_may_not_be_used() -> None:
    lines = {line.split()[0]: line for line in run().stdout.splitlines() if "/" in line.partition(" ")[0]}
    assert "unknown      47.2 / 63.7" in lines["ViT-B-32-SigLIP2-256/webli"]
    assert "57.1 / unknown" in lines["PE-Core-L-14-336/meta"]
    assert "RESEARCH ONLY" in lines["MobileCLIP2-S0/dfndr2b"]
    assert "NON-COMMERCIAL" in lines["nllb-clip-large-siglip/mrl"]
    assert " balanced " in lines["ViT-B-32-SigLIP2-256/webli"]
    assert "b: open_clip docs/openclip_retrieval_results.csv" in run().stdout


def test_rows_are_sorted_as_asked_and_what_is_unknown_comes_last() -> None:
    recall = [row["coco_5k"] for row in shown()]
    means = [(one["text_to_image"] + one["image_to_text"]) / 2 for one in recall if None not in one.values()]
    assert means == sorted(means, reverse=True)
    assert all(None in one.values() for one in recall[len(means) :])
    assert (cost := [row["image_gflops"] for row in shown("--sort", "speed")]) == sorted(cost)
    sizes = [row["image_mparams"] + row["text_mparams"] for row in shown("--sort", "size") if row["text_mparams"]]
    assert sizes == sorted(sizes)


def test_a_language_compares_by_its_own_recall() -> None:
    rows = shown("--language", "ZH")
    known = [row["xm3600"]["zh"] for row in rows if "zh" in row["xm3600"]]
    assert known == sorted(known, reverse=True)
    assert rows[0]["xm3600"]["zh"] == max(known)
    assert "zh: Immich docs" in run("--language", "zh").stdout


def test_the_presets_of_a_gpu_are_marked_where_they_are_asked_for() -> None:
    assert [row["spec"] for row in shown("--only", "gopt") if row["presets"]["cuda"]] == [
        "ViT-gopt-16-SigLIP2-256/webli"
    ]
    assert "best" in run("--device", "cuda", "--only", "gopt-16-SigLIP2-256").stdout.splitlines()[1].split()
    assert "best" not in run("--only", "gopt-16-SigLIP2-256").stdout.splitlines()[1].split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "xx"], "no recall was published for the language 'xx'; choose ar, "),
        (["--sort", "nonsense"], "'nonsense' is not one of 'recall', 'speed', 'size'"),
        (
            ["--only", "MobileCLIP3-S0"],
            "no encoder of the table has 'MobileCLIP3-S0' in its name; did you mean MobileCLIP2-S0",
        ),
        (["--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
        (["SigLIP3"], "there is no command 'SigLIP3'; there is export; `twinlens encoders --only SigLIP3` shows"),
    ],
)
def test_what_is_typed_wrong_is_told_with_what_there_is(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_table_needs_no_torch() -> None:
    code = "import sys; sys.argv = ['twinlens', 'encoders'];from twinlens.console import twinlens;"
    code += "twinlens(standalone_mode=False); assert not {'torch', 'open_clip', 'faiss'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_speed_is_measured_and_what_cannot_be_built_costs_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**TINY, "text_cfg": {**TINY["text_cfg"], "vocab_size": 32000}}  # as SigLIP's, smaller than CLIP's
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "EVA02-L-14", small)
    broken = {**TINY, "vision_cfg": {"timm_model_name": "no_such_model", "image_size": 32}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "EVA02-L-14-336", broken)
    result = run("--measure", "--only", "EVA02-L", "--seconds", "4", "--output", "json", "--sort", "speed")
    measured, refused = json.loads(result.stdout)["encoders"]
    assert measured["images_per_second"] > 1
    assert 0 < measured["text_ms"] < 1000
    assert (measured["measured_on"], measured["not_measured"]) == ("cpu fp32", None)
    assert (refused["images_per_second"], refused["text_ms"]) == (None, None)
    assert "EVA02-L-14-336 cannot be measured: Unknown model (no_such_model)" in refused["not_measured"]
    assert "measuring 2 of 2: EVA02-L-14-336" in result.stderr


def test_a_measurement_ends_when_its_time_is_over() -> None:
    rows = json.loads(run("--measure", "--only", "bigG", "--seconds", "0", "--output", "json").stdout)["encoders"]
    assert [row["not_measured"] for row in rows] == ["the 0 seconds were over (--seconds)"]
