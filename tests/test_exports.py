"""What the root exports is what plugin authors are promised."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from tool_modules import TOOLS

import mediaflow

ROOT = Path(__file__).parent.parent


def test_names_for_people_and_for_type_checkers_are_the_same() -> None:
    """What is loaded lazily and what is written out for type checkers do not drift apart."""
    tree = ast.parse(Path(mediaflow.__file__).read_text(encoding="utf-8"))
    for_checkers = {
        name.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.name == name.asname
    }
    assert for_checkers == set(mediaflow.__all__)


@pytest.mark.parametrize("name", mediaflow.__all__)
def test_every_name_is_there(name: str) -> None:
    """Each exported name can be had, is listed, and where it can have a docstring it has one."""
    value = getattr(mediaflow, name)
    assert name in dir(mediaflow)
    assert not isinstance(value, type) or value.__doc__


def test_other_names_are_not() -> None:
    """A name that is not exported says so as any module does."""
    with pytest.raises(AttributeError, match="module 'mediaflow' has no attribute 'nonsense'"):
        _ = mediaflow.nonsense


@pytest.mark.parametrize("name", TOOLS)
def test_tool_modules_say_what_they_are_for(name: str) -> None:
    """A plugin may import the tool modules, and each begins with what it is."""
    assert import_module(f"mediaflow.{name}").__doc__


def test_the_manual_tells_every_name() -> None:
    """`docs/plugins.md` mentions all that the root exports, and no name that it does not export."""
    manual = ROOT / "docs" / "plugins.md"
    if not manual.exists():
        pytest.skip("the manual is not written yet")
    text = manual.read_text(encoding="utf-8")
    missing = [name for name in mediaflow.__all__ if not re.search(rf"\b{name}\b", text)]
    assert not missing
    imported = re.findall(r"from mediaflow import \(?([\w\s,]+)", text)
    strange = {name.strip() for names in imported for name in names.split(",")} - {*mediaflow.__all__, *TOOLS, ""}
    assert not {name for name in strange if name.isidentifier()}


def test_importing_the_root_costs_nothing() -> None:
    """``import mediaflow`` loads neither the engine nor any library."""
    code = "import sys, mediaflow; print(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = out.stdout.split()
    assert [name for name in loaded if name.startswith("mediaflow")] == ["mediaflow"]
    assert not set(loaded) & {"anyio", "msgspec", "yaml", "pluggy", "numpy", "websockets", "asyncio"}
