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

    @property
    def full(self) -> bool:
        """Whether the memory for what frozen blocks give is used up."""

    @property
    def cached_views(self) -> int:
        """How many views of each item are cached; 0 for none."""

    def __len__(self) -> int:
        """Return how many items there are."""

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions in `rows` in an order in which neighbours cost the same."""

    def fill(self, rows: np.ndarray, batch: int) -> Iterator[int]:
        """Compute the cache of some items, yielding how many are done; of none where they are not cached."""

    def take(self, rows: np.ndarray) -> None:
        """Number the items anew: those at `rows`, in that order, are the only ones."""

    def uncache(self) -> None:
        """Compute everything when it is fetched."""

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (hidden, raw) of some items on the device; a draw other than 0 is one augmented view of an image."""


class HiddenCache:
    """What frozen blocks give for items, in float16 and one after another in one block of memory.

    Args:
        lengths: Rows of each item: the tokens of a text, 1 for an image.
        budget: Bytes.
        partly: Whether to keep what fits; else nothing is kept where not everything fits.

    Attributes:
        full: Whether there was no room for what came last.
        off: Whether nothing is kept: there is no room, or values are too large for float16, as bf16 and fp32 may give.
    """

    def __init__(self, lengths: np.ndarray, budget: int, partly: bool) -> None:
        self._lengths, self._budget, self._partly = lengths, budget, partly
        self._starts = np.full(len(lengths), -1)
        self._used = 0
        self._values: torch.Tensor | None = None
        self.full = self.off = False

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self._values is None else 2 * self._used * self._values[0].numel()

    def keep(self, rows: np.ndarray, hidden: torch.Tensor) -> None:
        """Keep (n, longest, ...) hidden states of some items."""
        if self.full or self.off:
            return
        self.off = not bool(hidden.abs().max() <= torch.finfo(torch.float16).max)
        if not self.off and self._values is None:
            self._reserve(hidden)
        if self.off or self._values is None:
            self._values = None
            return
        ends = self._used + np.cumsum(self._lengths[rows])
        self.full = bool(ends[-1] > len(self._values))
        if self.full:
            return
        self._starts[rows] = ends - self._lengths[rows]
        for index, (start, end) in enumerate(zip(self._starts[rows].tolist(), ends.tolist(), strict=True)):
            self._values[start:end] = hidden[index, : end - start]
        self._used = int(ends[-1])

    def get(self, rows: np.ndarray) -> torch.Tensor:
        """Return (n, longest, ...) hidden states of some items in float32, with zeros behind the shorter ones."""
        values: Any = self._values
        lengths = self._lengths[rows]
        hidden = torch.zeros((len(rows), int(lengths.max()), *values.shape[1:]))
        for index, (start, length) in enumerate(zip(self._starts[rows].tolist(), lengths.tolist(), strict=True)):
            hidden[index, :length] = values[start : start + length]
        return hidden

    def switch_off(self) -> None:
        """Keep nothing, neither what is there nor what comes."""
        self.off, self.full, self._values = True, False, None

    def take(self, rows: np.ndarray) -> None:
        """Number the items anew: those at `rows`, in that order, are the only ones."""
        self._lengths, self._starts = self._lengths[rows], self._starts[rows]

    def _reserve(self, hidden: torch.Tensor) -> None:
        room = self._budget // (2 * hidden[0, 0].numel())
        whole = int(self._lengths.sum())
        self.off = room < whole and not self._partly
        if not self.off:
            self._values = torch.empty((min(room, whole), *hidden.shape[2:]), dtype=torch.float16)


class TextFeed:
    """Texts: tokenised once, hidden states cached where the lower blocks are frozen."""

    def __init__(
        self, items: Items, part: Part, tower: TextTower, tokenizer: Tokenizer, budget: int, *, partly: bool = False
    ) -> None:
        self.part = part
        texts = [str(content) for content in items.contents]
        blocks = [tokenizer(texts[start : start + 1024]) for start in range(0, len(texts), 1024)]
        self._ids = torch.cat(blocks).to(torch.int32)
        self._lengths = tower.lengths(self._ids)
        self._cache = HiddenCache(self._lengths.numpy(), budget, partly)
        self._cache.off = part.cut is None
        self._sent = Transfer(part.placement.device)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def full(self) -> bool:
        """Whether the memory for hidden states is used up."""
        return self._cache.full

    @property
    def cached_views(self) -> int:
        """1 where hidden states are cached, else 0."""
        return int(not self._cache.off)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions by length, so that no short text is computed at the length of a long one."""
        return np.argsort(self._lengths.numpy()[rows], kind="stable")

    def fill(self, rows: np.ndarray, batch: int) -> Iterator[int]:
        """Compute the cache of some texts, yielding how many are done; of none where they are not cached."""
        ordered = rows[self.order(rows)]
        for start in range(0, len(ordered), batch):
            if self._cache.off or self._cache.full:
                return
            some = ordered[start : start + batch]
            self._cache.keep(some, self.part.lower(self._raw(some)).cpu())
            yield start + len(some)

    def take(self, rows: np.ndarray) -> None:
        """Number the texts anew: those at `rows`, in that order, are the only ones."""
        self._ids, self._lengths = self._ids[rows], self._lengths[rows]
        self._cache.take(rows)

    def uncache(self) -> None:
        """Compute everything when it is fetched."""
        self._cache.switch_off()

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (n, tokens, width) hidden states, or token ids where nothing is frozen, and the token ids."""
        raw = self._raw(rows)
        if self._cache.off:
            return self.part.lower(raw), raw
        return self._sent(self._cache.get(rows)), raw

    def _raw(self, rows: np.ndarray) -> torch.Tensor:
        length = int(self._lengths[rows].max())
        return self._sent(self._ids[rows][:, :length].long())


