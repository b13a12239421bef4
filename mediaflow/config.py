"""A pipeline file becomes components, or a list of everything that is wrong with it::

    text → values with their places, ${ENV} put in → components
           `mediaflow.document`                      here

A component's fields are its options, so the struct itself says what is allowed; fields are converted one by one, so
that all mistakes are reported at once.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from .component import Component, Joiner, Sink, Source, Transform
from .document import Document, Place as Place
from .errors import ConfigError, Problem
from .option import ReplySettings, Settings, Spec, describe, options
from .plugins import Found, Kind, Plugins

_PATH = re.compile(r" - at `(?:key` in `)?\$(.*)`$")
_PATH_PART = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")
_YAML_1_1_BOOLEANS = ("yes", "no", "on", "off", "y", "n")


class Pipeline(Settings, frozen=True, kw_only=True):
    """A pipeline as its file says it."""

    file: str
    source: Source
    transforms: tuple[Transform | Joiner, ...]
    sinks: tuple[Sink, ...]
    names: Mapping[Place, str]
    marks: Mapping[Place, tuple[int, int]]
    reply: Reply | None = None

    @property
    def name(self) -> str:
        """The name of the file without folder and suffix."""
        return Path(self.file).stem

    def label(self, place: Place) -> str:
        """Return how messages call the component at ``place``: ``transforms[1] resample``."""
        return sys.intern(f"{spell(place)} {self.names[place]}")  # every call keeps some

    def problem(self, place: Place, code: str, text: str, hint: str = "") -> Problem:
        """Return a problem of the component at ``place``."""
        return Problem(self.file, *self.marks[place], code, f"{self.label(place)}: {text}", hint)


class Reply(Pipeline, frozen=True, kw_only=True):
    """What is played into each call: a pipeline within the pipeline, whose one sink is the call.

    Until there is a call, that sink is the ``speaker`` of the pipeline's source.
    """

    barge_in: bool = False

    def label(self, place: Place) -> str:
        return "reply" if place[0] == "sinks" else f"reply.{super().label(place)}"


def spell(place: Place) -> str:
    """Write a place as people do: ``sinks[0].path``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def load(file: str, plugins: Plugins, env: Mapping[str, str] | None = None) -> Pipeline:
    """Read the pipeline in ``file``; raise ``ConfigError`` with every problem found."""
    document = Document(file, os.environ if env is None else env)
    pipeline = Builder(document, plugins).build()
    if document.problems or pipeline is None:
        raise ConfigError(document.problems)
    return pipeline


