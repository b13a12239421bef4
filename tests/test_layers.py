"""What a plugin may import; the layers of the engine are a contract in pyproject.toml, which `lint-imports` checks."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tool_modules import TOOLS

ROOT = Path(__file__).parent.parent
PLUGINS = sorted((ROOT / "plugins").glob("*.py"))
FILES = [*PLUGINS, *sorted((ROOT / "mediaflow").rglob("*.py"))]

QUICK = {"mediaflow", "msgspec", "anyio", *sys.stdlib_module_names}
"""What may be imported where a component is defined; what is optional or slow is imported where it is used."""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import; the name is empty where a module is imported as a whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", PLUGINS, ids=lambda file: file.stem)
def test_what_a_plugin_imports(file: Path) -> None:
    """Of mediaflow a plugin knows the root and the tool modules, and of its neighbours those that begin with ``_``."""
    exported = set(__import__("mediaflow").__all__) | set(TOOLS)
    for module, name in imports(parse(file)):
        if module == "mediaflow":
            assert name in exported, f"{name} is not exported by the root"
        elif module.startswith("mediaflow."):
            assert module.split(".")[1] in TOOLS, f"{module} belongs to the engine"
        elif module.startswith("."):
            neighbour = module.lstrip(".") or name
            assert neighbour.startswith("_"), f"{neighbour} is another plugin"
        else:
            assert not module.startswith("mediaflow_"), f"{module} is another plugin"


@pytest.mark.parametrize("file", PLUGINS, ids=lambda file: file.stem)
def test_heavy_imports_are_made_where_they_are_used(file: Path) -> None:
    """A plugin can be listed and checked where numpy, soundfile and the like are slow or missing."""
    top = ast.Module([node for node in parse(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    for module, _ in imports(top):
        assert module.startswith(".") or module.partition(".")[0] in QUICK


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_backend_by_name(file: Path) -> None:
    """Everything runs on asyncio and on trio, so nothing but the turns of the WebSockets knows either."""
    if file.match("_websocket/hub.py") or file.match("_websocket/loop.py"):
        return
    assert not {module.partition(".")[0] for module, _ in imports(parse(file))} & {"asyncio", "trio"}