class ImageFeed:
    """Images: each view of each image cached where the lower blocks are frozen, else decoded anew for each batch."""

    def __init__(
        self, items: Items, part: Part, preprocess: Preprocess, seed: int, budget: int, *, partly: bool = False
    ) -> None:
        self.part = part
        self._contents = list(items.contents)
        self._preprocess = preprocess
        self._seed = seed
        self._budget = budget
        self._views = [HiddenCache(np.ones(len(items), np.int64), budget, partly)]
        self._views[PLAIN].off = part.cut is None
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._begun: dict[tuple[int, int], Future[np.ndarray]] = {}
        self._sent = Transfer(part.placement.device)
        # A GPU gets bytes and makes floats of them; on a CPU the threads that decode do that too.
        self._as_bytes = part.placement.kind != "cpu"
        self._table = torch.from_numpy(preprocess.table).to(part.placement.device)

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def full(self) -> bool:
        """Whether the memory for hidden states is used up."""
        return self._views[PLAIN].full

    @property
    def cached_views(self) -> int:
        """How many views of each image are cached, the plain one included; 0 for none."""
        return 0 if self._views[PLAIN].off else len(self._views)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions as they are: all images cost the same."""
        return np.arange(len(rows))

    def fill(self, rows: np.ndarray, batch: int) -> Iterator[int]:
        """Compute the cache of some plain images, yielding how many are done; of none where they are not cached."""
        yield from self._fill(self._views[PLAIN], rows, batch, PLAIN)

    def add_view(self, batch: int) -> Iterator[int]:
        """Cache an augmented view of each image, yielding how many are done; it counts once all are."""
        used = sum(view.nbytes for view in self._views)
        view = HiddenCache(np.ones(len(self), np.int64), self._budget - used, False)
        yield from self._fill(view, np.arange(len(self)), batch, len(self._views))
        if not view.off:
            self._views.append(view)

    def take(self, rows: np.ndarray) -> None:
        """Number the images anew: those at `rows`, in that order, are the only ones."""
        self._contents = [self._contents[row] for row in rows.tolist()]
        for view in self._views:
            view.take(rows)

    def uncache(self) -> None:
        """Compute everything when it is fetched."""
        self._views = self._views[:1]
        self._views[PLAIN].switch_off()

    def fetch(self, rows: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return hidden states, or pixels where nothing is frozen; with a cache a draw is taken modulo its views."""
        if self._views[PLAIN].off:
            return self.part.lower(self._pixels(rows, draws)), None
        views = draws % len(self._views)
        hidden = torch.empty(0)
        for number in np.unique(views).tolist():
            chosen = np.flatnonzero(views == number)
            found = self._views[number].get(rows[chosen])[:, 0]
            hidden = hidden if len(hidden) else torch.empty((len(rows), *found.shape[1:]))
            hidden[chosen] = found
        return self._sent(hidden), None

    def expect(self, rows: np.ndarray, draws: np.ndarray) -> None:
        """Begin to decode images that will be fetched; does nothing where they are cached."""
        if self._views[PLAIN].off:
            for key in zip(rows.tolist(), draws.tolist(), strict=True):
                self._begun[key] = self._begun.get(key) or self._pool.submit(self._one, *key)

    def _fill(self, view: HiddenCache, rows: np.ndarray, batch: int, draw: int) -> Iterator[int]:
        for start in range(0, len(rows), batch):
            if view.off or view.full:
                return
            some = rows[start : start + batch]
            view.keep(some, self.part.lower(self._pixels(some, np.full(len(some), draw))).cpu()[:, None])
            yield start + len(some)

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
