"""An audit names what was planted: a wrong caption, an image with foreign captions, a duplicate, a hub, a far item."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from colour import ColourEncoder
from paired_index import build_paired, captioned, unit
from PIL import Image

from indexer import build_index
from searcher.audit import audit_index
from searcher.audit.collection_map import by_principal_components, by_umap
from searcher.audit.suspicious import judge_pairs
from searcher.errors import ParameterError, SearchError
from searcher.render.audit_page import render_audit
from storage.errors import IndexNotFoundError
from storage.store import IndexStore
from twinlens.commands.audit import audit

IMAGES, CAPTIONS = 120, 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In topics with noise: text 31 belongs to image 90, images 50 and 51 have each other's captions, 7 is far."""
    images, texts, pairs = captioned(IMAGES, CAPTIONS, noise=0.8)
    common = np.eye(1, 32)
    images, texts = unit(images + 0.7 * common), unit(texts + 0.7 * common)  # else none would be far from the others
    images[7] = unit(-common - 0.3 * images[7:8])[0]
    images[20] = unit(texts.mean(axis=0, keepdims=True))[0]
    owner = {text: image for image, text in pairs}
    owner[31] = 90
    owner |= {text: {50: 51, 51: 50}[image] for image, text in pairs if image in (50, 51)}
    lone = unit(np.vstack([images, common]))
    index = build_paired(
        tmp_path_factory.mktemp("planted"), lone, texts, [(owner[text], text) for text in sorted(owner)]
    )
    return {"index": index, "facts": audit_index(index, most=5).facts}


def test_a_wrong_caption_is_the_most_suspicious_pair_and_its_own_image_the_better_one(planted: dict[str, Any]) -> None:
    first = planted["facts"]["suspicious"]["pairs"][0]
    assert (first["image"]["item_id"], first["text"]["item_id"]) == ("images-90", "texts-31")
    assert first["better_images"][0]["item_id"] == "images-10"
    assert first["better_texts"][0]["item_id"] in {"texts-270", "texts-271", "texts-272"}
    assert first["fit"] < first["better_images"][0]["fit"]
    assert planted["facts"]["suspicious"]["judged"] == planted["facts"]["suspicious"]["of"] == IMAGES * CAPTIONS


def test_images_whose_captions_were_exchanged_together_fit_least(planted: dict[str, Any]) -> None:
    found = planted["facts"]["unfit_images"]["images"]
    assert {"images-50", "images-51"} <= {image["item_id"] for image in found[:4]}
    assert all(len(image["captions"]) >= 2 for image in found)


def test_a_hub_a_far_item_and_one_without_partner_are_named(planted: dict[str, Any]) -> None:
    facts = planted["facts"]
    assert facts["hubs"]["images"]["items"][0]["item_id"] == "images-20"
    assert facts["hubs"]["images"]["asked"] == "texts"
    assert facts["far"]["images"]["items"][0]["item_id"] == "images-7"
    alone = facts["without_partner"]["images"]
    assert (alone["count"], alone["items"][0]["item_id"]) == (1, f"images-{IMAGES}")
    assert facts["without_partner"]["texts"]["count"] == 0


def test_of_many_pairs_evenly_spaced_ones_are_judged(planted: dict[str, Any]) -> None:
    with IndexStore.open(planted["index"]).open_version() as version:
        judged = judge_pairs(version, most=100)
    assert judged is not None
    assert (len(judged.images), judged.of) == (100, IMAGES * CAPTIONS)
    assert np.isfinite(judged.scores).all()
    assert np.ptp(judged.images) > IMAGES * 0.9


def test_the_map_has_every_item_in_a_cluster_and_on_the_plane(planted: dict[str, Any]) -> None:
    drawn = planted["facts"]["map"]
    assert (drawn["collection"], drawn["looked_at"], len(drawn["points"])) == ("images", IMAGES + 1, IMAGES + 1)
    assert [one["count"] for one in drawn["clusters"]] == sorted(
        (one["count"] for one in drawn["clusters"]), reverse=True
    )
    assert sum(one["count"] for one in drawn["clusters"]) == IMAGES + 1
    assert {point["cluster"] for point in drawn["points"]} == set(range(len(drawn["clusters"])))
    assert all(0 <= point[axis] <= 1 for point in drawn["points"] for axis in "xy")


