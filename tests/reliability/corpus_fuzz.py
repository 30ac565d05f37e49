"""Damaged and hostile tables, archives, arrays and manifests: an error of ours, rejections, or what they say.

`fuzz(kind, count, seed)` runs cases of one kind and says what came of them; a case is the same on every machine.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage_cases import BYTES
from make_golden import unpack

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, Item, open_source
from indexer.corpus.item import Rejection
from storage import Manifest, TwinlensError
from storage.files.canonical_json import canonical
from storage.files.layout import sha256_of

# What a cell, a name or a number may be that nobody expects.
NASTY: tuple[Any, ...] = (
    None,
    True,
    "",
    " ",
    "\0",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b.jpg",
    "C:\\x.jpg",
    "a\nb",
    "a" * 9000,
    "\ud800",
    "💥",
    "=cmd()",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "|ls",
    "NaN",
    "inf",
    "-1",
    "1e999",
    -1,
    0,
    1.5,
    2**63,
    -(2**63),
    2**70,
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    {"a": {"b": []}},
    [None],
    [1, "a"],
    "'",
    '"',
    '","',
    ";",
)
_opened: list[str] = []
_watching = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching[0] and event == "open" and isinstance(arguments[0], str | bytes | Path):
        _opened.append(f"{arguments[1]} {arguments[0]!s}")


sys.addaudithook(_watch)  # it stays for the life of the process


def table_rows(chance: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"image": f"{n % 5}.jpg", "text": f"caption {n}", "id": f"k{n}", "n": n, "split": "train"} for n in range(12)
    ]
    for _ in range(chance.randrange(1, 5)):
        rows[chance.randrange(12)][chance.choice(("image", "text", "id", "n", "split", "new"))] = chance.choice(NASTY)
    return rows


def jsonl(chance: random.Random) -> tuple[str, bytes]:
    lines = [json.dumps(row) for row in table_rows(chance)]
    if chance.random() < 0.3:
        lines.insert(
            chance.randrange(12), chance.choice(("{", "[]", "null", "{}", '{"image": "a", "image": "b"}', "\\"))
        )
    return "t.jsonl", "\n".join(lines).encode("utf-8", "surrogatepass")


def separated(chance: random.Random) -> tuple[str, bytes]:
    rows, sign = table_rows(chance), chance.choice(",\t;|")
    names = ["image", "text", "id", "n"]
    lines = [sign.join(names), *(sign.join(str(row.get(name)) for name in names) for row in rows)]
    data = chance.choice(("\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")
    name = chance.choice(("t.csv", "t.tsv", "t.csv.gz"))
    return name, gzip.compress(data) if name.endswith("gz") else data


def parquet(chance: random.Random) -> tuple[str, bytes]:
    columns = {"image": [f"{n}.jpg" for n in range(60)], "text": ["words"] * 60, "n": list(range(60))}
    columns[chance.choice(list(columns))] = [chance.choice(("a", None)) for _ in range(60)]
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression=chance.choice(("none", "snappy", "zstd")))
    return "t.parquet", file.getvalue()


def annotations(chance: random.Random) -> tuple[str, bytes]:
    value = chance.choice(NASTY)
    karpathy = {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "x"}]}, value]}
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": value, "file_name": chance.choice(NASTY)}],
        "annotations": [{"image_id": value, "caption": chance.choice(NASTY)}, value],
    }
    return "t.json", json.dumps(chance.choice((karpathy, coco))).encode("utf-8", "surrogatepass")


def archive(chance: random.Random) -> tuple[str, bytes]:
    file = io.BytesIO()
    names = [str(chance.choice(NASTY)).replace("\0", "") or "x" for _ in range(3)]
    form = chance.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogatepass") as tar:
        for name in ("a.jpg", "a.txt", "b.png", "b.json", *(one[:90] + ".jpg" for one in names)):
            member = tarfile.TarInfo(name)
            member.type = chance.choice((tarfile.REGTYPE,) * 6 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
            member.linkname = "/etc/passwd" if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            data = chance.randbytes(chance.randrange(700)) if member.type == tarfile.REGTYPE else b""
            member.size = len(data)
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError:
                continue  # this form of tar cannot say the name
    return "t.tar", file.getvalue()


def array(chance: random.Random) -> tuple[str, bytes]:
    file = io.BytesIO()
    vectors = (
        np.random.default_rng(chance.randrange(99))
        .standard_normal((9, 4))
        .astype(chance.choice(("f4", "f2", "f8", ">f4")))
    )
    if chance.random() < 0.3:
        vectors[chance.randrange(9)] = chance.choice((np.nan, np.inf, 0))
    np.save(file, np.asfortranarray(vectors) if chance.random() < 0.3 else vectors)
    return "v.npy", file.getvalue()


TABLES: dict[str, Callable[[random.Random], tuple[str, bytes]]] = {
    one.__name__: one for one in (jsonl, separated, parquet, annotations)
}
KINDS: dict[str, dict[str, Callable[[random.Random], tuple[str, bytes]]]] = {
    "tables": TABLES,
    "archives": {"archive": archive},
    "arrays": {"array": array},
}


def read(path: Path) -> str:
    """Read a corpus to its end and say what it gave."""
    if path.suffix == ".npy":
        source = EmbeddingSource(EmbeddingOptions(images=EmbeddingFiles(vectors=path), normalize=True))
        return f"read {sum(1 for _ in source.chunks('images'))}"
    rejected = 0
    for entry in open_source(path).items():
        entry.item_id.encode("utf-8")
        entry.uri.encode("utf-8")
        rejected += isinstance(entry, Rejection)
        if isinstance(entry, Item) and hasattr(entry.content, "read"):
            assert ".." not in entry.item_id.split("/")
            assert len(entry.content.read(2**20)) == entry.content.size
    return "rejections" if rejected else "read"


def fuzz(kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read `count` corpora of a kind, half of them with damaged bytes as well; `wrong` is to be empty."""
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    folder.mkdir(exist_ok=True)
    for number in range(count):
        chance = random.Random(f"{kind}/{seed}/{number}")
        name, data = chance.choice(list(KINDS[kind].values()))(chance)
        if chance.random() < 0.5 and data:
            damaged = bytearray(data)
            chance.choice(list(BYTES.values()))(damaged, chance)
            data = bytes(damaged)
        path = folder / f"{number}-{name}"
        path.write_bytes(data)
        told = outcome(path)
        outcomes[told.split(" ", 1)[0]] += 1
        if told.startswith("escaped"):
            wrong[f"{kind}/{seed}/{number}"] = told
        path.unlink()
    leftovers = [path.name for path in folder.iterdir()]
    return {"cases": count, **dict(sorted(outcomes.items())), "wrong": wrong, "left": leftovers}


