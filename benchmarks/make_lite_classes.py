"""The class vectors of `lite`: what the 1,000 ImageNet classes mean in the space of the sentence encoder.

They ship as `lite_classes.safetensors` (float16), since 3,000 prompts would cost seconds at each load and differ in the
last bit between machines. `python -m encoders.lite_classes` makes the file again from the installed packages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save
from timm.data.imagenet_info import ImageNetInfo
from torch.nn import functional
from transformers import AutoModel

from encoders.lite import CONTEXT_LENGTH, text_folder

PATH = Path(__file__).resolve().parents[1] / "encoders" / "lite_classes.safetensors"


def class_prompts() -> list[tuple[str, str, str]]:
    """Return three prompts for each of the 1,000 classes, in order: the name, a photo of it, its definition."""
    definitions = ImageNetInfo("imagenet-1k").label_descriptions(detailed=True)
    return [
        (name, f"a photo of a {name}", definition)
        for name, definition in zip(IMAGENET_CLASSNAMES, definitions, strict=True)
    ]


def compute_class_vectors(prompts: list[tuple[str, str, str]]) -> torch.Tensor:
    """Return (classes, 384) float32: the mean over each class's prompts of the unit sentence vectors."""
    folder = text_folder()
    tokenizer = HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    rows = [_sentence_vectors(model, tokenizer(list(three))).mean(0) for three in prompts]
    return torch.stack(rows)


def _sentence_vectors(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    mask = (ids != 0).long()
    ids, mask = ids[:, : int(mask.sum(1).max())], mask[:, : int(mask.sum(1).max())]
    with torch.inference_mode():
        tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return functional.normalize(mean, dim=-1)


def main() -> None:
    """Write the file that ships."""
    vectors = compute_class_vectors(class_prompts())
    if not np.isfinite(vectors.numpy()).all():
        raise ValueError("the sentence encoder gave values that are not finite")
    PATH.write_bytes(save({"class_vectors": vectors.to(torch.float16).contiguous()}))


if __name__ == "__main__":
    main()
