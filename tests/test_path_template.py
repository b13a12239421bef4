"""File names from the wire stay in their folder and never meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from mediaflow import PathTemplate
from mediaflow.path_template import safe_name

HOSTILE = (
    "", ".", "..", "../../etc/passwd", "a/b", "a\\b", "/etc/passwd", "\0", "a\nb", "-rf", "~root", "$(reboot)",
    "x" * 300, "डॉक्टर", "\ud800", "con:", "a b", "%2e%2e", "....//", "{call_id}",
)  # fmt: skip


@pytest.mark.parametrize("name", ["6c1f0cb2-3b0c-4f5e-9a43-1d2e3f405162", "CA123", "call.1", "+911234567890", "a_b-c"])
def test_a_harmless_name_stays_as_it_is(name: str) -> None:
    """Common call ids can be found again under their own name."""
    assert safe_name(name) == name


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_hostile_value_names_a_file_in_the_folder(tmp_path: Path, value: str) -> None:
    """The file can be made, and stands in the folder that the template says."""
    path = PathTemplate(f"{tmp_path}/{{call_id}}.wav").fill({"call_id": value})
    path.touch()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.resolve().parent == tmp_path.resolve()


@given(st.text())
@example("..")
@example("\ud800")
@example("-rf")
def test_a_name_is_one_harmless_part(value: str) -> None:
    """No value makes a separator, a hidden file, an option or an empty or overlong name."""
    name = safe_name(value)
    assert name == os.path.basename(name)
    assert 0 < len(name) <= 77
    assert name[0] not in ".-"
    assert name.isascii() and name.isprintable() and " " not in name


@given(st.text(), st.text())
@example("a/b", "a?b")
@example("a/b", "a_b")
@example("x" * 300, "x" * 301)
@example("", "_")
@example("..", "...")
def test_different_values_have_different_names(one: str, other: str) -> None:
    """Values that look alike once they are made safe are still told apart."""
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(st.text())
def test_no_value_can_pose_as_another(value: str) -> None:
    """The name that a value was given is itself a value with a name of its own."""
    name = safe_name(value)
    assert name == value or safe_name(name) != name


def test_places_are_filled_in() -> None:
    """Every place takes its value; one that is not known is called so."""
    template = PathTemplate("a/{call_id}/{track}-{chunk}{{x}}.wav")
    assert template.names == {"call_id", "track", "chunk"}
    assert template.fill({"call_id": "c", "track": "inbound"}) == Path("a/c/inbound-unknown{x}.wav")


def test_three_long_values_fit_in_a_file_name(tmp_path: Path) -> None:
    """What the wire sends cannot make a name that the file system refuses."""
    path = PathTemplate(f"{tmp_path}/{{a}}-{{b}}-{{c}}.wav").fill(dict.fromkeys("abc", "é" * 500))
    path.touch()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the path is empty"),
        ("a\0b", "NUL"),
        ("{", "path '{': "),
        ("{}", "a place holds a plain name"),
        ("{0}", "a place holds a plain name"),
        ("{a.b}", "a place holds a plain name"),
        ("{a[0]}", "a place holds a plain name"),
        ("{a!r}", "a place holds a plain name"),
        ("{a:>10}", "a place holds a plain name"),
    ],
)
def test_what_is_no_template_is_refused(text: str, message: str) -> None:
    """Only plain names stand in braces: no attribute, no index, no conversion."""
    with pytest.raises(ValueError, match=message):
        PathTemplate(text)


def test_equal_texts_are_equal() -> None:
    """Templates can be compared, which the configuration of a component needs."""
    assert PathTemplate("{a}") == PathTemplate("{a}") != PathTemplate("{b}")
    assert hash(PathTemplate("{a}")) == hash(PathTemplate("{a}"))
    assert str(PathTemplate("{a}")) == "{a}"
    assert repr(PathTemplate("{a}")) == "PathTemplate('{a}')"
