"""What an option takes, as JSON Schema and in words; and the schema of a whole pipeline file, for editors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from .component import Secret
from .path_template import PathTemplate

if TYPE_CHECKING:
    from .plugins import Found, Plugins

Spec = dict[str, Any]
"""The JSON Schema of one value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a pipeline itself."""

    state: Annotated[str, Meta(min_length=1, description="folder of the ledger")] = "mediaflow-data"
    drain_s: Annotated[float, Meta(ge=0, description="seconds that a stop leaves the sinks to finish")] = 30.0


# ``${NAME}`` may stand in the place of any value, so every option also takes such a string.
_FROM_ENV = {"type": "string", "pattern": r"\$\{"}

_WORDS = {
    "string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "array": "a list", "object": "a mapping", "null": "nothing",
}  # fmt: skip


def options(struct: type[msgspec.Struct]) -> dict[str, Spec]:
    """Return the schema of each option of ``struct``; raise TypeError if YAML cannot give one."""
    found: dict[str, Spec] = {}
    for field in msgspec.structs.fields(struct):
        spec = msgspec.json.schema(field.type, schema_hook=_own_type)
        for each in spec.get("anyOf", ()):  # in `Annotated[int, Meta(description=…)] | None` it stands inside
            if "description" in each:
                spec.setdefault("description", each.pop("description"))
        if not field.required:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            spec["default"] = msgspec.to_builtins(default, enc_hook=_plain)
        found[field.encode_name] = spec
    return found


def describe(spec: Mapping[str, Any]) -> str:
    """Say in words what values ``spec`` takes: ``a whole number from 4000 to 192000``."""
    if "anyOf" in spec:
        return " or ".join(describe(each) for each in spec["anyOf"])
    if "enum" in spec:
        values = ", ".join(map(str, spec["enum"]))
        return f"one of {values}" if len(spec["enum"]) > 1 else values
    words = _WORDS.get(spec.get("type", "object" if "$ref" in spec else ""), "anything")
    if "items" in spec:
        words += f", each {describe(spec['items'])}"
    if spec.get("additionalProperties"):
        words += f", each {describe(spec['additionalProperties'])}"
    low, high = spec.get("minimum"), spec.get("maximum")
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None or high is not None:
        words += f" of at least {low}" if high is None else f" of at most {high}"
    for key, limit in (
        ("exclusiveMinimum", "above {}"),
        ("exclusiveMaximum", "below {}"),
        ("minLength", "of at least {} characters"),
        ("maxLength", "of at most {} characters"),
        ("minItems", "of at least {} items"),
        ("maxItems", "of at most {} items"),
        ("pattern", "that matches {}"),
    ):
        words += f" {limit.format(spec[key])}" if key in spec else ""
    return words.replace("of at least 1 characters", "that is not empty")


def pipeline(plugins: Plugins) -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file."""
    kinds: dict[str, list[Found]] = {"source": [], "transform": [], "sink": []}
    for found in sorted(plugins.components.values(), key=lambda found: found.name):
        kinds[found.kind].append(found)
    definitions: dict[str, Any] = {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mediaflow pipeline",
        "type": "object",
        "required": ["source", "sinks"],
        "additionalProperties": False,
        "properties": {
            "source": _one_of(kinds["source"], definitions),
            "transforms": {"type": ["array", "null"], "items": _one_of(kinds["transform"], definitions)},
            "sinks": {"type": "array", "minItems": 1, "items": _one_of(kinds["sink"], definitions)},
            **{name: _or_env(spec) for name, spec in options(Settings).items()},
        },
        "$defs": definitions,
    }


def _own_type(type_: type) -> Spec:
    if type_ is Secret:
        return {"type": "string", "writeOnly": True}
    if type_ is PathTemplate:
        return {"type": "string", "minLength": 1, "format": "path"}
    raise TypeError(f"an option cannot be of type {type_.__name__}: YAML has no such values")


def _plain(value: Any) -> str:
    return "" if isinstance(value, Secret) else str(value)


def _one_of(components: Iterable[Found], definitions: dict[str, Any]) -> Spec:
    return {"type": "object", "required": ["use"], "oneOf": [_component(found, definitions) for found in components]}


def _component(found: Found, definitions: dict[str, Any]) -> Spec:
    properties = {}
    for name, spec in found.options.items():
        # Nested structs refer to definitions at the root, where those of all plugins meet: so each gets its own name.
        text = msgspec.json.encode(spec).decode().replace('"#/$defs/', f'"#/$defs/{found.name}.')
        own: Spec = msgspec.json.decode(text)
        definitions.update({f"{found.name}.{key}": each for key, each in own.pop("$defs", {}).items()})
        properties[name] = _or_env(own)
    return {
        "type": "object",
        "description": inspect.cleandoc(found.component.__doc__ or ""),
        "required": ["use", *(name for name, spec in found.options.items() if "default" not in spec)],
        "additionalProperties": False,
        "properties": {"use": {"const": found.name}, **properties},
    }


def _or_env(spec: Spec) -> Spec:
    about: Spec = {key: spec[key] for key in ("description", "default") if key in spec}
    return {"anyOf": [{key: value for key, value in spec.items() if key not in about}, _FROM_ENV], **about}
