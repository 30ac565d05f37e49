from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from encoders.errors import EncoderError
from training.hrem.config import HremConfig
from training.hrem.instance_relations import Fusion, InstanceRelation, Relevance
from training.hrem.towers.region_towers import (
    BertStates,
    FragmentHead,
    GeneralisedPooling,
    GruStates,
    ImageTower,
    MaxPooling,
    RegionProjection,
    TextTower,
    TowersConfig,
    masked_mean,
)

PUBLISHED = TowersConfig(region_dim=2048, max_regions=36)
SMALL = TowersConfig(region_dim=6, max_regions=4, dim=8, heads=2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class NoBert(nn.Module):
    """As wide as BERT, without its weights."""

    config = SimpleNamespace(hidden_size=768)


def test_the_towers_have_the_published_numbers_of_parameters() -> None:
    assert count(ImageTower(PUBLISHED)) / 1e6 == pytest.approx(9.98, abs=0.01)
    assert count(TextTower(BertStates(NoBert(), 1024), PUBLISHED)) / 1e6 == pytest.approx(7.09, abs=0.01)


def test_the_small_network_of_the_regions_is_half_as_wide_as_the_embeddings() -> None:
    for dim, hidden in ((1024, 512), (256, 128), (1, 1)):
        project = RegionProjection(6, dim)
        assert project.wide.weight.shape == (hidden, 6)
        assert project(torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool)).shape == (2, 3, dim)


def test_the_layers_of_towers_and_relation_are_counted_apart() -> None:
    config = HremConfig(dim=8, heads=2, relation_layers=3, warmup_epochs=0)
    assert len(Fusion(config).layers) == 3
    assert len(FragmentHead(replace(SMALL, layers=2)).relation) == 2


def test_the_relation_has_the_published_number_of_parameters() -> None:
    config = HremConfig()
    assert count(Fusion(config)) / 1e6 == pytest.approx(6.30, abs=0.01)
    assert count(Relevance(10).images) == count(Relevance(10).texts) == 121


def test_the_relevance_networks_start_as_copies() -> None:
    relevance = Relevance(10)
    for one, other in zip(relevance.images.parameters(), relevance.texts.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one is not other


def test_max_pooling_is_the_mean_of_the_two_largest_of_what_is_there() -> None:
    fragments = torch.tensor([[[1.0], [5.0], [3.0]], [[2.0], [9.0], [9.0]]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert MaxPooling(2)(fragments, mask).tolist() == [[4.0], [2.0]]


@pytest.mark.parametrize("pool", [MaxPooling(2), GeneralisedPooling(), masked_mean])
def test_padding_does_not_change_what_is_pooled(pool: nn.Module) -> None:
    torch.manual_seed(0)
    fragments = torch.randn(2, 3, 5)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    padded = torch.cat([fragments, torch.full((2, 4, 5), 99.0)], dim=1)
    wider = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(pool(fragments, mask), pool(padded, wider))


def test_the_embedding_is_a_mix_of_what_is_pooled_before_and_after_the_attention() -> None:
    torch.manual_seed(0)
    head = FragmentHead(SMALL).eval()
    fragments, mask = torch.randn(3, 4, 8), torch.ones(3, 4, dtype=torch.bool)
    found = head(fragments, mask)
    after = head.relation[0](fragments).mean(1)
    torch.testing.assert_close(found.raw, 0.8 * MaxPooling(2)(fragments, mask) + 0.2 * after)
    torch.testing.assert_close(found.unit.norm(dim=1), torch.ones(3))


def test_without_fragment_relation_there_is_only_pooling() -> None:
    head = FragmentHead(TowersConfig(region_dim=6, max_regions=4, dim=8, heads=2, fragment_relation=False))
    assert count(head) == 0


def test_padded_regions_leave_the_embedding_and_the_norm_alone() -> None:
    torch.manual_seed(0)
    regions, mask = torch.randn(4, 3, 6), torch.ones(4, 3, dtype=torch.bool)
    torch.manual_seed(1)
    one = ImageTower(SMALL)
    torch.manual_seed(1)
    other = ImageTower(SMALL)
    one.head.relation.eval(), other.head.relation.eval()
    padded = torch.cat([regions, torch.full((4, 2, 6), 7.0)], dim=1)
    wider = torch.cat([mask, torch.zeros(4, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(one(regions, mask).unit, other(padded, wider).unit)
    torch.testing.assert_close(one.project.norm.running_mean, other.project.norm.running_mean)


def test_a_recurrent_text_tower_ignores_padding() -> None:
    torch.manual_seed(0)
    tower = TextTower(GruStates(20, 5, 8), SMALL).eval()
    ids = torch.tensor([[2, 7, 3, 0, 0]])
    short = tower(ids[:, :3], torch.ones(1, 3, dtype=torch.bool)).unit
    torch.testing.assert_close(tower(ids, ids != 0).unit, short)


def test_every_parameter_of_the_towers_has_a_gradient() -> None:
    torch.manual_seed(0)
    tower = ImageTower(SMALL)
    tower(torch.randn(4, 3, 6), torch.ones(4, 3, dtype=torch.bool)).unit.sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


def test_instance_relation_works_at_every_option() -> None:
    for interaction in ("fusion", "standalone"):
        config = HremConfig(dim=8, heads=2, interaction=interaction, warmup_epochs=0)  # type: ignore[arg-type]
        assert count(InstanceRelation(config)) > 242


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(EncoderError, match="dim 10 cannot be cut into 16 heads"):
        TowersConfig(region_dim=6, max_regions=4, dim=10)
