"""Modules that are compiled as they are: what their types leave out would break them at run time only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mediaflow"
HOT = sorted(path for path in ROOT.rglob("*.pxd") if path.with_suffix(".py").exists() and path.stem != "__init__")


def declared(path: Path) -> dict[str, set[str]]:
    """Return the attributes that a .pxd declares, by class."""
    classes: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        if match := re.match(r"cdef class (\w+)", line):
            attributes = classes.setdefault(match[1], set())
        elif line.startswith("    cdef ") and "(" not in line:
            names = line.partition("#")[0].split(",")
            attributes.update(name.split()[-1] for name in names)
    return classes


def assigned(path: Path) -> dict[str, set[str]]:
    """Return the attributes of ``self`` that a module assigns to, by class."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            targets = (each for each in ast.walk(node) if isinstance(each, ast.Attribute))
            found[node.name] = {
                each.attr
                for each in targets
                if isinstance(each.ctx, ast.Store) and isinstance(each.value, ast.Name) and each.value.id == "self"
            }
    return found


@pytest.mark.parametrize("path", HOT, ids=lambda path: path.stem)
def test_every_attribute_has_a_type(path: Path) -> None:
    """A compiled class has the attributes of its .pxd and no other."""
    types, used = declared(path), assigned(path.with_suffix(".py"))
    assert types
    assert types == {name: used[name] for name in types}


def test_they_are_compiled() -> None:
    """What is tested is the compiled form."""
    assert len(HOT) >= 6
    for path in HOT:
        module = __import__(f"mediaflow.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}", fromlist=["x"])
        assert module.__file__ is not None and not module.__file__.endswith(".py")
