"""The catalogue of encoders agrees with the installed open_clip, and everything in it has a source."""

from __future__ import annotations

import encoder_catalogue
import open_clip
import pytest
from open_clip.pretrained import get_pretrained_cfg

from encoders.catalogue.entries import TERMS, CatalogueEntry, languages, load_entries, read_file
from encoders.preprocess import Preprocess, PreprocessConfig
from indexer.ann.plan import pq_width
from twinlens.encoder_table import encoder_rows, table_markdown

ENTRIES = load_entries()
COUNTED = (
    "ViT-B-32/laion2b_s34b_b79k",
    "ViT-B-32-SigLIP2-256/webli",
    "PE-Core-T-16-384/meta",
    "MobileCLIP2-S0/dfndr2b",
)


def entry(spec: str) -> CatalogueEntry:
    return next(one for one in ENTRIES if one.spec == spec)


def test_every_encoder_is_a_pretrained_one_of_open_clip_and_stands_once() -> None:
    known = {"/".join(pair) for pair in open_clip.list_pretrained()}
    assert len(ENTRIES) > 45
    assert {one.spec for one in ENTRIES} <= known
    assert len({one.spec for one in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.spec)
def test_dimension_image_size_and_preprocessing_are_those_of_its_configuration(one: CatalogueEntry) -> None:
    config = open_clip.get_model_config(one.architecture)
    assert (config["embed_dim"], config["vision_cfg"]["image_size"]) == (one.dim, one.image_size)
    tag = {**get_pretrained_cfg(one.architecture, one.spec.partition("/")[2]), "size": one.image_size}
    assert Preprocess(PreprocessConfig.of(tag)).config.pixel_shape == (3, one.image_size, one.image_size)


@pytest.mark.parametrize("spec", COUNTED)
def test_sizes_are_what_is_counted_in_the_architecture(spec: str) -> None:
    line = next(line for line in read_file()["encoders"] if line["spec"] == spec)
    assert encoder_catalogue.sizes(entry(spec)) == {
        name: line[name] for name in line if name.endswith(("params", "flops"))
    }


def test_every_licence_and_every_figure_names_its_source() -> None:
    for row in encoder_rows():
        assert row.entry.licence in TERMS
        assert row.entry.licence_source.strip()
        for published in (row.flickr30k, row.coco):
            known = [value for value in (published.text_to_image, published.image_to_text) if value is not None]
            assert bool(known) == bool(published.source)
            assert all(20 < value < 100 for value in known)
        assert all(20 < value < 100 for value in row.entry.xm3600.values())
    assert read_file()["sizes_source"]
    assert read_file()["xm3600_source"]


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.spec)
def test_the_bytes_of_a_code_are_those_that_an_index_makes(one: CatalogueEntry) -> None:
    assert one.code_bytes == -(-one.dim // pq_width("ivf-pq4", one.dim) // 2)


def test_known_figures_stand_as_their_sources_have_them() -> None:
    rows = {row.entry.spec: row for row in encoder_rows()}
    siglip2, ours = rows["ViT-B-32-SigLIP2-256/webli"], rows["ViT-B-32/laion2b_s34b_b79k"]
    assert (siglip2.coco.text_to_image, siglip2.coco.image_to_text, siglip2.flickr30k.source) == (47.2, 63.7, None)
    assert (ours.flickr30k.text_to_image, ours.flickr30k.image_to_text) == (66.78, 84.1)
    assert ours.entry.item_bytes == 1024 + 128
    assert siglip2.entry.xm3600["ar"] == 60.7
    assert {rows[spec].entry.terms for spec in ("ViT-B-16/dfn2b", "MobileCLIP2-S0/dfndr2b")} == {"RESEARCH ONLY"}


def test_an_encoder_is_marked_where_no_open_one_has_more_recall_for_less() -> None:
    rows = encoder_rows()
    marked = [row for row in rows if row.pareto]
    assert marked
    for row in rows:
        better = [
            other
            for other in rows
            if other.entry.terms == "open"
            and other.recall is not None
            and row.recall is not None
            and other.recall >= row.recall
            and other.entry.image_gflops <= row.entry.image_gflops
            and (other.recall, other.entry.image_gflops) != (row.recall, row.entry.image_gflops)
        ]
        assert row.pareto == (row.entry.terms == "open" and row.recall is not None and not better)


def test_presets_are_what_follows_from_the_table() -> None:
    assert read_file()["presets"] == encoder_catalogue.derived_presets()


def test_languages_are_those_of_the_multilingual_models() -> None:
    assert {"ar", "en", "zh"} <= set(languages())
    assert all(
        len(entry(spec).xm3600) == len(languages()) for spec in ("ViT-B-16-SigLIP2/webli", "nllb-clip-base-siglip/mrl")
    )


def test_the_page_holds_the_table_as_it_is() -> None:
    page = encoder_catalogue.PAGE.read_text(encoding="utf-8")
    assert encoder_catalogue.page_with_table(page) == page
    assert all(f"`{one.spec}`" in table_markdown(encoder_rows()) for one in ENTRIES)
