"""Small frozen values that describe an index; the manifest holds them exactly as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, Literal, get_args, get_type_hints

Collection = Literal["images", "texts"]
Modality = Literal["text", "image"]
Direction = Literal["text_to_image", "image_to_text", "image_to_image", "text_to_text"]
VectorDType = Literal["float16", "int8"]
AnnKind = Literal["flat", "ivf-flat", "ivf-pq", "ivf-pq4", "ivf-rabitq", "hnsw"]

COLLECTIONS: tuple[Collection, ...] = get_args(Collection)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
ANN_KINDS: tuple[AnnKind, ...] = get_args(AnnKind)

# What each direction searches with, and the collection that it searches.
SIDES: Mapping[Direction, tuple[Modality, Collection]] = {
    "text_to_image": ("text", "images"),
    "image_to_image": ("image", "images"),
    "image_to_text": ("image", "texts"),
    "text_to_text": ("text", "texts"),
}
TARGETS: Mapping[Direction, Collection] = {direction: target for direction, (_, target) in SIDES.items()}
MODALITIES: Mapping[Collection, Modality] = {"images": "image", "texts": "text"}


def direction_of(modality: Modality, target: Collection) -> Direction:
    """Return the direction that searches a collection with queries of a modality."""
    return next(direction for direction, sides in SIDES.items() if sides == (modality, target))


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What an index remembers of the encoder that made its vectors.

    `fingerprint` is a SHA-256 over weights, preprocessing, tokenizer, dim and normalisation: two encoders with the same
    fingerprint give vectors that may be compared. It is None for ready-made embeddings of unknown origin.
    """

    spec: str
    dim: int
    fingerprint: str | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What is known of one image; each field is a column of the catalog, of the Arrow type that stands beside it.

    Whoever opens images fills it in, and it travels unchanged to the catalog. A new field goes to the end and gets a
    default, which also says that catalogs written before it have no such column.

    Attributes:
        width: Pixels across in the file, as displayed (after EXIF orientation); None where there are no pixels.
        height: Pixels down in the file, as displayed; None where there are no pixels.
        sha256: Of the file's bytes; of the pixels or features where there is no file.
        file_bytes: Length of the file; 0 where there is no file, None where it is not known.
        mtime_ns: When the file was last modified; None where it is not known, or outside of the years 1678 to 2261,
            which 64 bits of nanoseconds reach.
        perceptual_hash: 64 bits of what it looks like, of which copies differ in few, as a signed number; None where
            there are no pixels, where they have no contrast, and where the image was indexed before there were such
            hashes.
        taken_at: When it was taken, by the clock where it was taken, as the file's metadata says (EXIF, XMP, IPTC; so
            all that follow). None where the file does not say; that goes for all of them.
        taken_at_offset: How many minutes that clock is ahead of UTC.
        latitude: Degrees north.
        longitude: Degrees east.
        altitude: Metres above the sea.
        camera: Maker and model.
        lens: As the file calls it.
        focal_length: Millimetres.
        f_number: Focal length over aperture.
        iso: Sensitivity.
        exposure: Seconds.
        rating: Stars, 1 to 5; -1 for rejected.
        keywords: Tags.
        title: In a few words.
    """

    width: Annotated[int | None, "int32"]
    height: Annotated[int | None, "int32"]
    sha256: Annotated[str, "string"]
    file_bytes: Annotated[int | None, "int64"]
    mtime_ns: Annotated[int | None, "int64"]
    perceptual_hash: Annotated[int | None, "int64"] = None
    taken_at: Annotated[datetime | None, "timestamp[us]"] = None
    taken_at_offset: Annotated[int | None, "int32"] = None
    latitude: Annotated[float | None, "float64"] = None
    longitude: Annotated[float | None, "float64"] = None
    altitude: Annotated[float | None, "float64"] = None
    camera: Annotated[str | None, "string"] = None
    lens: Annotated[str | None, "string"] = None
    focal_length: Annotated[float | None, "float64"] = None
    f_number: Annotated[float | None, "float64"] = None
    iso: Annotated[int | None, "int32"] = None
    exposure: Annotated[float | None, "float64"] = None
    rating: Annotated[int | None, "int32"] = None
    keywords: Annotated[tuple[str, ...] | None, "list<string>"] = None
    title: Annotated[str | None, "string"] = None

    def __post_init__(self) -> None:
        if self.mtime_ns is not None and not -(2**63) <= self.mtime_ns < 2**63:
            object.__setattr__(self, "mtime_ns", None)


_HINTS = get_type_hints(ImageInfo, include_extras=True)
IMAGE_INFO_COLUMNS: Mapping[str, str] = {one.name: _HINTS[one.name].__metadata__[0] for one in fields(ImageInfo)}
"""The Arrow type of each field of `ImageInfo`, in order."""
ITEM_COLUMNS: Mapping[str, str] = {"row_id": "int64", "item_id": "string", "uri": "string", "caption": "string"}
"""What every item of a catalog has, with its Arrow type: a hit shows these in fields of their own."""
LATER_COLUMNS = frozenset(one.name for one in fields(ImageInfo) if one.default is not MISSING)
"""Columns that a catalog may lack: an older one, or one of a user who has a column of that name."""
TOLD_COLUMNS = LATER_COLUMNS - {"perceptual_hash"}
"""What image files say of themselves: where the user has a column of that name it counts, and the file's does not."""


