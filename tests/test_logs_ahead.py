"""Records are opened ahead of who packs them: within bounds, in order, and not for longer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pqvault.logs.ahead import ahead


def test_what_waits_is_bounded_by_bytes() -> None:
    """A record may be a gigabyte: one waits, not a number of them."""
    made: list[int] = []
    enough = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            enough.release()
            yield number

    found = ahead(items(), lambda _: 100, 250)
    assert next(found) == 0
    for _ in range(4):
        assert enough.acquire(timeout=10)
    assert not enough.acquire(timeout=0.2)  # three wait, with 300 bytes, and one was taken
    assert made == [0, 1, 2, 3]
    assert list(found) == list(range(1, 10))


def test_an_error_comes_behind_the_items_before_it() -> None:
    """Rows before damage are written, as if there were no thread."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("three")

    found = ahead(items(), lambda _: 1, 100)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_who_closes_it_has_the_iterator_for_himself() -> None:
    """Also while its thread waits for room: else closing would never end."""
    state = iter(range(100))
    made = threading.Semaphore(0)

    def size(_: int) -> int:
        made.release()
        return 1

    found = ahead(state, size, 2)
    assert next(found) == 0
    for _ in range(3):
        assert made.acquire(timeout=10)
    found.close()
    assert list(state) == list(range(3, 100))
    assert not [t for t in threading.enumerate() if t.name.startswith("pqvault-records")]
