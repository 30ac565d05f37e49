"""Fine-tuning learns, leaves an encoder that loads, survives kills and limits, and repeats itself."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import load_encoder
from storage.files import atomic
from training import CaptionedImages, FitConfig, FitReport, fit_encoder
from training.loop import FitProgress


def vectors(spec: str) -> np.ndarray:
    return load_encoder(spec, device="cpu").encode_texts(["red beside blue", "on the left green"])


@pytest.fixture(scope="module")
def run(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path_factory: pytest.TempPathFactory) -> FitReport:
    """One finished run on 38 images, chosen by 10 others."""
    out = tmp_path_factory.mktemp("run") / "encoder"
    return fit_encoder(tiny, examples, None, out, replace(quick, val_share=0.2))


def test_it_learns(run: FitReport) -> None:
    assert run.before is not None
    assert run.after is not None
    assert run.after.mean > run.before.mean + 0.1
    assert run.curve[-1]["loss"] < run.curve[0]["loss"] - 0.3
    assert run.stopped_by == "finished"
    assert run.counts["train_left"] + run.counts["val_left"] == 48


def test_the_result_is_an_ordinary_encoder_with_its_report_beside_it(run: FitReport, tiny: str) -> None:
    encoder = load_encoder(run.encoder, device="cpu")
    assert encoder.fingerprint != load_encoder(tiny, device="cpu").fingerprint
    folder = Path(run.encoder.removeprefix("local-dir:"))
    assert json.loads((folder / "training.json").read_text("utf-8")) == json.loads(json.dumps(run.to_json()))
    (folder / "training.json").rename(folder.with_name("report.json"))
    assert load_encoder(run.encoder, device="cpu").fingerprint == encoder.fingerprint
    assert not folder.with_name("encoder.fit").exists()


def test_the_figures_of_the_report_are_those_of_the_saved_encoder(run: FitReport, examples: CaptionedImages) -> None:
    """The kept weights, loaded anew, rank the held-back images as the report says."""
    assert run.after is not None
    encoder = load_encoder(run.encoder, device="cpu")
    from training.batches import pair_captions

    _, val = pair_captions(examples).split(0.2, 0)
    scores = encoder.encode_images(list(val.left.contents)) @ encoder.encode_texts(list(val.right.contents)).T
    hits = [row.argmax() in val.partners[number] for number, row in enumerate(scores)]
    assert np.mean(hits) == pytest.approx(run.after.left_to_right["R@1"])


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    short = replace(quick, epochs=2, views=1, interpolate=False)
    specs = [
        fit_encoder(tiny, examples, None, tmp_path / name, replace(short, seed=seed)).encoder
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, second, third = map(vectors, specs)
    assert np.array_equal(first, second)
    assert np.abs(first - third).max() > 1e-3


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run handles it."""


