"""`Matcher`: judges pairs, ranks, searches, classifies, fine-tunes and saves, by one encoder of declared columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from storage.arguments import check_arguments

from . import fitting, saving
from .calibration import Calibration, Method, check_threshold, fit_calibration
from .classify import Classes, classify
from .encoding_matcher import EncodingMatcher
from .errors import CalibrationError, MatcherError
from .evaluate_pairs import (
    RANKING_METRICS,
    Ranking,
    RankingOptions,
    check_labels,
    judge,
    known_pairs,
    match_readable,
    pair_report,
    rank,
)
from .fitting import FitOptions
from .keywords import own_keywords
from .matches import Matches, as_frame
from .negatives import Sampling, cosines
from .pairs import has_labels, read_pairs
from .tables import IdMappings, Side
from .vector_search import SearchOptions, SearchRequest, hit_lists, search

_OF_CANDIDATES = ("templates", "signature", "scale")


class Matcher(EncodingMatcher):
    """Matches texts with images, images with images, or texts with texts.

    Nothing is loaded before it is needed. What a column holds is declared and never guessed: by default the query
    column holds texts and the response column images. See `Roles` for the further keyword arguments.

    Whatever was encoded is remembered by its content, so that the next call over the same images and texts takes hardly
    any time: `remember_bytes` bounds that, `remember_in` keeps it on disk.

    Attributes:
        roles: Which column plays which part.
        spec: The encoder's spec.
        index: A built index to search and evaluate in, in place of response data; None for none.
    """

    _fit_report: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_index(cls, path: str | Path, query: str = "caption", response: str = "image", **options: Any) -> Self:
        """Return a matcher with the encoder of a built index, which searches and evaluates in that index.

        Args:
            path: The folder of the index. Its images or texts, as `response_type` says, stand for the responses.
            query: The column of the queries.
            response: The column that names item ids of the index, in relevance tables.
            **options: As in `Matcher`; an `encoder` is needed for indexes of ready-made vectors only.

        Raises:
            StorageError: There is no index.
            MatcherError: Nobody knows which encoder made it.
        """
        from storage import IndexStore

        check_arguments(cls.from_index, locals(), MatcherError)
        with IndexStore.open(Path(path)).open_version(verify="size") as version:
            made_by = version.manifest.encoder
        if made_by is None and "encoder" not in options:
            raise MatcherError(f"the index {str(path)!r} holds ready-made vectors; name what made them: encoder=SPEC")
        if made_by is not None:
            options.setdefault("encoder", made_by.spec)
        matcher = cls(query, response, **options)
        matcher.index = Path(path)
        return matcher

    @property
    def fit_summary(self) -> Mapping[str, Any]:
        """What the last `fit` reported: figures before and after, seconds, why it stopped; empty before any."""
        return self._fit_report

    @own_keywords("Matcher.match")
    def match(
        self,
        data: Any,
        *,
        threshold: float | None = None,
        id_mappings: IdMappings | None = None,
        keep_errors: bool = False,
    ) -> Matches:
        """Return cosine, probability and verdict for each pair of a table.

        Args:
            data: A pandas, Polars or Arrow table, a dict of lists, or the path of a table, with both columns.
            threshold: The probability from which on a pair is a match; None for that of the calibration.
            id_mappings: What ids in the columns stand for.
            keep_errors: Keep rows that cannot be read in their place, with the reason, in place of an error.

        Raises:
            DataError: A column is missing, or rows cannot be used; the message names them.
            CalibrationError: The encoder has no calibration.
        """
        limit = None if threshold is None else check_threshold(threshold)
        pairs = read_pairs(data, self.roles, id_mappings, labelled=False)
        calibration = self.calibration
        reader = self._reader()
        scores, errors = match_readable(reader, pairs) if keep_errors else (cosines(*reader.pairs(pairs)), {})
        return judge(scores, calibration, limit, errors=errors, index=pairs.index)

    @own_keywords("Matcher.predict_proba", *_OF_CANDIDATES)
    def predict_proba(
        self,
        data: Any,
        candidates: Any = None,
        *,
        as_multiclass: bool = True,
        as_pandas: bool | None = None,
        id_mappings: IdMappings | None = None,
        **options: Any,
    ) -> Any:
        """Return probabilities of a match, or with candidates those of each candidate.

        Args:
            data: Pairs as for `match`; with candidates as for `classify`.
            candidates: See `classify`; None for pairs.
            as_multiclass: Two columns, no match and match; False gives (n,) probabilities of a match.
            as_pandas: Whether to return a frame; None does where the data is one.
            id_mappings: What ids in the columns stand for.
            **options: With candidates those of `classify`.

        Returns:
            (n, 2), (n,) or (n, candidates) float64; each line of several columns sums to 1.

        Raises:
            DataError: See `match` and `classify`.
            CalibrationError: The encoder has no calibration.
        """
        if candidates is not None:
            return as_frame(self.classify(data, candidates, **options), data, as_pandas)
        _refuse(options, "predict_proba")
        match = self.match(data, id_mappings=id_mappings).probability
        return as_frame(np.stack([1 - match, match], axis=1) if as_multiclass else match, data, as_pandas)

    @own_keywords("Matcher.predict", *_OF_CANDIDATES)
    def predict(
        self,
        data: Any,
        candidates: Any = None,
        *,
        threshold: float | None = None,
        as_pandas: bool | None = None,
        id_mappings: IdMappings | None = None,
        **options: Any,
    ) -> Any:
        """Return (n,) int64: 1 where a pair matches and 0 where not; with candidates the position of the best one.

        Args:
            data: As for `predict_proba`.
            candidates: See `classify`; None for pairs.
            threshold: The probability from which on a pair is a match; None for that of the calibration.
            as_pandas: As for `predict_proba`.
            id_mappings: What ids in the columns stand for.
            **options: With candidates those of `classify`.

        Raises:
            DataError: See `match` and `classify`.
            CalibrationError: The encoder has no calibration.
        """
        if candidates is not None:
            return as_frame(self.classify(data, candidates, **options).argmax(axis=1), data, as_pandas)
        _refuse(options, "predict")
        matches = self.match(data, threshold=threshold, id_mappings=id_mappings)
        return as_frame(matches.match.astype(np.int64), data, as_pandas)

    @own_keywords("Matcher.classify")
    def classify(
        self,
        data: Any,
        candidates: Any,
        *,
        templates: Sequence[str] = (),
        signature: Side | None = None,
        scale: float | None = None,
    ) -> NDArray[np.float64]:
        """Return how likely each candidate is for each row, without any training: softmax(scale * cosine).

        Args:
            data: One column: a table that has the query or the response column, or a list.
            candidates: The other side's items: a list, or a table with that side's column.
            templates: Prompts such as `a photo of a {}.`; a candidate is the mean over all. For text candidates.
            signature: Which side the data is; None: the side whose column it has; of a list the images.
            scale: The factor before the softmax; larger is more certain. None: the one that the encoder learned, 100
                where it knows none.

        Returns:
            (n, candidates) float64; each line sums to 1.

        Raises:
            DataError: The data or the candidates cannot be used.
        """
        classes = Classes(candidates=candidates, templates=tuple(templates), scale=scale)
        return classify(self._reader(), data, classes, signature)

    @own_keywords("Matcher.semantic_search", *SearchOptions.__annotations__)
    def semantic_search(
        self, query_data: Any = None, response_data: Any = None, **options: Unpack[SearchOptions]
    ) -> Any:
        """Return the responses nearest to each query.

        Each side is given as data or as embeddings; without responses the index of the matcher is searched. Each
        distinct content is encoded once.

        Args:
            query_data: A table with the query column, or a list. A table that holds only the response column, or a list
                of images, exchanges the sides: images then ask, and `response_data` are texts.
            response_data: A table with the response column, or a list.
            **options: `query_embeddings`, `response_embeddings`, `index`, `top_k`, `query_chunk_size`,
                `response_chunk_size`, `similarity`, `id_mappings`, `as_arrays`; `SearchRequest` says what they mean.

        Returns:
            For each query a list of {"response_id", "score"}, best first, equal scores by lower id: the row of the
            response, or its item id in an index. With `as_arrays` two arrays (n, k): ids and scores.

        Raises:
            DataError: A side is given twice or not at all, or cannot be used.
        """
        request = SearchRequest(query_data=query_data, response_data=response_data, **options)
        hits = search(request, self.roles, self.cell_encoder, self.index)
        return hits if request.as_arrays else hit_lists(hits)

    @own_keywords("Matcher.evaluate")
    def evaluate(
        self,
        data: Any,
        query_data: Any = None,
        response_data: Any = None,
        *,
        directions: Literal["one", "both"] = "one",
        metrics: Sequence[str] | None = None,
        cutoffs: Sequence[int] = (1, 5, 10),
        id_mappings: IdMappings | None = None,
    ) -> dict[str, Any]:
        """Return how good the encoder is on known data, as one flat dict.

        - With `query_data` (and `response_data`, or an index): rankings. `data` is the relevance table: query,
          response and, with a label column, how relevant (0: not; without one every row is relevant).
        - With a label column in `data` and nothing else: labelled pairs, judged by probability.
        - Otherwise every row of `data` is a true pair, and its distinct queries are ranked against its distinct
          responses.

        Args:
            data: The relevance table, or pairs.
            query_data: The queries, a table or a list; ones that come again count once. A table that holds only the
                response column, or a list of images, exchanges the sides: images then ask and texts are ranked.
            response_data: The responses likewise.
            directions: `one`: queries ask, or what `query_data` holds. `both`: a dict of the figures of each direction,
                `text_to_image` and `image_to_text`; where both sides are of one kind, by the names of the columns.
            metrics: For rankings of ndcg, map, recall, precision, mrr and R; for pairs of roc_auc, average_precision,
                accuracy, f1, precision, recall, log_loss, brier and ece. None for all.
            cutoffs: How deep to look in rankings.
            id_mappings: What ids in the columns stand for; items are then told apart by their ids.

        Returns:
            For rankings `metric@k`, `queries` and `left_out` (queries without a relevant response, in no figure). R is
            the share of queries with any hit, recall the share of a query's responses that were found. For pairs
            `metric`.

        Raises:
            DataError: The tables do not fit together, or all labels are equal.
            CalibrationError: Pairs are to be judged, and the encoder has no calibration.
        """
        check_arguments(type(self).evaluate, {"directions": directions}, MatcherError)
        if query_data is None and response_data is None and has_labels(data, self.roles):
            if directions == "both":
                raise MatcherError("labelled pairs are judged one by one and have no direction; leave directions out")
            return self._evaluate_pairs(data, metrics, id_mappings)
        options = RankingOptions(metrics=RANKING_METRICS if metrics is None else metrics, cutoffs=tuple(cutoffs))
        ranking = Ranking(data=data, query_data=query_data, response_data=response_data, options=options)
        return rank(self._reader(id_mappings), ranking, directions, self.index)

    @own_keywords("Matcher.calibrate")
    def calibrate(
        self,
        data: Any,
        *,
        method: Method | None = None,
        sampling: Sampling | None = None,
        id_mappings: IdMappings | None = None,
    ) -> Calibration:
        """Learn from known pairs what cosines mean, use that from now on, and return it.

        Args:
            data: Pairs. Where they have the label column both kinds are there; else all are true, and wrong ones are
                drawn from them. Some hundred true pairs are enough; use ones that the encoder was not trained on.
            method: `platt` or `isotonic`; None takes the better one.
            sampling: How wrong pairs are drawn.
            id_mappings: What ids in the columns stand for.

        Raises:
            DataError: The data cannot be used.
            CalibrationError: There are too few pairs, all labels are equal, or no wrong pair can be drawn.
        """
        check_arguments(type(self).calibrate, locals(), MatcherError)
        pairs = read_pairs(data, self.roles, id_mappings, several=True)
        scores, labels = known_pairs(self._reader(), pairs, sampling)
        self._calibration = fit_calibration(
            scores, labels, method, encoder=self.encoder.spec, fingerprint=self.encoder.fingerprint
        )
        return self._calibration

    @own_keywords("Matcher.fit", *FitOptions.__annotations__)
    def fit(self, train: Any, val: Any = None, time_limit: float | None = None, **options: Unpack[FitOptions]) -> Self:
        """Fine-tune the encoder on pairs, calibrate it on validation pairs, and return the matcher itself.

        Args:
            train: Pairs, as for `calibrate`.
            val: Pairs to stop early by and to calibrate with; None holds back some, split by distinct images and not
                by rows.
            time_limit: Seconds from the call on, reading and calibrating included; what was learned by then is kept.
                Where it is short, augmented views are left out first and then examples, and `fit_summary` says how many
                of both were used (`views`, `share`). Where nothing was trained a warning says so.
            **options: `out`, `config`, `id_mappings`; `FitOptions` says what they mean.

        Raises:
            MatcherError: The data cannot be used.
            TrainingError: The encoder cannot be trained so.
        """
        check_arguments(type(self).fit, locals(), MatcherError)
        fitted = fitting.fit(self.spec, self.roles, (train, val), time_limit, options)
        self._take_encoder(fitted.spec)
        self._calibration, self._fit_report = fitted.calibration, fitted.report
        return self

    def _evaluate_pairs(
        self, data: Any, metrics: Sequence[str] | None, mappings: IdMappings | None
    ) -> dict[str, float | int]:
        pairs = read_pairs(data, self.roles, mappings, labelled=True, several=True)
        calibration = self.calibration
        scores = calibration.probability(cosines(*self._reader(mappings).pairs(pairs)))
        return dict(pair_report(scores, check_labels(pairs.labels), calibration.threshold, metrics))

    @own_keywords("Matcher.save")
    def save(self, path: str | Path, *, standalone: bool = False) -> Path:
        """Write the matcher to a new folder: `matcher.json` and, for a `local-dir:` encoder, its weights.

        Args:
            path: A folder that does not exist yet, or is empty.
            standalone: Write the weights of encoders that are known by name as well, so that loading needs no hub.

        Raises:
            MatcherError: The folder is not empty, or the encoder cannot be saved.
        """
        check_arguments(type(self).save, locals(), MatcherError)
        try:
            calibration: Calibration | None = self.calibration
        except CalibrationError:
            calibration = None
        saved = saving.Saved(
            roles={name: getattr(self.roles, name) for name in saving.ROLES},
            encoder=self.encoder.spec,
            fingerprint=self.encoder.fingerprint,
            calibration=calibration,
            fit=self.fit_summary,
        )
        return saving.save(saved, Path(path), standalone)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Self:
        """Return a matcher that `save` wrote; it gives the same vectors and probabilities.

        Raises:
            MatcherError: There is none, or the encoder is not the one that it was saved with.
        """
        check_arguments(cls.load, locals(), MatcherError)
        saved = saving.read(Path(path))
        matcher = cls(
            encoder=saved.encoder,
            device=device,
            precision=precision,
            calibration=saved.calibration,
            **dict(saved.roles),
        )
        matcher._fit_report = saved.fit
        if matcher.encoder.fingerprint != saved.fingerprint:
            raise MatcherError(
                f"the matcher {str(path)!r} was saved with other weights than encoder {saved.encoder!r} has now; "
                "install the release it was saved with, and save it there with standalone=True"
            )
        return matcher


@own_keywords("semantic_search", "matcher", *SearchOptions.__annotations__)
def semantic_search(
    matcher: Matcher, query_data: Any = None, response_data: Any = None, **options: Unpack[SearchOptions]
) -> Any:
    """Return the responses nearest to each query, as `matcher.semantic_search` does.

    Raises:
        MatcherError: `matcher` is none.
        DataError: As there.
    """
    if not isinstance(matcher, Matcher):
        raise MatcherError(f"matcher is of type {type(matcher).__name__}; give a Matcher")
    return matcher.semantic_search(query_data, response_data, **options)


def _refuse(options: Mapping[str, Any], method: str) -> None:
    if options:
        raise TypeError(f"{method}() takes {next(iter(options))!r} with candidates only")