class Builder:
    """From plain values to components."""

    def __init__(self, document: Document, plugins: Plugins) -> None:
        self._document, self._plugins = document, plugins
        self._report = document.report
        self._names: dict[Place, str] = {}

    def build(self) -> Pipeline | None:
        tree = self._document.tree
        if () in self._document.unreadable:
            return None
        if not isinstance(tree, dict):
            self._report((), "bad-type", f"a pipeline is a mapping with source and sinks, not {_found(tree)}")
            return None
        specs = options(Settings)
        self.unknown_keys((), tree, ("source", "transforms", "sinks", "reply", *specs), "a pipeline")
        for key in ("source", "sinks"):
            if tree.get(key) is None and (key,) not in self._document.unreadable:
                self._report((key,), "missing", f"the pipeline has no {key}", f"add `{key}:`")
        source = None if tree.get("source") is None else self.component(("source",), tree["source"], "source")
        transforms = self._list(("transforms",), tree.get("transforms"), "transform")
        sinks = self._list(("sinks",), tree.get("sinks"), "sink")
        if tree.get("sinks") == []:
            self._report(("sinks",), "missing", "the pipeline has no sink", "add `- use: disk`")
        settings = self.convert((), tree, Settings, specs)
        names = dict(self._names)
        reply = self._reply(tree["reply"], cast("Source | None", source), settings) if "reply" in tree else None
        if self._document.problems:
            return None
        return Pipeline(
            file=self._document.file,
            source=cast("Source", source),
            transforms=cast("tuple[Transform | Joiner, ...]", tuple(transforms)),
            sinks=cast("tuple[Sink, ...]", tuple(sinks)),
            names=names,
            marks={place: self._document.marks[place] for place in names},
            reply=reply,
            **settings,
        )

    def _reply(self, value: Any, caller: Source | None, settings: dict[str, Any]) -> Reply | None:
        here: Place = ("reply",)
        if here in self._document.unreadable:
            return None
        if not isinstance(value, dict):
            self._report(here, "bad-type", f"reply is a mapping with source, not {_found(value)}")
            return None
        specs = options(ReplySettings)
        self.unknown_keys(here, value, ("source", "transforms", *specs), "a reply")
        if value.get("source") is None and (*here, "source") not in self._document.unreadable:
            self._document.report_key(here, "missing", "the reply has no source", "add `source:` below `reply:`")
        source = None
        if value.get("source") is not None:
            source = cast("Source | None", self.component((*here, "source"), value["source"], "source"))
        transforms = self._list((*here, "transforms"), value.get("transforms"), "transform")
        own = self.convert(here, value, ReplySettings, specs)
        self._check_reply(caller, source)
        if self._document.problems or caller is None or caller.speaker is None:
            return None
        names = {place[1:]: name for place, name in self._names.items() if place[0] == "reply"}
        marks = {place: self._document.marks[(*here, *place)] for place in names}
        return Reply(
            file=self._document.file,
            source=cast("Source", source),
            transforms=cast("tuple[Transform | Joiner, ...]", tuple(transforms)),
            sinks=(caller.speaker,),
            names=names,
            marks={**marks, ("sinks", 0): self._document.key_marks[here]},
            **settings,
            **own,
        )

    def _check_reply(self, caller: Source | None, source: Source | None) -> None:
        """Report what the two sources of a pipeline with a reply cannot do."""
        if source is not None and source.listens:
            text = f"{self._names[('reply', 'source')]} takes connections; a reply is one stream"
            self._report(("reply", "source"), "bad-value", f"reply.source: {text}", "play a file, say")
        if caller is None:
            return
        if caller.speaker is None:
            known = self._plugins.components.values()
            able = sorted(each.name for each in known if getattr(each.component, "speaker", None) is not None)
            text = f"the source {self._names[('source',)]} cannot play a reply into its calls"
            self._document.report_key(("reply",), "bad-value", text, f"these can: {', '.join(able)}")
            return
        try:
            caller.check_reply()
        except ValueError as error:
            text = f"with this source {self._names[('source',)]} there can be no reply: {error}"
            self._document.report_key(("reply",), "bad-value", text)

    def _list(self, place: Place, value: Any, kind: Kind) -> list[Component | None]:
        if value is None:
            return []
        if not isinstance(value, list):
            hint = f"begin each with a dash: `- use: …` under `{place[-1]}:`"
            self._report(place, "bad-type", f"{spell(place)} is a list, not {_found(value)}", hint)
            return []
        return [self.component((*place, index), item, kind) for index, item in enumerate(value)]

    def component(self, place: Place, value: Any, kind: Kind) -> Component | None:
        if place in self._document.unreadable:
            return None
        if not isinstance(value, dict):
            known = isinstance(value, str) and value in self._plugins.components
            hint = f"write `use: {value}`" if known else ""
            self._report(place, "bad-type", f"{spell(place)} is a mapping with `use: …`, not {_found(value)}", hint)
            return None
        found = self._find(place, value, kind)
        if found is None:
            return None
        self._names[place] = found.name
        before = len(self._document.problems)
        given = {key: each for key, each in value.items() if key != "use"}
        self.unknown_keys(place, given, tuple(found.options), found.name)
        for key, spec in found.options.items():
            if "default" not in spec and key not in given:
                self._report(place, "missing", f"{found.name} needs the option {key}", f"add `{key}: …`")
        values = self.convert(place, given, found.component, found.options)
        if len(self._document.problems) > before or self._is_unreadable(place):
            return None
        try:
            component = found.component(**values)
            component.check()
        except ValueError as error:
            self._report(place, "bad-value", f"{spell(place)} {found.name}: {error}")
        except Exception as error:  # a stranger's fault must not hide what else is wrong
            text = f"{spell(place)} {found.name}: its check broke: {type(error).__name__}: {error}"
            self._report(place, "broken", text, f"this is a fault of the plugin {found.plugin}")
        else:
            return component
        return None

    def _find(self, place: Place, value: dict[str, Any], kind: Kind) -> Found | None:
        """Return the component that is to be used; report if there is none."""
        if (*place, "use") in self._document.unreadable:
            return None
        name = value.get("use")
        if name is None:
            beside = next((key for key in value if key in self._plugins.components), None)
            hint = f"write `use: {beside}`, and its options beside it" if beside else "add `use: …`"
            self._report(place, "missing", f"{spell(place)} does not say which {kind} to use", hint)
            return None
        if not isinstance(name, str):
            self._report((*place, "use"), "bad-type", f"use takes the name of a {kind}, not {_found(name)}")
            return None
        found = self._plugins.components.get(name)
        if found is None or found.kind != kind:
            self._report((*place, "use"), "unknown-component", *self._unknown_component(name, found, kind))
            return None
        return found

    def _unknown_component(self, name: str, found: Found | None, kind: Kind) -> tuple[str, str]:
        if found is not None:
            section = "source" if found.kind == "source" else f"{found.kind}s"
            return f"{name} is a {found.kind}, not a {kind}", f"it belongs under `{section}:`"
        names = [each.name for each in self._plugins.components.values() if each.kind == kind]
        broken = [f"{plugin} did not load: {why}" for plugin, why in self._plugins.broken.items()]
        return f"there is no {kind} {name!r}", "; ".join([_nearest(name, names), *broken])

    def unknown_keys(self, place: Place, given: Iterable[str], known: Iterable[str], owner: str) -> None:
        for key in set(given).difference(known):
            self._document.report_key(
                (*place, key), "unknown-key", f"{owner} has no option {key}", _nearest(key, known)
            )

    def convert(
        self, place: Place, given: Mapping[str, Any], struct: type[msgspec.Struct], specs: Mapping[str, Spec]
    ) -> dict[str, Any]:
        """Convert those of ``given`` that are options of ``struct``."""
        return {
            field.name: self._option((*place, field.encode_name), field.type, specs[field.encode_name], value)
            for field in msgspec.structs.fields(struct)
            for value in ([given[field.encode_name]] if field.encode_name in given else [])
        }

    def _option(self, here: Place, type_: Any, spec: Spec, value: Any) -> Any:
        if self._is_unreadable(here):
            return None
        given = self._document.below(here)
        try:
            # What ${…} gives is always text: "8000" must do where a number is wanted.
            result = msgspec.convert(value, type_, strict=given is None, dec_hook=_decode)
            if isinstance(result, float) and not math.isfinite(result):
                raise msgspec.ValidationError("Expected a finite number")
        except msgspec.ValidationError as error:
            path, text, found, hint = _explain(str(error), spec, value)
            if given is not None:
                hint = f"the value comes from {' and '.join(f'${{{name}}}' for name in given)}" if given else ""
            if found and not given and "Secret" not in str(type_):
                text = f"{text}, found {found}"
            self._report((*here, *path), "bad-value", f"{spell((*here, *path))}: {text}", hint)
            return None
        return result

    def _is_unreadable(self, place: Place) -> bool:
        return any(each[: len(place)] == place for each in self._document.unreadable)


