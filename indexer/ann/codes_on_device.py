"""Product codes on a GPU: the codebook learned by k-means in all sub-spaces at once, and the list and code of each row.

What comes out is what FAISS's `IndexIVFPQ` holds: a codebook of (codes, ksub, width) centroids by squared distance, and
codes of what is left of a row less the centroid of its list, 8 bits each or two to a byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from storage.exact_search import Ids, Scores

from . import kmeans

if TYPE_CHECKING:
    import torch

Codes = NDArray[np.uint8]
_DISTANCES = 1 << 27  # float32 values of a block of distances, of which learning keeps two copies: half a gigabyte each
_FEWEST_ROWS = 1024  # that are still tried at once where the memory of the device does not suffice


def learned_codebook(
    sample: Scores, centroids: Scores, codes: int, ksub: int, *, device: str, rounds: int = kmeans.ROUNDS, seed: int = 0
) -> Scores:
    """Return the (codes, ksub, dim / codes) float32 codebook of residuals; the same for the same seed and device.

    Args:
        sample: (n, dim) vectors, n >= ksub, as the index sees them.
        centroids: (nlist, dim) list centroids.
        codes: Codes a vector; a divisor of dim.
        ksub: Centroids a code: 16 or 256.
        device: Torch's name of the device.
        rounds: Of k-means.
        seed: Of the rows that the centroids start from.

    Raises:
        MemoryError: The device has not enough memory, however few sub-spaces are learned at once.
    """
    import torch

    with kmeans.full_precision():
        rows = torch.from_numpy(np.ascontiguousarray(sample)).to(device)
        lists = torch.from_numpy(np.ascontiguousarray(centroids)).to(device)
        spaces = _by_code(rows - lists[kmeans.nearest(rows, lists)], codes)
        first = torch.from_numpy(np.random.default_rng([seed, 17]).choice(len(sample), ksub, replace=False)).to(device)
        start = spaces[:, first].clone()
    at_once = max(1, _DISTANCES // (len(sample) * ksub))
    while True:
        try:
            with kmeans.full_precision():
                pairs = zip(torch.split(spaces, at_once), torch.split(start, at_once), strict=True)
                learned: Scores = torch.cat([_clustered(*pair, rounds) for pair in pairs]).cpu().numpy()
            return learned
        except MemoryError:
            if at_once == 1:
                raise
        _give_back(device)
        at_once = -(-at_once // 2)


def _by_code(residuals: torch.Tensor, codes: int) -> torch.Tensor:
    """Return (codes, n, width) of (n, codes * width)."""
    return residuals.reshape(len(residuals), codes, -1).transpose(0, 1).contiguous()


def _clustered(spaces: torch.Tensor, centroids: torch.Tensor, rounds: int) -> torch.Tensor:
    """Return (s, ksub, width) centroids of the (s, n, width) points of some sub-spaces.

    A centroid without points becomes one of those that are farthest from their own. Sums are products with ones and
    zeros, which a GPU adds in one order, where adding by atomics would differ from run to run.
    """
    import torch

    for _ in range(rounds):
        least, nearest = _distances(spaces, centroids).min(dim=2)
        belongs = torch.zeros((*nearest.shape, centroids.shape[1]), device=spaces.device)
        belongs.scatter_(2, nearest[:, :, None], 1.0)
        sizes = belongs.sum(1)
        means = torch.bmm(belongs.transpose(1, 2), spaces) / sizes.clamp(min=1)[:, :, None]
        empty = sizes == 0
        far = (least + spaces.square().sum(2)).topk(centroids.shape[1], dim=1).indices
        mine = far.gather(1, (empty.cumsum(1) - 1).clamp(min=0))
        others = spaces.gather(1, mine[:, :, None].expand(-1, -1, spaces.shape[2]))
        centroids = torch.where(empty[:, :, None], others, means)
    return centroids


def _distances(spaces: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return (s, n, ksub) squared distances, less the squared lengths of the points, which decide nothing."""
    import torch

    squares = centroids.square().sum(2)[:, None, :]
    return torch.baddbmm(squares, spaces, centroids.transpose(1, 2), alpha=-2)


