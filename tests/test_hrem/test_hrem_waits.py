"""A training step asks the device for nothing that the CPU knows, and finds what it found when it did ask.

Torch's `meta` device has shapes and no values: whatever would wait for a GPU to know how many there are fails on it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hrem_learners import learner_of
from torch import nn

from training.hrem import HremConfig
from training.hrem.hrem_learner import RankingLoss, draw_negatives
from training.hrem.region_batches import Matches
from training.hrem.towers.region_towers import GeneralisedPooling, GruStates, Padding, RegionProjection, rank_codes

AFTER = 3.0  # epochs: the warm-up of the tests is over
LENGTHS = [3, 5, 1, 5, 2]


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def test_regions_of_a_batch_are_projected_as_those_that_a_mask_picks() -> None:
    torch.manual_seed(0)
    project, regions, mask = RegionProjection(6, 8).train(), torch.randn(5, 5, 6), mask_of(LENGTHS, 5)
    there = regions[mask]
    hidden = project.linear(there) + project.narrow(torch.relu(project.norm(project.wide(there))))
    expected = torch.zeros(5, 5, 8)
    expected[mask] = hidden
    assert torch.equal(project(regions, mask, Padding.of(mask)), expected)
    assert torch.equal(project(regions, mask), expected)


@pytest.mark.parametrize("width", [5, 7])
def test_a_recurrent_network_sees_what_packing_by_length_shows_it(width: int) -> None:
    torch.manual_seed(0)
    network, states = nn.GRU(4, 6, batch_first=True, bidirectional=True), torch.randn(5, width, 4)
    mask = mask_of(LENGTHS, width)
    packed = nn.utils.rnn.pack_padded_sequence(states, mask.sum(1), batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(network(packed)[0], batch_first=True, total_length=width)
    assert torch.equal(Padding.of(mask).recurrent(network, states), expected)


def test_negatives_are_those_that_multinomial_would_draw() -> None:
    torch.manual_seed(3)
    unit = nn.functional.normalize(torch.randn(40, 12), dim=1)
    owners = torch.randint(15, (40,))
    matches, scores = Matches.of(owners.unsqueeze(0) == owners.unsqueeze(1)), unit @ unit.T
    torch.manual_seed(4)
    found = draw_negatives(scores, matches, 1.7, 12)
    distances = (2 - 2 * scores).clamp(min=0).sqrt().clamp(min=0.5)
    logs = -10 * distances.log() - 4.5 * (1 - distances.square() / 4).log()
    logs = logs.masked_fill(matches.same | (distances >= 1.7), -torch.inf)
    torch.manual_seed(4)
    drawn = torch.multinomial((logs - logs.amax(1, keepdim=True)).exp()[matches.rows], 1)
    assert torch.equal(found, drawn.squeeze(1))
    assert not matches.same[matches.rows, found].any()


def test_towers_and_losses_need_no_value_to_know_how_much_there_is() -> None:
    mask = mask_of(LENGTHS, 5)
    padding, matches = Padding.of(mask).through(meta), Matches.of(torch.eye(5, dtype=torch.bool)).through(meta)
    with torch.device("meta"):
        project, words, pool = RegionProjection(6, 8).train(), GruStates(20, 5, 8), GeneralisedPooling()
        assert project(torch.randn(5, 5, 6), meta(mask), padding).shape == (5, 5, 8)
        assert words.project(torch.randn(5, 5, 5), meta(mask), padding).shape == (5, 5, 8)
        assert pool(torch.randn(5, 5, 8), meta(mask), padding).shape == (5, 8)
        left, right = torch.randn(5, 8), torch.randn(5, 8)
        for kind in ("distance", "hardest"):
            assert RankingLoss(kind, 0.2, 1.7, 8)(left, right, matches, False).shape == ()
    assert rank_codes(5, 4, torch.device("meta")).is_meta


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["max", "gpo"])
def test_a_step_on_a_gpu_waits_for_nothing(precomp: Path, quick: HremConfig, pooling: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    learner, batch = learner_of(precomp, replace(quick, pooling=pooling), device="cuda")
    learner.training_mode(True)
    learner.backward(batch, 0, AFTER)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.backward(batch, 1, AFTER)
    finally:
        torch.cuda.set_sync_debug_mode("default")