def test_a_killed_run_goes_on_to_the_same_result(
    run: FitReport, tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    config = replace(quick, val_share=0.2)

    def kill(progress: FitProgress) -> None:
        if progress.stage == "evaluate" and progress.done > progress.total / 2:
            raise Killed

    with pytest.raises(Killed):
        fit_encoder(tiny, examples, None, tmp_path / "encoder", config, kill)
    assert not (tmp_path / "encoder").exists()
    seen: list[FitProgress] = []
    again = fit_encoder(tiny, examples, None, tmp_path / "encoder", config, seen.append)
    first_step = min(progress.done for progress in seen if progress.stage == "train")
    assert first_step > again.curve[0]["step"]
    assert [row["loss"] for row in again.curve] == [row["loss"] for row in run.curve]
    assert np.array_equal(vectors(again.encoder), vectors(run.encoder))


def test_a_kill_while_a_checkpoint_is_written_costs_only_that_checkpoint(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []

    def kill(name: str) -> None:
        reached.append(name)
        if reached.count("checkpoint.written") == 2:
            raise Killed

    monkeypatch.setattr(atomic, "hook", kill)
    with pytest.raises(Killed):
        fit_encoder(tiny, examples, None, tmp_path / "encoder", quick)
    monkeypatch.setattr(atomic, "hook", None)
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", quick)
    assert report.stopped_by == "finished"
    assert [row["step"] for row in report.curve] == sorted({row["step"] for row in report.curve})


def test_other_settings_do_not_go_on_from_a_stopped_run(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    def kill(progress: FitProgress) -> None:
        if progress.stage == "evaluate":
            raise Killed

    with pytest.raises(Killed):
        fit_encoder(tiny, examples, None, tmp_path / "encoder", quick, kill)
    with pytest.raises(Exception, match=r"encoder\.fit' holds a stopped run with other examples or settings; give the"):
        fit_encoder(tiny, examples, None, tmp_path / "encoder", replace(quick, lr=1e-4))


def test_ctrl_c_saves_the_best_so_far(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path) -> None:
    def interrupt(progress: FitProgress) -> None:
        if progress.stage == "evaluate":
            raise KeyboardInterrupt

    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", quick, interrupt)
    assert report.stopped_by == "interrupted"
    assert report.averaged == (report.curve[0]["step"],) or report.alpha == 0
    assert vectors(report.encoder).shape == (2, 24)


def test_no_time_saves_the_encoder_untrained(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", replace(quick, time_limit=0))
    assert (report.stopped_by, report.curve, report.alpha) == ("time_limit", [], 0.0)
    assert load_encoder(report.encoder, device="cpu").fingerprint == load_encoder(tiny, device="cpu").fingerprint


def test_a_time_limit_ends_the_run_with_what_was_learned(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    began = time.monotonic()
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", replace(quick, epochs=100_000, time_limit=4))
    assert time.monotonic() - began < 5
    assert report.stopped_by == "time_limit"
    assert report.curve
    assert vectors(report.encoder).shape == (2, 24)


def test_training_stops_when_recall_no_longer_rises(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    """With a learning rate of nothing, no evaluation is better than the first."""
    config = replace(quick, lr=0.0, head_lr=0.0, epochs=20, evaluations=20, patience=2)
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", config)
    assert report.stopped_by == "early"
    assert len(report.curve) == 3
    assert report.after == report.before


def test_what_comes_out_is_never_worse_on_the_validation_images(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    ruinous = replace(quick, lr=3.0, head_lr=3.0, epochs=2, warmup=0.0)
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", ruinous)
    assert report.before is not None
    assert report.after is not None
    assert report.after.mean >= report.before.mean
    assert torch.isfinite(torch.from_numpy(vectors(report.encoder))).all()


@pytest.mark.parametrize("mode", ["head", "upper", "lora"])
def test_each_mode_changes_what_it_says_and_saves_an_ordinary_folder(
    mode: str, tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    config = replace(
        quick, mode=mode, image_blocks=1, text_blocks=1, epochs=3, views=1, evaluations=1, interpolate=False, soup=1
    )
    if mode != "upper":
        config = replace(config, image_blocks=None, text_blocks=None)
    report = fit_encoder(tiny, examples, None, tmp_path / mode, config)
    from safetensors.torch import load_file

    before = load_file(Path(tiny.removeprefix("local-dir:")) / "open_clip_model.safetensors")
    after = load_file(tmp_path / mode / "open_clip_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert "visual.proj" in changed
    assert ("visual.transformer.resblocks.1.attn.in_proj_weight" in changed) == (mode != "head")
    assert ("visual.transformer.resblocks.0.attn.in_proj_weight" in changed) == (mode == "lora")
    assert ("visual.transformer.resblocks.1.ln_1.weight" in changed) == (mode == "upper")
    assert "token_embedding.weight" not in changed
    assert report.settings["mode"] == mode


def test_features_that_do_not_fit_the_memory_are_computed_each_time(
    tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path
) -> None:
    config = replace(quick, mode="head", epochs=2, evaluations=2)
    cached = fit_encoder(tiny, examples, None, tmp_path / "cached", config)
    computed = fit_encoder(tiny, examples, None, tmp_path / "computed", replace(config, cache_bytes=0))
    losses = [[row["loss"] for row in report.curve] for report in (cached, computed)]
    assert np.allclose(*losses, atol=2e-3)  # cached features have 16 bits


def test_bf16_trains_too(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path) -> None:
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", replace(quick, epochs=2, precision="bf16"))
    assert report.settings["precision"] == "bf16"
    assert report.curve[-1]["loss"] < 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_the_same(tiny: str, examples: CaptionedImages, quick: FitConfig, tmp_path: Path) -> None:
    config = replace(quick, device="cuda", precision="fp32", val_share=0.2)
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", config)
    assert report.before is not None
    assert report.after is not None
    assert report.after.mean > report.before.mean + 0.1