class DeviceCoder:
    """Finds the list and the code of rows on a device, whose memory keeps rotation, centroids and codebook.

    Where the memory does not suffice for as many rows as it is given, it takes half of them, from then on.
    """

    def __init__(self, centroids: Scores, codebook: Scores, rotation: Scores | None, *, device: str) -> None:
        """Send what all rows need.

        Args:
            centroids: (nlist, dim) list centroids.
            codebook: (codes, ksub, width).
            rotation: (dim, dim), of rows that are stored as they are; None where there is none.
            device: Torch's name of the device.

        Raises:
            MemoryError: The device has not enough memory.
        """
        import torch

        with kmeans.full_precision():
            self._centroids, self._codebook = (
                torch.from_numpy(np.ascontiguousarray(table)).to(device) for table in (centroids, codebook)
            )
            self._rotation = None if rotation is None else torch.from_numpy(rotation).to(device).T
        self._device = device
        self._at_once = max(_FEWEST_ROWS, _DISTANCES // (codebook.shape[0] * codebook.shape[1]))

    def coded(self, stored: NDArray[np.floating[Any]]) -> tuple[Ids, Codes]:
        """Return the list of each row, (n,) int64, and its packed codes, (n, bytes).

        Args:
            stored: (n, dim) rows as they are stored, not rotated; of float16 half as many bytes are sent.

        Raises:
            MemoryError: The device has not enough memory for 1,024 rows.
        """
        parts, start = [], 0
        while start < len(stored):
            try:
                parts.append(self._coded(stored[start : start + self._at_once]))
                start += self._at_once
                continue
            except MemoryError:
                if self._at_once <= _FEWEST_ROWS:
                    raise
            _give_back(self._device)
            self._at_once = max(_FEWEST_ROWS, self._at_once // 2)
        lists, codes = zip(*parts, strict=True)
        return np.concatenate(lists), np.concatenate(codes)

    def _coded(self, stored: NDArray[np.floating[Any]]) -> tuple[Ids, Codes]:
        import torch

        with kmeans.full_precision():
            rows = torch.from_numpy(np.ascontiguousarray(stored)).to(self._device).float()
            if self._rotation is not None:
                rows = rows @ self._rotation
            lists = kmeans.nearest(rows, self._centroids)
            spaces = _by_code(rows - self._centroids[lists], len(self._codebook))
            codes = _packed(_distances(spaces, self._codebook).argmin(2).T, self._codebook.shape[1])
            return lists.cpu().numpy(), codes.cpu().numpy()


def _packed(codes: torch.Tensor, ksub: int) -> torch.Tensor:
    """Return (n, bytes) of (n, codes) numbers: one to a byte, or of 4 bits two, the first in the lower half."""
    import torch

    if ksub > 16:
        return codes.to(torch.uint8)
    pairs = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2)).to(torch.uint8)
    return pairs[:, ::2] | (pairs[:, 1::2] << 4)


def _give_back(device: str) -> None:
    """Give the memory of what failed back, once nothing holds it any more."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def set_codebook(index: Any, codebook: Scores) -> None:
    """Give an `IndexIVFPQ` whose list centroids are there its codebook; it is trained then."""
    faiss.copy_array_to_vector(np.ascontiguousarray(codebook).reshape(-1), index.pq.centroids)
    index.is_trained = True


def add_codes(index: Any, ids: Ids, lists: Ids, codes: Codes) -> None:
    """Add entries whose lists and codes are known to an `IndexIVFPQ`, in the order given.

    Args:
        index: It is trained; not a FastScan one.
        ids: (n,) the row ids.
        lists: (n,) from `DeviceCoder`, as are the codes.
        codes: (n, bytes).
    """
    width = index.coarse_code_size()
    numbers = np.ascontiguousarray(lists, dtype="<i8").view(np.uint8).reshape(len(lists), 8)[:, :width]
    index.add_sa_codes(np.ascontiguousarray(np.hstack([numbers, codes])), np.ascontiguousarray(ids, dtype=np.int64))
