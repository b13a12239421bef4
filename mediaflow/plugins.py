"""Find every component that is installed, ours and anybody's, by the same way in.

A plugin that does not load or brings something unusable does not take the rest with it: it is kept among ``broken``
with its reason, and a pipeline that uses a name nobody brought says so.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NamedTuple

import pluggy

from . import hookspecs
from .component import Component, Joiner, Sink, Source, Transform

Kind = Literal["source", "transform", "sink"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")

_KINDS: tuple[tuple[type[Component], Kind, tuple[str, ...]], ...] = (
    (Source, "source", ("serve", "formats")),
    (Transform, "transform", ("open",)),
    (Joiner, "transform", ("open",)),
    (Sink, "sink", ("open",)),
)


class Found(NamedTuple):
    """A component, the kind it is of, and the plugin that brought it."""

    name: str
    kind: Kind
    component: type[Component]
    plugin: str


class Plugins:
    """What is installed: ``components`` by name, and ``broken`` plugins with the reason."""

    def __init__(self) -> None:
        self.components: dict[str, Found] = {}
        self.broken: dict[str, str] = {}
        self.manager = pluggy.PluginManager("mediaflow")
        self.manager.add_hookspecs(hookspecs)
        self._loading = ""
        self.manager.hook.register_components.call_historic(kwargs={"register": self._register})

    @property
    def hook(self) -> Any:
        """The hooks by which news is told."""
        return self.manager.hook

    def add(self, plugin: object, name: str) -> None:
        """Take a plugin: its hooks are heard and its components are known from now on."""
        self._loading = name
        try:
            self.manager.register(plugin, name)
        except Exception as error:  # whatever a stranger's plugin raises, the others must go on
            self.broken[name] = f"{type(error).__name__}: {error}"

    def load(self, entry: EntryPoint) -> None:
        """Import the plugin that ``entry`` names and take it."""
        name = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.name
        try:
            plugin = entry.load()
        except Exception as error:  # as above
            self.broken[name] = f"{type(error).__name__}: {error}"
        else:
            self.add(plugin, name)

    def _register(self, name: str, component: type[Component]) -> None:
        self.components[name] = _examine(name, component, self._loading, self.components)


def _examine(name: str, component: type[Component], plugin: str, known: dict[str, Found]) -> Found:
    if not _NAME.fullmatch(name):
        raise ValueError(f"component name {name!r} is not lower_case_with_underscores")
    if name in known:
        raise ValueError(f"component {name!r} is already brought by {known[name].plugin}")
    if not component.__doc__:
        raise TypeError(f"component {name!r} has no docstring; it is what `mediaflow plugins inspect` shows")
    for base, kind, methods in _KINDS:
        if isinstance(component, type) and issubclass(component, base):
            missing = [method for method in methods if getattr(component, method) is getattr(base, method)]
            if missing:
                raise TypeError(f"component {name!r} does not define {' and '.join(missing)}")
            return Found(name, kind, component, plugin)
    raise TypeError(f"component {name!r} is not a Source, Transform, Joiner or Sink")


def load() -> Plugins:
    """Load every installed plugin, in the order of their names."""
    plugins = Plugins()
    for entry in sorted(entry_points(group="mediaflow"), key=lambda entry: (entry.name != "builtin", entry.name)):
        plugins.load(entry)
    return plugins
