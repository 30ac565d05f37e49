"""Evaluation of an index against its own pairs: exact search, and search through its approximate index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation import Bootstrap, HubCorrection, Protocol, evaluate_embeddings
from evaluation.evaluate import evaluate_folds
from evaluation.protocol import ProtocolName, check_dialect, in_dialect, needed_depths
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.schema import COLLECTIONS
from storage.store import IndexStore
from storage.version import IndexVersion

from ..errors import EvaluationError
from ..query_encoder import EncoderChoice, QueryEncoder
from ..request import SearchRequest
from ..searcher import Searcher
from .ann_trial import through_index
from .ground_truth import GroundTruth
from .leaks import Leaks


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How an index is scored.

    Attributes:
        split: Only the images and texts of this split, as queries and as gallery; None for all.
        k: Cutoffs; each at most the size of both galleries.
        exact: Leave out the searches through the approximate index.
        protocol: Whose definitions and keys to report beside ours: `twinlens` (none), `automm`, `clip-benchmark`,
            `vse` or `eccv`.
        folds: Cut the images into so many contiguous folds and report the mean over them, as COCO-1K does with 5;
            such small galleries are searched exactly.
        hub_split: The split whose captions and images the hub correction is computed from; None for no correction. It
            may not be the one that is measured.
        bootstrap: Give one to get intervals of the exact figures.
        version: Which version of the index; None for the current one.
        ann_recall: The recall requested of searches through the index; None for the searcher's default.
    """

    split: str | None = None
    k: tuple[int, ...] = (1, 5, 10)
    exact: bool = False
    protocol: ProtocolName = "twinlens"
    folds: int = 1
    hub_split: str | None = None
    bootstrap: Bootstrap | None = None
    version: int | None = None
    ann_recall: float | None = None

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        """Refuse what no index can do.

        Raises:
            EvaluationError: A value is outside its range; the message names both.
            SearchError: `ann_recall` is no share.
        """
        check_fields(self, EvaluationError)
        if not self.k:
            raise EvaluationError("k is empty; give at least one depth, such as 1,5,10")
        for depth in self.k:
            if depth < 1:
                raise EvaluationError(f"k={depth!r} is no depth; give whole numbers from 1 on, such as 1,5,10")
        if self.folds < 1:
            raise EvaluationError(f"folds={self.folds!r} is no number of folds; give 1, or 5 for COCO-1K")
        if self.hub_split is not None and self.split in (None, self.hub_split):
            measured = "all of the index is" if self.split is None else f"{self.split!r} is itself"
            raise EvaluationError(
                f"hub correction from split {self.hub_split!r} while {measured} measured would learn from the test; "
                "measure one split and correct from another, such as split test and hub correction val"
            )
        if self.hub_split is not None and self.folds > 1:
            raise EvaluationError(
                f"hub correction from split {self.hub_split!r} is not measured in folds; leave out folds={self.folds}"
            )
        SearchRequest(ann_recall=self.ann_recall)


