"""What belongs to a socket, and where it lies: against what Python itself says of its objects."""

from __future__ import annotations

import sys
from array import array

import pytest

from mediaflow import dsp
from mediaflow._wire.footprint import belongings
from mediaflow._wire.poller import Watched

LINE = 64


class Ours(Watched):
    """A class of a plugin that derives from one of ours; what ``__slots__`` names lies in the object."""

    __slots__ = ("one", "other")

    def __init__(self, fd: int) -> None:
        self.one: object = None
        self.other: object = None

    def take(self) -> None:
        """Take nothing."""


class Foreign:
    """Of no class of ours."""

    def __init__(self, inside: object) -> None:
        self.inside = inside


class Between:
    """Of a class of a plugin that Python lays out."""

    __module__ = "mediaflow_plugins.between"
    __slots__ = ("inside",)

    def __init__(self, inside: object) -> None:
        self.inside = inside


def is_found(root: Ours, wanted: object) -> bool:
    return any(each is wanted for each in belongings(root))


def test_it_goes_from_object_to_object() -> None:
    """Nearest first, and round a circle once."""
    first, second, third = Ours(0), Ours(0), Ours(0)
    first.one, second.one, third.one = second, third, first
    assert belongings(first) == [first, second, third]


def test_what_lies_between_is_gone_through() -> None:
    """Short lists and tuples, and methods, of Python's and of compiled classes."""
    listed, method, compiled = Ours(0), Ours(0), dsp.EnergyVad(8000)
    root = Ours(0)
    root.one, root.other = [(listed,)], (method.take, compiled.process)
    assert all(is_found(root, each) for each in (listed, method, compiled, root.one, root.other))


def test_what_leads_elsewhere_is_not() -> None:
    """Objects that are not ours, classes, mappings, long lists, and what many share."""
    root, hidden, shared = Ours(0), [Ours(0) for _ in range(4)], Ours(0)
    root.one = (Foreign(hidden[0]), Ours, {"key": hidden[1]}, [hidden[2]] * 9)
    root.other = shared
    others = [shared] * 20
    assert belongings(root) == [root, root.one]
    del others
    assert is_found(root, shared)


def test_it_has_an_end() -> None:
    """A chain of any length is followed for 128 objects."""
    root = last = Ours(0)
    for _ in range(300):
        last.one = last = Ours(0)
    assert len(belongings(root)) == 128


@pytest.mark.parametrize("others", [0, 1, 7, 100])
def test_the_memory_is_that_of_the_objects(others: int) -> None:
    """The cache lines of each object, and no line besides: not of the tuples between them."""
    root = last = Ours(0)
    spare: list[array[int]] = []
    for _ in range(others):
        spare.append(array("q", range(len(spare))))  # so that the objects lie apart
        last.one, last.other = (following := Ours(0)), (len(spare), None)
        last = following
    root.look_around()
    wanted: set[int] = set()
    for each in belongings(root):
        if not isinstance(each, tuple):
            size = sys.getsizeof(each) - 16  # without the garbage collector's part, which lies before it
            wanted.update(range(id(each) // LINE, (id(each) + size - 1) // LINE + 1))
    found = [line for start, end in root.footprint for line in range(start // LINE, end // LINE)]
    assert all(start % LINE == end % LINE == 0 for start, end in root.footprint)
    assert sorted(wanted) == found


def test_what_only_leads_on_is_not_fetched() -> None:
    """What Python lays out is gone through, to what it leads to."""
    root, far = Ours(0), Ours(0)
    root.one = between = Between([far])
    root.look_around()
    fetched = [
        any(start <= id(each) < end for start, end in root.footprint)  # of different sizes: they share no line
        for each in (root, far, between)
    ]
    assert is_found(root, between)
    assert fetched == [True, True, False]


def test_it_is_found_anew_and_keeps_nothing_alive() -> None:
    """And before it was looked for there is none."""

    def size() -> int:
        return sum(end - start for start, end in root.footprint)

    root = Ours(0)
    assert root.footprint == []
    root.look_around()
    small = size()
    root.one = [Ours(0) for _ in range(8)]
    root.look_around()
    large = size()
    kept = [sys.getrefcount(each) for each in root.one]
    root.one = None
    root.look_around()
    assert small < large
    assert size() == small
    assert kept == [3] * 8  # the list, the loop and the question
