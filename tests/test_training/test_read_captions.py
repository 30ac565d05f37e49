"""Corpora to learn from: every form that `build-index` reads gives the same examples, and says what it leaves out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from picture_server import serving
from two_tone import two_tone

from indexer.corpus import SourceOptions
from training import CaptionedImages, ExamplesError, FitConfig, fit_encoder, read_captions
from training.examples import decode, read_splits
from twinlens.commands.fit import fit

ROWS = [
    {"image": "a.jpg", "captions": ["a dog", "1984"], "split": "train"},
    {"image": "b.jpg", "captions": ["null"], "split": "train"},
    {"image": "c.jpg", "captions": ["a cat, asleep"], "split": "dev"},
]


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write(path: Path) -> Path:
    """Write the rows in the format of the name; CSV and TSV with one caption a row."""
    flat = [{**row, "captions": caption} for row in ROWS for caption in row["captions"]]
    if path.suffix == ".jsonl":
        return jsonl(path, ROWS)
    if path.suffix == ".json":
        path.write_text(json.dumps(ROWS), "utf-8")
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        lines = [sign.join(f'"{row[name]}"' for name in row) for row in flat]
        path.write_text("\n".join([sign.join(ROWS[0]), *lines]), "utf-8")
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.csv", "t.tsv", "t.json"])
def test_every_format_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    table = write(tmp_path / name)
    train = read_captions(table, split="train")
    assert list(train.images) == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert [list(texts) for texts in train.captions] == [["a dog", "1984"], ["null"]]
    assert len(read_captions(table)) == 3
    assert {split: len(examples) for split, examples in read_splits(table).items()} == {"train": 2, "dev": 1}


def csv_gz(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    """Semicolons are found in the header."""
    file = io.StringIO()
    rows = [(path.name, text) for path, texts in zip(paths, captions, strict=True) for text in texts]
    csv.writer(file, delimiter=";").writerows([("image", "caption"), *rows])
    (folder / "t.csv.gz").write_bytes(gzip.compress(file.getvalue().encode()))
    return folder / "t.csv.gz", []


def jsonl_gz(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    rows = [{"photo": path.name, "captions": texts} for path, texts in zip(paths, captions, strict=True)]
    plain = jsonl(folder / "t.jsonl", rows).read_bytes()
    (folder / "t.jsonl.gz").write_bytes(gzip.compress(plain))
    return folder / "t.jsonl.gz", ["--image", "photo"]


def tsv_with_root(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    """The table lies elsewhere than the images."""
    lines = [f"{path.name}\t{text}" for path, texts in zip(paths, captions, strict=True) for text in texts]
    table = folder.parent / "elsewhere.tsv"
    table.write_text("\n".join(["image\ttitle", *lines]), "utf-8")
    return table, ["--root", str(folder)]


def shards(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    for number in range(2):
        with tarfile.open(folder / f"0{number}.tar", "w") as file:
            for path, texts in list(zip(paths, captions, strict=True))[number::2]:
                data = json.dumps({"captions": texts}).encode()
                file.add(path, path.name)
                member = tarfile.TarInfo(f"{path.stem}.json")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return folder / "{00..01}.tar", ["--text", "captions"]


def karpathy(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    entries = [
        {"filename": path.name, "split": "train", "sentences": [{"raw": text} for text in texts]}
        for path, texts in zip(paths, captions, strict=True)
    ]
    value = {"images": [*entries, {"filename": "gone.png", "split": "test", "sentences": [{"raw": "gone"}]}]}
    (folder / "dataset_two_tone.json").write_text(json.dumps(value), "utf-8")
    return folder, ["--split", "train"]


def sidecars(folder: Path, paths: list[Path], captions: list[list[str]]) -> tuple[Path, list[str]]:
    for path, texts in zip(paths, captions, strict=True):
        path.with_suffix(".txt").write_text("\n".join(texts), "utf-8")
    return folder, []


Form = Callable[[Path, list[Path], list[list[str]]], tuple[Path, list[str]]]


@pytest.mark.parametrize("form", [csv_gz, jsonl_gz, tsv_with_root, shards, karpathy, sidecars])
def test_fit_takes_what_build_index_takes(form: Form, tiny: str, tmp_path: Path) -> None:
    paths, captions = two_tone(tmp_path / "images", 12)
    corpus, options = form(tmp_path / "images", paths, captions)
    fixed = ["--encoder", tiny, "--out", tmp_path / "encoder", "--time-limit", 0, "--device", "cpu", "--output", "json"]
    result = CliRunner().invoke(fit, list(map(str, [corpus, *options, *fixed, "-q"])), catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["unreadable"] == []
    counts = {name: sum(report["counts"][f"{role}_{name}"] for role in ("train", "val")) for name in ("left", "right")}
    assert counts == {"left": 12, "right": 24}


def test_members_of_shards_are_learned_from_as_files_are(tiny: str, quick: FitConfig, tmp_path: Path) -> None:
    paths, captions = two_tone(tmp_path / "images", 12)
    corpus, _ = shards(tmp_path / "images", paths, captions)
    examples = read_captions(corpus, text="captions")
    files = {decode(path).info.sha256: texts for path, texts in zip(paths, captions, strict=True)}
    assert {
        decode(image).info.sha256: texts for image, texts in zip(examples.images, examples.captions, strict=True)
    } == files
    report = fit_encoder(tiny, examples, examples, tmp_path / "encoder", replace(quick, epochs=2, evaluations=1))
    assert report.curve[-1]["epoch"] == 2


def test_parquet_may_hold_the_bytes_of_the_files(tmp_path: Path) -> None:
    rows = [
        {"photo": {"bytes": b"abc", "path": None}, "words": "a dog"},
        {"photo": {"bytes": b"de", "path": None}, "words": "b"},
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert list(read_captions(tmp_path / "t.parquet", "photo", "words").images) == [b"abc", b"de"]


def test_images_on_the_web_are_fetched_once_and_only_if_allowed(tmp_path: Path) -> None:
    (path,), _ = two_tone(tmp_path / "images", 1)
    data = path.read_bytes()
    with serving() as server:
        server.pages = {f"/{number}.png": data for number in range(20)}
        rows = [{"image": server.url(f"/{number}.png"), "caption": f"number {number}"} for number in range(21)]
        table = jsonl(tmp_path / "t.jsonl", [*rows, {"image": server.url("/bare.png")}])
        found = read_captions(table, options=SourceOptions(allow_urls=True, allow_private=True))
        assert list(found.images) == [data] * 20
        assert found.left_out == (
            f"{rows[20]['image']}: the server answered 404",
            f"{server.url('/bare.png')}: no caption",
        )
        assert sorted(page for page, _ in server.asked) == sorted(f"/{number}.png" for number in range(21))
        with pytest.raises(ExamplesError, match=r"22 of 22 images of table t\.jsonl .* give --allow-urls"):
            read_captions(table)


def test_what_is_left_out_is_told_and_too_much_of_it_is_an_error(tiny: str, quick: FitConfig, tmp_path: Path) -> None:
    paths, captions = two_tone(tmp_path, 24)
    rows = [{"image": path.name, "caption": texts[0]} for path, texts in zip(paths, captions, strict=True)]
    rows[3]["caption"], rows[5]["image"] = " ", ""
    examples = read_captions(jsonl(tmp_path / "t.jsonl", rows))
    report = fit_encoder(tiny, examples, None, tmp_path / "encoder", replace(quick, time_limit=0))
    assert report.unreadable == (
        "no image in column 'image' of line 6 of t.jsonl",
        "the text in line 4 of t.jsonl is empty",
        f"{paths[3].name}: no caption",
    )
    assert "left out 3 images or captions: no image in column 'image' of line 6" in report.to_text()
    rows[6]["image"] = None
    with pytest.raises(ExamplesError, match=r"2 of 24 images of table t\.jsonl .* cannot be used: no image in column"):
        read_captions(jsonl(tmp_path / "t.jsonl", rows))


def test_an_image_of_two_splits_takes_part_in_both(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": split, "split": split} for split in ("train", "dev")]
    splits = read_splits(jsonl(tmp_path / "t.jsonl", rows))
    assert splits == {split: CaptionedImages([tmp_path / "a.jpg"], [[split]]) for split in ("train", "dev")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "photo"}, r"t\.jsonl has no column 'photo'\. Its columns: 'image', 'captions', 'split'$"),
        (
            {"text": "caption"},
            r"no column 'caption'; did you mean 'captions'\? Its columns: 'image', 'captions', 'split'$",
        ),
        ({"split": "val"}, r"no rows of split 'val'; its splits: train \(2\), dev \(1\)$"),
    ],
)
def test_a_wrong_name_is_told_the_right_ones(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=message):
        read_captions(write(tmp_path / "t.jsonl"), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.jsonl holds no JSON object: it is empty; expected one object a line"),
        ('{"image": "a.jpg", "captions": []}', r"holds no image with a caption.*name the columns with images and capt"),
        (
            '{"image": "a.jpg", "captions": " "}',
            r"1 of 1 texts of .* cannot be used: the text in line 1 of t\.jsonl is",
        ),
        ('{"image": "", "captions": "a"}', r"1 of 1 images of .*: no image in column 'image' of line 1 of t\.jsonl"),
        ('{"image": "a.jpg", "captions": "a"}\n{"image"', r"1 of 2 images of .*: line 2 of t\.jsonl is not JSON"),
        ("[1]", r"line 1 of t\.jsonl is a JSON list, not an object; expected one object a line"),
    ],
)
def test_a_broken_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(text, "utf-8")
    with pytest.raises(ExamplesError, match=message) as caught:
        read_captions(tmp_path / "t.jsonl")
    assert "\n" not in str(caught.value)


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    rows = [{"sku": "a", "image": "x.jpg;y.jpg", "text": "two"}, {"sku": "a#0", "image": "z.jpg", "text": "one"}]
    with pytest.raises(
        ExamplesError, match=r"id 'a#0' stands for two images, again in line 2 of t\.jsonl; make the ids"
    ):
        read_captions(jsonl(tmp_path / "t.jsonl", rows), options=SourceOptions(id="sku"))


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"there is no corpus at '.*gone\.csv'; name a folder of"):
        read_captions(tmp_path / "gone.csv")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(ExamplesError, match=r"is of no known kind; expected a folder or a file of \.csv, \.tsv"):
        read_captions(tmp_path / "t.xlsx")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ExamplesError, match=r"t\.parquet cannot be read as Parquet: "):
        read_captions(tmp_path / "t.parquet")
