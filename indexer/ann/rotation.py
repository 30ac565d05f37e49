"""The rotation in front of product quantization: principal axes, shared out evenly among the codes.

A code covers a few dimensions and has as many bits as every other, so dimensions of very unequal spread waste bits.
Along the principal axes nothing is said twice, and when each code gets wide and narrow axes whose product is the same
for all, each has as much to tell as it has bits. This is the parametric solution of Ge, He, Ke and Sun, "Optimized
Product Quantization" (CVPR 2013), section 4. The mean is not taken off, so inner products stay what they are. On
300,000 CLIP-like vectors codes of half the bytes then find as many neighbours of captions.

A code of one dimension cannot have wide and narrow axes, so those of each group of four are mixed: each direction has
an equal share of all four then, and the table of a query, one byte an entry, is as fine for one code as for another.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.exact_search import Ids, Scores, Vectors, to_float32

_BLOCK = 8192
_MIXED = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2  # a rotation, of Hadamard's kind
_FLAT = 1e-9  # spreads below count as this, so that axes along which nothing lies have a logarithm


class Seen:
    """Stored vectors as their approximate index sees them: in float32, and rotated where it has a rotation."""

    def __init__(self, stored: Vectors, rotation: Scores | None = None) -> None:
        self.stored = stored
        self.rotation = rotation

    def rows(self, row_ids: Ids) -> Scores:
        """Return the vectors of these rows, (n, dim)."""
        return self.turned(to_float32(self.stored.gather(row_ids)))

    def turned(self, vectors: Scores) -> Scores:
        """Return vectors or queries, (n, dim), as the index sees them."""
        return vectors if self.rotation is None else vectors @ self.rotation.T


def pq_rotation(sample: Scores, codes: int) -> Scores:
    """Return the (dim, dim) orthonormal rotation for product codes of `dim / codes` neighbouring dimensions each.

    Args:
        sample: (n, dim) vectors.
        codes: Codes a vector; a divisor of dim.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    second = np.zeros((sample.shape[1],) * 2)
    for start in range(0, len(sample), _BLOCK):
        block = sample[start : start + _BLOCK]
        second += block.T @ block
    spreads, axes = np.linalg.eigh(second / len(sample) - np.outer(mean, mean))
    spreads, axes = spreads[::-1], axes.T[::-1]
    if codes < len(axes) or codes % len(_MIXED):
        return np.ascontiguousarray(axes[_shared_out(spreads, codes)], dtype=np.float32)
    groups = axes[_shared_out(spreads, codes // len(_MIXED))].reshape(-1, len(_MIXED), len(axes))
    return np.ascontiguousarray((_MIXED @ groups).reshape(axes.shape), dtype=np.float32)


def turn(sample: Scores, rotation: Scores) -> None:
    """Rotate a sample in place, which spares the memory for a second one."""
    for start in range(0, len(sample), _BLOCK):
        sample[start : start + _BLOCK] = sample[start : start + _BLOCK] @ rotation.T


def with_rotation(index: faiss.Index, rotation: Scores) -> faiss.IndexPreTransform:
    """Return the index with its rotation before it; it holds both, and the caller keeps `index` alive."""
    transform = faiss.LinearTransform(rotation.shape[1], rotation.shape[0], False)
    faiss.copy_array_to_vector(rotation.reshape(-1), transform.A)
    transform.set_is_orthonormal()
    transform.is_trained = True
    return faiss.IndexPreTransform(transform, index)


def _shared_out(spreads: NDArray[np.float64], codes: int) -> list[int]:
    """The axes in the order of the codes: each, widest first, goes to the code with the smallest product so far."""
    room = len(spreads) // codes
    logs = np.log(np.maximum(spreads, _FLAT))
    logs -= logs.min()  # every further axis makes a product larger
    products, chosen = np.zeros(codes), [[] for _ in range(codes)]  # type: tuple[NDArray[np.float64], list[list[int]]]
    for axis, log in enumerate(logs):
        code = int(np.argmin(products))
        chosen[code].append(axis)
        products[code] = products[code] + log if len(chosen[code]) < room else np.inf
    return [axis for axes in chosen for axis in axes]
