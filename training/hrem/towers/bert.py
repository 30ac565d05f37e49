"""Where a text transformer comes from: a folder, the hub, or the sentence encoder that `lite` embeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.checkpoints import cache_first, local_only, quiet_logging
from encoders.errors import EncoderError
from encoders.lite import SPEC as LITE
from encoders.lite import text_folder

from .tokens import BertTokens

AUTO = "auto"
USUAL = "bert-base-uncased"
_FAILURES = (OSError, ValueError, RuntimeError, ImportError, LookupError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Bert:
    """A text transformer with its tokenizer.

    Attributes:
        name: The folder or hub name that it came from, `lite` for the embedded one.
        model: fp32, on the CPU, in eval mode.
        tokenizer: Gives its ids.
    """

    name: str
    model: Any
    tokenizer: BertTokens


def load_bert(spec: str, max_tokens: int) -> Bert:
    """Return a text transformer with weights.

    Args:
        spec: A folder, a hub name, `lite`, or `auto`: `bert-base-uncased` from cache or hub, else that of `lite`.
        max_tokens: Texts are cut there.

    Raises:
        EncoderError: It cannot be found or loaded.
    """
    if spec == AUTO:
        return _usual_or_embedded(max_tokens)
    source = str(text_folder()) if spec == LITE else spec
    local = Path(source).expanduser().is_dir()
    try:
        with local_only() if local else cache_first(), quiet_logging():
            return _loaded(spec, str(Path(source).expanduser()) if local else source, max_tokens)
    except _FAILURES as error:
        words = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"cannot load the text encoder {spec!r}: {words}; give the folder of a BERT, a hub name, or lite"
        ) from error


def empty_bert(folder: Path, max_tokens: int) -> Bert:
    """Return the transformer that a checkpoint's `text` folder describes, its weights still random."""
    from transformers import AutoConfig, AutoModel

    with local_only(), quiet_logging():
        described = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model = _without_pooler(AutoModel.from_config(described, trust_remote_code=False))  # type: ignore[no-untyped-call]
        return Bert(name=str(folder), model=model.eval(), tokenizer=_tokenizer(str(folder), max_tokens))


def _usual_or_embedded(max_tokens: int) -> Bert:
    try:
        return load_bert(USUAL, max_tokens)
    except EncoderError as error:
        try:
            return load_bert(LITE, max_tokens)
        except EncoderError:
            raise error from None


def _loaded(spec: str, source: str, max_tokens: int) -> Bert:
    from transformers import AutoModel
    from transformers.utils import logging

    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    # What is missing from the weights is the pooler, which is thrown away.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = _tokenizer(source, max_tokens)
        model = _without_pooler(AutoModel.from_pretrained(source, trust_remote_code=False))
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return Bert(name=spec, model=model.float().eval(), tokenizer=tokenizer)


def _tokenizer(source: str, max_tokens: int) -> BertTokens:
    from transformers import AutoTokenizer

    return BertTokens(AutoTokenizer.from_pretrained(source, trust_remote_code=False), max_tokens)


def _without_pooler(model: Any) -> Any:
    """Drop what only the sentence vector needs, so that every parameter that is left is used."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
