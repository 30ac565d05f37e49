"""Items of one side, ready for the part of a tower that is trained: from a cache where it fits, else computed anew."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from encoders.device import Placement
from encoders.preprocess import Preprocess
from encoders.transfer import Transfer
from encoders.two_towers import Tokenizer

from .batches import Items
from .examples import decode
from .tower_split import TextTower, Tower

# The share of the image that is kept, and how far its sides may change against each other. Captions name what is
# at the edges too, so crops stay large; classifiers go down to a share of 0.08.
SHARE = (0.6, 1.0)
RATIO = (0.8, 1.25)


def augmented(image: Image.Image, seed: tuple[int, ...]) -> Image.Image:
    """Return a random crop of 60 to 100 % of an image, mirrored half of the time; the same for the same seed."""
    rng = np.random.default_rng(seed)
    share, ratio = rng.uniform(*SHARE), math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    width = min(image.width, max(1, round(image.width * math.sqrt(share * ratio))))
    height = min(image.height, max(1, round(image.height * math.sqrt(share / ratio))))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    crop = image.crop((left, top, left + width, top + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


# Draw 0 is the image as it is searched with; the others are augmented.
PLAIN = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """The trained part of a tower: everything from block `cut` on; None where nothing is frozen."""

    tower: Tower
    cut: int | None
    placement: Placement

    def lower(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the frozen part's output, without a graph."""
        with torch.no_grad(), self.autocast():
            return raw if self.cut is None else self.tower.lower(raw, self.cut)

    def features(self, hidden: torch.Tensor, raw: torch.Tensor | None) -> torch.Tensor:
        """Return (n, dim) unit rows."""
        with self.autocast():
            if self.cut is None:
                hidden = self.tower.lower(hidden, 0)
            features = self.tower.upper(hidden, raw, self.cut or 0)
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def autocast(self) -> torch.autocast:
        """Return the context of mixed precision; of none in fp32."""
        device = self.placement
        return torch.autocast(device.kind, dtype=device.dtype, enabled=device.precision != "fp32")


class Feed(Protocol):
    """Gives what a tower's trained part starts from."""

    part: Part

    def __len__(self) -> int:
        """Return how many items there are."""

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions in `rows` in an order in which neighbours cost the same."""

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (hidden, raw) of some items on the device; a draw other than 0 is one augmented view of an image."""


def _fits(hidden: torch.Tensor) -> bool:
    """Whether hidden states can be kept in float16; others, which bf16 and fp32 may give, are computed each time."""
    return bool(hidden.abs().max() <= torch.finfo(torch.float16).max)


class TextFeed:
    """Texts: tokenised once, hidden states cached where the lower blocks are frozen."""

    def __init__(self, items: Items, part: Part, tower: TextTower, tokenizer: Tokenizer) -> None:
        self.part = part
        texts = [str(content) for content in items.contents]
        blocks = [tokenizer(texts[start : start + 1024]) for start in range(0, len(texts), 1024)]
        self._ids = torch.cat(blocks).to(torch.int32)
        self._lengths = tower.lengths(self._ids)
        self._hidden: torch.Tensor | None = None
        self._sent = Transfer(part.placement.device)
        self._starts = torch.cumsum(self._lengths, 0) - self._lengths

    def __len__(self) -> int:
        return len(self._ids)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions by length, so that no short text is computed at the length of a long one."""
        return np.argsort(self._lengths.numpy()[rows], kind="stable")

    def fill(self, budget: int, batch: int) -> Iterator[int]:
        """Compute the cache where it fits the bytes given, yielding how many texts are done."""
        if self.part.cut is None:
            return
        order = self.order(np.arange(len(self)))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            hidden = self.part.lower(self._raw(rows)).cpu()
            if not _fits(hidden):
                self._hidden = None
                return
            if self._hidden is None:
                total = (int(self._lengths.sum()), hidden.shape[-1])
                if total[0] * total[1] * 2 > budget:
                    return
                self._hidden = torch.empty(total, dtype=torch.float16)
            self._keep(rows, hidden)
            yield min(len(order), start + batch)

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (n, tokens, width) hidden states, or token ids where nothing is frozen, and the token ids."""
        raw = self._raw(rows)
        if self._hidden is None:
            return self.part.lower(raw), raw
        hidden = torch.zeros((*raw.shape, self._hidden.shape[-1]))
        for index, row in enumerate(rows.tolist()):
            start, length = int(self._starts[row]), int(self._lengths[row])
            hidden[index, :length] = self._hidden[start : start + length]
        return self._sent(hidden), raw

    def _raw(self, rows: np.ndarray) -> torch.Tensor:
        length = int(self._lengths[rows].max())
        return self._sent(self._ids[rows][:, :length].long())

    def _keep(self, rows: np.ndarray, hidden: torch.Tensor) -> None:
        cache: Any = self._hidden
        for index, row in enumerate(rows.tolist()):
            start, length = int(self._starts[row]), int(self._lengths[row])
            cache[start : start + length] = hidden[index, :length]


