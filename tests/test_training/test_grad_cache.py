"""A large step taken in chunks has the gradients of the step taken whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from encoders.device import Placement
from encoders.preprocess import Preprocess
from encoders.two_towers import TwoTowers
from training import CaptionedImages, FitConfig
from training.batches import Batch, Pairing, Sampler, pair_captions
from training.config import recipe_for
from training.features import ImageFeed, TextFeed
from training.learner import Learner, backward

CPU = Placement(device="cpu", precision="fp32")
PAIRS = 8


@pytest.fixture(scope="module")
def vit() -> TwoTowers:
    """An untrained ViT-B-32."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    return TwoTowers(
        spec="ViT-B-32",
        model=model.eval(),
        config=open_clip.get_model_config("ViT-B-32"),
        preprocess=model.visual.preprocess_cfg,
        tokenizer=open_clip.get_tokenizer("ViT-B-32"),
    )


@pytest.fixture(scope="module")
def pairing() -> Pairing:
    """Eight random images, each with a caption of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (PAIRS, 224, 224, 3), dtype=np.uint8)
    captions = [[f"{'very ' * number}noisy image"] for number in range(PAIRS)]
    return pair_captions(CaptionedImages([Image.fromarray(pixels) for pixels in noise], captions))


def gradients(vit: TwoTowers, pairing: Pairing, chunk: int) -> tuple[float, dict[str, torch.Tensor]]:
    """One step: its loss and gradients."""
    recipe = recipe_for(FitConfig(mode="full", chunk_size=chunk), "open_clip", CPU, PAIRS)
    learner = Learner(vit, recipe, CPU, {"image", "text"})
    images = ImageFeed(pairing.left, learner.part("image"), Preprocess(vit.preprocess), 0, 2**30)
    texts = TextFeed(pairing.right, learner.part("text"), learner.text, vit.tokenizer, 2**30)
    sampler = Sampler(pairing=pairing, batch_size=PAIRS, captions=1, views=0, fresh=False, seed=0)
    batch: Batch = next(sampler.epoch(0))
    vit.model.zero_grad()
    value = learner.backward(batch, (images, texts), (0, 0))
    return value, {name: p.grad.clone() for name, p in vit.model.named_parameters() if p.grad is not None}


def test_a_step_of_vit_b_32_in_chunks_has_the_gradients_of_the_whole(vit: TwoTowers, pairing: Pairing) -> None:
    whole_loss, whole = gradients(vit, pairing, PAIRS)
    parts_loss, parts = gradients(vit, pairing, PAIRS // 4)
    assert np.isclose(whole_loss, parts_loss, atol=1e-5)
    assert len(whole) == sum(1 for _ in vit.model.parameters())
    assert whole.keys() == parts.keys()
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-2
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-4


def test_dropout_is_the_same_in_both_passes() -> None:
    """Were it drawn anew, the gradients of the vectors would be led back through other units."""
    weight = torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    inputs = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))

    def chunk(start: int, seen: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
        def compute() -> torch.Tensor:
            torch.manual_seed(start)
            seen.append(torch.nn.functional.dropout(inputs[start : start + 3] @ weight, 0.5))
            return seen[-1]

        return compute

    seen: list[torch.Tensor] = []
    sides = [chunk(0, seen), chunk(3, seen)]
    backward(sides, sides, lambda left, right: (left @ right.T).pow(2).sum())
    in_chunks = weight.grad.clone()
    weight.grad = None
    vectors = torch.cat([side() for side in sides])
    (vectors @ vectors.T).pow(2).sum().backward()
    assert torch.allclose(in_chunks, weight.grad, rtol=1e-4, atol=1e-4)


def test_a_frozen_side_gets_no_gradient_and_raises_nothing() -> None:
    fixed = torch.randn(4, 3)
    weight = torch.nn.Parameter(torch.randn(3, 3))
    left = [lambda part=part: part @ weight for part in fixed.split(2)]
    right = [lambda part=part: part for part in fixed.split(2)]
    backward(left, right, lambda a, b: (a @ b.T).sum())
    assert weight.grad is not None