def outcome(path: Path) -> str:
    """Return what became of a corpus: `read`, `rejections`, `refused`, or what got out."""
    _opened.clear()
    _watching[0] = True
    try:
        told = read(path)
    except TwinlensError as error:
        told = "refused" if "\n" not in str(error) else f"escaped in several lines: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever gets out is what this looks for
        told = f"escaped {type(error).__name__}: {str(error)[:300]}"
    finally:
        _watching[0] = False
    # What a library loads on its first use: modules, time zones.
    opened = [line for line in _opened if not line.endswith((".py", ".pyc")) and "/zoneinfo/" not in line]
    elsewhere = [line for line in opened if str(path.parent) not in line or line[0] not in "rN"]
    return told if not elsewhere else f"escaped, it opened {elsewhere[:3]}"


def fuzz_manifests(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read `count` manifests with values of any kind in any place, their own checksum made to fit."""
    unpack(folder)
    wholes = [
        (index / "versions" / "00000001" / "manifest.json").read_bytes() for index in sorted(folder.glob("*.index"))
    ]
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for number in range(count):
        chance = random.Random(f"manifest/{seed}/{number}")
        data = changed_manifest(chance.choice(wholes), chance)
        try:
            told = "read" if Manifest.from_json(data, "manifest.json").to_json() else ""
        except TwinlensError as error:
            told = "refused" if "\n" not in str(error) and "manifest.json" in str(error) else f"escaped: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever gets out is what this looks for
            told = f"escaped {type(error).__name__}: {str(error)[:300]}"
        outcomes[told.split(" ", 1)[0]] += 1
        if told.startswith("escaped"):
            wrong[f"manifest/{seed}/{number}"] = told
    return {"cases": count, **dict(sorted(outcomes.items())), "wrong": wrong, "left": []}


def changed_manifest(whole: bytes, chance: random.Random) -> bytes:
    """A manifest with one to three places changed, whose checksum fits again wherever it can be computed."""
    plain = json.loads(whole)
    for _ in range(chance.randrange(1, 4)):
        _change(plain, chance)
    plain.pop("checksum", None)
    try:
        plain["checksum"] = sha256_of(canonical(plain))
        data = canonical(plain)
    except (ValueError, TypeError):
        data = json.dumps(plain).encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        damaged = bytearray(data)
        chance.choice(list(BYTES.values()))(damaged, chance)
        data = bytes(damaged)
    return data


def _change(value: Any, chance: random.Random) -> None:
    """Walk to a random place and put something else there, or take it away."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
            value = inner
            continue
        if chance.random() < 0.15:
            del value[key]
        elif isinstance(inner, int) and chance.random() < 0.5:
            value[key] = inner + chance.choice((-1, 1, 10**6, -(10**6)))
        else:
            value[key] = chance.choice(NASTY)
        return
