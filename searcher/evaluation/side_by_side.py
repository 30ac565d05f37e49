"""Several indexes side by side: the same queries by each, with intervals, paired differences and sole answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation import Bootstrap
from evaluation.paired import FirstRanks, compare_systems
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.schema import COLLECTIONS
from storage.store import IndexStore

from ..errors import EvaluationError
from .entrants import Entrant
from .sole_answers import sole_answers


@dataclass(frozen=True, kw_only=True)
class SideBySideOptions:
    """How indexes are scored side by side.

    Attributes:
        split: Only the images and texts of this split, as queries and as gallery; None for all.
        k: Depths of R@k; each at most the size of both galleries.
        bootstrap: Of the intervals; 1000 resamples of images at 95 % unless it says otherwise.
        examples: How many queries that one index alone answers are shown for each direction.
    """

    split: str | None = None
    k: tuple[int, ...] = (1, 5, 10)
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    examples: int = 3

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, EvaluationError)
        wrong = next((depth for depth in self.k if depth < 1), None)
        if not self.k or wrong is not None:
            raise EvaluationError(f"k={wrong if self.k else self.k!r} is no depth; give whole numbers from 1 on")
        if self.examples < 0:
            raise EvaluationError(f"examples={self.examples} is no number of examples; give 0 or more")


def evaluate_side_by_side(
    paths: Sequence[str | Path], options: SideBySideOptions | None = None, labels: Sequence[str] | None = None
) -> dict[str, Any]:
    """Score indexes of one corpus against their pairs, each by exact search over its stored vectors.

    Args:
        paths: The folders of the indexes; one stands by itself.
        options: How.
        labels: What to call each index; left out, its path.

    Returns:
        JSON's own types. `comparable`: whether all hold the same images, texts and pairs, so that they answer the same
        queries; `differs` names for each that does not what differs from the first. `indexes`: for each in the order
        given `label`, `index` (path, version, encoder, prompt), `counts`, `dim`, `bytes_per_item`, and the figures of
        `compare_systems`. Where they are comparable also `best`, `differences` as of `compare_systems`, and `alone`:
        for each index and direction how many queries it alone answers (R@1), with examples. Null otherwise.

    Raises:
        EvaluationError: No index, one that is given twice, or one that cannot be scored: a collection, a
            split or its pairs are missing, or a k is above the size of a gallery.
        StorageError: There is no index, or its files are damaged.
    """
    check_arguments(evaluate_side_by_side, locals(), EvaluationError)
    options = options or SideBySideOptions()
    _check_paths(paths)
    with ExitStack() as stack:
        entrants = []
        for number, path in enumerate(paths):
            version = stack.enter_context(IndexStore.open(Path(path)).open_version())
            label = str(path) if labels is None else labels[number]
            entrants.append(Entrant.read(version, str(path), label, options.split))
        return _SideBySide(entrants=entrants, options=options).result()


def _check_paths(paths: Sequence[str | Path]) -> None:
    if not len(paths):
        raise EvaluationError("no index is given; give two or more, or one that stands by itself")
    resolved = [Path(path).resolve() for path in paths]
    twice = next((path for number, path in enumerate(paths) if resolved[number] in resolved[:number]), None)
    if twice is not None:
        raise EvaluationError(f"the index {str(twice)!r} is given twice; name each index once")


@dataclass(frozen=True, kw_only=True)
class _SideBySide:
    """Open indexes and the options of their evaluation."""

    entrants: list[Entrant]
    options: SideBySideOptions

    def result(self) -> dict[str, Any]:
        for entrant in self.entrants:
            self._check_depths(entrant)
        first, *others = self.entrants
        differs = [
            {"label": other.label, "from": first.label, "what": what}
            for other in others
            if (what := other.differences_from(first))
        ]
        about = {"split": self.options.split, "k": list(self.options.k), "comparable": not differs, "differs": differs}
        level = self.options.bootstrap.level
        found = self._each_alone() if differs else self._together()
        indexes = [{**one.about(), **figures} for one, figures in zip(self.entrants, found.pop("systems"), strict=True)]
        return {**about, "level": level, "indexes": indexes, **found}

    def _check_depths(self, entrant: Entrant) -> None:
        for name in COLLECTIONS:
            if max(self.options.k) > len(entrant.truth.rows[name]):
                raise EvaluationError(
                    f"k={max(self.options.k)} is above the {len(entrant.truth.rows[name])} {name} in "
                    f"{entrant.location}; give smaller values of k"
                )

    def _each_alone(self) -> dict[str, Any]:
        """The figures of indexes that do not answer the same queries; none is best."""
        k, bootstrap = self.options.k, self.options.bootstrap
        found = [compare_systems([self._ranks(one, one)], k, bootstrap)["systems"][0] for one in self.entrants]
        return {"systems": found, "best": None, "differences": None, "alone": None}

    def _together(self) -> dict[str, Any]:
        first = self.entrants[0]
        ranks = [self._ranks(one, first) for one in self.entrants]
        found = compare_systems(ranks, self.options.k, self.options.bootstrap)
        alone = sole_answers(self.entrants, ranks, self.options.examples) if len(ranks) > 1 else None
        return {**found, "alone": alone}

    def _ranks(self, entrant: Entrant, like: Entrant) -> FirstRanks:
        """Rank with items in the order of another index, so that queries and ties are the same."""
        images, texts = (entrant.vectors(name, like) for name in COLLECTIONS)
        try:
            return FirstRanks.of(images, texts, like.truth.pairs)
        except ValueError as error:
            raise EvaluationError(f"{entrant.location}: {error}") from error
