"""The figures of other tools: each one's keys, scale and definitions, so that results can be laid side by side.

None of their faults is copied: AutoMM's `map` is the textbook one here, not the one that weighs each hit by its raw
similarity, `mrr` can be had, and one query alone is a ranking like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .protocol import PROTOCOLS, Protocol

Figures = Mapping[str, Any]
_AUTOMM = ("ndcg", "map", "recall", "precision", "mrr")
_DEPTHS = (1, 5, 10)


def check_dialect(protocol: Protocol) -> None:
    """Refuse a collection that a tool could not have measured.

    Raises:
        ValueError: `vse` needs the same number of captions for every image, since it finds the image of a caption by
            dividing the caption's place; the message says what to do instead.
    """
    if protocol.name != "vse":
        return
    low, _, high = protocol.captions_per_image
    without, alone = (protocol.queries_left_out.get(name, 0) for name in ("image_to_text", "text_to_image"))
    faults = {
        f"{without} images have none": without > 0,
        f"they have {low:g} to {high:g}": low != high,
        f"{alone} texts have no image": alone > 0,
        "some texts belong to several images": protocol.pairs != protocol.texts - alone,
    }
    if found := [words for words, true in faults.items() if true]:
        raise ValueError(
            f"protocol 'vse' takes the same number of captions for every image, usually five, and here {found[0]}; "
            "use clip-benchmark, which gives the same R@k for any number"
        )


def needed_depths(name: str, k: tuple[int, ...]) -> tuple[int, ...]:
    """Return the depths to measure for a tool: those asked for, with 1, 5 and 10 where its keys have them."""
    return tuple(sorted({*k, *_DEPTHS})) if name in ("vse", "eccv") else k


def in_dialect(name: str, figures: Figures, folded: Figures | None = None) -> dict[str, Any]:
    """Return figures under the keys and in the scale of another tool.

    Args:
        name: `automm`, `clip-benchmark`, `vse` or `eccv`; `twinlens` gives the figures as they are.
        figures: `text_to_image` and `image_to_text` as `evaluate_embeddings` gives them, measured with
            `needed_depths`; what a ranking of limited depth cannot tell (medR, map@R) is left out of the result.
        folded: The same as means over folds; only `eccv` prints both.

    Returns:
        `automm`: for each direction `ndcg@k`, `map@k`, `recall@k`, `precision@k` and `mrr@k`, one cutoff after the
        other, rounded to five places. `clip-benchmark`: `image_retrieval_recall@k` (texts ask) and
        `text_retrieval_recall@k` (images ask) in [0, 1]. `vse`: percentages and ranks, r1 to meanr where images ask,
        r1i to meanri where texts ask, their means `ar` and `ari`, and `rsum`. `eccv`: for each metric `i2t` and `t2i`
        in [0, 1]; `coco_5k_*` over everything, `coco_1k_*` over folds, `eccv_*` on the pairs given.

    Raises:
        ValueError: The tool is unknown.
    """
    tools = {"automm": _automm, "clip-benchmark": _clip_benchmark, "vse": _vse}
    if name == "eccv":
        return _eccv(figures, folded)
    if name == "twinlens":
        return dict(figures)
    if name not in tools:
        raise ValueError(f"protocol {name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return tools[name](figures)


def _automm(figures: Figures) -> dict[str, Any]:
    return {direction: _automm_direction(figures[direction]) for direction in ("text_to_image", "image_to_text")}


def _automm_direction(figures: Figures) -> dict[str, float]:
    return {f"{metric}@{k}": round(figures[f"{metric}@{k}"], 5) for k in _depths(figures) for metric in _AUTOMM}


def _clip_benchmark(figures: Figures) -> dict[str, Any]:
    texts_ask, images_ask = figures["text_to_image"], figures["image_to_text"]
    found = {f"image_retrieval_recall@{k}": texts_ask[f"R@{k}"] for k in _depths(texts_ask)}
    return found | {f"text_retrieval_recall@{k}": images_ask[f"R@{k}"] for k in _depths(images_ask)}


def _vse(figures: Figures) -> dict[str, Any]:
    images_ask, texts_ask = (_vse_direction(figures[name]) for name in ("image_to_text", "text_to_image"))
    i2t, t2i = (sum(found[f"r{k}"] for k in _DEPTHS) for found in (images_ask, texts_ask))
    means = {"ar": i2t / 3, "ari": t2i / 3, "rsum": i2t + t2i}
    return images_ask | {f"{name}i": value for name, value in texts_ask.items()} | means


def _vse_direction(figures: Figures) -> dict[str, float]:
    found = {f"r{k}": 100 * figures[f"R@{k}"] for k in _DEPTHS}
    return found | {name.lower(): figures[name] for name in ("medR", "meanR") if name in figures}


def _eccv(figures: Figures, folded: Figures | None) -> dict[str, Any]:
    folds = {} if folded is None else {f"coco_1k_r{k}": _both(folded, f"R@{k}") for k in _DEPTHS}
    found = folds | {f"coco_5k_r{k}": _both(figures, f"R@{k}") for k in _DEPTHS}
    found |= {f"eccv_r{k}": _both(figures, f"R@{k}") for k in _DEPTHS}
    found |= {"eccv_map_at_r": _both(figures, "map@R"), "eccv_rprecision": _both(figures, "r_precision")}
    return {name: both for name, both in found.items() if both}


def _both(figures: Figures, metric: str) -> dict[str, float]:
    names = {"i2t": "image_to_text", "t2i": "text_to_image"}
    return {short: figures[name][metric] for short, name in names.items() if metric in figures[name]}


def _depths(figures: Figures) -> list[int]:
    """The depths that were measured, in the order given."""
    return [int(name.removeprefix("R@")) for name in figures if name.startswith("R@")]
