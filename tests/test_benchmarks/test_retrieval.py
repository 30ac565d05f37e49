"""The scripts of the published data sets, from the original files to the table, in every layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco
import flickr8k
import flickr30k
import pytest
import tiny_sets
from colour import ColourEncoder
from tiny_sets import Tiny

from storage import IndexStore

Write = Callable[[Path, Tiny], None]
BOTH = ("image_to_text", "text_to_image")


def measure(script: Any, root: Path, out: Path, *more: str, encoder: ColourEncoder | None = None) -> dict[str, Any]:
    encoders = {"colour": encoder or ColourEncoder(), "tuned": ColourEncoder("tuned")}
    argv = ["--root", str(root), "--encoder", "colour", "--work", str(out / "work"), "--results", str(out / "results")]
    return script.main([*argv, *more], encoders)


def pairs(out: Path) -> set[tuple[str, str]]:
    (index,) = (out / "work").iterdir()
    with IndexStore.open(index).open_version() as version:
        names = version.catalog.table("images").column("item_id").to_pylist()
        captions = version.catalog.table("texts").column("caption").to_pylist()
        rows = version.catalog.table("pairs")
        ends = zip(rows.column("image_row").to_pylist(), rows.column("text_row").to_pylist(), strict=True)
        return {(Path(names[image]).name, captions[text]) for image, text in ends}


def figures(found: dict[str, Any]) -> list[Any]:
    (result,) = found["results"]
    return [result["rsum"], *(result[name] for name in BOTH)]


@pytest.fixture(scope="session")
def reference(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every layout must give."""
    folder = tmp_path_factory.mktemp("reference")
    tiny_sets.f8k_jsonl(folder / "set", tiny)
    return figures(measure(flickr8k, folder / "set", folder))


LAYOUTS = [
    *((flickr30k, write) for write in tiny_sets.FLICKR30K),
    *((flickr8k, write) for write in tiny_sets.FLICKR8K),
    *((coco, write) for write in tiny_sets.COCO),
]


@pytest.mark.parametrize(("script", "write"), LAYOUTS, ids=[write.__name__ for _, write in LAYOUTS])
def test_every_layout_gives_the_same_pairs_and_figures(
    script: Any, write: Write, tiny: Tiny, reference: list[Any], tmp_path: Path
) -> None:
    write(tmp_path / "set", tiny)
    found = measure(script, tmp_path / "set", tmp_path)
    assert pairs(tmp_path) == tiny.pairs()
    assert (found["images"], found["texts"]) == (12, 60)
    assert figures(found) == reference


def test_the_validation_split_is_found_under_either_name(tiny: Tiny, tmp_path: Path) -> None:
    more = replace(tiny, photos=tuple(replace(photo, split="val") for photo in tiny.photos))
    tiny_sets.f8k_tokens(tmp_path / "set", more)
    assert measure(flickr8k, tmp_path / "set", tmp_path, "--split", "val")["split"] == "dev"


