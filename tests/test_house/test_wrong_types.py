"""A value of a wrong type is refused by every public function in one line that names the parameter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluation as measures
from encoders import DecodeLimits, decode_image, load_encoder
from indexer import BuildConfig, EmbeddingSource, SourceOptions, build_index, open_source
from indexer.corpus import EmbeddingFiles, EmbeddingOptions
from matcher import Calibration, Matcher, Roles, Sampling
from searcher import EvaluateOptions, Searcher, SearchRequest, evaluate_index
from storage import IndexStore
from storage.arguments import check_arguments
from storage.errors import TwinlensError
from training import CaptionedImages, FitConfig, PairSet, fit_encoder, fit_pairs, read_captions
from training.hrem import HremConfig, evaluate_hrem, fit_hrem, write_regions

HERE = Path("nowhere")
ROWS = np.eye(4, dtype=np.float32)
RANKED = {"ranked": np.arange(4).reshape(2, 2), "relevant": [{0}, {2}], "k": 1}
CAPTIONED = CaptionedImages(["a.png"], [["a cat"]])
FILES = EmbeddingFiles(vectors=HERE)
# Public functions and options, each with arguments that are right.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "build_index": (build_index, {"source": HERE, "out": HERE, "encoder": "lite"}),
    "BuildConfig": (BuildConfig, {}),
    "SourceOptions": (SourceOptions, {}),
    "open_source": (open_source, {"corpus": HERE}),
    "EmbeddingFiles": (EmbeddingFiles, {"vectors": HERE}),
    "EmbeddingOptions": (EmbeddingOptions, {"images": FILES}),
    "EmbeddingSource": (EmbeddingSource, {"options": EmbeddingOptions(images=FILES)}),
    "Searcher.open": (Searcher.open, {"path": HERE}),
    "SearchRequest": (SearchRequest, {}),
    "EvaluateOptions": (EvaluateOptions, {}),
    "evaluate_index": (evaluate_index, {"path": HERE}),
    "IndexStore.open": (IndexStore.open, {"path": HERE}),
    "IndexStore.create": (IndexStore.create, {"path": HERE}),
    "IndexStore.open_version": (IndexStore(HERE).open_version, {}),
    "load_encoder": (load_encoder, {"spec": "lite"}),
    "DecodeLimits": (DecodeLimits, {}),
    "decode_image": (decode_image, {"source": HERE}),
    "FitConfig": (FitConfig, {}),
    "fit_encoder": (fit_encoder, {"spec": "lite", "train": CAPTIONED, "val": None, "out": HERE}),
    "fit_pairs": (fit_pairs, {"spec": "lite", "train": PairSet(left=["a"], right=["b"]), "val": None, "out": HERE}),
    "read_captions": (read_captions, {"corpus": HERE}),
    "PairSet": (PairSet, {"left": ["a"], "right": ["b.png"]}),
    "CaptionedImages": (CaptionedImages, {"images": ["a.png"], "captions": [["a cat"]]}),
    "HremConfig": (HremConfig, {}),
    "fit_hrem": (fit_hrem, {"data": HERE, "out": HERE}),
    "evaluate_hrem": (evaluate_hrem, {"runs": [HERE]}),
    "write_regions": (write_regions, {"corpus": HERE, "out": HERE}),
    "Matcher": (Matcher, {}),
    "Matcher.from_index": (Matcher.from_index, {"path": HERE}),
    "Matcher.load": (Matcher.load, {"path": HERE}),
    "Matcher.save": (Matcher(encoder="lite").save, {"path": HERE}),
    "Matcher.fit": (Matcher(encoder="lite").fit, {"train": HERE}),
    "Roles": (Roles, {}),
    "Sampling": (Sampling, {}),
    "Calibration": (Calibration, {}),
    "Bootstrap": (measures.Bootstrap, {}),
    "exact_top_k": (measures.exact_top_k, {"base": ROWS, "queries": ROWS, "k": 1}),
    "hit_rate_at_k": (measures.hit_rate_at_k, RANKED),
    "recall_at_k": (measures.recall_at_k, RANKED),
    "ann_recall": (measures.ann_recall, {"found": np.eye(2, dtype=int), "exact": np.eye(2, dtype=int)}),
    "evaluate_ranking": (measures.evaluate_ranking, {**RANKED, "ranked_ids": RANKED["ranked"], "k": (1,)}),
    "evaluate_within": (measures.evaluate_within, {"vectors": ROWS, "groups": [0, 0, 1, 1], "k": (1,)}),
    "evaluate_embeddings": (
        measures.evaluate_embeddings,
        {"image_vectors": ROWS, "text_vectors": ROWS, "pairs": [(0, 0)], "k": (1,)},
    ),
}
CALLS["evaluate_ranking"][1].pop("ranked")
# For each value, the words of an annotation that it is right for.
WRONG: list[tuple[Any, str]] = [
    (None, r"None"),
    (3, r"int|float"),
    (b"x", r"bytes"),
    ([], r"tuple|Sequence|list"),
    ({}, r"Mapping|dict"),
    ("\0", r"str"),
]
# Told in other words: arrays by their shapes, images by what an image is.
_ELSEWHERE = re.compile(r"\b(NDArray|Ids|Relevant|Pairs|Any|Image\.Image)\b")


def _wrong(annotation: str) -> Iterator[Any]:
    words = re.sub(r"(Sequence|tuple)\[(str|int)", r"\1[", annotation)  # what a list holds is no value for it
    for value, right in WRONG:
        is_path = value == "\0" and re.search(r"\bPath\b", words)
        if is_path or not re.search(rf"\b({right})\b", words):
            yield value


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    for one in inspect.signature(function).parameters.values():
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and not _ELSEWHERE.search(str(one.annotation)):
            yield one.name, str(one.annotation)


@pytest.mark.parametrize("name", CALLS)
def test_each_parameter_refuses_what_it_cannot_be(name: str) -> None:
    function, right = CALLS[name]
    for parameter, annotation in _parameters(function):
        for value in _wrong(annotation):
            with pytest.raises((TwinlensError, ValueError)) as caught:
                function(**{**right, parameter: value})
            message = str(caught.value)
            assert parameter in message, (parameter, value, message)
            assert "\n" not in message
            assert len(message) < 400


def _example(
    path: str | Path = "a", number: float = 1, count: int = 1, flag: bool = False, names: tuple[str, ...] = ()
) -> None:
    check_arguments(_example, locals(), ValueError)


def test_numbers_of_numpy_lists_and_paths_are_taken(tmp_path: Path) -> None:
    _example(path=tmp_path, number=np.float32(0.5), count=np.int64(3), flag=np.bool_(True), names=["a"])  # type: ignore[arg-type]
    _example(number=3)


def test_a_path_given_as_a_text_becomes_a_path() -> None:
    assert SourceOptions(root="photos").root == Path("photos")  # type: ignore[arg-type]
    assert SourceOptions().root is None
    files = EmbeddingFiles(vectors="a.npy", ids="b.txt")  # type: ignore[arg-type]
    assert (files.vectors, files.ids, files.table) == (Path("a.npy"), Path("b.txt"), None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"path": 3}, "path is 3, of type int; give a path, as a text without NUL or as a Path"),
        ({"path": "a\0b"}, r"path is 'a\\x00b', of type str; give a path, as a text without NUL or as a Path"),
        ({"number": True}, "number is True, of type bool; give a number"),
        ({"count": 2.0}, "count is 2.0, of type float; give a whole number"),
        ({"flag": 1}, "flag is 1, of type int; give True or False"),
        ({"names": "abc"}, "names is 'abc', of type str; give a list, each of it a text"),
        ({"names": [1]}, r"names is \[1\], of type list; give a list, each of it a text"),
    ],
)
def test_the_error_names_value_type_and_what_is_expected(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}$"):
        _example(**given)


def test_a_large_value_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match=r"^count is .{1,200}, of type ndarray; give a whole number$"):
        _example(count=np.zeros((1000, 1000)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: BuildConfig(seed=-1),
        lambda: EvaluateOptions(k=()),
        lambda: FitConfig(epochs=0),
        lambda: HremConfig(dim=0),
        lambda: Sampling(hard_share=2),
        lambda: SearchRequest(k=0),
    ],
)
def test_options_that_cannot_be_end_a_command_as_typed_wrong(make: Callable[[], Any]) -> None:
    with pytest.raises(TwinlensError) as caught:
        make()
    assert caught.value.exit_code == 2
