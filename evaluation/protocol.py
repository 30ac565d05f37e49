"""Evaluation protocols: the rules that figures were measured under, and the metric names of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

ProtocolName = Literal["twinlens", "automm", "clip-benchmark", "vse", "eccv"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
TIES = "equal scores in the order of the collection, lower row first"

_RECALL: Mapping[str, str] = {
    "twinlens": "R@k is the share of queries with any relevant item among the first k, recall@k the share of a query's "
    "relevant items that are among them",
    "automm": "recall@k is the share of a query's relevant items among the first k, so with five captions an image "
    "image-to-text recall@1 is at most 0.2; map@k is textbook average precision, not weighted by scores",
    "clip-benchmark": "recall@k is 1 for a query with any relevant item among the first k and else 0, as a mean",
    "vse": "r1, r5 and r10 are the percentage of queries with any relevant item among the first 1, 5 and 10 (r1i, r5i "
    "and r10i of texts that ask for images), and rsum is the sum of the six",
    "eccv": "r1, r5 and r10 are the share of queries with any relevant item among the first k; map_at_r and rprecision "
    "look as deep as a query has relevant items; all on the pairs of this collection, not on human-verified ones",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything beside encoder and data that a figure depends on.

    Attributes:
        name: Whose definitions are used.
        split: The part of the corpus that was measured; None for all of it.
        images: Images in the gallery, those without a caption included.
        texts: Texts in the gallery, those without an image included.
        pairs: How many (image, text) belong together.
        captions_per_image: Smallest, mean and largest number of texts of those images that have any.
        k: How deep was looked.
        recall: What recall means here, in words; by default the definition of `name`.
        prompt: The template that texts were put into before they were encoded, such as `a photo of {}`; None for none.
        search: `exact`, or `ann` for what the approximate index found.
        ties: What decides between equal scores.
        folds: Into how many contiguous folds of images the collection was cut; figures are means over them.
        queries_left_out: For each direction the queries that nothing answers, which no figure counts.
    """

    name: ProtocolName = "twinlens"
    split: str | None = None
    images: int
    texts: int
    pairs: int
    captions_per_image: tuple[float, float, float]
    k: tuple[int, ...] = (1, 5, 10)
    recall: str = ""
    prompt: str | None = None
    search: Literal["exact", "ann"] = "exact"
    ties: str = TIES
    folds: int = 1
    queries_left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"protocol {self.name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
        object.__setattr__(self, "recall", self.recall or _RECALL[self.name])

    @classmethod
    def of_pairs(cls, pairs: NDArray[Any], images: int, texts: int, **said: Any) -> Self:
        """Return the protocol of a collection; what its pairs tell is counted.

        Args:
            pairs: (p, 2) integer rows (image, text), as `evaluate_embeddings` takes them.
            images: Size of the gallery of images.
            texts: Size of the gallery of texts.
            **said: The other attributes.

        Raises:
            ValueError: There is no pair, or an attribute is unknown.
        """
        known = np.unique(np.asarray(pairs).reshape(-1, 2), axis=0)
        if not len(known):
            raise ValueError("there are no pairs, so there is nothing to measure; give (image row, text row) pairs")
        captions = np.unique(known[:, 0], return_counts=True)[1]
        left_out = {"text_to_image": texts - len(np.unique(known[:, 1])), "image_to_text": images - len(captions)}
        spread = (int(captions.min()), round(float(captions.mean()), 4), int(captions.max()))
        counted: dict[str, Any] = {"images": images, "texts": texts, "pairs": len(known)}
        return cls(**counted, captions_per_image=spread, queries_left_out=left_out, **said)

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's own types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the protocol that `to_json` gave, also after a way through a file."""
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**known)

    def sentence(self) -> str:
        """Return it as one line for people."""
        where = f"split {self.split}" if self.split is not None else "all items"
        folds = f", the mean of {self.folds} contiguous folds of the images" if self.folds > 1 else ""
        search = "exact search" if self.search == "exact" else "search through the approximate index"
        prompt = "no prompt recorded" if self.prompt is None else f"texts encoded as {self.prompt!r}"
        parts = [
            f"Protocol {self.name}, {where}: {self.images:,} images and {self.texts:,} texts{folds}",
            f"{self._captions()} an image{self._left_out()}",
            self.recall,
            f"{search}, {self.ties}",
            prompt,
        ]
        return "; ".join(parts) + "."

    def _captions(self) -> str:
        low, mean, high = self.captions_per_image
        if low == high:
            return f"{low:g} caption{'' if low == 1 else 's'}"
        return f"{low:g} to {high:g} captions, {mean:.4g} on average,"

    def _left_out(self) -> str:
        images, texts = (self.queries_left_out.get(name, 0) for name in ("image_to_text", "text_to_image"))
        alone = [f"{images:,} images without a caption"] if images else []
        alone += [f"{texts:,} texts without an image"] if texts else []
        return f" ({' and '.join(alone)} can be found but do not ask)" if alone else ""


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
    if faulty := [words for words, true in faults.items() if true]:
        raise ValueError(
            f"protocol 'vse' takes the same number of captions for every image, usually five, and here {faulty[0]}; "
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
        other, rounded to five decimals. `clip-benchmark`: `image_retrieval_recall@k` (texts ask) and
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
    values = {f"image_retrieval_recall@{k}": texts_ask[f"R@{k}"] for k in _depths(texts_ask)}
    return values | {f"text_retrieval_recall@{k}": images_ask[f"R@{k}"] for k in _depths(images_ask)}


def _vse(figures: Figures) -> dict[str, Any]:
    images_ask, texts_ask = (_vse_direction(figures[name]) for name in ("image_to_text", "text_to_image"))
    i2t, t2i = (sum(values[f"r{k}"] for k in _DEPTHS) for values in (images_ask, texts_ask))
    means = {"ar": i2t / 3, "ari": t2i / 3, "rsum": i2t + t2i}
    return images_ask | {f"{name}i": value for name, value in texts_ask.items()} | means


def _vse_direction(figures: Figures) -> dict[str, float]:
    values = {f"r{k}": 100 * figures[f"R@{k}"] for k in _DEPTHS}
    return values | {name.lower(): figures[name] for name in ("medR", "meanR") if name in figures}


def _eccv(figures: Figures, folded: Figures | None) -> dict[str, Any]:
    folds = {} if folded is None else {f"coco_1k_r{k}": _both(folded, f"R@{k}") for k in _DEPTHS}
    values = folds | {f"coco_5k_r{k}": _both(figures, f"R@{k}") for k in _DEPTHS}
    values |= {f"eccv_r{k}": _both(figures, f"R@{k}") for k in _DEPTHS}
    values |= {"eccv_map_at_r": _both(figures, "map@R"), "eccv_rprecision": _both(figures, "r_precision")}
    return {name: both for name, both in values.items() if both}


def _both(figures: Figures, metric: str) -> dict[str, float]:
    names = {"i2t": "image_to_text", "t2i": "text_to_image"}
    return {short: figures[name][metric] for short, name in names.items() if metric in figures[name]}


def _depths(figures: Figures) -> list[int]:
    """The depths that were measured, in the order given."""
    return [int(name.removeprefix("R@")) for name in figures if name.startswith("R@")]
