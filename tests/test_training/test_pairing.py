"""Items are told apart by content, and no item is a wrong answer to itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import CaptionedImages, ExamplesError, PairSet
from training.batches import Pairing, Sampler, pair_captions, pair_pairs


@pytest.fixture
def image(tmp_path: Path) -> Callable[[int, str], Path]:
    def paint(shade: int, name: str = "") -> Path:
        path = tmp_path / f"{name or shade}.png"
        Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)
        return path

    return paint


def test_a_caption_of_two_images_and_an_image_under_two_names_are_one_item_each(image: Callable) -> None:
    images = [image(1), image(2), image(1, "copy")]
    pairing = pair_captions(CaptionedImages(images, [["a dog", "one"], ["a dog"], ["two", "one"]]))
    assert (len(pairing.left), list(pairing.right.contents)) == (2, ["a dog", "one", "two"])
    assert [partners.tolist() for partners in pairing.partners] == [[0, 1, 2], [0]]
    positives, ignored = pairing.block(np.array([0, 1]), np.array([0, 1]))
    assert positives.tolist() == [[True, True], [True, False]]
    assert not ignored.any()


def test_a_split_puts_all_captions_of_an_image_on_one_side(image: Callable) -> None:
    images = [image(shade) for shade in range(20)]
    captions = [[f"number {shade}", f"grey {shade}", "a square"] for shade in range(20)]
    train, val = pair_captions(CaptionedImages(images, captions)).split(0.25, seed=3)
    assert (len(train.left), len(val.left)) == (15, 5)
    assert not set(train.left.keys) & set(val.left.keys)
    for part in (train, val):
        for number, partners in enumerate(part.partners):
            shade = Path(part.left.contents[number]).stem
            assert {part.right.contents[row] for row in partners} == {f"number {shade}", f"grey {shade}", "a square"}


def test_a_few_unreadable_images_are_left_out_and_named(image: Callable, tmp_path: Path) -> None:
    images = [image(shade) for shade in range(40)]
    (tmp_path / "text.jpg").write_text("no image")
    images[3], images[30] = tmp_path / "gone.jpg", tmp_path / "text.jpg"
    pairing = pair_captions(CaptionedImages(images, [[f"grey {shade}"] for shade in range(40)]))
    assert len(pairing.left) == 38
    assert [line.split(": ")[:2] for line in pairing.unreadable] == [
        ["image 3", "missing"],
        ["image 30", "not_an_image"],
    ]


def test_many_unreadable_images_are_an_error_that_names_three(image: Callable, tmp_path: Path) -> None:
    images = [image(1), *(tmp_path / f"gone{number}.jpg" for number in range(5))]
    message = r"5 of 6 train images cannot be read: image 1: missing: .*gone0\.jpg'; .*gone2\.jpg'; and 2 more$"
    with pytest.raises(ExamplesError, match=message):
        pair_captions(CaptionedImages(images, [["a"]] * 6))


def test_pairs_of_one_kind_hold_both_ways_and_families_are_no_wrong_answers() -> None:
    pairs = PairSet(left=["a", "b", "d"], right=["b", "c", "e"], labels=[1, 1, 0], left_kind="text", right_kind="text")
    pairing = pair_pairs(pairs)
    names = list(pairing.left.contents)
    assert pairing.left is pairing.right or names == list(pairing.right.contents)
    rows = np.arange(len(names))
    positives, ignored = pairing.block(rows, rows)

    def pairs_of(table: np.ndarray) -> set[str]:
        return {names[i] + names[j] for i, j in zip(*np.nonzero(table), strict=True)}

    assert pairs_of(positives) == {"ab", "ba", "bc", "cb"}
    assert pairs_of(ignored) == {"aa", "bb", "cc", "dd", "ee", "ac", "ca"}
    assert {names[i] + names[j] for i, j in pairing.negatives} == {"de", "ed"}


def test_known_wrong_answers_join_the_step_of_their_item() -> None:
    pairs = PairSet(
        left=[f"q{number}" for number in range(8)] * 2,
        right=[f"yes{number}" for number in range(8)] + [f"no{number}" for number in range(8)],
        labels=[1] * 8 + [0] * 8,
        right_kind="text",
    )
    pairing = pair_pairs(pairs)
    assert pairing.families is not None
    for batch in Sampler(pairing=pairing, batch_size=4, captions=1, views=0, fresh=False, seed=0).epoch(0):
        asked = {str(pairing.left.contents[row]) for row in batch.left}
        offered = {str(pairing.right.contents[row]) for row in batch.right}
        assert {name.replace("q", "no") for name in asked if name.startswith("q")} <= offered


def test_an_epoch_shows_each_image_once_and_draws_its_own_captions(image: Callable) -> None:
    captions = [[f"{word} {shade}" for word in "abcde"] for shade in range(10)]
    pairing = pair_captions(CaptionedImages([image(shade) for shade in range(10)], captions))
    sampler = Sampler(pairing=pairing, batch_size=4, captions=2, views=3, fresh=False, seed=0)
    epochs = [list(sampler.epoch(number)) for number in range(2)]
    for batches in epochs:
        assert sorted(np.concatenate([batch.left for batch in batches])) == list(range(10))
        assert [len(batch.right) for batch in batches] == [2 * len(batch.left) for batch in batches]
        assert all((batch.positives.sum(1) == 2).all() for batch in batches)
        assert all(set(batch.views) <= {0, 1, 2, 3} for batch in batches)
    assert not np.array_equal(epochs[0][0].left, epochs[1][0].left)
    rest = list(sampler.epoch(1, start=1))
    assert np.array_equal(rest[0].right, epochs[1][1].right)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CaptionedImages(["a.jpg"], [["a"], ["b"]]), "1 images and 2 lists of captions do not go together"),
        (lambda: CaptionedImages(["a.jpg"], ["a dog"]), "image 0 has the one text 'a dog' for a list"),
        (lambda: CaptionedImages(["a.jpg"], [[]]), "image 0 has no caption"),
        (lambda: CaptionedImages(["a.jpg"], [["a", "  "]]), "image 0 has an empty text"),
        (lambda: CaptionedImages(["a.jpg"], [[None]]), "image 0 has a NoneType for a text"),
        (lambda: PairSet(left=["a"], right=["b.jpg"], labels=[1, 0]), "1 left, 1 right and 2 labels do not go"),
        (lambda: PairSet(left=["a"], right=["b.jpg"], labels=[2]), "label 2 is neither 0"),
        (lambda: PairSet(left=["a"], right=[3]), "pair 0 has a int for an image"),
        (
            lambda: PairSet(left=["a"], right=["b"], right_kind="sound"),
            "right_kind is 'sound'; choose one of image, text",
        ),
        (lambda: pair_pairs(PairSet(left=["a"], right=["b"], labels=[0], right_kind="text")), "no two different"),
        (lambda: pair_pairs(PairSet(left=["a"], right=["a"], right_kind="text")), "no two different contents"),
    ],
)
def test_examples_that_cannot_be_learned_from_say_so_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ExamplesError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_too_few_images_to_hold_some_back_are_refused(image: Callable) -> None:
    pairing: Pairing = pair_captions(CaptionedImages([image(1), image(2)], [["a"], ["b"]]))
    with pytest.raises(
        ExamplesError, match=r"2 distinct images with partners are too few.*give 4 or more, or give val"
    ):
        pairing.split(0.1, 0)
