"""Frames that overtook each other."""

from __future__ import annotations

import random

from hypothesis import given, strategies as st

from mediaflow.reorder import Reorder


def _through(window: int, chunks: list[int]) -> list[int]:
    order: Reorder[int] = Reorder(window)
    passed = [frame for chunk in chunks for frame in order.take("inbound", chunk, chunk)]
    return passed + order.restart()


@given(st.integers(1, 80), st.integers(1, 6), st.integers(0, 2**32))
def test_what_is_late_by_less_than_the_window_is_sorted(count: int, window: int, seed: int) -> None:
    """Frames that were overtaken by at most ``window`` others come out in order, whole."""
    chance = random.Random(seed)
    # Who is held back by less than window + 1 places has at most that many frames before it that should follow it.
    chunks = sorted(range(1, count + 1), key=lambda chunk: chunk + chance.uniform(0, window))
    assert _through(window, chunks) == list(range(1, count + 1))


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 6))
def test_nothing_is_lost_or_made(chunks: list[int], window: int) -> None:
    """Whatever numbers come, every frame comes out once, repeats too."""
    assert sorted(_through(window, chunks)) == sorted(chunks)


def test_a_loss_delays_once() -> None:
    """Behind a frame that never comes, the window fills, is let go, and from then on nothing waits."""
    order: Reorder[int] = Reorder(3)
    steps = [order.take("inbound", chunk, chunk) for chunk in (1, 3, 4, 5, 6, 7, 8)]
    assert steps == [[1], [], [], [], [3, 4, 5, 6], [7], [8]]


def test_tracks_do_not_wait_for_each_other() -> None:
    """Each track counts for itself, and a frame without a number waits for nothing."""
    order: Reorder[str] = Reorder(3)
    assert order.take("inbound", 2, "i2") == []
    assert order.take("outbound", 1, "o1") == ["o1"]
    assert order.take("inbound", None, "i?") == ["i?"]
    assert order.take("inbound", 1, "i1") == ["i1", "i2"]


def test_a_new_socket_counts_anew() -> None:
    """What is held goes on before the numbers begin again."""
    order: Reorder[int] = Reorder(3)
    assert order.take("inbound", 5, 5) == []
    assert order.restart() == [5]
    assert order.take("inbound", 1, 1) == [1]
