"""The JSON Schema of a pipeline file, with every installed component, for editors that complete and check YAML."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from .component import Component, Secret
from .path_template import PathTemplate
from .plugins import Found, Plugins

_TOP: dict[str, dict[str, Any]] = {
    "state": {"type": "string", "description": "folder of the ledger", "default": "mediaflow-data"},
    "drain_s": {
        "type": "number",
        "description": "seconds that a stop leaves the sinks to finish",
        "default": 30.0,
    },
}

# ``${NAME}`` may stand in the place of any value, so every option also takes such a string.
_FROM_ENV = {"type": "string", "pattern": r"\$\{"}


def _hook(type_: type) -> dict[str, Any]:
    if type_ is Secret:
        return {"type": "string", "writeOnly": True}
    if type_ is PathTemplate:
        return {"type": "string", "format": "path"}
    raise NotImplementedError(type_)


def options(component: type[Component]) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each option of ``component``."""
    found: dict[str, dict[str, Any]] = {}
    for field in msgspec.structs.fields(component):
        spec = msgspec.json.schema(field.type, schema_hook=_hook)
        if not field.required:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            spec["default"] = msgspec.to_builtins(default, enc_hook=_plain)
        found[field.encode_name] = spec
    return found


def _plain(value: Any) -> str:
    return "" if isinstance(value, Secret) else str(value)


def pipeline(plugins: Plugins) -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file."""
    kinds: dict[str, list[Found]] = {"source": [], "transform": [], "sink": []}
    for found in sorted(plugins.components.values()):
        kinds[found.kind].append(found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mediaflow pipeline",
        "type": "object",
        "required": ["source", "sinks"],
        "additionalProperties": False,
        "properties": {
            "source": _one_of(kinds["source"]),
            "transforms": {"type": "array", "items": _one_of(kinds["transform"])},
            "sinks": {"type": "array", "minItems": 1, "items": _one_of(kinds["sink"])},
            **_TOP,
        },
    }


def _one_of(components: Iterable[Found]) -> dict[str, Any]:
    return {"type": "object", "required": ["use"], "oneOf": [_component(found) for found in components]}


def _component(found: Found) -> dict[str, Any]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(found.component)}
    return {
        "type": "object",
        "description": inspect.cleandoc(found.component.__doc__ or ""),
        "required": ["use", *(name for name, field in fields.items() if field.required)],
        "additionalProperties": False,
        "properties": {
            "use": {"const": found.name},
            **{name: _or_env(spec) for name, spec in options(found.component).items()},
        },
    }


def _or_env(spec: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: spec.pop(key) for key in ("description", "default") if key in spec}
    return {"anyOf": [spec, _FROM_ENV], **about}
