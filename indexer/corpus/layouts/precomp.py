"""`f30k_precomp` and `coco_precomp`, made for region features: captions in `test_caps.txt`, whose in `test_ids.txt`.

An id is Karpathy's own number of an image (`imgid`; of COCO `cocoid`), not its file name. `dataset_flickr30k.json` or
an `id_mapping.json` ({id: file name}) beside the folder or in it turns one into the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ..tables.json_file import read_json
from .captioned import Captioned, DataSet
from .karpathy import is_karpathy, karpathy_data
from .lines import read_whole

CAPTIONS, IDS = "_caps.txt", "_ids.txt"


def precomp_splits(folder: Path) -> tuple[str, ...]:
    """The splits of which a folder holds captions and ids, sorted; `test` is left out where `testall` holds it too."""
    splits = {path.name.removesuffix(CAPTIONS) for path in folder.glob(f"*{CAPTIONS}")}
    both = sorted(split for split in splits if (folder / f"{split}{IDS}").is_file())
    return tuple(split for split in both if split != "test" or "testall" not in both)


def precomp_data(folder: Path, splits: Sequence[str] = ()) -> DataSet:
    """The images of these splits, or of all, in the order of the ids, each with its captions.

    There are as many ids as captions, or one id for every so many (five) captions.

    Raises:
        SourceError: A split is not there, ids and captions do not fit, or nothing says which image an id stands for.
    """
    known = precomp_splits(folder)
    requested = tuple(splits) or known
    for split in requested:
        if not (folder / f"{split}{CAPTIONS}").is_file() or not (folder / f"{split}{IDS}").is_file():
            raise SourceError(
                f"{folder.name} lacks {split}{CAPTIONS} or {split}{IDS}; it has both for: {', '.join(known) or 'none'}"
            )
    names = _file_names(folder)
    images = [image for split in requested for image in _images(folder, split, names)]
    return DataSet(name=f"precomputed captions {folder.name}", folder=folder, images=images)


def _images(folder: Path, split: str, names: Mapping[str, str]) -> Iterator[Captioned]:
    captions = _lines(folder / f"{split}{CAPTIONS}")
    ids = [text.decode("utf-8", "backslashreplace").strip() for text in _lines(folder / f"{split}{IDS}")]
    if ids == [""] or len(captions) % len(ids):
        raise SourceError(
            f"{split}{IDS} has {len(ids)} lines and {split}{CAPTIONS} {len(captions)}; "
            "there must be one id for each caption, or for each five"
        )
    each = len(captions) // len(ids)
    start = 0
    for key, group in groupby(ids):
        count = each * len(list(group))
        if key not in names:
            raise SourceError(f"id {key!r} of {split}{IDS} is not among the {len(names)} of the file that names them")
        location = f"captions {start + 1} to {start + count} of {split}{CAPTIONS}"
        yield Captioned(name=names[key], location=location, split=split, captions=captions[start : start + count])
        start += count


def _lines(path: Path) -> list[bytes]:
    """All lines, blank ones included: the position of a caption says whose it is."""
    try:
        return read_whole(path).rstrip().split(b"\n")
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _file_names(folder: Path) -> dict[str, str]:
    """File names by id."""
    folders = (folder, folder.parent)
    for path in (one / "id_mapping.json" for one in folders):
        if path.is_file():
            return {str(key): str(name) for key, name in read_json(path, dict).items()}
    for path in (path for one in folders for path in sorted(one.glob("dataset_*.json"))):
        value = read_json(path, dict)
        if is_karpathy(value):
            return _karpathy_names(path, value)
    raise SourceError(
        f"the ids of {folder.name} are numbers in Karpathy's list, not file names; put dataset_flickr30k.json "
        f"(dataset_coco.json) or id_mapping.json into {str(folder)!r} or beside it"
    )


def _karpathy_names(path: Path, value: Mapping[str, Any]) -> dict[str, str]:
    images = karpathy_data(path, value).images
    numbers = (entry.get("cocoid", entry.get("imgid", number)) for number, entry in enumerate(value["images"]))
    return {str(number): image.name for number, image in zip(numbers, images, strict=True)}
