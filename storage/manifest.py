"""The manifest of a version: what it is, what is in it, and the checksum of each of its files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .errors import CorruptIndexError, IncompatibleIndexError, StorageError
from .files.canonical_json import build as build_value
from .files.canonical_json import canonical, parse, to_plain
from .files.layout import (
    CATALOG,
    FILE_NAMES,
    MAX_VERSION,
    TOWER_FILES,
    FileEntry,
    ann_name,
    sha256_of,
    tower_names,
    vectors_name,
    words_name,
)
from .hit_calibration import HitCalibration
from .schema import (
    TARGETS,
    Collection,
    CollectionInfo,
    CorpusInfo,
    Counts,
    Direction,
    EncoderInfo,
    EncodingInfo,
    Rounding,
    VectorDType,
)

__all__ = ["FORMAT_VERSION", "MAX_BYTES", "READER_FEATURES", "WRITER_FEATURES", "FileEntry", "Manifest"]

FORMAT_VERSION = 1
# Features that this release knows; it refuses to read, or to write after, a version that names another.
# `provenance`: the keys `encoding` and `corpus` are there; without it their values stand in the build report.
# `calibrations`: the key `calibrations` is there; without it hits have no probability.
# `text_tower` and `image_tower`: that tower of the encoder is among the files.
# `words`: each collection has a lexical index.
# `int8`: vectors take one byte a value, and the key `rounding` is there.
PROVENANCE, CALIBRATIONS, WORDS, INT8 = "provenance", "calibrations", "words", "int8"
READER_FEATURES: frozenset[str] = frozenset({PROVENANCE, CALIBRATIONS, WORDS, INT8, *TOWER_FILES})
WRITER_FEATURES: frozenset[str] = frozenset()
MAX_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CHECKSUM = "checksum"
_PROVENANCE_KEYS = frozenset({"encoding", "corpus"})
# Keys that hold something only with a feature, which then gives them a name.
_FEATURE_KEYS = {CALIBRATIONS: "calibrations", INT8: "rounding"}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One published version, as it stands in its `manifest.json`.

    Attributes:
        version: Its number.
        parent: The version that was current when it was published; None for the first.
        created_at: When, UTC, ISO 8601.
        encoder: What made the vectors; None where that is unknown.
        encoding: Prompt, backend, device and precision with which it made them.
        corpus: What it was given to encode; None for ready-made embeddings.
        calibrations: What tells, for a direction, how probable it is that a hit fits; empty where nothing does.
        collections: What it has of `images` and `texts`.
        rounding: What one byte a value took off the vectors of each collection; empty where they are float16.
        counts: Every item of the corpus, indexed or rejected.
        build: Configuration and report of the build, as JSON values, for people: nothing depends on it but the settings
            that an update takes over.
        files: Size and SHA-256 of every file of the version but this one.
        format_version: Version of the whole layout.
        reader_features: Features that one must know to read it.
        writer_features: Features that one must know to publish after it.
    """

    version: int
    parent: int | None
    created_at: str
    encoder: EncoderInfo | None
    collections: Mapping[Collection, CollectionInfo]
    counts: Counts
    build: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    encoding: EncodingInfo = field(default_factory=EncodingInfo)
    corpus: CorpusInfo | None = None
    calibrations: Mapping[Direction, HitCalibration] = field(default_factory=dict)
    rounding: Mapping[Collection, Rounding] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    reader_features: tuple[str, ...] = (PROVENANCE,)
    writer_features: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return the bytes of the file: canonical JSON, with a checksum over all the rest in it.

        Raises:
            StorageError: A value is not JSON's, or the whole is larger than 1 MiB or contradicts itself.
        """
        try:
            plain = _without_empty(_without_provenance(to_plain(self)))
            data = canonical({**plain, _CHECKSUM: sha256_of(canonical(plain))})
            self._check()
        except (TypeError, ValueError) as error:
            raise StorageError(f"version {self.version} cannot be described in its manifest: {error}") from error
        if len(data) > MAX_BYTES:
            raise StorageError(
                f"the manifest of version {self.version} has {len(data)} bytes and may have {MAX_BYTES}; "
                "keep less in its build report"
            )
        return data

    @classmethod
    def from_json(cls, data: bytes, path: str) -> Self:
        """Parse the bytes of a manifest; `path` names the file in messages.

        Raises:
            IncompatibleIndexError: A newer format, or a feature that this release does not know.
            CorruptIndexError: Anything else that `to_json` would not have written.
        """
        if len(data) > MAX_BYTES:
            raise CorruptIndexError(f"{path} has {len(data)} bytes and may have {MAX_BYTES}; build again")
        try:
            plain = parse(data)
            if not isinstance(plain, dict):
                raise ValueError("it is not an object")
            _refuse_newer(plain, path)
            checksum = plain.pop(_CHECKSUM, None)
            if checksum != sha256_of(canonical(plain)):
                raise ValueError("its own checksum does not fit")
            if data != canonical({**plain, _CHECKSUM: checksum}):
                raise ValueError("it is not written as manifests are")
            manifest: Self = build_value(cls, _with_empty(_with_provenance(plain)), "manifest")
            manifest._check()
        except (ValueError, RecursionError) as error:
            raise CorruptIndexError(
                f"{path} is damaged ({error}); roll back to another version or build again"
            ) from error
        return manifest

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers of the encoder that are among the files: `text_tower`, `image_tower`."""
        return tuple(feature for feature in self.reader_features if feature in TOWER_FILES)

    @property
    def vector_dtype(self) -> VectorDType:
        """The type of the numbers that its vectors are stored in."""
        return "int8" if INT8 in self.reader_features else "float16"

    @property
    def has_words(self) -> bool:
        """Whether each collection has a lexical index."""
        return WORDS in self.reader_features

    def expected_files(self) -> set[str]:
        """Return the names of the files that a version with these collections and features has."""
        names = {CATALOG, *map(vectors_name, self.collections)}
        names = names.union(*map(tower_names, self.towers), map(words_name, self.collections if self.has_words else ()))
        return names | {ann_name(name) for name, info in self.collections.items() if info.ann.kind != "flat"}

    def _check(self) -> None:
        """Raise ValueError where the parts contradict each other."""
        if not 1 <= self.version <= MAX_VERSION or (self.parent is not None and not 1 <= self.parent < self.version):
            raise ValueError(f"version {self.version} cannot follow {self.parent}")
        if not self.collections:
            raise ValueError("it has no collection")
        if self.towers and (self.encoder is None or self.encoder.fingerprint is None):
            raise ValueError(f"it has a {self.towers[0].replace('_', ' ')} and no encoder that this is of")
        if not set(self.files) <= FILE_NAMES or set(self.files) != self.expected_files():
            raise ValueError(f"its files are {sorted(self.files)} and should be {sorted(self.expected_files())}")
        for name, entry in self.files.items():
            if not _SHA256.fullmatch(entry.sha256):
                raise ValueError(f"the SHA-256 of {name} is {entry.sha256!r}")
        self._check_counts()
        if (CALIBRATIONS in self.reader_features) != bool(self.calibrations):
            raise ValueError(f"it has {len(self.calibrations)} calibrations and the features {self.reader_features}")
        if set(self.rounding) != (set(self.collections) if INT8 in self.reader_features else set()):
            raise ValueError(f"it has the rounding of {sorted(self.rounding)} and the features {self.reader_features}")
        for name, rounding in self.rounding.items():
            if not 0 <= rounding.within < math.inf:
                raise ValueError(f"the rounding of its {name} is within {rounding.within!r}")
        for direction, calibration in self.calibrations.items():
            if TARGETS[direction] not in self.collections:
                raise ValueError(f"it has a calibration of {direction} and nothing that this searches")
            calibration.check()

    def _check_counts(self) -> None:
        counts = self.counts
        rows = {name: self.collections[name].rows if name in self.collections else 0 for name in ("images", "texts")}
        if counts.items != counts.indexed + counts.rejected or counts.indexed != counts.images + counts.texts:
            raise ValueError(f"its counts do not add up: {counts}")
        if rows != {"images": counts.images, "texts": counts.texts}:
            raise ValueError(f"its collections have {rows} rows and its counts are {counts}")