def evaluate_index(path: str | Path, options: EvaluateOptions | None = None) -> dict[str, Any]:
    """Score an index against its own pairs, with its stored vectors as queries: no encoder is needed.

    Captions are searched in the images and images in the captions. An image without a caption stays in the gallery and
    is left out as a query, as is a text without an image; the protocol counts both.

    Args:
        path: The folder of the index.
        options: How; by default all items, R@1/5/10, exactly and through the index.

    Returns:
        JSON's own types. `protocol`; `text_to_image`, `image_to_text` and `rsum` as `evaluate_embeddings` gives them,
        from the stored vectors by exact search; `ann_recall@10` of both directions (null without searches through the
        index); `ann` with the protocol and, for each direction, the recall of searches, their cost and the operating
        points (absent where exact search was requested); `figures` and `ann_figures`, the same under the keys of
        another protocol; `leaks`, null unless a split is measured: of `images` and `texts` `count` items (`of` so many)
        that stand in other `splits` too, with `examples`, `hashed` images, and the exact figures `without` them (null
        in folds, and where nothing is left); `hub_corrected` where requested. `index` says which version of what was
        measured.

    Raises:
        EvaluationError: The index cannot be scored: a collection, a split or its pairs are missing, a k is
            above the size of a gallery, the protocol does not fit; the message says what to do.
        StorageError: There is no index or no such version, or its files are damaged.
    """
    check_arguments(evaluate_index, locals(), EvaluationError)
    options = options or EvaluateOptions()
    version = IndexStore.open(Path(path)).open_version(options.version)
    encoder = QueryEncoder.of(EncoderChoice(), version, str(path))
    with Searcher(version, encoder, str(path)) as searcher:
        truth = GroundTruth.read(version, str(path), options.split)
        known: dict[str, Any] = {"location": str(path), "searcher": searcher, "version": version, "truth": truth}
        return _Evaluation(**known, options=options).result()


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """One open index with its ground truth and the options of the evaluation."""

    location: str
    searcher: Searcher
    version: IndexVersion
    truth: GroundTruth
    options: EvaluateOptions

    def result(self) -> dict[str, Any]:
        protocol = self._protocol()
        self._check(protocol)
        whole, folded = self._exact(protocol)
        figures = whole if folded is None else folded
        result: dict[str, Any] = {"index": self._index(), "protocol": protocol.to_json(), **figures}
        result["ann_recall@10"] = None
        if protocol.name == "eccv":
            result["figures"] = in_dialect(protocol.name, whole, folded)
        elif protocol.name != "twinlens":
            result["figures"] = in_dialect(protocol.name, figures)
        if not self.options.exact and folded is None:
            result |= self._through_index(protocol)
        result["leaks"] = self._leaks(protocol)
        if self.options.hub_split is not None:
            result["hub_corrected"] = self._hub_corrected(protocol.k, self.options.hub_split)
        return result

    def _protocol(self) -> Protocol:
        images, texts = (len(self.truth.rows[name]) for name in COLLECTIONS)
        return Protocol.of_pairs(
            self.truth.pairs,
            images,
            texts,
            name=self.options.protocol,
            split=self.options.split,
            k=needed_depths(self.options.protocol, tuple(int(k) for k in self.options.k)),
            prompt=self.version.manifest.encoding.prompt,
            folds=int(self.options.folds),
        )

    def _check(self, protocol: Protocol) -> None:
        """Refuse before the work what would fail after it."""
        if protocol.folds > protocol.images:
            raise EvaluationError(
                f"folds={protocol.folds} is above the {protocol.images} images in {self.location}; 5 is usual"
            )
        fold = "a fold of " if protocol.folds > 1 else ""
        for what, size in (("images", protocol.images // protocol.folds), ("texts", protocol.texts)):
            if max(protocol.k) > size:
                raise EvaluationError(
                    f"k={max(protocol.k)} is above the {size} {what} in {fold}{self.location}; give smaller values of k"
                )
        with self._explained():
            check_dialect(protocol)

    def _exact(self, protocol: Protocol) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The figures of everything and those of the folds; the first is empty where only folds count."""
        images, texts = (self.truth.vectors(self.version, name) for name in COLLECTIONS)
        known: Any = (images, texts, self.truth.pairs, protocol.k)
        bootstrap = self.options.bootstrap
        with self._explained():
            if protocol.folds == 1:
                return evaluate_embeddings(*known, bootstrap=bootstrap), None
            folded = evaluate_folds(*known, folds=protocol.folds, bootstrap=bootstrap)
            return (evaluate_embeddings(*known) if protocol.name == "eccv" else {}), folded

    def _leaks(self, protocol: Protocol) -> dict[str, Any] | None:
        """What the split shares with the rest of the index, and the exact figures without that."""
        leaks = Leaks.find(self.version, self.truth, self.location)
        if leaks is None:
            return None
        images, texts, pairs = leaks.kept(self.truth)
        depths = tuple(k for k in protocol.k if k <= min(len(images), len(texts)))
        without = None
        if len(pairs) and depths and protocol.folds == 1:
            left = [self.truth.vectors(self.version, name) for name in COLLECTIONS]
            with self._explained():
                figures = evaluate_embeddings(left[0][images], left[1][texts], pairs, depths)
            without = {"images": len(images), "texts": len(texts), **figures}
        return {**leaks.to_json(self.version), "without": without}

    def _hub_corrected(self, k: tuple[int, ...], split: str) -> dict[str, Any]:
        """The same figures with what hubs score too high taken off, as learnt from another split."""
        images, texts = (self.truth.vectors(self.version, name) for name in COLLECTIONS)
        other = GroundTruth.read(self.version, self.location, split)
        their_images, their_texts = (other.vectors(self.version, name) for name in COLLECTIONS)
        with self._explained():
            of_images = HubCorrection.fit_best(images, their_texts, their_images, other.pairs)
            of_texts = HubCorrection.fit_best(texts, their_images, their_texts, other.pairs[:, ::-1])
            hubs: dict[str, Any] = {"image_hubs": of_images, "text_hubs": of_texts}
            result = evaluate_embeddings(images, texts, self.truth.pairs, k, bootstrap=self.options.bootstrap, **hubs)
        return {"split": split, **result}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which index it was that could not be measured."""
        try:
            yield
        except ValueError as error:
            raise EvaluationError(f"{self.location}: {error}") from error

    def _through_index(self, protocol: Protocol) -> dict[str, Any]:
        both: dict[str, Any] = through_index(
            self.searcher, self.version, self.truth, protocol.k, self.options.ann_recall
        )
        result: dict[str, Any] = {
            "ann_recall@10": {name: figures["ann_recall@10"] for name, figures in both.items()},
            "ann": {"protocol": replace(protocol, search="ann").to_json(), **both},
        }
        if self.options.protocol != "twinlens":
            result["ann_figures"] = in_dialect(self.options.protocol, both)
        return result

    def _index(self) -> dict[str, Any]:
        manifest = self.version.manifest
        kinds = {name: info.ann.kind for name, info in manifest.collections.items()}
        encoder = manifest.encoder.spec if manifest.encoder else None
        within = {name: one.within for name, one in manifest.rounding.items()}
        index = {"path": self.location, "version": manifest.version, "encoder": encoder, "ann": kinds}
        return index | ({"score_within": within} if within else {})
