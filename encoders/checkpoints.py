"""Model checkpoints: load open_clip models by tag, from the hub, a folder or a file, and save them as folders."""

from __future__ import annotations

import difflib
import json
import logging
import pickle
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import open_clip
import torch
from huggingface_hub import constants
from open_clip.hf_model import HFTextEncoder
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from safetensors import SafetensorError

from storage.errors import install_hint

from .catalogue.presets import FORMS, PRESETS
from .errors import EncoderError
from .lite import SPEC as LITE
from .lite import load_lite
from .remembered import FOLDER_PREFIX, absolute_spec, folder_and_files
from .two_towers import TwoTowers, save_weights

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
DETAILS = "details"  # beside the two parts of a configuration that open_clip reads
# Saved with every model: open_clip's own writer leaves out `fill_color`, which the padding of `lite` needs.
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
# What open_clip, transformers, timm and the file formats raise on models that cannot be loaded.
FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)


# The hub's client retries an unreachable hub for 20 seconds per file; one attempt to connect takes less.
CONNECT_SECONDS = 3.0
ALTERNATIVES = (
    "local-dir:PATH or ARCH/CHECKPOINT-FILE with weights brought from elsewhere, "
    "or --encoder lite (it comes with the extra lite)"
)
_PORTS = {"http": 80, "https": 443}
_lock = threading.RLock()


def load_towers(spec: str) -> TwoTowers:
    """Return the model that a spec names, in fp32 on the CPU, with open_clip's own preprocessing and tokenizer.

    Raises:
        EncoderError: It cannot be found or loaded; the message names the alternatives.
    """
    refuse_remote_code()
    with quiet_logging():
        if spec == LITE:
            return _from_packages()
        if spec.startswith(FOLDER_PREFIX):
            return _from_folder(spec)
        if spec.startswith("hf-hub:"):
            return _from_repository(spec)
        return _from_architecture(spec)


def _from_packages() -> TwoTowers:
    with (
        local_only(),
        _as_encoder_error(LITE, f"if a package is damaged, {install_hint('lite')} with --force-reinstall"),
    ):
        return load_lite()


def _from_folder(spec: str) -> TwoTowers:
    name = absolute_spec(spec)
    folder = Path(name.removeprefix(FOLDER_PREFIX))
    config = _read_config(folder)
    with local_only(), _as_encoder_error(name, f"is {CONFIG_FILE} that of these weights?"):
        model = open_clip.create_model(name, require_pretrained=True, **_local_text(config["model_cfg"], folder))
        details = {"family": "open_clip", "source": "folder", **_own_details(config)}
        files = () if _needs_hub(config["model_cfg"], folder) else folder_and_files(folder)
        return _towers(name, model, config["model_cfg"], name, details, files)


