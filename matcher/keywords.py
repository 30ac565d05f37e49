"""Keywords of public methods: AutoMM's names are told ours, and a misspelt one the nearest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from storage.errors import check_keywords

Function = TypeVar("Function", bound=Callable[..., Any])

_KINDS = "what the columns hold is declared: Matcher(query_type=..., response_type=...), each 'text' or 'image'"
_SETTINGS = "fit(..., config=...) takes a training.FitConfig or a mapping of its settings"
AUTOMM: dict[str, str] = {
    "candidate_data": "here it is candidates=: predict(data, candidates=...)",
    "chunk_size": "results do not depend on blocks here; leave it out",
    "column_types": _KINDS,
    "eval_metric": "figures are chosen where they are measured: evaluate(..., metrics=[...])",
    "holdout_frac": "fit(..., config={'val_share': ...}) says how much is held back",
    "hyperparameters": _SETTINGS,
    "label": "the label column is declared once: Matcher(..., label=...)",
    "match_label": "it is declared once: Matcher(..., match_label=...)",
    "matcher": "call the function semantic_search(matcher, ...), or the method without it",
    "presets": f"the model is Matcher(encoder=...), and how it is trained {_SETTINGS}",
    "problem_type": _KINDS,
    "realtime": "there is one path for few rows and for many; leave it out",
    "return_masks": "empty cells are errors here, so there are no masks; leave it out",
    "save_path": "here it is out=: fit(..., out=...)",
    "similarity_type": "here it is similarity=, 'cosine' or 'dot': semantic_search(..., similarity=...)",
    "train_data": "here it is train: fit(train, val=...)",
    "tuning_data": "here it is val: fit(train, val=...)",
    "validation_metric": "weights are chosen by ranking recall on the validation pairs; leave it out",
}
"""AutoMM's keywords, and what has their part here."""


def own_keywords(function: str, *further: str) -> Callable[[Function], Function]:
    """Decorate a function so that a keyword which it does not have is told before anything else.

    Args:
        function: What messages call it.
        *further: Keywords that it takes beside those of its signature.
    """

    def decorated(method: Function) -> Function:
        parameters = inspect.signature(method).parameters.values()
        named = (one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
        known = [name for name in [*named, *further] if name not in ("self", "cls")]

        @functools.wraps(method)
        def checked(*given: Any, **keywords: Any) -> Any:
            for name in keywords:
                if name not in known and name in AUTOMM:
                    raise TypeError(f"{function}() has no keyword {name!r}, which is AutoMM's; {AUTOMM[name]}")
            check_keywords(function, keywords, known)
            return method(*given, **keywords)

        return cast(Function, checked)

    return decorated
