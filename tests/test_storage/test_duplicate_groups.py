"""Pairs of near hashes are those that comparing all with all finds, and groups have no chains."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray
from small_index import publish

from storage import IndexStore
from storage.duplicates.grades import EXACT, RESAVED, SIMILAR, UNLIKE, Sizes, copy_rule
from storage.duplicates.groups import grouped
from storage.duplicates.near_hashes import bits_apart, cheapest, mirrored, near_between, near_pairs
from storage.duplicates.pairs import AlikePairs, ImageFacts, alike_pairs, candidates, copies_between
from storage.schema import EncoderInfo

Found = set[tuple[int, int]]


def flipped(value: np.uint64, bits: Iterable[int]) -> np.uint64:
    return np.bitwise_xor.reduce([value, *(np.uint64(1) << np.uint64(bit) for bit in bits)])


def some_hashes(rows: int, distance: int) -> NDArray[np.uint64]:
    """Random hashes, every fifth of which is up to `distance` + 2 bits away from the one before."""
    rng = np.random.default_rng(rows + distance)
    hashes = rng.integers(0, 2**64, rows, dtype=np.uint64)
    for row in range(5, rows, 5):
        hashes[row] = flipped(hashes[row - 1], rng.choice(64, rng.integers(1, distance + 3), replace=False))
    return hashes


def compared(hashes: NDArray[np.uint64], distance: int) -> Found:
    left, right = np.nonzero(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance)
    return {(i, j) for i, j in zip(left.tolist(), right.tolist(), strict=True) if i < j}


def pairs_of(parts: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> list[tuple[int, int]]:
    return [pair for left, right in parts for pair in zip(left.tolist(), right.tolist(), strict=True)]


@pytest.mark.parametrize(("rows", "distance"), [(2, 8), (300, 8), (4000, 0), (4000, 3), (6000, 8)])
def test_near_pairs_are_those_of_comparing_all_with_all_each_once(rows: int, distance: int) -> None:
    hashes = some_hashes(rows, distance)
    assert (cheapest(rows, distance) > 0) is (rows > 1000)
    found = pairs_of(near_pairs(hashes, distance))
    assert len(set(found)) == len(found)
    assert set(found) == compared(hashes, distance)


@pytest.mark.parametrize("most", [0, 1 << 32])
def test_near_hashes_of_two_sides_are_found_either_way(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.duplicates.near_hashes._MOST_PRODUCTS", most)
    hashes = some_hashes(1500, 8)
    left, right = np.concatenate([hashes[:700], hashes[:3]]), np.concatenate([hashes[700:], hashes[700:710]])
    found = set(pairs_of([near_between(left, right, 8)]))
    i, j = np.nonzero(np.bitwise_count(left[:, None] ^ right[None]) <= 8)
    assert found == {pair for pair in zip(i.tolist(), j.tolist(), strict=True) if pair[1] < 800}
    assert not pairs_of([near_between(left, right[:0], 8)])
    assert not pairs_of([near_between(np.zeros(1, np.uint64), ~np.zeros(1, np.uint64), 8)])


@pytest.mark.parametrize("loosest", [EXACT, RESAVED, SIMILAR])
def test_alike_images_of_a_version_are_those_of_comparing_all_with_all(store: IndexStore, loosest: int) -> None:
    """Their hashes are small numbers, which differ in few bits."""
    rows = 40
    publish(store, rows)
    with store.open_version() as version:
        facts, rule = ImageFacts.read(version), copy_rule(version.manifest.encoder)
        vectors = version.vectors("images").gather(np.arange(rows)).astype(np.float32)
        found = alike_pairs(version, facts, loosest)
        between = copies_between(version, facts, np.arange(20), np.arange(20, rows))
        assert not copies_between(version, facts, np.arange(20), np.arange(0))[0].size
    expected = {}
    for i in range(rows):
        for j in range(i):
            apart = np.array([int(facts.hashes[i] ^ facts.hashes[j]).bit_count()], dtype=np.uint8)
            shape = facts.sizes.take(np.array([i])).beside(facts.sizes.take(np.array([j])))
            cosine = np.vecdot(vectors[[i]], vectors[[j]])
            expected[i, j] = int(rule.grades(apart, cosine, shape, np.zeros(1, np.bool_))[0])
    pairs = zip(found.better.tolist(), found.other.tolist(), strict=True)
    graded = dict(zip(((max(pair), min(pair)) for pair in pairs), found.grades.tolist(), strict=True))
    assert graded == {pair: grade for pair, grade in expected.items() if EXACT < grade <= loosest}
    assert bool(graded) == (loosest != EXACT)
    copied = {(j, i) for i, j in zip(*map(np.ndarray.tolist, between), strict=True)}
    assert copied == {(i, j) for (i, j), grade in expected.items() if i >= 20 > j and grade <= RESAVED}


def test_equal_hashes_are_pairs_and_of_very_many_the_best_are_compared_with_all() -> None:
    hashes = np.concatenate([np.full(100, 7, np.uint64), np.full(3, 5, np.uint64), some_hashes(50, 8)])
    found = set(pairs_of(candidates(hashes, 8)))
    expected = compared(hashes, 8)
    assert found <= expected
    assert {pair for pair in expected if pair[0] < 64 or pair[1] >= 100} <= found
    assert pairs_of(candidates(np.arange(0, 2**63, 2**62, dtype=np.uint64), 0)) == []


def test_twice_mirrored_is_as_before() -> None:
    hashes = some_hashes(10, 8)
    assert bits_apart(hashes, mirrored(hashes)).tolist() == [32] * 10
    assert mirrored(mirrored(hashes)).tolist() == hashes.tolist()


SAME, HALF, CUT = (400, 300), (200, 150), (400, 250)


@pytest.mark.parametrize(
    ("spec", "apart", "cosine", "size", "grade"),
    [
        ("ViT-B-32/openai", 3, 0.95, SAME, RESAVED),
        ("ViT-B-32/openai", 3, 0.95, CUT, SIMILAR),
        ("ViT-B-32/openai", 3, 0.5, SAME, UNLIKE),
        ("ViT-B-32/openai", 7, 0.85, HALF, RESAVED),
        ("ViT-B-32/openai", 7, 0.85, SAME, SIMILAR),
        ("ViT-B-32/openai", 12, 0.95, HALF, SIMILAR),
        ("ViT-B-32/openai", 12, 0.85, HALF, UNLIKE),
        ("ViT-B-32/openai", 20, 1.0, SAME, UNLIKE),
        ("lite", 3, -0.2, SAME, RESAVED),
        ("lite", 7, 0.5, HALF, RESAVED),
        ("lite", 7, -0.2, HALF, UNLIKE),
        ("lite", 11, 0.8, SAME, SIMILAR),
    ],
)
def test_hash_vector_and_size_must_agree(
    spec: str, apart: int, cosine: float, size: tuple[int, int], grade: int
) -> None:
    rule = copy_rule(EncoderInfo(spec=spec, dim=2, fingerprint=None))
    shape = sizes(SAME).beside(sizes(size))
    known = (np.array([apart], np.uint8), np.array([cosine], np.float32), shape)
    assert rule.grades(*known, np.array([False])).tolist() == [grade]
    assert rule.grades(*known, np.array([True])).tolist() == [EXACT]


def sizes(*each: tuple[float, float]) -> Sizes:
    return Sizes(widths=np.array([size[0] for size in each]), heights=np.array([size[1] for size in each]))


def test_sizes_that_are_not_known_agree_in_shape_alone() -> None:
    shape = sizes((400, 300), (np.nan, np.nan)).beside(sizes((np.nan, 300), (np.nan, np.nan)))
    assert (shape.same_shape.tolist(), shape.same_size.tolist()) == ([True, True], [False, False])


def facts_of(rows: int) -> ImageFacts:
    plain, side = np.arange(rows), np.ones(rows)
    known = Sizes(widths=side, heights=side)
    return ImageFacts(contents=plain, hashes=plain.astype(np.uint64), hashed=plain >= 0, sizes=known, order=plain[::-1])


def test_a_chain_makes_no_group_of_unlike_images() -> None:
    """The best is 5; 5 and 4, 4 and 3, 3 and 2 are alike, and 0 has the bytes of 4, 1 those of 3."""
    better, other, grades = [5, 4, 3, 4, 3], [4, 3, 2, 0, 1], [RESAVED, RESAVED, SIMILAR, EXACT, EXACT]
    pairs = AlikePairs(
        better=np.array(better),
        other=np.array(other),
        grades=np.array(grades, np.uint8),
        apart=np.arange(5, dtype=np.uint8),
        cosines=np.full(5, 0.9, np.float32),
    )
    groups = grouped(facts_of(6), pairs)
    told = [(group.best, {member.row: member.grade for member in group.members}, group.grade) for group in groups]
    assert told == [(5, {4: RESAVED, 0: RESAVED}, RESAVED), (3, {2: SIMILAR, 1: EXACT}, SIMILAR)]
