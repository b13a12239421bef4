"""Errors are part of the interface: the tree in the docstring is the tree of the classes."""

from __future__ import annotations

import re

from mediaflow import ConfigError, FormatError, MediaflowError, SinkError, WireError, errors
from mediaflow.errors import Problem


def test_the_tree_in_the_docstring() -> None:
    """Every error stands in the drawing with a word about it, and nothing else does."""
    drawn = re.findall(r"[├└]── (\w+) +\S", errors.__doc__ or "")
    real = [each.__name__ for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert ["MediaflowError", *drawn] == real
    assert all(issubclass(getattr(errors, name), MediaflowError) for name in real)


def test_problems_are_in_the_order_of_the_file() -> None:
    """However they were found, they are told from top to bottom, one a line."""
    problems = [
        Problem("p.yaml", 10, 1, "b", "later"),
        Problem("p.yaml", 9, 11, "a", "third", "fix it"),
        Problem("p.yaml", 9, 2, "z", "second"),
        Problem("p.yaml", 1, 1, "c", "first"),
    ]
    error = ConfigError(problems)
    assert str(error).splitlines() == [
        "p.yaml:1:1: c: first",
        "p.yaml:9:2: z: second",
        "p.yaml:9:11: a: third (fix it)",
        "p.yaml:10:1: b: later",
    ]
    assert error.problems == tuple(problems[::-1])


def test_what_errors_carry() -> None:
    """Hints and codes can be read without taking the message apart."""
    assert (FormatError("a", "b").text, FormatError("a", "b").hint, str(FormatError("a", "b"))) == ("a", "b", "a (b)")
    assert str(FormatError("a")) == "a"
    assert (WireError("bad-base64", "x").code, str(WireError("bad-base64", "x"))) == ("bad-base64", "x")
    assert (SinkError("disk-full", "x").code, str(SinkError("disk-full", "x"))) == ("disk-full", "x")
