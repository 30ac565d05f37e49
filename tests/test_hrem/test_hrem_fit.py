from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from concepts import write_concepts
from hrem_learners import learner_of

from encoders import load_encoder
from encoders.device import choose_device
from encoders.transfer import Transfer
from training import CheckpointError, ExamplesError, TrainingError
from training.hrem import HremConfig, evaluate_hrem, fit_hrem
from training.hrem.hrem_evaluation import EvaluateHremOptions, HremReport, save_plot
from training.hrem.hrem_learner import HremLearner
from training.hrem.hrem_training import parts_of
from training.hrem.towers.region_features import open_split
from training.loop import FitProgress, ignore_progress
from twinlens.commands import hrem as commands

AFTER = 3.0  # epochs: the warm-up of the tests is over
ALL = EvaluateHremOptions(split="test", device="cpu")


def moved(learner: HremLearner) -> set[str]:
    return {name for name, value in learner.named_parameters() if value.grad is not None and value.grad.any()}


@pytest.mark.parametrize("interaction", ["fusion", "standalone", "none"])
def test_a_run_learns_and_can_be_opened(precomp: Path, tmp_path: Path, quick: HremConfig, interaction: str) -> None:
    lines: list[str] = []
    config = replace(quick, interaction=interaction, epochs=10)  # type: ignore[arg-type]
    report = fit_hrem(precomp, tmp_path / "out", config, lambda told: lines.append(told.text) if told.text else None)
    assert report.dev["rsum"] > report.curve[0]["rsum"]
    assert report.dev["text_to_image"]["R@1"] > 2 / 12
    assert report.stopped_by == "finished"
    assert sum("dev rsum" in line for line in lines) == 10
    assert (report.counts["relation_parameters"] == 0) == (interaction == "none")
    encoder = load_encoder(report.encoder, device="cpu")
    assert encoder.dim == 32
    assert not (tmp_path / "out.fit").exists()
    assert HremReport(**json.loads((tmp_path / "out" / "training.json").read_text())).to_text() == report.to_text()


def test_the_same_seed_gives_the_same_towers_and_another_gives_others(
    precomp: Path, tmp_path: Path, quick: HremConfig
) -> None:
    config = replace(quick, epochs=3, warmup_epochs=1)
    names = [("a", config), ("b", config), ("c", replace(config, seed=1))]
    found = [load_encoder(fit_hrem(precomp, tmp_path / name, given).encoder, "cpu") for name, given in names]
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint


def test_a_killed_run_goes_on_to_the_same_towers(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    def die(told: FitProgress) -> None:
        if told.stage == "train" and told.done == 10:
            raise SystemExit

    whole = fit_hrem(precomp, tmp_path / "whole", quick)
    with pytest.raises(SystemExit):
        fit_hrem(precomp, tmp_path / "killed", quick, die)
    assert (tmp_path / "killed.fit" / "state.json").is_file()
    assert not (tmp_path / "killed").exists()
    again = fit_hrem(precomp, tmp_path / "killed", quick)
    assert again.curve == whole.curve
    assert load_encoder(again.encoder, "cpu").fingerprint == load_encoder(whole.encoder, "cpu").fingerprint


def test_a_stopped_run_with_other_settings_is_not_continued(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    def die(told: FitProgress) -> None:
        if told.stage == "train" and told.done == 5:
            raise SystemExit

    with pytest.raises(SystemExit):
        fit_hrem(precomp, tmp_path / "out", quick, die)
    with pytest.raises(CheckpointError, match="other examples or settings"):
        fit_hrem(precomp, tmp_path / "out", replace(quick, lr=0.1))


def test_ctrl_c_keeps_the_best_weights_so_far(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    def interrupt(told: FitProgress) -> None:
        if told.stage == "train" and told.done == 7 and not told.text:
            raise KeyboardInterrupt

    report = fit_hrem(precomp, tmp_path / "out", quick, interrupt)
    assert report.stopped_by == "interrupted"
    assert report.kept_epoch <= 2
    load_encoder(report.encoder, "cpu")


def test_the_time_limit_ends_a_run_with_what_there_is(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    began = time.monotonic()
    report = fit_hrem(precomp, tmp_path / "out", replace(quick, epochs=100_000, time_limit=3.0))
    assert time.monotonic() - began < 4
    assert report.stopped_by == "time_limit"
    load_encoder(report.encoder, "cpu")


def test_early_stopping_waits_for_the_relations(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    report = fit_hrem(precomp, tmp_path / "out", replace(quick, lr=0.0, epochs=9, warmup_epochs=4, patience=2))
    assert report.stopped_by == "early"
    # The norm's statistics move at a rate of 0 too, so the best epoch need not be the first.
    best = 1 + max(range(len(report.curve)), key=lambda epoch: report.curve[epoch]["rsum"])
    assert len(report.curve) == max(best + 2, 5)


def test_before_the_warmup_ends_the_relation_has_no_gradient(precomp: Path, quick: HremConfig) -> None:
    learner, batch = learner_of(precomp, quick)
    learner.loss(batch, 1.9).backward()
    assert {name.split(".")[0] for name in moved(learner)} == {"towers"}
    learner.loss(batch, 2.0).backward()
    assert {name.split(".")[0] for name in moved(learner)} == {"towers", "relation"}


def test_all_that_a_step_sends_is_pinned_by_the_thread_that_made_its_batch(precomp: Path, quick: HremConfig) -> None:
    splits = open_split(precomp, "train"), open_split(precomp, "dev")
    parts = parts_of(splits, quick, choose_device("cpu", "fp32"), precomp, ignore_progress)
    pinned, sent = dict[int, str](), list[torch.Tensor]()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned[id(tensor)] = threading.current_thread().name
        return tensor

    class Recorder(Transfer):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            sent.append(batch)
            return batch

    batch = next(replace(parts.train, pin=pin).epoch(0))
    parts.learner.sent = Recorder("cuda")
    parts.learner.loss(batch, AFTER)
    # Regions, words and their masks; for both where padding lies; the matches.
    assert len(sent) == len({id(one) for one in sent}) == 2 * (2 + 3) + 3
    assert {pinned[id(one)] for one in sent}.isdisjoint({threading.current_thread().name})
    lengths = (batch.region_padding.lengths, batch.word_padding.lengths)  # torch packs by them on the CPU
    assert not {id(one) for one in lengths} & (pinned.keys() | {id(one) for one in sent})


def test_bf16_trains_towers_and_relation(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    report = fit_hrem(precomp, tmp_path / "out", replace(quick, epochs=2, warmup_epochs=1, precision="bf16"))
    assert report.settings["precision"] == "bf16"
    assert report.curve[-1]["loss"] > report.curve[0]["loss"] > 0  # four losses and the regularisation, not one


def test_without_cross_loss_less_is_ranked(precomp: Path, quick: HremConfig) -> None:
    learner, batch = learner_of(precomp, replace(quick, ranking="hardest", relation_ranking="hardest"))
    learner.eval()
    with torch.no_grad():
        full = float(learner.loss(batch, 3.0))
        learner.config = replace(learner.config, cross_loss=False)
        part = float(learner.loss(batch, 3.0))
        learner.config = replace(learner.config, cross_loss=False, regularisation=0.0)
        least = float(learner.loss(batch, 3.0))
    assert full > part > least


def test_a_frozen_transformer_stays_and_its_states_are_kept(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    config = replace(
        quick, bert="lite", freeze_bert=True, epochs=1, interaction="none", cache=str(tmp_path / "states"), dev_images=6
    )
    report = fit_hrem(precomp, tmp_path / "out", config)
    assert report.counts["dev_images"] == 6
    assert len(list((tmp_path / "states").glob("states-*.npy"))) == 2
    fit_hrem(precomp, tmp_path / "again", replace(config, seed=1))
    assert len(list((tmp_path / "states").glob("states-*.npy"))) == 2
    # Evaluation runs the transformer itself.
    found = evaluate_hrem([tmp_path / "out"], EvaluateHremOptions(split="dev", images=6, k=(1, 5), device="cpu"))
    assert found["text_to_image"]["R@5"] == pytest.approx(report.dev["text_to_image"]["R@5"], abs=0.17)


def test_a_transformer_in_training_moves_at_its_own_rate(precomp: Path, quick: HremConfig) -> None:
    learner, batch = learner_of(precomp, replace(quick, bert="lite"))
    groups = {group["lr"]: len(group["params"]) for group in learner.optimizer().param_groups}
    assert sorted(groups) == pytest.approx([2e-4, 2e-3])
    learner.loss(batch, 0.0).backward()
    assert any(name.startswith("towers.text.words.bert.encoder") for name in moved(learner))


def test_an_ensemble_averages_similarities(run: Path, precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    fit_hrem(precomp, tmp_path / "other", replace(quick, seed=5))
    scores = []
    for name, runs in (("a", [run]), ("b", [tmp_path / "other"]), ("both", [run, tmp_path / "other"])):
        path = tmp_path / f"{name}.npy"
        evaluate_hrem(runs, replace(ALL, similarities=path))
        scores.append(np.load(path))
    np.testing.assert_allclose(scores[2], (scores[0] + scores[1]) / 2, atol=1e-6)


def test_folds_are_measured_each_by_itself(run: Path) -> None:
    whole = evaluate_hrem([run], replace(ALL, k=(1, 2)))
    folds = evaluate_hrem([run], replace(ALL, k=(1, 2), folds=3))
    assert folds["folds"] == 3
    assert folds["text_to_image"]["R@1"] >= whole["text_to_image"]["R@1"]


def test_a_checkpoint_of_other_dims_is_one_clear_line(run: Path, tmp_path: Path) -> None:
    write_concepts(tmp_path / "x", {"test": 4}, np.random.default_rng(0))
    np.save(tmp_path / "x" / "test_ims.npy", np.ones((4, 5, 7), dtype=np.float32))
    with pytest.raises(TrainingError, match=r"has 5 regions of 7 features, and checkpoint .* takes at most 5 of 24"):
        evaluate_hrem([run], replace(ALL, data=tmp_path / "x", k=(1,)))


def test_splits_of_unequal_features_are_refused(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    folder = tmp_path / "x"
    write_concepts(folder, {"train": 4, "dev": 4}, np.random.default_rng(0))
    np.save(folder / "dev_ims.npy", np.ones((4, 5, 7), dtype=np.float32))
    with pytest.raises(ExamplesError, match="'train' has 5 regions of 24 features and 'dev' 5 of 7"):
        fit_hrem(folder, tmp_path / "out", quick)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interaction": "fuse"}, "interaction is 'fuse'; choose one of fusion, standalone, none"),
        ({"epochs": 5}, "warmup_epochs 7 leaves none of the 5 epochs"),
        ({"batch_size": 1}, "batch_size is 1; give 2 or more"),
        ({"link_share": 1.5}, "link_share is 1.5; give a value from 0 to 1"),
        ({"lr": float("nan")}, "lr is nan"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        HremConfig(**settings)  # type: ignore[arg-type]


def test_presets_are_the_published_settings_and_give_way() -> None:
    coco = HremConfig.preset("coco", dim=256, cutoff=1.8)
    assert (coco.batch_size, coco.relation_weight, coco.cutoff, coco.dim) == (256, 1.5, 1.8, 256)
    # The instance relations begin at step 8,000, not at the one before.
    for name, steps in (("f30k", 1132), ("coco", 2212)):
        warmup = HremConfig.preset(name).warmup_epochs
        assert 7999 / steps < warmup <= 8000 / steps
    assert replace(HremConfig.preset("f30k"), warmup_epochs=7.0) == HremConfig()
    with pytest.raises(TrainingError, match="preset is 'flickr'; choose one of f30k, coco"):
        HremConfig.preset("flickr")


def test_the_command_takes_a_preset_below_its_flags(precomp: Path, tmp_path: Path) -> None:
    flags = "--preset coco --bert bigru --dim 16 --heads 2 --epochs 4 --cutoff 1.8 --device cpu -q --output json"
    done = CliRunner().invoke(commands.fit_hrem, [str(precomp), "--out", str(tmp_path / "out"), *flags.split()])
    assert done.exit_code == 0, done.output
    settings = json.loads(done.stdout)["settings"]
    assert (settings["batch_size"], settings["relation_weight"], settings["cutoff"]) == (256, 1.5, 1.8)
    assert settings["warmup_epochs"] == pytest.approx(3.6, abs=0.02)


def test_every_setting_stands_in_the_docs(home: Path) -> None:
    told = (home / "docs" / "hrem.md").read_text(encoding="utf-8")
    names = {field.name for field in fields(HremConfig)} - {"lr_steps"} | {"lr_step", "preset"}
    assert [name for name in sorted(names) if f"`--{name.replace('_', '-')}" not in told] == []


def test_a_plot_is_drawn(run: Path, tmp_path: Path) -> None:
    report = HremReport(**json.loads((run / "training.json").read_text(encoding="utf-8")))
    save_plot(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_print_json_and_one_line_for_an_error(precomp: Path, tmp_path: Path) -> None:
    flags = "--bert bigru --dim 16 --heads 2 --epochs 2 --warmup-epochs 1 --batch-size 12 --interaction standalone"
    given = [str(precomp), "--out", str(tmp_path / "out"), *flags.split(), "--output", "json", "--seed", "3"]
    done = CliRunner().invoke(commands.fit_hrem, given)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"]["seed"] == 3
    assert "interaction standalone, through" in done.stderr
    measured = CliRunner().invoke(
        commands.evaluate_hrem, [str(tmp_path / "out"), "--split", "test", "--output", "json"]
    )
    assert json.loads(measured.stdout)["images"] == 12
    code = "from twinlens.console import run; from twinlens.commands.hrem import evaluate_hrem; run(evaluate_hrem)"
    halved = [str(tmp_path / "out"), "--split", "test", "--output", "json", "--device", "cpu", "--precision"]
    rounded = CliRunner().invoke(commands.evaluate_hrem, [*halved, "bf16"])
    assert json.loads(rounded.stdout)["rsum"] == pytest.approx(json.loads(measured.stdout)["rsum"], abs=60)
    refused = CliRunner().invoke(commands.evaluate_hrem, [*halved, "fp16"])
    assert "precision 'fp16' runs on a GPU only; on device 'cpu' choose fp32 or bf16" in str(refused.exception)
    failed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "nowhere"), "--data", str(precomp)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "is not a folder; give hrem:PATH" in failed.stderr
