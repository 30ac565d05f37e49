"""What a step teaches whom: in 16 bits as in 32, and with the relation's gradient through or stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hrem_learners import learner_of

from encoders import load_encoder
from encoders.errors import EncoderError
from training import TrainingError
from training.hrem import HremConfig, fit_hrem
from training.hrem.config import INTERACTIONS, RELATION_GRADIENTS
from training.hrem.hrem_learner import HremLearner, RankingLoss, regularisation
from training.loop import FitProgress

AFTER = 3.0  # epochs: the warm-up of the tests is over, and `hardest` takes the nearest negative
INTERACTING = [name for name in INTERACTIONS if name != "none"]


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("pooling", ["max", "gpo"])
@pytest.mark.parametrize("fragment_relation", [True, False])
def test_a_step_in_bf16_moves_what_one_in_fp32_moves(
    precomp: Path, quick: HremConfig, interaction: Any, pooling: Any, fragment_relation: bool
) -> None:
    config = replace(quick, interaction=interaction, pooling=pooling, fragment_relation=fragment_relation, dropout=0.0)
    losses, gradients = {}, {}
    for precision in ("fp32", "bf16"):
        learner, batch = learner_of(precomp, config, precision)
        learner.training_mode(True)
        losses[precision] = float(learner.backward(batch, 0, AFTER))
        gradients[precision] = {name: value.grad for name, value in learner.named_parameters()}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.2)
    for name, exact in gradients["fp32"].items():
        rough = gradients["bf16"][name]
        assert (exact is None) == (rough is None)
        assert rough is None or (torch.isfinite(rough).all() and rough.dtype == torch.float32)


def test_fp16_is_refused_before_anything_is_read(tmp_path: Path, quick: HremConfig) -> None:
    with pytest.raises(TrainingError, match="precision is 'fp16'; choose one of auto, fp32, bf16"):
        replace(quick, precision="fp16")
    with pytest.raises(EncoderError, match="'fp16' runs on a GPU only"):
        load_encoder(f"hrem:{tmp_path}", "cpu", "fp16")


def gradients(loss: torch.Tensor, parts: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, parts, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(one) if got is None else got for got, one in zip(found, parts, strict=True)]


def gradient_of_a_step(learner: HremLearner, batch: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    assert learner.relation is not None
    loss = learner.loss(batch, AFTER)
    return gradients(loss, [*learner.towers.parameters()]), gradients(loss, [*learner.relation.parameters()])


@pytest.mark.parametrize("interaction", INTERACTING)
def test_stopped_each_learns_from_its_own_losses(precomp: Path, quick: HremConfig, interaction: Any) -> None:
    # Nearest negatives and no dropout: nothing is drawn.
    config = replace(quick, interaction=interaction, ranking="hardest", relation_ranking="hardest")
    learner, batch = learner_of(precomp, replace(config, relation_gradient="stopped"))
    learner.eval()
    assert learner.relation is not None
    images, texts = learner.embed(batch)
    seen = [replace(side, unit=side.unit.detach()) for side in (images, texts)]
    related = learner.relation(*seen)
    rank = RankingLoss("hardest", config.margin, config.cutoff, config.distance_dim)

    def ranked(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return rank(one, other, batch.matches, False)

    of_towers = ranked(images.unit, texts.unit)
    of_towers = of_towers + ranked(images.unit, related.texts.detach()) + ranked(related.images.detach(), texts.unit)
    of_relation = ranked(related.images, related.texts)
    of_relation = of_relation + config.regularisation * regularisation(related.relevance, seen[0].unit, seen[1].unit)
    # No path leads from the losses of one to the weights of the other.
    assert not any(one.any() for one in gradients(of_relation, [*learner.towers.parameters()]))
    assert not any(one.any() for one in gradients(of_towers, [*learner.relation.parameters()]))
    towers, relation = gradient_of_a_step(learner, batch)
    torch.testing.assert_close(towers, gradients(of_towers, [*learner.towers.parameters()]))
    torch.testing.assert_close(relation, gradients(of_relation, [*learner.relation.parameters()]))
    assert any(one.any() for one in towers)
    assert any(one.any() for one in relation)


def test_both_ways_have_the_same_loss_and_other_gradients(precomp: Path, quick: HremConfig) -> None:
    found = {}
    for way in RELATION_GRADIENTS:
        learner, batch = learner_of(precomp, replace(quick, relation_gradient=way))
        learner.training_mode(True)
        loss = float(learner.backward(batch, 0, AFTER))
        towers = torch.cat([value.grad.flatten() for value in learner.towers.parameters() if value.grad is not None])
        found[way] = loss, towers
    assert found["through"][0] == found["stopped"][0]
    assert not torch.allclose(found["through"][1], found["stopped"][1], rtol=0.01)


def test_stopped_without_cross_losses_is_refused(quick: HremConfig) -> None:
    with pytest.raises(TrainingError, match="'stopped' without cross_loss teaches the towers nothing"):
        replace(quick, relation_gradient="stopped", cross_loss=False)
    replace(quick, relation_gradient="stopped", cross_loss=False, interaction="none")


def test_a_stopped_run_learns_and_goes_on_after_a_kill(precomp: Path, tmp_path: Path, quick: HremConfig) -> None:
    def die(told: FitProgress) -> None:
        if told.stage == "train" and told.done == 10:
            raise SystemExit

    config = replace(quick, interaction="standalone", relation_gradient="stopped")
    whole = fit_hrem(precomp, tmp_path / "whole", config)
    with pytest.raises(SystemExit):
        fit_hrem(precomp, tmp_path / "killed", config, die)
    again = fit_hrem(precomp, tmp_path / "killed", config)
    assert whole.dev["rsum"] > whole.curve[0]["rsum"]
    assert whole.settings["relation_gradient"] == "stopped"
    assert again.curve == whole.curve
    names = ("towers.safetensors", "relation.safetensors")
    files = [[(tmp_path / run / name).read_bytes() for name in names] for run in ("whole", "killed")]
    assert files[0] == files[1]
