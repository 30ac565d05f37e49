from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import collections, counts

from storage import AnnPlan, EncoderInfo, Manifest
from storage.errors import CorruptIndexError, IncompatibleIndexError, StorageError
from storage.files.canonical_json import canonical
from storage.files.layout import TOWER_FILES, FileEntry, sha256_of
from storage.hit_calibration import HitCalibration, HitCurve
from storage.manifest import CALIBRATIONS, INT8, MAX_BYTES, PROVENANCE, check_writable
from storage.schema import Collection, CorpusInfo, Counts, Direction, EncodingInfo, Rounding

ENTRY = FileEntry(bytes=3, sha256="a" * 64)
FILES = ("catalog.duckdb", "images/vectors.arrow", "images/ann.faiss", "texts/vectors.arrow")
MANIFEST = Manifest(
    version=2,
    parent=1,
    created_at="2026-01-02T03:04:05+00:00",
    encoder=EncoderInfo(spec="lite", dim=8, fingerprint=None, details={"tau": 1.5, "names": ["a"]}),
    collections=collections(4, AnnPlan(kind="hnsw", factory="HNSW32")),  # type: ignore[arg-type]
    counts=counts(4),
    build={"seconds": 1.5, "nested": {"ü": [None, True, 10**18]}},
    files=dict.fromkeys(FILES, ENTRY),
    encoding=EncodingInfo(prompt="a photo of {}", backend="torch", device="cuda", precision="fp16"),
    corpus=CorpusInfo(root="/corpus", digest="c" * 64, staging="5" * 32),
)


def changed(**values: Any) -> bytes:
    """The manifest's file with some of its keys changed, and its own checksum made to fit."""
    plain = {**json.loads(MANIFEST.to_json()), **values}
    plain = {key: value for key, value in plain.items() if value != "absent" and key != "checksum"}
    return canonical({**plain, "checksum": sha256_of(canonical(plain))})


def test_a_manifest_comes_back_equal_and_in_the_same_bytes() -> None:
    data = MANIFEST.to_json()
    assert Manifest.from_json(data, "here") == MANIFEST
    assert Manifest.from_json(data, "here").to_json() == data
    assert asdict(MANIFEST)["counts"]["items"] == 9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(build=st.dictionaries(st.text(), JSON, max_size=4), parent=st.none() | st.integers(1, 8))
def test_any_report_of_a_build_survives(build: dict[str, Any], parent: int | None) -> None:
    manifest = replace(MANIFEST, build=build, parent=parent, version=9)
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


def test_the_bytes_do_not_depend_on_the_order_of_keys() -> None:
    turned = replace(MANIFEST, files=dict(reversed(MANIFEST.files.items())))
    assert turned.to_json() == MANIFEST.to_json()


def test_numbers_of_numpy_are_numbers() -> None:
    manifest = replace(MANIFEST, build={"seconds": np.float32(0.5), "rows": np.int64(3), "pair": (1, 2)})
    assert Manifest.from_json(manifest.to_json(), "here").build == {"seconds": 0.5, "rows": 3, "pair": [1, 2]}


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(MANIFEST.to_json()) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(MANIFEST.to_json())
    data[place] ^= 1 << bit
    with pytest.raises((CorruptIndexError, IncompatibleIndexError), match="here"):
        Manifest.from_json(bytes(data), "here")


def test_a_newer_format_is_refused_saying_both() -> None:
    message = "here has format version 7, and this release reads up to 1; use a newer Twinlens"
    with pytest.raises(IncompatibleIndexError, match=message):
        Manifest.from_json(changed(format_version=7, something_new=1, counts="absent"), "here")


def before_provenance(**values: Any) -> bytes:
    """The manifest's file as releases without the feature `provenance` wrote it."""
    return changed(**{"reader_features": [], "encoding": "absent", "corpus": "absent", **values})


def test_an_older_manifest_is_filled_in_from_its_build_report() -> None:
    config = {"prompt": "a photo of {}", "device": "cuda", "precision": "fp16", "seed": 0}
    build = {"config": config, "root": "/corpus", "corpus_digest": "c" * 64, "staging": "5" * 32}
    data = before_provenance(build=build)
    manifest = Manifest.from_json(data, "here")
    assert (manifest.encoding, manifest.corpus) == (MANIFEST.encoding, MANIFEST.corpus)
    assert manifest.build == build
    assert manifest.to_json() == data


