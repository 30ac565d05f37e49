"""A cache keeps what was used last, up to its limit, whoever asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from storage.lru import Lru


def test_what_was_unused_for_longest_goes_first() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_looking_whether_a_key_is_there_is_no_use_of_it() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    cache.put("c", 3)
    assert "a" not in cache


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=9)), max_size=40))
def test_the_sizes_of_what_is_kept_never_pass_the_limit(puts: list[tuple[int, bytes]]) -> None:
    cache: Lru[int, bytes] = Lru(12, len)
    for key, value in puts:
        cache.put(key, value)
        kept = [one for number in range(6) if (one := cache.get(number)) is not None]
        assert sum(map(len, kept)) <= 12
        assert cache.get(key) == value
        assert len(cache) == len(kept)


def test_many_threads_leave_it_whole() -> None:
    cache: Lru[int, int] = Lru(16)

    def use(thread: int) -> None:
        for step in range(2_000):
            cache.put((thread * step) % 40, step)
            cache.get(step % 40)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(1, 5)))
    assert len(cache) == 16