def test_principal_components_keep_like_near_to_like_and_do_not_depend_on_the_sign() -> None:
    rng = np.random.default_rng(3)
    heaps = np.repeat(unit(rng.standard_normal((3, 16))), 40, axis=0)
    vectors = unit(heaps + 0.05 * rng.standard_normal((120, 16)))
    positions = by_principal_components(vectors)
    assert positions.min() == 0
    assert positions.max() == 1
    middles = positions.reshape(3, 40, 2).mean(axis=1)
    nearest = np.linalg.norm(positions[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == np.repeat(range(3), 40)).mean() > 0.95
    assert np.array_equal(positions, by_principal_components(vectors.copy()))
    assert by_principal_components(vectors[:, :1]).shape == (120, 2)


def test_umap_lays_out_within_the_unit_square_and_repeatably() -> None:
    pytest.importorskip("umap", reason="umap-learn, of the extra `map`, is not installed")
    vectors = unit(np.random.default_rng(0).standard_normal((60, 8)))
    positions = by_umap(vectors)
    assert positions.shape == (60, 2)
    assert ((positions >= 0) & (positions <= 1)).all()
    assert np.array_equal(positions, by_umap(vectors))


def test_clusters_of_images_without_texts_are_named_by_a_class_that_most_of_them_are_of(tmp_path: Path) -> None:
    rows = []
    for number in range(48):
        colour = ((220, 20, 20), (20, 20, 220))[number % 2]
        shade = tuple(min(255, part + number // 2) for part in colour)
        Image.new("RGB", (8, 8), shade).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "colour": ("red", "blue")[number % 2], "sku": f"S{number}"})
    (tmp_path / "c.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    build_index(tmp_path / "c.jsonl", tmp_path / "it.index", encoder=ColourEncoder())
    audited = audit_index(tmp_path / "it.index")
    names = {cluster["name"] for cluster in audited.facts["map"]["clusters"]}
    assert names == {"red", "blue"}
    page = render_audit(audited)
    assert page.count('<a id="map-') + page.count("<i style") == 48
    assert set(re.findall(r'href="#(map-\d+)"', page)) == set(re.findall(r'id="(map-\d+)"', page))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two splits; one of dev is one of train saved again, two captions are one, one file is no image."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(10):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.png")
        split, kind = ("train", "cat") if number < 7 else ("dev", "dog")
        rows.append({"image": f"{number}.png", "captions": [f"thing {number}"], "split": split, "kind": kind})
    with Image.open(folder / "0.png") as first:
        first.save(folder / "9.png", compress_level=1)
        first.resize((120, 90)).save(folder / "8.png")
    (folder / "3.png").write_bytes(b"no image")
    rows[1]["captions"] = ["<b>Two</b> things"]
    rows[9]["captions"] = ["b two b THINGS!"]
    (folder / "c.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    build_index(folder / "c.jsonl", folder / "it.index", encoder=ColourEncoder())
    return folder / "it.index"


def test_the_command_tells_duplicates_leaks_repeats_classes_and_rejections(corpus: Path) -> None:
    answer = CliRunner().invoke(audit, [str(corpus), "--output", "json"])
    facts = json.loads(answer.stdout)
    (group,) = facts["duplicates"]["largest"]
    assert {item["item_id"] for item in group["items"]} == {"0.png", "8.png", "9.png"}
    leaks = {part["split"]: part for part in facts["leaks"]}
    assert (leaks["dev"]["images"]["count"], leaks["train"]["images"]["count"]) == (2, 1)
    assert leaks["dev"]["texts"]["splits"] == {"train": 1}
    assert facts["repeated_captions"]["captions"] == [{"caption": "<b>Two</b> things", "count": 2}]
    sizes = {one["column"]: one["values"] for one in facts["columns"]["images"]}
    assert sizes["kind"] == [{"value": "cat", "count": 6}, {"value": "dog", "count": 3}]
    assert [(one["collection"], one["count"], one["example"]) for one in facts["rejected"]] == [("images", 1, "3.png")]
    text = CliRunner().invoke(audit, [str(corpus)]).stdout
    for said in ("Duplicates: 1 groups", "dev: 2 of 3 images", "Captions that repeat: 1", "cat 6, dog 3", "Rejected"):
        assert said in text


def test_the_page_is_one_file_without_scripts_or_addresses_and_shows_every_finding(corpus: Path) -> None:
    page = corpus.parent / "audit <i>.html"
    answer = CliRunner().invoke(audit, [str(corpus), "--out", str(page)])
    assert answer.exit_code == 0
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert not re.search(r"<script|https?:|<b>Two</b>", text)
    assert "&lt;b&gt;Two&lt;/b&gt; things" in text
    assert text.count("data:image/jpeg;base64,") >= 9 + 3  # each pair has its image, and the duplicates theirs
    for ident in ("pairs", "duplicates", "leaks", "repeated", "hubs", "far", "alone", "columns", "rejected"):
        assert f'<section id="{ident}">' in text
        assert f'href="#{ident}"' in text


def test_thumbnails_of_a_page_are_bounded(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searcher.render.audit_page.MOST_THUMBNAILS", 4)
    text = render_audit(audit_index(corpus))
    assert text.count("data:image/jpeg;base64,") == 4
    assert "no room for its image" in text


@pytest.mark.parametrize("side", ["images", "texts", "both"])
def test_one_collection_alone_or_no_pairs_is_audited_as_far_as_it_goes(tmp_path: Path, side: str) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((4, 8)))
    if side == "texts":
        (tmp_path / "t.txt").write_text("red\nred!\nblue\n", "utf-8")
        build_index(tmp_path / "t.txt", index := tmp_path / "it.index", encoder=ColourEncoder())
    else:
        index = build_paired(tmp_path, vectors, vectors if side == "both" else None)
    found = audit_index(index)
    facts = found.facts
    assert "Audit of" in render_audit(found)
    assert facts["suspicious"] is facts["unfit_images"] is facts["without_partner"] is None
    assert (facts["duplicates"] is None, facts["repeated_captions"] is None) == (side == "texts", side == "images")
    assert facts["leaks"] == facts["rejected"] == []
    assert set(facts["hubs"]) == ({"images", "texts"} if side == "both" else {side})


def test_what_cannot_be_audited_is_refused_in_a_sentence(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="nothing"):
        audit_index(tmp_path / "nothing")
    with pytest.raises(ParameterError, match="most=0 is not between 1 and 100"):
        audit_index(corpus, most=0)
    for out, said in (
        ("absent/audit.html", "the folder '.*absent' is not there"),
        (".", "it is a folder; name a file in it, such as audit.html"),
    ):
        answer = CliRunner().invoke(audit, [str(corpus), "--out", str(tmp_path / out)])
        assert isinstance(answer.exception, SearchError)
        assert re.search(said, str(answer.exception))