@pytest.mark.parametrize(
    ("build", "encoding", "corpus"),
    [
        ({}, EncodingInfo(), None),
        ({"config": {"prompt": None, "device": "auto", "precision": "auto"}}, EncodingInfo(), None),
        ({"config": {"prompt": "of {}"}, "corpus_digest": "c"}, EncodingInfo(prompt="of {}"), None),
        ({"config": [], "root": 3, "corpus_digest": "c"}, EncodingInfo(), None),
        (
            {"config": {"device": "auto", "precision": "bf16"}, "root": "/a", "corpus_digest": "c"},
            EncodingInfo(backend="torch", precision="bf16"),
            CorpusInfo(root="/a", digest="c"),
        ),
    ],
)
def test_what_an_older_build_report_does_not_say_is_unknown(
    build: dict[str, Any], encoding: EncodingInfo, corpus: CorpusInfo | None
) -> None:
    manifest = Manifest.from_json(before_provenance(build=build), "here")
    assert (manifest.encoding, manifest.corpus) == (encoding, corpus)


def test_a_manifest_is_written_with_the_feature_that_its_keys_need() -> None:
    plain = json.loads(MANIFEST.to_json())
    assert plain["reader_features"] == [PROVENANCE]
    assert plain["encoding"]["prompt"] == "a photo of {}"
    assert plain["corpus"] == {"root": "/corpus", "digest": "c" * 64, "staging": "5" * 32}


def test_an_unknown_reader_feature_is_refused_saying_both() -> None:
    message = (
        r"needs the features \['zip'\], and this release knows "
        r"\['calibrations', 'image_tower', 'int8', 'provenance', 'text_tower', 'words'\]"
    )
    with pytest.raises(IncompatibleIndexError, match=message):
        Manifest.from_json(changed(reader_features=["zip"]), "here")


def test_an_unknown_writer_feature_stops_writers_only() -> None:
    manifest = Manifest.from_json(changed(writer_features=["deltas"]), "here")
    with pytest.raises(IncompatibleIndexError, match=r"here asks writers for the features \['deltas'\]"):
        check_writable(manifest, "here")
    check_writable(MANIFEST, "here")


def test_calibrations_are_read_back_under_their_feature() -> None:
    manifest = replace(MANIFEST, calibrations=CALIBRATED, reader_features=(PROVENANCE, CALIBRATIONS))
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    assert CALIBRATIONS not in json.loads(MANIFEST.to_json())


CURVE = {"weights": [-1.5, 2.0], "intercept": -3.25}
CALIBRATED: dict[Direction, HitCalibration] = {
    "text_to_image": HitCalibration(
        queries=99, plain=HitCurve(weights=(-1.5, 2.0), intercept=-3.25), with_partners=None, with_words=None
    )
}


def calibrated(
    direction: str = "text_to_image", features: tuple[str, ...] = (PROVENANCE, CALIBRATIONS), **curve: Any
) -> Any:
    """Keys of a manifest with a calibration, changed."""
    calibration = {"queries": 99, "plain": {**CURVE, **curve}, "with_partners": None, "with_words": None}
    return {"reader_features": list(features), "calibrations": {direction: calibration}}


def rounded(rounding: dict[str, Any]) -> Any:
    """Keys of a manifest of an index with one byte a value."""
    return {"reader_features": [PROVENANCE, INT8], "rounding": rounding}


def test_the_rounding_of_one_byte_a_value_is_read_back_under_its_feature() -> None:
    rounding: dict[Collection, Rounding] = {"images": Rounding.of(0.02), "texts": Rounding.of(0)}
    manifest = replace(MANIFEST, rounding=rounding, reader_features=(PROVENANCE, INT8))
    again = Manifest.from_json(manifest.to_json(), "here")
    assert again == manifest
    assert (again.vector_dtype, MANIFEST.vector_dtype) == ("int8", "float16")
    assert 0.02 < again.rounding["images"].within <= 0.02002
    assert "rounding" not in json.loads(MANIFEST.to_json())


