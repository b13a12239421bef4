"""A pipeline file becomes components, or a list of everything that is wrong with it.

The file is YAML, read in four steps::

    text → nodes with marks → plain values, ${ENV} put in → components

``yaml.compose`` keeps the marks, so every problem has its line and column.  Scalars follow the rules of YAML 1.2's core
schema (``no`` and ``8:30`` are strings, ``012`` is twelve), because YAML 1.1 has surprised everybody.  Environment
values go in after parsing and only into values: no value can change the structure of the file.  A component's fields
are its options, so the struct itself says what is allowed; fields are converted one by one, so that all mistakes are
reported at once.

    ${NAME}             the environment's NAME; an error if it is not set
    ${NAME:-default}    the default if NAME is not set or empty
    $${                 a literal ${
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from .component import Component, Joiner, Secret, Sink, Source, Transform
from .errors import ConfigError, Problem
from .path_template import PathTemplate
from .plugins import Kind, Plugins

Place = tuple[str | int, ...]
"""Where a value stands in the file: ``("sinks", 0, "path")``."""

TOP = ("source", "transforms", "sinks", "state", "drain_s")

_ENV = re.compile(r"\$(?:\$\{|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PATH = re.compile(r" - at `(?:\$|key in \$)(.*)`$")
_PATH_PART = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")


class Pipeline(msgspec.Struct, frozen=True):
    """A pipeline as its file says it."""

    file: str
    source: Source
    transforms: tuple[Transform | Joiner, ...]
    sinks: tuple[Sink, ...]
    names: Mapping[Place, str]
    marks: Mapping[Place, tuple[int, int]]
    state: str = "mediaflow-data"
    drain_s: float = 30.0

    @property
    def name(self) -> str:
        """The name of the file without folder and suffix."""
        return Path(self.file).stem

    def label(self, place: Place) -> str:
        """Return how messages call the component at ``place``: ``transforms[1] resample``."""
        return f"{spell(place)} {self.names[place]}"

    def problem(self, place: Place, code: str, text: str, hint: str = "") -> Problem:
        """Return a problem of the component at ``place``."""
        return Problem(self.file, *self.marks[place], code, f"{self.label(place)}: {text}", hint)


def spell(place: Place) -> str:
    """Write a place as people do: ``sinks[0].path``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def load(file: str, plugins: Plugins, env: Mapping[str, str] | None = None) -> Pipeline:
    """Read the pipeline in ``file``; raise ``ConfigError`` with every problem found."""
    reader = _Reader(file, os.environ if env is None else env)
    tree = reader.read()
    builder = _Builder(reader, plugins)
    pipeline = builder.build(tree)
    if reader.problems or pipeline is None:
        raise ConfigError(reader.problems)
    return pipeline


