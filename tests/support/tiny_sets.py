"""A few real photographs with captions, written as the files of Flickr30K, Flickr8k and COCO are."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

# What breaks naive readers: commas, quotes, bars, a tag with a picture's suffix, letters beyond ASCII.
ODD = 'Two dogs , one "brown" | one black , run past a .jpg sign in a café .'


@dataclass(frozen=True)
class Photo:
    """One photograph: where it really lies, the name it gets, its split and captions."""

    file: Path
    name: str
    split: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Tiny:
    """Photographs in the order of the data set."""

    photos: tuple[Photo, ...]

    def of(self, *splits: str) -> list[Photo]:
        """Return those of some splits."""
        return [photo for photo in self.photos if photo.split in splits]

    def pairs(self, split: str = "test", most: int = 99) -> set[tuple[str, str]]:
        """Return (file name, caption) of a split, at most so many captions of a picture."""
        return {(photo.name, text) for photo in self.of(split) for text in photo.captions[:most]}

    def copy_images(self, folder: Path, names: Callable[[Photo], str] = lambda photo: photo.name) -> None:
        """Put the photographs there."""
        for photo in self.photos:
            (folder / names(photo)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo.file, folder / names(photo))


def read_tiny(folder: Path, count: int) -> Tiny:
    """Read the first photographs of `folder`; their names become numbers, as in Flickr30K."""
    with (folder / "captions.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    photos = []
    for number, row in enumerate(rows):
        captions = [ODD, *row["captions"][1:]] if number == 5 else row["captions"]
        split = {0: "train", 1: "train", 2: "val", 3: "val"}.get(number, "test")
        photos.append(Photo(folder / row["image"], f"{1000092795 + 7 * number}.jpg", split, tuple(captions)))
    return Tiny(tuple(photos))


def write_text(path: Path, lines: Iterable[str]) -> None:
    """Write lines, and the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, and the folder where it is missing."""
    write_text(path, [json.dumps(value)])


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV as pandas does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def tokens(photos: Iterable[Photo]) -> list[str]:
    """Return `name.jpg#0<tab>caption` lines."""
    return [f"{photo.name}#{n}\t{text}" for photo in photos for n, text in enumerate(photo.captions)]


def karpathy(photos: Sequence[Photo], **more: Callable[[int], Any]) -> dict[str, Any]:
    """Return the value of a `dataset_*.json`."""
    images = []
    for number, photo in enumerate(photos):
        sentences = [{"raw": text, "tokens": text.split(), "imgid": number} for text in photo.captions]
        entry = {"filename": photo.name, "split": photo.split, "imgid": number, "sentences": sentences}
        images.append(entry | {name: value(number) for name, value in more.items()})
    return {"images": images, "dataset": "any"}


def f30k_karpathy(root: Path, tiny: Tiny) -> None:
    """`dataset_flickr30k.json` beside `flickr30k-images`."""
    write_json(root / "dataset_flickr30k.json", karpathy(tiny.photos))
    tiny.copy_images(root / "flickr30k-images")


def f30k_karpathy_elsewhere(root: Path, tiny: Tiny) -> None:
    """The json in a folder of its own, the pictures under their name twice, all in capitals."""
    write_json(root / "caption_datasets" / "DATASET_FLICKR30K.JSON", karpathy(tiny.photos))
    tiny.copy_images(root / "Flickr30k_Images")


def f30k_karpathy_lists(root: Path, tiny: Tiny) -> None:
    """`flickr30k_test_karpathy.txt` and its sisters with captions, quoted where the caption has a comma."""
    for split in ("train", "val", "test"):
        rows = [(photo.name, text) for photo in tiny.of(split) for text in photo.captions]
        write_csv(root / f"flickr30k_{split}_karpathy.txt", [("image", "caption"), *rows])
    tiny.copy_images(root / "Images")


def f30k_tokens(root: Path, tiny: Tiny) -> None:
    """`results_20130124.token` with plain lists of the splits."""
    write_text(root / "results_20130124.token", tokens(tiny.photos))
    for split in ("train", "val", "test"):
        write_text(root / f"flickr30k_{split}_karpathy.txt", [photo.name for photo in tiny.of(split)])
    tiny.copy_images(root / "flickr30k_images")


def f30k_results_csv(root: Path, tiny: Tiny) -> None:
    """`results.csv` with bars, in a folder that holds its own name once more, and lists of numbers alone."""
    rows = [f"{photo.name}| {n}| {text}" for photo in tiny.photos for n, text in enumerate(photo.captions)]
    write_text(root / "flickr30k_images" / "results.csv", ["image_name| comment_number| comment", *rows])
    for split in ("train", "val", "test"):
        write_text(root / "flickr30k_images" / f"{split}.txt", [photo.name[:-4] for photo in tiny.of(split)])
    tiny.copy_images(root / "flickr30k_images" / "flickr30k_images")


def f30k_automm(root: Path, tiny: Tiny) -> None:
    """AutoMM's `flickr30k_processed`: an unnamed row number, caption, image below the folder."""
    for split in ("train", "val", "test"):
        rows = [(text, f"images/{photo.name}") for photo in tiny.of(split) for text in photo.captions]
        numbered = [(str(number), *row) for number, row in enumerate(rows)]
        write_csv(root / "flickr30k_processed" / f"{split}.csv", [("", "caption", "image"), *numbered])
    tiny.copy_images(root / "flickr30k_processed" / "images")


