from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from training.hrem.config import HremConfig
from training.hrem.hrem_learner import regularisation
from training.hrem.instance_relations import InstanceRelation, Relevance, affinity, attention_bias, connection, linked
from training.hrem.towers.region_towers import Embedded

CONFIG = HremConfig(dim=8, heads=2, warmup_epochs=0, dropout=0.0)


def embedded(n: int, m: int, dim: int = 8, lengths: list[int] | None = None) -> Embedded:
    raw = torch.randn(n, dim, requires_grad=True)
    mask = torch.arange(m) < torch.tensor(lengths or [m] * n).unsqueeze(1)
    fragments = torch.randn(n, m, dim, requires_grad=True)
    return Embedded(unit=functional.normalize(raw, dim=1), raw=raw, fragments=fragments, mask=mask)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_batch_of_128_keeps_64_links_a_row() -> None:
    assert set(linked(torch.randn(128, 128), 0.5).sum(1).tolist()) == {64}


def test_a_batch_of_one_links_itself() -> None:
    assert linked(torch.randn(1, 1), 0.5).tolist() == [[True]]


def test_every_instance_is_linked_to_itself_and_half_of_each_block() -> None:
    images, texts = embedded(6, 4), embedded(6, 5)
    links = connection(images.unit, texts.unit, affinity(images, texts, 10), 0.5)
    assert links.shape == (12, 12)
    assert links.diagonal().all()
    for rows in (slice(0, 6), slice(6, 12)):
        for columns in (slice(0, 6), slice(6, 12)):
            assert set(links[rows, columns].sum(1).tolist()) == {3}


def test_links_within_a_modality_by_own_cosines_or_by_those_across() -> None:
    # Images 0 and 1 are alike, 2 and 3; captions 0 and 2 are, 1 and 3.
    images, texts = torch.eye(2)[[0, 0, 1, 1]], torch.eye(2)[[0, 1, 0, 1]]
    side = [embedded(4, 3), embedded(4, 3)]
    fragments = affinity(side[0], side[1], 10)
    own = connection(images, texts, fragments, 0.5)
    across = connection(images, texts, fragments, 0.5, "across")
    assert own[:4, :4].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert own[4:, 4:].int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    # Image 0 is linked to the images whose captions it is near: 0 and 2. Image 1 not to itself.
    assert across[:4, :4].int().tolist() == [[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1]]
    assert across[4:, 4:].int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert torch.equal(own[:4, 4:], across[:4, 4:])


def test_the_affinities_of_a_worked_example() -> None:
    # One image of two regions and one caption of two words; affinities 1, 0 / 0.6, 0.8.
    regions = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    image = Embedded(unit=regions[:, 0], raw=regions[:, 0], fragments=regions, mask=mask)
    text = Embedded(unit=words[:, 0], raw=words[:, 0], fragments=words, mask=mask)
    found = affinity(image, text, 3)
    # Over the words each region has length 1 already: the best region for the words scores 1 and 0.8.
    assert found.from_texts.item() == pytest.approx(0.9, abs=1e-5)
    assert found.top_texts.flatten().tolist() == pytest.approx([1.0, 0.8, 0.0], abs=1e-5)
    # Over the regions word one has length sqrt(1.36): 0.857 and 0.514; word two 0 and 1.
    assert found.from_images.item() == pytest.approx((1 / 1.36**0.5 + 1.0) / 2, abs=1e-5)
    assert found.top_images.flatten().tolist() == pytest.approx([1.0, 1 / 1.36**0.5, 0.0], abs=1e-5)


