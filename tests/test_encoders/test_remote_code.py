"""A model that brings code of its own is refused, and nobody is asked whether to run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from encoders import load_encoder
from encoders.errors import EncoderError


def test_code_that_comes_with_a_model_is_not_run(
    tiny_config: dict, write_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "model")
    tiny_config["text_cfg"] = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    described = {"model_cfg": {**tiny_config, "custom_text": True}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described), encoding="utf-8")
    code = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}), encoding="utf-8")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n", encoding="utf-8")

    def asked(prompt: str = "") -> str:
        return "y"

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(EncoderError, match="cannot load encoder"):
        load_encoder(f"local-dir:{folder}", device="cpu")
    assert not (tmp_path / "was-run").exists()