def f30k_precomp(root: Path, tiny: Tiny, each: int = 1) -> None:
    """`f30k_precomp` with `id_mapping.json` beside it; an id stands `each` times for its picture."""
    ids = {photo.name: number for number, photo in enumerate(tiny.photos)}
    for split, saved in (("train", "train"), ("val", "dev"), ("test", "test")):
        photos = tiny.of(split)
        write_text(root / "f30k_precomp" / f"{saved}_caps.txt", [text for photo in photos for text in photo.captions])
        lines = [str(ids[photo.name]) for photo in photos for _ in range(each)]
        write_text(root / "f30k_precomp" / f"{saved}_ids.txt", lines)
    write_json(root / "id_mapping.json", {str(number): name for name, number in ids.items()})
    tiny.copy_images(root / "flickr30k-images")


def f30k_precomp_repeated(root: Path, tiny: Tiny) -> None:
    """The same with an id for every caption."""
    f30k_precomp(root, tiny, each=5)


def f30k_json_list(root: Path, tiny: Tiny) -> None:
    """`flickr30k_test.json`, a list of pictures with their captions."""
    entries = [{"image": f"flickr30k-images/{p.name}", "caption": list(p.captions)} for p in tiny.of("test")]
    write_json(root / "flickr30k_test.json", entries)
    tiny.copy_images(root / "flickr30k-images")


FLICKR30K = (
    f30k_karpathy,
    f30k_karpathy_elsewhere,
    f30k_karpathy_lists,
    f30k_tokens,
    f30k_results_csv,
    f30k_automm,
    f30k_precomp,
    f30k_precomp_repeated,
    f30k_json_list,
)


def f8k_tokens(root: Path, tiny: Tiny) -> None:
    """`Flickr8k.token.txt` with the lists of Flickr8k_text.zip, unpacked into folders of their own."""
    write_text(root / "Flickr8k_text" / "Flickr8k.token.txt", tokens(tiny.photos))
    write_text(root / "Flickr8k_text" / "Flickr8k.lemma.token.txt", ["1.jpg#0\tdog"])
    for split, saved in (("train", "train"), ("val", "dev"), ("test", "test")):
        write_text(root / "Flickr8k_text" / f"Flickr_8k.{saved}Images.txt", [photo.name for photo in tiny.of(split)])
    tiny.copy_images(root / "Flicker8k_Dataset")


def f8k_karpathy(root: Path, tiny: Tiny) -> None:
    """`dataset_flickr8k.json` beside `Images`."""
    write_json(root / "dataset_flickr8k.json", karpathy(tiny.photos))
    tiny.copy_images(root / "Images")


def f8k_jsonl(root: Path, tiny: Tiny) -> None:
    """One object a line."""
    rows = [{"image": f"images/{p.name}", "split": p.split, "captions": list(p.captions)} for p in tiny.photos]
    write_text(root / "captions.jsonl", map(json.dumps, rows))
    tiny.copy_images(root / "images")


def f8k_captions_txt(root: Path, tiny: Tiny) -> None:
    """`captions.txt` with a header, and the lists."""
    rows = [(photo.name, text) for photo in tiny.photos for text in photo.captions]
    write_csv(root / "captions.txt", [("image", "caption"), *rows])
    write_text(root / "Flickr_8k.testImages.txt", [photo.name for photo in tiny.of("test")])
    tiny.copy_images(root / "Images")


FLICKR8K = (f8k_tokens, f8k_karpathy, f8k_jsonl, f8k_captions_txt)


def coco_karpathy(root: Path, tiny: Tiny) -> None:
    """`dataset_coco.json` above `val2014`, with COCO's own captions beside it."""
    value = karpathy(tiny.photos, filepath=lambda _: "val2014", cocoid=lambda number: 391895 + number)
    write_json(root / "dataset_coco.json", value)
    write_json(root / "annotations" / "captions_val2014.json", coco(tiny.photos))
    tiny.copy_images(root / "val2014")


def coco(photos: Sequence[Photo]) -> dict[str, Any]:
    """Return the value of a `captions_val2014.json`."""
    images = [{"id": 391895 + number, "file_name": photo.name} for number, photo in enumerate(photos)]
    notes = [(image["id"], text) for image, photo in zip(images, photos, strict=True) for text in photo.captions]
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(notes)]
    return {"images": images, "annotations": annotations}


def coco_split_json(root: Path, tiny: Tiny) -> None:
    """`coco_test_karpathy.json` in COCO's own keys."""
    for split in ("train", "val", "test"):
        write_json(root / f"coco_{split}_karpathy.json", coco(tiny.of(split)))
    tiny.copy_images(root / "val2014")


def coco_json_list(root: Path, tiny: Tiny) -> None:
    """`coco_karpathy_test.json`, a list of pictures with their captions."""
    entries = [{"image": f"val2014/{photo.name}", "caption": list(photo.captions)} for photo in tiny.of("test")]
    write_json(root / "coco_karpathy_test.json", entries)
    tiny.copy_images(root / "val2014")


COCO = (coco_karpathy, coco_split_json, coco_json_list)