def test_negative_affinities_count_a_tenth() -> None:
    one = torch.tensor([[[1.0, 0.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    image = Embedded(unit=one[:, 0], raw=one[:, 0], fragments=one, mask=mask)
    text = Embedded(unit=one[:, 0], raw=one[:, 0], fragments=-one, mask=mask)
    assert affinity(image, text, 1).from_texts.item() == pytest.approx(-1.0)  # -0.1, then of unit length


def test_padding_changes_no_affinity() -> None:
    images, texts = embedded(3, 4, lengths=[4, 2, 1]), embedded(3, 5, lengths=[5, 1, 3])
    found = affinity(images, texts, 10)
    wild = [
        Embedded(
            unit=side.unit,
            raw=side.raw,
            mask=side.mask,
            fragments=torch.where(side.mask.unsqueeze(-1), side.fragments, torch.full_like(side.fragments, 50.0)),
        )
        for side in (images, texts)
    ]
    other = affinity(wild[0], wild[1], 10)
    torch.testing.assert_close(found.from_images, other.from_images)
    torch.testing.assert_close(found.top_texts, other.top_texts)
    assert torch.isfinite(found.from_texts).all()


def test_affinities_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = embedded(5, 4, lengths=[4, 2, 1, 3, 4]), embedded(5, 6)
    whole = affinity(images, texts, 4)
    monkeypatch.setattr("training.hrem.instance_relations.BLOCK", 1)
    parts = affinity(images, texts, 4)
    torch.testing.assert_close(whole.from_texts, parts.from_texts)
    torch.testing.assert_close(whole.top_images, parts.top_images)


def test_relevance_within_is_one_for_the_same_and_falls_with_the_distance() -> None:
    images, texts = embedded(4, 3), embedded(4, 3)
    blocks = Relevance(10)(images.unit, texts.unit, affinity(images, texts, 10))
    assert blocks.images.diagonal().tolist() == pytest.approx([1.0] * 4, abs=1e-3)
    apart = (images.unit[0] - images.unit[1]).norm().detach()
    assert blocks.images[0, 1].item() == pytest.approx(float(torch.exp(-apart)), abs=1e-4)
    assert blocks.whole().shape == (8, 8)


def test_a_weight_of_zero_leaves_plain_attention_over_the_links() -> None:
    links = torch.tensor([[True, False], [True, True]])
    bias = attention_bias(links, torch.ones(2, 2), 0.0)
    assert bias.tolist() == [[0.0, -torch.inf], [0.0, 0.0]]


@pytest.mark.parametrize("interaction", ["fusion", "standalone"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_enhanced_embeddings_are_finite_unit_rows(interaction: str, weight: float, count: int) -> None:
    config = HremConfig(dim=8, heads=2, warmup_epochs=0, interaction=interaction, relation_weight=weight)  # type: ignore[arg-type]
    related = InstanceRelation(config)(embedded(count, 3, lengths=[1] * count), embedded(count, 4))
    torch.testing.assert_close(related.images.norm(dim=1), torch.ones(count))
    assert torch.isfinite(related.texts).all()


@pytest.mark.parametrize("interaction", ["fusion", "standalone"])
def test_gradients_reach_embeddings_relevance_and_interaction_but_no_fragments(interaction: str) -> None:
    config = HremConfig(dim=8, heads=2, warmup_epochs=0, interaction=interaction)  # type: ignore[arg-type]
    relation = InstanceRelation(config)
    images, texts = embedded(6, 3), embedded(6, 4)
    related = relation(images, texts)
    (related.images[:, 0].sum() + related.texts[:, 1].sum()).backward()
    assert images.raw.grad is not None
    assert texts.raw.grad is not None
    assert images.fragments.grad is None
    assert texts.fragments.grad is None
    reached = {name for name, value in relation.named_parameters() if value.grad is not None and value.grad.any()}
    missing = {name for name, _ in relation.named_parameters()} - reached
    # A constant added to a whole row before a softmax changes nothing, except where a row sees both modalities.
    assert not {name for name in missing if "bias" not in name}


def test_the_divergence_moves_the_relevance_networks_and_nothing_else() -> None:
    images, texts = embedded(5, 3), embedded(5, 4)
    relevance = Relevance(10)
    blocks = relevance(images.unit, texts.unit, affinity(images, texts, 10))
    regularisation(blocks, images.unit, texts.unit).backward()
    assert all(value.grad is not None for value in relevance.images[0].parameters())
    assert images.raw.grad is None
    assert images.fragments.grad is None


def test_coinciding_embeddings_have_finite_gradients() -> None:
    raw = torch.ones(4, 8, requires_grad=True)
    unit = functional.normalize(raw, dim=1)
    fragments, mask = torch.ones(4, 2, 8), torch.ones(4, 2, dtype=torch.bool)
    side = Embedded(unit=unit, raw=raw, fragments=fragments, mask=mask)
    related = InstanceRelation(CONFIG)(side, side)
    related.images[:, 0].sum().backward()
    assert torch.isfinite(raw.grad).all()
