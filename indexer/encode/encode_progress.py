"""How far encoding is: images and texts told apart, and when it will be over, from the first batch on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ..progress import Progress
from .shards import IMAGE_COST, TEXT_COST, Corpus

WAITING, IMAGES, TEXTS, WRITING = "reading and decoding images", "encoding images", "encoding texts", "writing"
"""What the thread in the foreground waits for."""

# What a text takes of an image, with any model. The first batches, of which some are computed behind others, say less.
LEAST_SHARE, MOST_SHARE = 1 / 32, 1 / 2


@dataclass(kw_only=True)
class EncodeProgress:
    """Counts what is done, and tells a `Progress`.

    A text takes a fraction of what an image takes, and a shard's texts come after its images: a rate over both would be
    wrong by turns. So the rest is reckoned in images, each text as the share of one that it was measured to take.

    Attributes:
        progress: Whom to tell.
        corpus: What there is in all.
        stages: Seconds that the foreground has waited for each stage; kept up to date by others.
        images: Images done, however that came.
        texts: Texts done.
    """

    progress: Progress
    corpus: Corpus
    stages: Mapping[str, float]
    images: int = 0
    texts: int = 0
    _resumed: tuple[int, int] = (0, 0)
    _began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Begin the stage; what is done before does not count for its rate."""
        self._began = time.monotonic()
        self.progress.stage("encode", self.corpus.items)

    def add(self, *, images: int = 0, texts: int = 0, unreadable: int = 0, hint: str = "") -> None:
        """Add items that are done, in a few words why it takes as long as it does."""
        self.images += images
        self.texts += texts
        counts = ((self.images, self.corpus.images, "images"), (self.texts, self.corpus.texts, "texts"))
        said = [f"{min(done, total):,} of {total:,} {name}" for done, total, name in counts if total]
        said = said if len(said) > 1 else []
        self.progress.advance(images + texts + unreadable, ", ".join([*said, *([hint] if hint else [])]), self.left())

    def add_shard(self, table: pa.Table, hint: str, *, resumed: bool = False) -> None:
        """Add all items of a finished shard; `resumed` for one that an earlier run has finished."""
        texts = int(pc.sum(pc.equal(table.column("collection"), "texts")).as_py() or 0)
        images = table.num_rows - texts
        if resumed:
            self._resumed = (self._resumed[0] + images, self._resumed[1] + texts)
        self.add(images=images, texts=texts, hint=hint)

    def left(self, now: float | None = None) -> float | None:
        """Return the seconds until everything is encoded; None while nothing tells how fast it goes."""
        images, texts = self.images - self._resumed[0], self.texts - self._resumed[1]
        share = self._share(images, texts)
        done = images + texts * share
        if not done:
            return None
        to_do = max(self.corpus.images - self.images, 0) + max(self.corpus.texts - self.texts, 0) * share
        return to_do * ((time.monotonic() if now is None else now) - self._began) / done

    def _share(self, images: int, texts: int) -> float:
        """What a text takes of the time of an image: as measured, or as is usual while one of them is yet to come."""
        for_images, for_texts = self.stages[WAITING] + self.stages[IMAGES], self.stages[TEXTS]
        if not (images and texts and for_images and for_texts):
            return TEXT_COST / IMAGE_COST
        measured = (for_texts / texts) / (for_images / images)
        return min(max(measured, LEAST_SHARE), MOST_SHARE)
