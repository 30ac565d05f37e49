"""Tensors and arrays of every type: vectors are taken, images that are none are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders import ImageError, decode_image
from searcher import QueryError, Searcher
from searcher.query_encoder import unit_rows


@pytest.mark.parametrize("type", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32])
def test_vectors_as_tensors_of_every_type(type: torch.dtype, wide: Searcher, wide_vectors: np.ndarray) -> None:
    vectors = torch.from_numpy(wide_vectors[:3] * 100).to(type)
    arrays = vectors.double().numpy()
    expected = wide.text_to_image(arrays, k=5)
    for given in (vectors, vectors.clone().requires_grad_() if vectors.is_floating_point() else vectors, list(vectors)):
        found = wide.text_to_image(given, k=5)
        assert [[hit.item_id for hit in hits] for hits in found] == [[hit.item_id for hit in hits] for hits in expected]
    (one,) = [wide.text_to_image(vectors[0], k=5)]
    assert [hit.item_id for hit in one] == [hit.item_id for hit in expected[0]]
    dim = wide_vectors.shape[1]
    assert np.array_equal(unit_rows(vectors, dim), unit_rows(arrays, dim))
    assert np.array_equal(unit_rows(list(vectors), dim), unit_rows(arrays, dim))
    assert wide.search_vectors("images", vectors, 5) is not None


def test_tensors_of_no_numbers_are_refused() -> None:
    for wrong in (torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.complex64)):
        with pytest.raises(QueryError, match=r"the query vectors are of type .*; give numbers"):
            unit_rows(wrong, 4)


@pytest.mark.parametrize(
    "given", [np.zeros((4, 5, 3), np.float32), np.zeros((4, 5), np.uint16), torch.zeros(3, 4, 5), None, 7, ["a.jpg"]]
)
def test_what_is_no_image_is_refused_with_its_type(given: object) -> None:
    with pytest.raises(ImageError, match=rf"^not_an_image: an image is of type {type(given).__name__}\b.*PIL image"):
        decode_image(given)  # type: ignore[arg-type]
    if hasattr(given, "shape"):
        with pytest.raises(ImageError, match=r"with shape \([345, ]+\);"):
            decode_image(given)  # type: ignore[arg-type]