def test_a_second_run_encodes_nothing_and_gives_the_same(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    first = measure(flickr30k, tmp_path / "set", tmp_path)
    again = ColourEncoder()
    assert figures(measure(flickr30k, tmp_path / "set", tmp_path, encoder=again)) == figures(first)
    assert again.images_encoded + again.texts_encoded == 0


class Interrupted(ColourEncoder):
    """Stops where Ctrl-C would."""

    def encode_texts(self, texts: Any) -> Any:
        raise KeyboardInterrupt


def test_a_run_that_was_interrupted_is_finished_by_the_next(tiny: Tiny, reference: list[Any], tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    with pytest.raises(KeyboardInterrupt):
        measure(flickr30k, tmp_path / "set", tmp_path, encoder=Interrupted())
    assert figures(measure(flickr30k, tmp_path / "set", tmp_path)) == reference


def test_a_fine_tuned_encoder_stands_beside_the_first(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    found = measure(flickr30k, tmp_path / "set", tmp_path, "--fine-tuned", "tuned")
    assert [(one["encoder"], one["kind"]) for one in found["results"]] == [
        ("colour", "zero-shot"),
        ("tuned", "fine-tuned"),
    ]
    text = capsys.readouterr().out
    assert "tuned, fine-tuned, exact" in text
    assert "ViT-B-32 openai, zero-shot" in text
    assert "Protocol twinlens, split test: 12 images and 60 texts; 5 captions an image" in text


def test_a_prompt_makes_another_index_and_is_told(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    plain = measure(flickr30k, tmp_path / "set", tmp_path)
    found = measure(flickr30k, tmp_path / "set", tmp_path, "--prompt", "a photo of {}")
    assert found["results"][0]["protocol"]["prompt"] == "a photo of {}"
    assert figures(found) != figures(plain)
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_weights_that_were_trained_again_make_another_index(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    spec = f"local-dir:{tmp_path / 'model'}"
    found = []
    for name in ("first", "second"):
        tiny_sets.write_text(tmp_path / "model" / "weights.safetensors", [name])
        argv = ["--root", str(tmp_path / "set"), "--encoder", spec, "--work", str(tmp_path / "work")]
        again = ColourEncoder(name)
        found.append(flickr30k.main([*argv, "--results", str(tmp_path / "results")], {spec: again}))
        assert again.images_encoded == 12
    assert len(list((tmp_path / "work").iterdir())) == 2
    assert [path.name for path in (tmp_path / "results").glob("*.md")] == [found[0]["recorded"]]


def test_an_unusual_split_is_warned_of_in_one_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    measure(flickr30k, tmp_path / "set", tmp_path)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "has 12 images with 60 captions, and the published one 1,000 with 5 each" in warnings[0]


def test_the_vse_protocol_keeps_five_captions_of_each_image(tiny: Tiny, tmp_path: Path) -> None:
    more = Tiny(tuple(replace(photo, captions=(*photo.captions, f"sixth of {photo.name}")) for photo in tiny.photos))
    tiny_sets.coco_karpathy(tmp_path / "set", more)
    kept = measure(coco, tmp_path / "set", tmp_path / "vse", "--protocol", "vse")
    whole = measure(coco, tmp_path / "set", tmp_path / "all")
    assert (kept["texts"], whole["texts"]) == (60, 72)
    assert "the first 5 captions of an image" in kept["corpus"]
    assert pairs(tmp_path / "vse") == tiny.pairs(most=5)
    assert kept["results"][0]["figures"]["rsum"] == pytest.approx(kept["results"][0]["rsum"])


def test_many_images_are_searched_through_ivf_pq_and_in_folds(data: Path, tmp_path: Path) -> None:
    photos = tiny_sets.read_tiny(data / "flickr8k", 74)
    tiny_sets.coco_karpathy(tmp_path / "set", photos)
    found = measure(coco, tmp_path / "set", tmp_path, "--output", "json")
    (result,) = found["results"]
    assert result["index"]["ann"] == {"images": "ivf-pq4", "texts": "ivf-pq4"}
    assert set(result["ann_recall@10"]) == set(BOTH)
    assert result["folded"]["protocol"]["folds"] == 5
    assert result["folded"]["rsum"] > result["rsum"]


def test_json_goes_to_stdout_alone_and_a_dated_record_is_left(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    found = measure(flickr30k, tmp_path / "set", tmp_path, "--output", "json")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    written = (tmp_path / "results" / found["recorded"]).read_text("utf-8")
    assert "colour, zero-shot, exact: text_to_image R@1/5/10" in written
    assert "published, flickr30k: HREM" in written


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (flickr30k, "holds no Flickr30K; get dataset_flickr30k.json"),
        (flickr8k, "holds no Flickr8k; get Flickr8k_text.zip"),
        (coco, "holds no COCO captions; get dataset_coco.json"),
    ],
)
def test_without_data_one_line_says_what_to_get(script: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as stopped:
            measure(script, root, tmp_path)
        message = str(stopped.value)
        assert message.startswith("error: ")
        assert "\n" not in message
        assert said.split("; get ")[1] in message


def test_captions_without_splits_ask_for_a_list(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.write_text(tmp_path / "set" / "results_20130124.token", tiny_sets.tokens(tiny.photos))
    tiny.copy_images(tmp_path / "set" / "flickr30k-images")
    with pytest.raises(SystemExit, match=r"no images of split 'test'; its splits: \(none\) \(16\)\. Usual are: data"):
        measure(flickr30k, tmp_path / "set", tmp_path)


def test_precomputed_captions_alone_do_not_name_their_pictures(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_precomp(tmp_path / "set", tiny)
    (tmp_path / "set" / "id_mapping.json").unlink()
    with pytest.raises(SystemExit, match="are numbers in Karpathy's list, not file names; put"):
        measure(flickr30k, tmp_path / "set", tmp_path)


def test_a_picture_of_each_encoder_is_drawn(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    measure(flickr30k, tmp_path / "set", tmp_path, "--fine-tuned", "tuned", "--plot", str(tmp_path / "recall.png"))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["recall-fine-tuned.png", "recall.png"]


def test_pictures_that_are_elsewhere_are_asked_for_and_can_be_named(tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    (tmp_path / "set" / "flickr30k-images").rename(tmp_path / "far")
    (tmp_path / "far" / "deep").mkdir()
    (tmp_path / "far").rename(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path / "set" / ".hidden")
    with pytest.raises(
        SystemExit, match=r"names pictures such as '1000092823.jpg' that are not there; name their folder"
    ):
        measure(flickr30k, tmp_path / "set", tmp_path)
    found = measure(flickr30k, tmp_path / "set", tmp_path, "--images", str(tmp_path / "set" / ".hidden"))
    assert found["images"] == 12


@pytest.mark.parametrize("options", [("--prompt", "a photo"), ("--prompt", "{} and {}"), ("--split", "tset")])
def test_wrong_options_are_one_line(options: tuple[str, str], tiny: Tiny, tmp_path: Path) -> None:
    tiny_sets.f30k_karpathy(tmp_path / "set", tiny)
    with pytest.raises(SystemExit, match=r"^error: [^\n]+$"):
        measure(flickr30k, tmp_path / "set", tmp_path, *options)