class ImageFeed:
    """Images: each view of each image cached where the lower blocks are frozen, else decoded anew for each batch."""

    def __init__(self, items: Items, part: Part, preprocess: Preprocess, seed: int) -> None:
        self.part = part
        self._contents = items.contents
        self._preprocess = preprocess
        self._seed = seed
        self._views: list[torch.Tensor] = []
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._begun: dict[tuple[int, int], Future[np.ndarray]] = {}
        self._sent = Transfer(part.placement.device)
        # A GPU gets bytes and makes floats of them; on a CPU the threads that decode do that too.
        self._as_bytes = part.placement.kind != "cpu"
        self._table = torch.from_numpy(preprocess.table).to(part.placement.device)

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def cached_views(self) -> int:
        """How many looks at each image are cached; 0 for none."""
        return len(self._views)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions as they are: all images cost the same."""
        return np.arange(len(rows))

    def fill(self, budget: int, batch: int, views: int) -> Iterator[int]:
        """Compute the cache where it fits the bytes given, yielding how many views are done."""
        if self.part.cut is None:
            return
        for draw in range(views):
            for start in range(0, len(self), batch):
                rows = np.arange(start, min(len(self), start + batch))
                hidden = self.part.lower(self._pixels(rows, np.full(len(rows), draw))).cpu()
                if not _fits(hidden):
                    return
                if start == 0:
                    total = (len(self), *hidden.shape[1:])
                    if 2 * int(np.prod(total)) * (draw + 1) > budget:
                        return
                    view = torch.empty(total, dtype=torch.float16)
                view[rows] = hidden.half()
                yield draw * len(self) + int(rows[-1]) + 1
            self._views.append(view)

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return hidden states, or pixels where nothing is frozen; with a cache a draw is taken modulo its views."""
        if not self._views:
            return self.part.lower(self._pixels(rows, draws)), None
        views = draws % len(self._views)
        hidden = torch.stack([self._views[view][row] for view, row in zip(views.tolist(), rows.tolist(), strict=True)])
        return self._sent(hidden).float(), None

    def expect(self, rows: np.ndarray, draws: np.ndarray) -> None:
        """Begin to decode images that will be fetched; does nothing where they are cached."""
        if not self._views:
            for key in zip(rows.tolist(), draws.tolist(), strict=True):
                self._begun[key] = self._begun.get(key) or self._pool.submit(self._one, *key)

    def _pixels(self, rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        keys = list(zip(rows.tolist(), draws.tolist(), strict=True))
        begun = [self._begun.pop(key) if key in self._begun else self._pool.submit(self._one, *key) for key in keys]
        pixels = self._sent(torch.from_numpy(np.stack([one.result() for one in begun])))
        return scaled(pixels, self._table) if self._as_bytes else pixels.to(memory_format=torch.channels_last)

    def _one(self, row: int, draw: int) -> np.ndarray:
        image = decode(self._contents[row]).pixels
        if draw != PLAIN:
            image = augmented(image, (self._seed, row, draw))
        return self._preprocess.byte_pixels(image) if self._as_bytes else self._preprocess(image)


def scaled(pixels: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return (n, 3, H, W) bytes as the float32 that (3, 256) `table` has for them, channels last, on their device."""
    wide = torch.empty(pixels.shape, device=pixels.device, memory_format=torch.channels_last)
    for channel in range(len(table)):
        wide[:, channel] = table[channel][pixels[:, channel].int()]
    return wide


def embed(feed: Feed, batch: int, some: np.ndarray | None = None) -> np.ndarray:
    """Return (n, dim) float32 unit rows of all items, or of some rows, as they are searched with, in their order."""
    chosen = np.arange(len(feed)) if some is None else some
    rows: Sequence[np.ndarray] = np.array_split(feed.order(chosen), max(1, -(-len(chosen) // batch)))
    with torch.no_grad():
        fetched = (feed.fetch(chosen[part], np.zeros(len(part), np.int64)) for part in rows)
        parts = [feed.part.features(*one).cpu().numpy() for one in fetched]
    ordered = np.concatenate(parts)
    vectors = np.empty_like(ordered)
    vectors[np.concatenate(rows)] = ordered
    return vectors