def _own_details(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a folder that was written here says of itself."""
    details = config.get(DETAILS)
    return dict(details) if isinstance(details, dict) else {}


def _local_text(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what to override so that a Hugging Face text tower is built from the folder, not looked up on the hub."""
    text = config.get("text_cfg", {})
    if "hf_model_name" not in text or not (folder / "config.json").is_file():
        return {}
    return {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = f"holds no {CONFIG_FILE}" if folder.is_dir() else "is not a folder"
        raise EncoderError(f"encoder folder {str(folder)!r} {what}; give local-dir:PATH of a folder saved by open_clip")
    if not any(file.suffix in CHECKPOINTS for file in folder.iterdir()):
        raise EncoderError(f"encoder folder {str(folder)!r} has no weights; put open_clip_model.safetensors into it")
    with _as_encoder_error(f"local-dir:{folder}", f"fix {str(path)!r}"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
            raise ValueError("'model_cfg' is missing")
    return config


def _from_repository(spec: str) -> TwoTowers:
    with cache_first() as alternatives, _as_encoder_error(spec, alternatives):
        config = open_clip.get_model_config(spec)
        # open_clip would download it itself, but logs a failure to stderr before it raises.
        weights = Path(download_pretrained_from_hf(spec.removeprefix("hf-hub:")))
        model = open_clip.create_model(spec, require_pretrained=True)
        files = () if _needs_hub(config) else folder_and_files(weights.parent)
        return _towers(spec, model, config, spec, {"family": "open_clip", "source": "hub"}, files)


def _from_architecture(spec: str) -> TwoTowers:
    arch, _, source = spec.partition("/")
    if arch not in open_clip.list_models():
        raise EncoderError(_unknown_architecture(spec, arch))
    if get_pretrained_cfg(arch, source):
        return _from_tag(spec, arch, get_pretrained_cfg(arch, source))
    path = Path(source).expanduser()
    if source and path.is_file():
        return _from_file(arch, path.resolve())
    raise EncoderError(_unknown_source(spec, arch, source))


def _unknown_architecture(spec: str, arch: str) -> str:
    """Return the message for a spec whose architecture open_clip does not know."""
    close = difflib.get_close_matches(arch, ["lite", *PRESETS, *open_clip.list_models()], n=3, cutoff=0.5)
    hint = f"did you mean {_or(close)}?" if close else "open_clip.list_models() lists them"
    return f"encoder {spec!r}: no open_clip architecture is called {arch!r}; {hint} ({FORMS})"


def _unknown_source(spec: str, arch: str, source: str) -> str:
    """Return the message for a known architecture with neither a pretrained tag nor a file behind the slash."""
    if Path(source).suffix in CHECKPOINTS:
        return f"encoder {spec!r}: there is no checkpoint file at {source!r}"
    tags = list_pretrained_tags_by_model(arch)
    close = difflib.get_close_matches(source, tags, n=3, cutoff=0.4) or tags[:5]
    hint = f"did you mean {_or([f'{arch}/{tag}' for tag in close])}?" if close else "give a checkpoint file"
    return f"encoder {spec!r}: {arch} has no pretrained tag {source!r}, and no file is there; {hint}"


def _or(names: list[str]) -> str:
    return " or ".join(names)


def _from_tag(spec: str, arch: str, entry: Mapping[str, Any]) -> TwoTowers:
    # Tags of OpenAI's activation load with open_clip into the other one, with a mere warning.
    quick_gelu = bool(entry.get("quick_gelu"))
    with cache_first() as alternatives, _as_encoder_error(spec, alternatives):
        weights = _fetch(entry)
        model = open_clip.create_model(
            arch,
            pretrained=weights,
            force_preprocess_cfg=_preprocess_of(entry),  # lost where weights are given by path
            force_quick_gelu=quick_gelu,
            require_pretrained=True,
        )
        config = _config_of(arch, quick_gelu)
        details = {"family": "open_clip", "source": "hub", "quick_gelu": quick_gelu}
        return _towers(spec, model, config, arch, details, () if _needs_hub(config) else (Path(weights),))


def _fetch(entry: Mapping[str, Any]) -> str:
    """Return the path of a tag's weights, from the local cache or fetched."""
    url = entry.get("url", "")
    in_cache = (Path.home() / ".cache/clip" / Path(url).name).is_file()
    if url and not entry.get("hf_hub") and not in_cache and not can_connect(url):
        raise OSError(f"cannot reach {url}")
    return str(download_pretrained(entry))


def _from_file(arch: str, path: Path) -> TwoTowers:
    spec = f"{arch}/{path}"
    if path.suffix not in CHECKPOINTS:
        raise EncoderError(f"checkpoint {str(path)!r} must end in one of {', '.join(CHECKPOINTS)}")
    preprocess, source = _usual_preprocess(arch, path)
    config = _config_of(arch, quick_gelu=False)
    needs_hub = _needs_hub(config)
    reach: AbstractContextManager[object] = cache_first() if needs_hub else local_only()
    with reach, _as_encoder_error(spec, f"is it a {arch} checkpoint without pickled objects?"):
        model = open_clip.create_model(
            arch, pretrained=str(path), force_preprocess_cfg=preprocess, require_pretrained=True, weights_only=True
        )
        details = {"family": "open_clip", "source": "checkpoint", "preprocess_from": source}
        return _towers(spec, model, config, arch, details, () if needs_hub else (path, path.with_name(CONFIG_FILE)))


def _usual_preprocess(arch: str, path: Path) -> tuple[dict[str, Any], str]:
    """Return the preprocessing for a checkpoint file without configuration, and its source.

    For a file open_clip uses its global defaults, whatever the architecture was trained with. Better are the
    configuration beside the file, or else what most pretrained tags of the architecture use.
    """
    if path.with_name(CONFIG_FILE).is_file():
        return _preprocess_of(_read_config(path.parent).get("preprocess_cfg", {})), CONFIG_FILE
    entries = [get_pretrained_cfg(arch, tag) for tag in list_pretrained_tags_by_model(arch)]
    if not entries:
        return {}, "open_clip's defaults"
    counts = Counter(json.dumps(_preprocess_of(entry), sort_keys=True) for entry in entries)
    usual, count = counts.most_common(1)[0]
    return json.loads(usual), f"{count} of {len(entries)} pretrained tags of {arch}"


def _preprocess_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in _PREPROCESS_KEYS if entry.get(key) is not None}


def _config_of(arch: str, quick_gelu: bool) -> dict[str, Any]:
    config: dict[str, Any] = open_clip.get_model_config(arch)
    return {**config, "quick_gelu": True} if quick_gelu else config


def _needs_hub(config: Mapping[str, Any], folder: Path | None = None) -> bool:
    """Return whether a model's text tower or tokenizer is one of the hub's that its folder does not hold."""
    text = config.get("text_cfg", {})
    from_hub = "hf_model_name" in text or "hf_tokenizer_name" in text
    return from_hub and not (folder and (folder / "config.json").is_file())


def _towers(
    spec: str, model: Any, config: Mapping[str, Any], tokenizer: str, details: Mapping[str, Any], files: Sequence[Path]
) -> TwoTowers:
    return TwoTowers(
        spec=spec,
        model=model.eval(),
        config=config,
        preprocess=model.visual.preprocess_cfg,
        tokenizer=open_clip.get_tokenizer(tokenizer),
        details=details,
        files=files,
    )


@contextmanager
def _as_encoder_error(spec: str, next_step: str) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        # What follows "Last error" in open_clip's messages is advice about its own interface.
        words = " ".join(str(error).split()).partition(". Last error")[0][:300].rstrip(".") or type(error).__name__
        raise EncoderError(f"cannot load encoder {spec!r}: {words}; {next_step}") from error


@contextmanager
def local_only() -> Iterator[None]:
    """Serve hub requests from the local cache alone; a file that is not in it raises at once."""
    with _lock:
        previous = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = previous


@contextmanager
def cache_first() -> Iterator[str]:
    """Use the hub where it answers, else the local cache alone; yield the next step to name in an error."""
    if not constants.HF_HUB_OFFLINE and can_connect(constants.ENDPOINT):
        yield f"or use {ALTERNATIVES}"
        return
    with local_only():
        yield f"the hub {constants.ENDPOINT} is out of reach: use {ALTERNATIVES}"


def refuse_remote_code() -> None:
    """Have transformers refuse a model that brings code of its own; by default it asks at the terminal, and runs it.

    The spec of an encoder may come from the manifest of an index that somebody else made.
    """
    with suppress(ImportError):
        from transformers import dynamic_module_utils

        dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # how long it asks; at 0 it raises


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Keep open_clip's calls of `logging.info` from installing a handler on the root logger of the whole process."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def can_connect(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Return whether a connection to a URL's host, or to the proxy in front of it, opens within some seconds."""
    host, port = _host_and_port(url)
    opened = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, port), timeout=seconds):
            opened.set()

    # In a thread: a DNS lookup has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return opened.is_set()


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def save_local_dir(towers: TwoTowers, folder: Path) -> None:
    """Write a model as an open_clip folder: weights, configuration, and the tokenizer where it has files of its own.

    Loading the folder gives a model with the same fingerprint. The configuration is written last: a folder without it
    is refused.

    Raises:
        EncoderError: The folder exists and is not empty.
    """
    write_local_dir(towers, towers.model.state_dict(), towers.config, folder)


def write_local_dir(
    towers: TwoTowers,
    state: Mapping[str, torch.Tensor],
    model_config: Mapping[str, Any],
    folder: Path,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder as `save_local_dir` does, with other weights and another configuration than the model has.

    `details` are what encoders that are loaded from it say of themselves.

    Raises:
        EncoderError: The folder exists and is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise EncoderError(f"folder {str(folder)!r} is not empty; give a new one to save the encoder to")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_weights(weights, folder / WEIGHTS_FILE)
    _save_text_files(towers, folder)
    preprocess = {key: towers.preprocess[key] for key in _PREPROCESS_KEYS}
    config: dict[str, Any] = {"model_cfg": dict(model_config), "preprocess_cfg": preprocess}
    if details is not None:
        config[DETAILS] = dict(details)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_text_files(towers: TwoTowers, folder: Path) -> None:
    text = getattr(towers.model, "text", None)
    if isinstance(text, HFTextEncoder):
        text.config.save_pretrained(folder)
    tokenizer: Any = towers.tokenizer
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
