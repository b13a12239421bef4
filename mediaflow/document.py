"""A YAML file as plain values, with the place of each in the file.

The parser's events are read one by one, so every problem has its line and column, and a file that nests without end is
left at its twentieth level.  What YAML offers beyond mappings, lists and scalars (anchors, tags, merge keys, several
documents) is refused: a pipeline says what it does without them.  Scalars follow the rules of YAML 1.2's core schema
(``no`` and ``8:30`` are strings, ``012`` is twelve), because YAML 1.1 has surprised everybody.

Values of the environment go in after parsing and only into values, so none can change the structure of the file::

    ${NAME}             the environment's NAME; an error if it is not set
    ${NAME:-default}    the default if NAME is not set or empty; it may hold {places}
    $${                 a literal ${

No message shows a value that came from the environment: it may be a secret.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import yaml

from .errors import ConfigError, Problem

Place = tuple[str | int, ...]
"""Where a value stands in the file: ``("sinks", 0, "path")``."""

LONGEST = 1 << 20
"""Bytes; whatever is longer is not a pipeline but a recording given by mistake."""

DEEPEST = 20

SHORTEST_SECRET = 4
"""A value of fewer characters keeps no secret, and taking it out of a message would spoil the message."""

_ENV = re.compile(
    r"\$(?:\$\{|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:[^{}]|\{[^{}]*\})*))?\}|(?P<bad>\{))"
)
_INT = re.compile(r"[-+]?[0-9]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip

# What libyaml says, and what mostly is the matter.
_HINTS = {
    "mapping values are not allowed": "put a value with `: ` in it in quotes, or indent this line as its neighbours",
    "did not find expected key": (
        "keys that belong together begin in the same column; a value that begins with a quote, { or [ and goes on "
        "behind it must be in quotes as a whole"
    ),
    "did not find expected '-' indicator": "items of one list begin with a dash in the same column",
    "block sequence entries are not allowed": "begin the list on a line of its own",
    "could not find expected ':'": "a line is `key: value` or `- item`",
    "found unexpected end of stream": "close the quote",
    "did not find expected ',' or": "close the bracket; a text with brackets or commas in it must be in quotes",
    "unknown escape": "in double quotes a backslash is doubled; in single quotes it stands as it is",
    "did not find expected alphabetic": "put a value that begins with * or & in quotes",
}


class Document:
    """The values of a file, where they stand, and what is wrong with them so far.

    Raises ``ConfigError`` if the file cannot be read to its end.
    """

    def __init__(self, file: str, env: Mapping[str, str]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.marks: dict[Place, tuple[int, int]] = {(): (1, 1)}
        """Line and column, from 1, of every value."""
        self.key_marks: dict[Place, tuple[int, int]] = {}
        """Line and column of the key of every value that has one."""
        self.unreadable: set[Place] = set()
        """Values that are None because of a problem that is reported."""
        self.substituted: dict[Place, dict[str, str]] = {}
        """Values with ``${…}`` in them, and the names and values that the environment gave."""
        self._env = env
        text = self._text()
        try:
            self._events = self._parse(text)
            self.tree = self._document()
        except yaml.MarkedYAMLError as error:
            if "maximum nesting depth" in (error.problem or "") and error.problem_mark is not None:
                # libyaml reads ahead and stops far behind our limit: what stands before shows where that is.
                deque(self._parse(text[: error.problem_mark.index]), maxlen=0)
            self._stop(*_syntax(error, text))
        except yaml.reader.ReaderError as error:
            before = text.encode()[: error.position].decode()  # libyaml counts bytes
            self._stop(_end(before), "yaml", f"the character U+{error.character:04X} cannot stand in YAML")

    def report(self, place: Place, code: str, text: str, hint: str = "") -> None:
        """Note a problem with the value at ``place``, or with the nearest around it that is there."""
        text, hint = self._conceal(place, text), self._conceal(place, hint)
        while place not in self.marks:
            place = place[:-1]
        self.problems.append(Problem(self.file, *self.marks[place], code, text, hint))

    def report_key(self, place: Place, code: str, text: str, hint: str = "") -> None:
        """Note a problem with the key of the value at ``place``."""
        self.problems.append(Problem(self.file, *self.key_marks[place], code, text, hint))

    def below(self, place: Place) -> dict[str, str] | None:
        """Return what the environment gave at and below ``place``; None if no ``${…}`` stands there."""
        found = [values for each, values in self.substituted.items() if each[: len(place)] == place]
        return {name: value for values in found for name, value in values.items()} if found else None

    def _conceal(self, place: Place, text: str) -> str:
        """Put the names of environment values in the place of the values, long ones first: one may hold another."""
        values = (self.below(place) or {}).items()
        for name, value in sorted(values, key=lambda item: -len(item[1])):
            if len(value) >= SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
        return text

    def _stop(self, mark: tuple[int, int], code: str, text: str, hint: str = "") -> NoReturn:
        raise ConfigError([*self.problems, Problem(self.file, *mark, code, text, hint)]) from None

    def _text(self) -> str:
        try:
            with open(self.file, "rb") as file:
                data = file.read(LONGEST + 1)
        except OSError as error:
            self._stop((1, 1), "unreadable", f"cannot be read: {error.strerror}")
        if len(data) > LONGEST:
            self._stop((1, 1), "unreadable", f"is longer than {LONGEST} bytes, so it is not a pipeline")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            mark = _end(error.object[: error.start].decode())
            text = f"byte {error.object[error.start]:#04x} is not UTF-8"
            self._stop(mark, "unreadable", text, "save the file as UTF-8")

    def _parse(self, text: str) -> Iterator[yaml.Event]:
        # Stopped here, a file of opening brackets is left early: libyaml's time for them grows with their square.
        depth = 0
        for event in yaml.parse(text, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                self._stop(_mark(event), "yaml", f"values are nested more than {DEEPEST} deep")
            yield event

    def _document(self) -> Any:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            self._stop((1, 1), "yaml", "the file is empty; a pipeline has a source and sinks")
        tree = self._value(next(self._events), ())
        next(self._events)  # the document's end
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            self._stop(_mark(more), "yaml", "a second document begins here", "write one pipeline per file")
        return tree

    def _value(self, event: yaml.Event, place: Place) -> Any:
        self.marks[place] = _mark(event)
        value: Any = None
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(place)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item, (*place, len(value))))
        elif isinstance(event, yaml.ScalarEvent):
            text = self._expand(event.value, place)
            value = text if place in self.substituted or not event.implicit[0] else _scalar(text)
        if self._has_extras(event, place):
            self.unreadable.add(place)
        return None if place in self.unreadable else value

    def _has_extras(self, event: yaml.Event, place: Place) -> bool:
        """Report what YAML allows and a pipeline does not."""
        extras = False
        if getattr(event, "anchor", None) is not None:
            self.report(
                place,
                "alias",
                "anchors (&) and aliases (*) are not read",
                "write the value out; if it is text, put it in quotes",
            )
            extras = True
        if getattr(event, "tag", None) is not None:
            self.report(place, "tag", "tags (!) are not read", "leave it out; if it is text, put it in quotes")
            extras = True
        return extras

    def _mapping(self, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            here = (*place, key)
            problem = _wrong_key(event, key)
            if problem is None and here in self.key_marks:
                first = self.key_marks[here][0]
                problem = "duplicate-key", f"{key} stands here a second time; first on line {first}", "remove one"
            if problem is not None:
                self.problems.append(Problem(self.file, *_mark(event), *problem))
                self._skip(event)
                self._skip(next(self._events))
                continue
            self.key_marks[here] = _mark(event)
            values[key] = self._value(next(self._events), here)
        return values

    def _skip(self, event: yaml.Event) -> None:
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return
            event = next(self._events)

    def _expand(self, text: str, place: Place) -> str:
        def put(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if name is None:
                return self._unreadable_env(place) if match["bad"] else "${"
            given = self.substituted.setdefault(place, {})
            value = self._env.get(name, "")
            if value or (name in self._env and default is None):
                given[name] = value
                return value
            if default is None:
                self.report(place, "env-unset", f"{name} is not set in the environment",
                            f"export {name}=…, or give a default: ${{{name}:-…}}")  # fmt: skip
                self.unreadable.add(place)
                return ""
            return self._unreadable_env(place) if "${" in default else str(default)

        return _ENV.sub(put, text)

    def _unreadable_env(self, place: Place) -> str:
        hint = "write ${NAME}, ${NAME:-default} with no other ${ in it, or $${ for a literal ${"
        self.report(place, "env-syntax", "what follows ${ cannot be read", hint)
        self.unreadable.add(place)
        return ""


def _mark(event: yaml.Event) -> tuple[int, int]:
    mark: Any = event.start_mark  # of an event that was parsed it is there, whatever its type says
    return mark.line + 1, mark.column + 1


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _wrong_key(event: yaml.Event, key: str) -> tuple[str, str, str] | None:
    if key == "<<":
        return "alias", "merge keys (<<) are not read", "write the values out"
    if "${" in key:
        return "bad-key", "the environment gives values, not keys", "write the key out"
    if not key or getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
        return "bad-key", "a key is a plain word", ""
    return None


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[tuple[int, int], str, str, str]:
    """Return place, code, text and hint of a syntax error."""
    problem, context = error.problem_mark, error.context_mark
    assert problem is not None  # libyaml always says where
    lines = _lines(text)
    place = problem.line, problem.column
    what = error.problem or "is not YAML"
    if error.context and context is not None:
        # Where something is not closed, libyaml points to the end of the file: of more use is where it opens.
        if "simple key" in error.context or not _after(lines, *place):
            place = context.line, context.column
        where = "" if context.line == place[0] else f" that begins on line {context.line + 1}"
        what = f"{error.context}{where}, {what}"
    found = _after(lines, *place)
    mark = (place[0] + 1, place[1] + 1) if found else _end(text.rstrip())
    if "cannot start any token" in what:
        if found.startswith("\t"):
            return mark, "yaml", "a tab stands where a value or a key should begin", "indent with spaces"
        return mark, "yaml", f"no value begins with {found[:1]}", "put the value in quotes"
    return mark, "yaml", what, next((hint for part, hint in _HINTS.items() if part in what), "")


def _lines(text: str) -> list[str]:
    """Split as YAML 1.1 does, by which the parser counts."""
    return re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)


def _after(lines: Sequence[str], line: int, column: int) -> str:
    """Return what stands from a place on, on its line."""
    return lines[line][column:] if line < len(lines) else ""


def _end(text: str) -> tuple[int, int]:
    """Return line and column, from 1, of what follows ``text``."""
    lines = _lines(text)
    return len(lines), len(lines[-1]) + 1