DAMAGES: dict[str, dict[str, Any]] = {
    r"lacks \['build'\]": {"build": "absent"},
    r"has \['more'\] unasked": {"more": 1},
    r"lacks \['encoding'\]": {"encoding": "absent"},
    r"has \['corpus', 'encoding'\] without the feature 'provenance'": {"reader_features": []},
    "manifest.encoding.prompt is int and not str": {"encoding": {**asdict(EncodingInfo()), "prompt": 1}},
    "manifest has 'calibrations' without the feature 'calibrations'": calibrated(features=(PROVENANCE,)),
    "it has 0 calibrations and the features": {**calibrated(), "calibrations": {}},
    "manifest has 'rounding' without the feature 'int8'": {"rounding": {"images": {"within": 0.02}}},
    r"it has the rounding of \[\] and the features": rounded({}),
    r"it has the rounding of \['texts'\] and the features": rounded({"texts": {"within": 0.02}}),
    "the rounding of its images is within -0.1": rounded({"images": {"within": -0.1}, "texts": {"within": 0.1}}),
    "a calibration has 3 weights for the signals": calibrated(weights=[1.0, 2.0, 3.0]),
    r"weights\[1\] is str and not float": calibrated(weights=[1.0, "2"]),
    "calibrations key is 'text_to_sound', which is none of": calibrated("text_to_sound"),
    "manifest.version is bool and not int": {"version": True},
    "manifest.version is str and not int": {"version": "2"},
    r"manifest.version is -1, which is not in \[0, 2\^63\)": {"version": -1},
    "version 0 cannot follow 1": {"version": 0},
    "version 2 cannot follow 2": {"parent": 2},
    "its files are": {"files": {name: asdict(ENTRY) for name in FILES[:3]}},
    "its files are .*passwd": {"files": {"../../etc/passwd": asdict(ENTRY)}},
    "SHA-256 of catalog.duckdb is 'x'": {"files": {name: {"bytes": 3, "sha256": "x"} for name in FILES}},
    "manifest.encoder is list and not dict": {"encoder": []},
    "its counts do not add up": {"counts": {**asdict(counts(4)), "items": 99}},
    "its collections have .* rows": {"counts": asdict(counts(5))},
    "it has no collection": {"collections": {}},
    "key is 'sounds', which is none of": {"collections": {"sounds": {}}},
    "its format_version is '1'": {"format_version": "1"},
    "its format_version is 0": {"format_version": 0},
    "its reader_features are 3": {"reader_features": 3},
    r"writer_features\[0\] is int and not str": {"writer_features": [1]},
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_manifest_that_contradicts_its_form_is_refused(message: str) -> None:
    with pytest.raises(CorruptIndexError, match=f"here is damaged .*{message}.*roll back"):
        Manifest.from_json(changed(**DAMAGES[message]), "here")


BAD_BYTES = {
    "a key is there twice": b'{"a": 1, "a": 2}',
    "NaN is not JSON": b'{"a": NaN}',
    "it is not an object": b"[]",
    "it is nested too deeply": b"[" * 100_000,
    "utf-8": b'{"a": "\xff"}',
    "Expecting value": b"",
    "own checksum does not fit": MANIFEST.to_json().replace(b'"seconds": 1.5', b'"seconds": 1.6'),
}


@pytest.mark.parametrize("message", BAD_BYTES)
def test_bytes_that_are_no_manifest_are_refused(message: str) -> None:
    with pytest.raises(CorruptIndexError, match=f"here is damaged .*{message}"):
        Manifest.from_json(BAD_BYTES[message], "here")


def test_a_manifest_has_a_largest_size() -> None:
    with pytest.raises(CorruptIndexError, match=f"has {MAX_BYTES + 1} bytes and may have {MAX_BYTES}"):
        Manifest.from_json(b" " * (MAX_BYTES + 1), "here")
    with pytest.raises(StorageError, match="keep less in its build report"):
        replace(MANIFEST, build={"log": "x" * MAX_BYTES}).to_json()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_is_not_json_cannot_be_published(value: Any) -> None:
    with pytest.raises(StorageError, match="version 2 cannot be described in its manifest"):
        replace(MANIFEST, build={"value": value}).to_json()


def test_what_contradicts_itself_cannot_be_published() -> None:
    with pytest.raises(StorageError, match="its counts do not add up"):
        replace(MANIFEST, counts=replace(counts(4), items=1)).to_json()


def test_a_tower_or_a_calibration_of_what_is_not_there_cannot_be_published() -> None:
    towers = {f"text_tower/{name}": ENTRY for name in TOWER_FILES["text_tower"]}
    features = (PROVENANCE, "text_tower")
    with pytest.raises(StorageError, match="it has a text tower and no encoder that this is of"):
        replace(MANIFEST, files={**MANIFEST.files, **towers}, reader_features=features).to_json()
    images = {"images": replace(MANIFEST.collections["images"], ann=AnnPlan(kind="flat"))}
    alone = replace(
        MANIFEST,
        collections=images,
        counts=Counts(items=4, indexed=4, rejected=0, images=4, texts=0, pairs=0),
        files=dict.fromkeys(FILES[:2], ENTRY),
        calibrations={"image_to_text": CALIBRATED["text_to_image"]},
        reader_features=(PROVENANCE, CALIBRATIONS),
    )
    with pytest.raises(StorageError, match="it has a calibration of image_to_text and nothing that this searches"):
        alone.to_json()


def test_a_float_must_be_finite_and_may_be_written_as_an_integer() -> None:
    images = json.loads(MANIFEST.to_json())["collections"]
    point = images["images"]["tuning"]["text_to_image"]["points"][0]
    point["ms_per_query"] = 2
    found = Manifest.from_json(changed(collections=images), "here").collections["images"]
    assert found.tuning["text_to_image"].points[0].ms_per_query == 2.0
    data = changed(collections=images).replace(b'"ms_per_query": 2', b'"ms_per_query": 1e999')
    with pytest.raises(CorruptIndexError, match="here is damaged"):
        Manifest.from_json(data, "here")