@dataclass(frozen=True, kw_only=True)
class EncodingInfo:
    """How a build had the encoder compute the vectors; None wherever that is unknown.

    Attributes:
        prompt: The template that every text went through, as `a photo of {}`; None where texts were encoded as they
            are. Text queries go through the same one, since it changes every score.
        backend: The library that ran the model, e.g. `torch`.
        device: Where it ran, e.g. `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`. An update may have taken over vectors that were computed in another.
    """

    prompt: str | None = None
    backend: str | None = None
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class CorpusInfo:
    """The corpus that an encoder read for a version; ready-made embeddings have none.

    Attributes:
        root: The folder that relative image paths start from.
        digest: SHA-256 over all items as the build saw them; an update compares it to see that nothing has changed.
        staging: The fingerprint of the build, by which its folder below `staging/` is named; None where unknown.
    """

    root: str
    digest: str
    staging: str | None = None


@dataclass(frozen=True, kw_only=True)
class AnnPlan:
    """How the approximate index of one collection was made.

    Attributes:
        kind: The family. `flat` compares every vector and needs no training.
        factory: The FAISS factory string, as trained, e.g. `IVF1024,PQ128x4fsr`; empty for `flat`, which has no file.
        nlist: Inverted lists; 0 where the kind has none. Usual range: 1 to 16 times the square root of the rows.
        train_rows: How many rows the quantisers were trained on; 0 where nothing was trained.
        seed: Seed of the training sample and of k-means.
        spilled: Entries beyond one a row: rows that stand in a second list as well, because queries look for them
            there. 0 to a tenth of the rows is usual; each costs as much memory as a row.
    """

    kind: AnnKind
    factory: str = ""
    nlist: int = 0
    train_rows: int = 0
    seed: int = 0
    spilled: int = 0


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One measured setting of a search: what it costs and what it finds.

    Attributes:
        k: The number of hits it was measured with.
        nprobe: Lists visited a query at most (`efSearch` for `hnsw`, 0 for `flat`). Recall and cost rise together.
        oversample: Candidates a query are `k * oversample`; all are re-ranked exactly. 4-32 is usual with PQ codes.
        ann_recall: Share of the exact top k that was found, mean over the tuning queries.
        ms_per_query: Wall milliseconds for one query at a time, re-rank included, on the building machine.
    """

    k: int
    nprobe: int
    oversample: int
    ann_recall: float
    ms_per_query: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The Pareto front of operating points of one direction, cheapest first, and what it was measured with.

    `query_source` says where the queries came from: `corpus` (the index's own captions or images), `bank` (generic
    captions), or `given` (a file of query vectors).
    """

    query_source: str
    queries: int
    points: tuple[OperatingPoint, ...]


@dataclass(frozen=True, kw_only=True)
class CollectionInfo:
    """One collection of an index: its rows, its approximate index, and what each direction into it measured."""

    rows: int
    ann: AnnPlan
    tuning: Mapping[Direction, Tuning] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What storing one byte a value in place of a float16 changed of the vectors of a collection.

    Attributes:
        within: No score, of any query of unit length, is further than this from what it would be with the vector as
            float16: the largest length of what rounding took off a row, as the Cauchy-Schwarz inequality has it.
            Scores of real queries differ by a quarter of it at most and by a twentieth as a rule, see docs/encode.md.
    """

    within: float

    @classmethod
    def of(cls, lost: float) -> Rounding:
        """Return the rounding that took at most a length of `lost` off each row, rounded up."""
        return cls(within=math.ceil(lost * 1e5 + 0.1) / 1e5)  # a tenth for what adding up the length rounds


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Every item is accounted for: `items = indexed + rejected`, `indexed = images + texts`."""

    items: int
    indexed: int
    rejected: int
    images: int
    texts: int
    pairs: int
