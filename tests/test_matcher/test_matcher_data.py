"""What a matcher takes: containers, kinds of cells, ids; each distinct content encoded once."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder
from matching import Painted
from PIL import Image

from matcher import DataError, Matcher

Columns = dict[str, list[Any]]


def as_csv(columns: Columns, folder: Path) -> Path:
    lines = [",".join(columns), *(",".join(f'"{cell}"' for cell in row) for row in zip(*columns.values(), strict=True))]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "pairs.csv"


def as_jsonl(columns: Columns, folder: Path) -> str:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return str(folder / "pairs.jsonl")


def as_parquet(columns: Columns, folder: Path) -> Path:
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def as_pandas(columns: Columns, folder: Path) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns, index=[f"i{row}" for row in range(len(columns["image"]))])


def as_polars(columns: Columns, folder: Path) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


FORMS = [as_csv, as_jsonl, as_parquet, as_pandas, as_polars, lambda columns, _: pa.table(columns)]


@pytest.mark.parametrize("form", FORMS)
def test_every_container_gives_the_same_cosines(form: Any, painted: Painted, matcher: Matcher, tmp_path: Path) -> None:
    matcher.calibrate(painted.all_pairs)
    wanted = matcher.match(painted.pairs)
    found = matcher.match(form(painted.pairs, tmp_path))
    assert np.array_equal(found.cosine, wanted.cosine)
    assert len(found) == 24


def test_paths_in_a_table_start_at_its_folder(painted: Painted, matcher: Matcher) -> None:
    names = [Path(path).name for path in painted.images]
    path = as_csv({"caption": painted.captions, "image": names}, painted.folder)
    matcher.calibrate(painted.all_pairs)
    assert np.array_equal(matcher.match(path).cosine, matcher.match(painted.pairs).cosine)


def test_a_root_given_is_where_paths_start(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher(encoder=encoder, root=painted.folder)
    names = [Path(path).name for path in painted.images]
    wanted = Matcher(encoder=encoder).embed_images(painted.images)
    assert np.array_equal(matcher.extract_embedding({"image": names})["image"], wanted)
    assert np.array_equal(matcher.embed_images(names), wanted)


def test_a_picture_may_be_a_path_bytes_a_pil_image_an_array_or_base64(painted: Painted, matcher: Matcher) -> None:
    path = Path(painted.images[0])
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    coded = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    cells = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), picture, np.asarray(picture), coded]
    found = matcher.embed_images(cells)
    assert np.array_equal(found, np.tile(found[0], (len(cells), 1)))


def test_grey_and_transparent_arrays_are_pictures(matcher: Matcher) -> None:
    grey, clear = np.full((5, 6), 200, np.uint8), np.full((5, 6, 4), 200, np.uint8)
    found = matcher.embed_images([grey, grey[:, :, None], clear])
    assert np.array_equal(found[0], found[1])


def test_several_pictures_in_a_cell_are_averaged_at_unit_length(painted: Painted, matcher: Matcher) -> None:
    red, green = painted.images[0], painted.images[3]
    single = matcher.embed_images([red, green])
    mean = single.mean(axis=0) / np.linalg.norm(single.mean(axis=0))
    joined = matcher.embed_images([f"{red};{green}", f" {red} ; ;{green};", [red, Path(green)], red])
    assert joined[:3] == pytest.approx(np.tile(mean, (3, 1)), abs=1e-6)
    assert np.array_equal(joined[3], single[0])
    assert np.linalg.norm(joined, axis=1) == pytest.approx(np.ones(4), abs=1e-6)


def test_a_file_with_a_semicolon_in_its_name_is_one_file(painted: Painted, matcher: Matcher, tmp_path: Path) -> None:
    odd = tmp_path / "a;b.png"
    odd.write_bytes(Path(painted.images[0]).read_bytes())
    assert np.array_equal(*matcher.embed_images([str(odd), painted.images[0]]))


def test_each_distinct_content_is_encoded_once(painted: Painted, encoder: ColourEncoder, tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(painted.images[0]).read_bytes())
    data = {"caption": painted.captions[:2] * 50, "image": [painted.images[0], str(copy)] * 50}
    matcher = Matcher(encoder=encoder)
    assert {len(rows) for rows in matcher.extract_embedding(data).values()} == {100}
    assert (encoder.texts_encoded, encoder.images_encoded) == (2, 1)


def test_both_sides_of_image_pairs_share_what_is_encoded(painted: Painted, encoder: ColourEncoder) -> None:
    matcher = Matcher("left", "right", encoder, query_type="image", response_type="image")
    matcher.similarity(painted.images, painted.images)
    assert encoder.images_encoded == 24
    assert encoder.texts_encoded == 0


def test_text_pairs_and_image_pairs_are_matched_too(painted: Painted, encoder: ColourEncoder) -> None:
    texts = Matcher("a", "b", encoder, query_type="text", response_type="text")
    images = Matcher("a", "b", encoder, query_type="image", response_type="image")
    assert np.diag(texts.similarity(painted.captions, painted.captions)) == pytest.approx(np.ones(24))
    same = images.similarity(painted.images, painted.images)
    assert same[0, 1] > same[0, 6]


def test_ids_stand_for_contents(painted: Painted, matcher: Matcher) -> None:
    ids = [f"id{row}" for row in range(24)]
    mappings = {"image": dict(zip(ids, painted.images, strict=True)), "caption": dict(enumerate(painted.captions))}
    matcher.calibrate({"caption": range(24), "image": ids}, id_mappings=mappings)
    found = matcher.match({"caption": range(24), "image": ids}, id_mappings=mappings)
    assert np.array_equal(found.cosine, matcher.match(painted.pairs).cosine)
    series = pytest.importorskip("pandas").Series(painted.images, index=ids)
    assert np.array_equal(
        matcher.extract_embedding({"image": ids}, id_mappings={"image": series})["image"],
        matcher.embed_images(painted.images),
    )
    with pytest.raises(DataError, match="row 0, column 'image': the id mappings have no 'id99'"):
        matcher.extract_embedding({"image": ["id99"]}, id_mappings=mappings)


def test_embeddings_come_as_arrays_tensors_frames_and_arrow(painted: Painted, matcher: Matcher) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": painted.images}, index=range(100, 124))
    plain = matcher.extract_embedding(frame)["image"]
    assert plain.dtype == np.float32
    assert np.array_equal(matcher.extract_embedding(frame, as_tensor=True)["image"].numpy(), plain)
    framed = matcher.extract_embedding(frame, as_pandas=True)["image"]
    assert np.array_equal(framed.to_numpy(), plain)
    assert framed.index.tolist() == list(range(100, 124))
    arrow = matcher.extract_embedding(frame, as_arrow=True)["image"]
    assert np.array_equal(np.stack(arrow.column("embedding").to_pylist()), plain)


def test_a_signature_says_which_column(painted: Painted, matcher: Matcher) -> None:
    both = matcher.extract_embedding(painted.pairs)
    assert list(both) == ["caption", "image"]
    assert np.array_equal(matcher.extract_embedding(painted.pairs, signature="response"), both["image"])
    assert np.array_equal(matcher.extract_embedding(painted.captions, signature="query"), both["caption"])
    assert np.array_equal(matcher.extract_embedding({"any": painted.images}, signature="response"), both["image"])


def test_a_column_alone_is_of_the_side_that_its_cells_are(painted: Painted, matcher: Matcher) -> None:
    pandas = pytest.importorskip("pandas")
    texts, images = matcher.embed_texts(painted.captions), matcher.embed_images(painted.images)
    assert np.array_equal(matcher.extract_embedding(painted.captions), texts)
    for column in (painted.images, list(map(Path, painted.images)), pandas.Series(painted.images)):
        assert np.array_equal(matcher.extract_embedding(column), images)
    named = pandas.Series(painted.captions, name="caption", index=range(5, 29))
    assert matcher.extract_embedding(named, as_pandas=True).index.tolist() == list(range(5, 29))
    assert list(matcher.extract_embedding({"image": painted.images})) == ["image"]
    for column in ([painted.images[0], "a red square"], [1, 2]):
        with pytest.raises(DataError, match="are not all texts or all images; say signature='query' or"):
            matcher.extract_embedding(column)
    with pytest.raises(DataError, match=r"has neither column 'caption' nor 'image'; it has 'any'.* signature='query'"):
        matcher.extract_embedding({"any": painted.images})
    with pytest.raises(DataError, match="embed_texts takes a list or a series of texts, not a dict"):
        matcher.embed_texts(painted.pairs)


def test_results_follow_the_frame_they_were_asked_with(painted: Painted, matcher: Matcher, tmp_path: Path) -> None:
    matcher.calibrate(painted.all_pairs)
    frame = as_pandas(painted.pairs, tmp_path)
    plain = matcher.predict_proba(painted.pairs)
    framed = matcher.predict_proba(frame)
    assert framed.index.tolist() == frame.index.tolist()
    assert np.array_equal(framed.to_numpy(), plain)
    assert np.array_equal(matcher.predict(frame).to_numpy(), matcher.predict(frame, as_pandas=False))
    assert np.array_equal(matcher.predict_proba(frame, as_multiclass=False, as_pandas=False), plain[:, 1])
    assert matcher.match(frame).to_pandas().columns.tolist() == ["cosine", "probability", "match"]
