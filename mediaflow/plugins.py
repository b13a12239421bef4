"""Find every component that is installed, ours and anybody's, by the same way in.

A plugin that does not load or brings something unusable does not take the rest with it: nothing of it is kept, it
stands among ``broken`` with its reason, and a pipeline that uses a name nobody brought says so.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NamedTuple

import pluggy

from . import hookspecs, option
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
    """A component, the kind it is of, the plugin that brought it, and the schema of each of its options."""

    name: str
    kind: Kind
    component: type[Component]
    plugin: str
    options: dict[str, option.Spec]


class Plugins:
    """What is installed: ``components`` by name, and ``broken`` plugins with the reason."""

    def __init__(self) -> None:
        self.components: dict[str, Found] = {}
        self.broken: dict[str, str] = {}
        self.manager = pluggy.PluginManager("mediaflow")
        self.manager.add_hookspecs(hookspecs)
        self._loading = ""
        self._brought: dict[str, Found] = {}
        self.manager.hook.register_components.call_historic(kwargs={"register": self._register})

    @property
    def hook(self) -> Any:
        """The hooks by which news is told."""
        return self.manager.hook

    def add(self, plugin: object, name: str) -> None:
        """Take a plugin: its hooks are heard and its components are known from now on."""
        if self.manager.is_registered(plugin):
            self._is_broken(name, ValueError("it is named by two entry points"))
            return
        self._loading, self._brought = name, {}
        try:
            self.manager.register(plugin)
            self.manager.check_pending()  # a misspelt hook would otherwise never be heard
            if not self.manager.get_hookcallers(plugin):
                raise TypeError("it has no hook: its functions are to be marked with @mediaflow.hookimpl")
        except Exception as error:  # whatever a stranger's plugin raises, the others must go on
            self._is_broken(name, error)
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
        else:
            self.components |= self._brought

    def load(self, entry: EntryPoint) -> None:
        """Import the plugin that ``entry`` names and take it."""
        name = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.name
        try:
            plugin = entry.load()
        except (Exception, SystemExit) as error:  # as above; a script taken for a plugin may well exit
            self._is_broken(name, error)
        else:
            self.add(plugin, name)

    def _is_broken(self, name: str, error: BaseException) -> None:
        before = f"{self.broken[name]}; " if name in self.broken else ""
        self.broken[name] = f"{before}{type(error).__name__}: {' '.join(str(error).split())}"

    def _register(self, name: str, component: type[Component]) -> None:
        self._brought[name] = _examine(name, component, self._loading, self.components | self._brought)


def _examine(name: str, component: type[Component], plugin: str, known: dict[str, Found]) -> Found:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"component name {name!r} is not lower_case_with_underscores")
    if name in known:
        raise ValueError(f"component {name!r} is brought by {known[name].plugin} already")
    kinds = [each for each in _KINDS if isinstance(component, type) and issubclass(component, each[0])]
    if not kinds:
        raise TypeError(f"component {name!r} is not a class made of Source, Transform, Joiner or Sink")
    base, kind, methods = kinds[0]
    missing = [method for method in methods if getattr(component, method) is getattr(base, method)]
    if missing:
        raise TypeError(f"component {name!r} does not define {' and '.join(missing)}")
    if not component.__doc__ and sys.flags.optimize < 2:  # python -OO takes them away
        raise TypeError(f"component {name!r} has no docstring; it is what `mediaflow plugins inspect` shows")
    try:
        options = option.options(component)
    except Exception as error:  # annotations are evaluated here, and may hold anything
        raise TypeError(f"component {name!r} has options that cannot be read: {error}") from error
    if "use" in options:
        raise TypeError(f"component {name!r} has an option `use`, which is the word that names the component")
    return Found(name, kind, component, plugin, options)


def load() -> Plugins:
    """Load every installed plugin, ours first, then in the order of their names."""
    plugins = Plugins()
    for entry in sorted(entry_points(group="mediaflow"), key=lambda entry: (entry.name != "builtin", entry.name)):
        plugins.load(entry)
    return plugins
