"""Models with random weights: speed and agreement need no others, and they travel as the seed that draws them."""

from __future__ import annotations

import copy
import shutil
import zlib
from pathlib import Path
from typing import Any

from gpu.notes import Run

SIDES = {"ViT-B-32": 224, "ViT-L-14": 224, "ViT-SO400M-14-SigLIP-384": 384, "ViT-B-16-SigLIP": 224}
"""Pixels of a side of what each architecture takes."""
SIGLIP_TOKENS, SIGLIP_WORDS = 64, 30_000


def random_model(arch: str, device: str) -> Any:
    """An open_clip model on the CPU; its weights are drawn on the device, which is quicker for large ones."""
    import open_clip
    import torch

    torch.manual_seed(0)
    if device != "cpu":
        try:
            with torch.device(device):
                return open_clip.create_model(arch, pretrained=None).cpu().eval()
        except Exception as error:  # noqa: BLE001
            print(f"{arch} cannot be made on {device} ({error}); on the CPU then", flush=True)
    return open_clip.create_model(arch, pretrained=None).eval()


def random_towers(arch: str, device: str, like: Any = None) -> Any:
    """Two towers with random weights, or with those of another model, as `load_encoder` would have them."""
    import open_clip

    from encoders.two_towers import TwoTowers

    model = random_model(arch, device) if like is None else copy.deepcopy(like).cpu().float().eval()
    return TwoTowers(
        spec=arch,
        model=model,
        config=open_clip.get_model_config(arch),
        preprocess=model.visual.preprocess_cfg,
        tokenizer=_numbers if "SigLIP" in arch else open_clip.get_tokenizer(arch),
    )


def _numbers(texts: list[str]) -> Any:
    """SigLIP's tokenizer has files of its own, which are not here: a number for each word in their place."""
    import torch

    rows = [[1 + zlib.crc32(word.encode()) % SIGLIP_WORDS for word in text.split()][:SIGLIP_TOKENS] for text in texts]
    return torch.tensor([row + [1] * (SIGLIP_TOKENS - len(row)) for row in rows], dtype=torch.long)


def encoder_of(towers: Any, device: str, precision: str) -> Any:
    """The encoder of these towers, which it takes over."""
    from encoders.device import choose_device
    from encoders.open_clip_encoder import ClipEncoder

    return ClipEncoder(towers, choose_device(device, precision))


def saved_model(run: Run, arch: str) -> Path:
    """A folder that `local-dir:` opens, made once a machine."""
    folder = run.work / arch
    if not (folder / "open_clip_config.json").is_file():
        from encoders.checkpoints import save_local_dir

        shutil.rmtree(folder, ignore_errors=True)
        save_local_dir(random_towers(arch, run.device), folder)
    return folder


def made_up_bert(run: Run, words: list[str]) -> str:
    """A folder with a BERT of random weights, as large as bert-base, whose vocabulary is these words."""
    folder = run.work / "bert"
    if not (folder / "config.json").is_file():
        from transformers import BertConfig, BertModel, BertTokenizerFast

        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        tiny = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        BertModel(BertConfig(vocab_size=len(vocabulary), **run.pick({}, tiny))).save_pretrained(folder)
        BertTokenizerFast.from_pretrained(str(folder)).save_pretrained(folder)
    return str(folder)