def check_writable(manifest: Manifest, path: str) -> None:
    """Refuse to publish after a version that asks its writers for a feature this release does not know.

    Raises:
        IncompatibleIndexError: There is such a feature.
    """
    if unknown := sorted(set(manifest.writer_features) - WRITER_FEATURES):
        raise IncompatibleIndexError(
            f"{path} asks writers for the features {unknown}, and this release knows {sorted(WRITER_FEATURES)}; "
            "use a newer Twinlens"
        )


def _refuse_newer(plain: Mapping[str, Any], path: str) -> None:
    """Check the format before anything else: a newer one may have other keys."""
    version = plain.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"its format_version is {version!r}")
    if version > FORMAT_VERSION:
        raise IncompatibleIndexError(
            f"{path} has format version {version}, and this release reads up to {FORMAT_VERSION}; use a newer Twinlens"
        )
    features = plain.get("reader_features")
    if not isinstance(features, list):
        raise ValueError(f"its reader_features are {features!r}")
    if unknown := sorted({str(name) for name in features} - READER_FEATURES):
        raise IncompatibleIndexError(
            f"{path} needs the features {unknown}, and this release knows {sorted(READER_FEATURES)}; "
            "use a newer Twinlens"
        )


def _without_provenance(plain: dict[str, Any]) -> dict[str, Any]:
    """Leave the keys of the feature `provenance` out of a manifest that was written without it."""
    if PROVENANCE in plain["reader_features"]:
        return plain
    return {key: value for key, value in plain.items() if key not in _PROVENANCE_KEYS}