def _decode(type_: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return type_(value)


def _explain(message: str, spec: Spec, value: Any) -> tuple[Place, str, str, str]:
    """Put msgspec's words about ``value`` into ours: where in it, what is expected, what was found, and the fix."""
    path: list[str | int] = []
    definitions = spec.get("$defs", {})
    match = _PATH.search(message)
    for name, index in _PATH_PART.findall(match[1]) if match else ():
        if index == "...":  # some value of a mapping, and msgspec does not say which
            return tuple(path), f"expected {describe(spec)}", "", ""
        path.append(name or int(index))
        spec, value = _inside(spec, path[-1], definitions), value[path[-1]]
    text = message[: match.start()] if match else message
    if text.startswith(("Expected", "Invalid enum")):
        return tuple(path), f"expected {describe(spec)}", _found(value), _hint(spec, value)
    text = text.replace("Object contains unknown field", "has no option")
    text = text.replace("Object missing required field", "needs the option")
    return tuple(path), text, "", ""


def _inside(spec: Spec, part: str | int, definitions: dict[str, Spec]) -> Spec:
    """Return the schema of what stands at ``part`` of a value of ``spec``."""
    for each in spec.get("anyOf", [spec]):
        found = definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        inner = found.get("items") if isinstance(part, int) else found.get("properties", {}).get(part)
        if inner is not None:
            return dict(inner)
    return {}


def _found(value: Any) -> str:
    """Show a value from the file, if it is short, and say what it is."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _nearest(word: Any, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"


def _hint(spec: Spec, value: Any) -> str:
    """Say how ``value`` is made right, where that can be guessed."""
    kinds = {each.get("type") for each in spec.get("anyOf", [spec])}
    if "string" in kinds and isinstance(value, int | float):
        return "put it in quotes"
    if "string" in kinds and isinstance(value, dict):
        return "put a value that begins with { in quotes"
    if isinstance(value, str):
        if "boolean" in kinds and value.lower() in _YAML_1_1_BOOLEANS:
            return "write true or false"
        if kinds & {"integer", "number"} and value.replace(".", "", 1).lstrip("+-").isdecimal():
            return "take it out of the quotes"
        words = [word for each in spec.get("anyOf", [spec]) for word in each.get("enum", ())]
        near = difflib.get_close_matches(value, map(str, words), 1)
        return f"did you mean {near[0]}?" if near else ""
    return ""
