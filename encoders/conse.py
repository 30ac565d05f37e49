"""The two modules that make an ImageNet classifier and a sentence encoder one space, known to timm and open_clip.

ConSE (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014): a picture is the
mixture of the names of the classes that a classifier sees in it. Both sides are centred on the mean class vector, which
all pictures share and which therefore says nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import timm
import torch
from open_clip.hf_model import register_pooler
from timm.models import register_model
from torch import nn
from torch.nn import functional

DIM = 384
CLASSES = 1000
FEATURES = 1280
TRUNK = "twinlens_conse_lite0"
POOLER = "twinlens_centred_mean_pooler"
# Flattens the classifier's confidence. Recall is flat between 1.5 and 2; below, a wrong first guess weighs too much.
TEMPERATURE = 1.5


class ConseTrunk(nn.Module):
    """EfficientNet-lite0 with a head that mixes class vectors: (n, 3, 224, 224) -> (n, 384), not yet of unit length.

    `residual` starts at zero, so that the untrained head is exactly ConSE and fine-tuning starts from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model("tf_efficientnet_lite0", num_classes=CLASSES)
        self.num_features = DIM
        self.temperature = nn.Parameter(torch.tensor(TEMPERATURE))
        self.class_vectors = nn.Parameter(torch.zeros(CLASSES, DIM))
        self.residual = nn.Linear(FEATURES, DIM, bias=False)
        nn.init.zeros_(self.residual.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, 384) mixtures of centred class vectors."""
        features = self.backbone.forward_head(self.backbone.forward_features(pixels), pre_logits=True)
        # The mixture is a sum of small differences: 8 bits of mantissa would blur it, and it costs next to nothing.
        with torch.autocast(pixels.device.type, enabled=False):
            features = features.float()
            weights = functional.softmax(self.backbone.classifier(features) / self.temperature, dim=-1)
            mixture: torch.Tensor = weights @ self.class_vectors + self.residual(features)
        return mixture

    def exact_parts(self) -> tuple[nn.Module, ...]:
        """Return the layers that compute in fp32 at every precision."""
        return self.backbone.classifier, self.residual


class TwinlensCentredMeanPooler(nn.Module):
    """unit(mean over the tokens) minus the mean class vector: (n, tokens, 384) -> (n, 384)."""

    centre: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(DIM))

    def forward(self, output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return one centred vector a text from the transformer's output."""
        mask = attention_mask.unsqueeze(-1)
        mean = (output.last_hidden_state.float() * mask).sum(1) / mask.sum(1)
        return functional.normalize(mean, dim=-1) - self.centre


def twinlens_conse_lite0(pretrained: bool = False, **_: Any) -> ConseTrunk:
    """Return the trunk as timm asks for it by name, without weights."""
    if pretrained:
        raise ValueError(f"{TRUNK!r} has no weights on a hub; load the encoder 'lite' or a folder saved from it")
    return ConseTrunk()


register_pooler(TwinlensCentredMeanPooler)
register_model(twinlens_conse_lite0)


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place; for inference, with outputs equal up to rounding.

    Half as fast again on a CPU. Only for modules that define each convolution directly before its norm, as timm's
    EfficientNets do.
    """
    for before, name in pairwise(list(module._modules)):
        conv, norm = module._modules[before], module._modules[name]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module._modules[before] = nn.utils.fuse_conv_bn_eval(conv, norm)
            module._modules[name] = getattr(norm, "act", nn.Identity())
    for child in module.children():
        fold_batch_norm(child)