def _with_provenance(plain: dict[str, Any]) -> dict[str, Any]:
    """Fill in, from the build report, the keys that a manifest written before the feature `provenance` lacks."""
    if PROVENANCE in plain["reader_features"]:
        return plain
    if given := sorted(_PROVENANCE_KEYS & plain.keys()):
        raise ValueError(f"manifest has {given} without the feature {PROVENANCE!r}")
    report = _object(plain.get("build"))
    config = _object(report.get("config"))
    root, digest = _text(report.get("root")), _text(report.get("corpus_digest"))
    if root is None or digest is None:
        return {**plain, "encoding": to_plain(EncodingInfo(prompt=_text(config.get("prompt")))), "corpus": None}
    encoding = EncodingInfo(
        prompt=_text(config.get("prompt")),
        backend="torch",  # there was no other
        device=_chosen(config.get("device")),
        precision=_chosen(config.get("precision")),
    )
    corpus = CorpusInfo(root=root, digest=digest, staging=_text(report.get("staging")))
    return {**plain, "encoding": to_plain(encoding), "corpus": to_plain(corpus)}


def _without_empty(plain: dict[str, Any]) -> dict[str, Any]:
    """Leave the keys of features that a manifest does not have, and that hold nothing, out of it."""
    absent = {key for feature, key in _FEATURE_KEYS.items() if feature not in plain["reader_features"]}
    return {key: value for key, value in plain.items() if key not in absent or value}


def _with_empty(plain: dict[str, Any]) -> dict[str, Any]:
    for feature, key in _FEATURE_KEYS.items():
        if feature in plain["reader_features"]:
            continue
        if key in plain:
            raise ValueError(f"manifest has {key!r} without the feature {feature!r}")
        plain = {**plain, key: {}}
    return plain


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _chosen(value: Any) -> str | None:
    """Return a setting, but None for `auto`: what that came to was not recorded."""
    return None if value == "auto" else _text(value)