class _Reader:
    """From the text to plain values, with a mark for every place."""

    def __init__(self, file: str, env: Mapping[str, str]) -> None:
        self.file, self.env = file, env
        self.problems: list[Problem] = []
        self.marks: dict[Place, tuple[int, int]] = {(): (1, 1)}
        self.from_env: set[Place] = set()
        self._seen: set[int] = set()

    def report(self, place: Place, code: str, text: str, hint: str = "") -> None:
        while place not in self.marks:
            place = place[:-1]
        self.problems.append(Problem(self.file, *self.marks[place], code, text, hint))

    def read(self) -> Any:
        try:
            text = Path(self.file).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError([self._at_start("unreadable", f"cannot be read: {error.strerror}")]) from None
        except UnicodeDecodeError as error:
            raise ConfigError([self._at_start("unreadable", f"is not UTF-8: byte {error.start}")]) from None
        try:
            node = yaml.compose(text, yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise ConfigError([Problem(self.file, *place, "yaml", what or "is not YAML")]) from None
        except yaml.YAMLError as error:
            raise ConfigError([self._at_start("yaml", str(error).splitlines()[0])]) from None
        if node is None:
            raise ConfigError([self._at_start("yaml", "the file is empty; a pipeline has a source and sinks")])
        return self._value(node, ())

    def _at_start(self, code: str, text: str) -> Problem:
        return Problem(self.file, 1, 1, code, text)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self.marks[place] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if id(node) in self._seen:
            self.report(place, "alias", "anchors and aliases are not read", "write the value out")
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._seen.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self.report(place, "tag", f"the tag {node.tag} is not known here", "leave it out")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        text = self._expand(node.value, place)
        if place in self.from_env or node.style in ("'", '"', "|", ">"):
            return text
        return _scalar(text)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(self.file, *mark, "bad-key", "a key must be a plain word"))
                continue
            key = key_node.value
            if key in values:
                first = self.marks[(*place, key, "key")][0]
                self.problems.append(
                    Problem(
                        self.file, *mark, "duplicate-key", f"{key} stands here a second time; first on line {first}"
                    )
                )
                continue
            values[key] = self._value(value_node, (*place, key))
            self.marks[(*place, key, "key")] = mark
        return values

    def _expand(self, text: str, place: Place) -> str:
        def put(match: re.Match[str]) -> str:
            name = match["name"]
            if name is None:
                if match["bad"]:
                    self.report(place, "env-syntax", f"cannot read {text[match.start():match.start() + 12]!r}",
                                "write ${NAME}, ${NAME:-default}, or $${ for a literal ${")  # fmt: skip
                return "${"
            self.from_env.add(place)
            value = self.env.get(name, "")
            if value or (name in self.env and match["default"] is None):
                return value
            if match["default"] is None:
                self.report(place, "env-unset", f"{name} is not set in the environment",
                            f"export {name}=…, or give a default: ${{{name}:-…}}")  # fmt: skip
                return ""
            return match["default"]

        return _ENV.sub(put, text)


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Builder:
    """From plain values to components."""

    def __init__(self, reader: _Reader, plugins: Plugins) -> None:
        self.reader, self.plugins = reader, plugins
        self.names: dict[Place, str] = {}

    def build(self, tree: Any) -> Pipeline | None:
        report = self.reader.report
        if not isinstance(tree, dict):
            report((), "bad-type", f"a pipeline is a mapping with source and sinks, not {_kind_of(tree)}")
            return None
        self._unknown_keys((), tree, TOP)
        for key in ("source", "sinks"):
            if tree.get(key) is None:
                report((key,), "missing", f"the pipeline has no {key}", f"add `{key}:`")
        source = None if tree.get("source") is None else self._component(("source",), tree["source"], "source")
        transforms = self._list("transforms", tree.get("transforms"), "transform")
        sinks = self._list("sinks", tree.get("sinks"), "sink")
        if tree.get("sinks") == []:
            report(("sinks",), "missing", "the pipeline has no sink", "add `- use: disk`")
        state = self._field((), "state", str, tree.get("state", "mediaflow-data"))
        drain = self._field((), "drain_s", float, tree.get("drain_s", 30.0))
        if self.reader.problems:
            return None
        return Pipeline(
            self.reader.file,
            cast("Source", source),
            cast("tuple[Transform | Joiner, ...]", tuple(transforms)),
            cast("tuple[Sink, ...]", tuple(sinks)),
            self.names,
            {place: mark for place, mark in self.reader.marks.items() if place in self.names},
            state,
            drain,
        )

    def _list(self, key: str, value: Any, kind: Kind) -> list[Component | None]:
        if value is None:
            return []
        if not isinstance(value, list):
            hint = f"begin each with a dash: `- use: …` under `{key}:`"
            self.reader.report((key,), "bad-type", f"{key} is a list, not {_kind_of(value)}", hint)
            return []
        return [self._component((key, index), item, kind) for index, item in enumerate(value)]

    def _component(self, place: Place, value: Any, kind: Kind) -> Component | None:
        report = self.reader.report
        if not isinstance(value, dict):
            report(place, "bad-type", f"{spell(place)} is a mapping with `use: …`, not {_kind_of(value)}")
            return None
        options = dict(value)
        name = options.pop("use", None)
        if not isinstance(name, str):
            report(place, "missing", f"{spell(place)} does not say which {kind} to use", "add `use: …`")
            return None
        found = self.plugins.components.get(name)
        if found is None or found.kind != kind:
            report((*place, "use"), "unknown-component", *self._unknown_component(name, kind))
            return None
        self.names[place] = name
        before = len(self.reader.problems)
        fields = {field.encode_name: field for field in msgspec.structs.fields(found.component)}
        self._unknown_keys(place, options, tuple(fields), name)
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in options:
                values[field.name] = self._field(place, key, field.type, options[key])
            elif field.required:
                report(place, "missing", f"{name} needs the option {key}", f"add `{key}: …`")
        if len(self.reader.problems) > before:
            return None
        try:
            component = found.component(**values)
            component.check()
        except (ValueError, TypeError) as error:
            report(place, "bad-value", f"{spell(place)} {name}: {error}")
            return None
        return component

    def _unknown_component(self, name: str, kind: Kind) -> tuple[str, str]:
        found = self.plugins.components.get(name)
        if found is not None:
            section = "source" if found.kind == "source" else f"{found.kind}s"
            return f"{name} is a {found.kind}, not a {kind}", f"it belongs under `{section}:`"
        names = [each.name for each in self.plugins.components.values() if each.kind == kind]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
        broken = [f"{plugin} did not load: {why}" for plugin, why in self.plugins.broken.items()]
        return f"there is no {kind} {name!r}", "; ".join([hint, *broken])

    def _unknown_keys(
        self, place: Place, options: Mapping[str, Any], known: Sequence[str], owner: str = "a pipeline"
    ) -> None:
        for key in options:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
                self.reader.report((*place, key, "key"), "unknown-key", f"{owner} has no option {key}", hint)

    def _field(self, place: Place, key: str, type_: Any, value: Any) -> Any:
        here = (*place, key)
        from_env = any(each[: len(here)] == here for each in self.reader.from_env)
        try:
            # A value from the environment is always a string: "8000" must do where a number is wanted.
            return msgspec.convert(value, type_, strict=not from_env, dec_hook=_decode)
        except msgspec.ValidationError as error:
            text, path = _take_path(str(error))
            shown = "" if from_env or "Secret" in str(type_) else f", found {_short(_follow(value, path))}"
            text = f"{spell((*here, *path))}: {text[0].lower()}{text[1:]}{shown}"
            hint = "the value comes from the environment" if from_env else ""
            self.reader.report((*here, *path), "bad-value", text, hint)
            return None


def _decode(type_: type, value: Any) -> Any:
    if type_ in (Secret, PathTemplate):
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`; put it in quotes")
        return type_(value)
    raise NotImplementedError(f"options of type {type_} cannot be read from YAML")


def _take_path(message: str) -> tuple[str, Place]:
    """Split msgspec's `` - at `$.a[0]` `` off a message."""
    match = _PATH.search(message)
    if match is None:
        return message, ()
    parts = [name or int(index) for name, index in _PATH_PART.findall(match[1])]
    return message[: match.start()], tuple(parts)


def _follow(value: Any, path: Place) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _kind_of(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "nothing")
