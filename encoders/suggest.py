"""What to say to a spec that names nothing: the nearest things that exist."""

from __future__ import annotations

import difflib
from pathlib import Path

import open_clip
from open_clip.pretrained import list_pretrained_tags_by_model

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")
FORMS = "a spec is lite, ARCH/TAG, ARCH/CHECKPOINT-FILE, local-dir:PATH or hf-hub:ORG/NAME"


def unknown_architecture(spec: str, arch: str) -> str:
    """Return the message for a spec whose architecture open_clip does not know."""
    close = difflib.get_close_matches(arch, ["lite", *open_clip.list_models()], n=3, cutoff=0.5)
    near = f"did you mean {_or(close)}?" if close else "open_clip.list_models() lists them"
    return f"encoder {spec!r}: no open_clip architecture is called {arch!r}; {near} ({FORMS})"


def unknown_source(spec: str, arch: str, source: str) -> str:
    """Return the message for a known architecture with neither a pretrained tag nor a file behind the slash."""
    if Path(source).suffix in CHECKPOINTS:
        return f"encoder {spec!r}: there is no checkpoint file at {source!r}"
    tags = list_pretrained_tags_by_model(arch)
    close = difflib.get_close_matches(source, tags, n=3, cutoff=0.4) or tags[:5]
    near = f"did you mean {_or([f'{arch}/{tag}' for tag in close])}?" if close else "give a checkpoint file"
    return f"encoder {spec!r}: {arch} has no pretrained tag {source!r}, and no file is there; {near}"


def _or(names: list[str]) -> str:
    return " or ".join(names)
