"""The JSON Schema of a pipeline file, with every installed component, for editors that complete and check YAML."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from .option import ReplySettings, Settings, Spec, options
from .plugins import Found, Plugins

# ``${NAME}`` may stand in the place of any value, so every option also takes such a string.
_FROM_ENV = {"type": "string", "pattern": r"\$\{"}


def pipeline(plugins: Plugins) -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file."""
    kinds: dict[str, list[Found]] = {"source": [], "transform": [], "sink": []}
    for found in sorted(plugins.components.values(), key=lambda found: found.name):
        kinds[found.kind].append(found)
    definitions: dict[str, Any] = {}
    for kind in ("source", "transform"):  # both stand at two places
        definitions[kind] = _one_of(kinds[kind], definitions)
    source = {"$ref": "#/$defs/source"}
    transforms = {"type": ["array", "null"], "items": {"$ref": "#/$defs/transform"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mediaflow pipeline",
        "type": "object",
        "required": ["source", "sinks"],
        "additionalProperties": False,
        "properties": {
            "source": source,
            "transforms": transforms,
            "sinks": {"type": "array", "minItems": 1, "items": _one_of(kinds["sink"], definitions)},
            "reply": {
                "type": "object",
                "description": "what is played into each call; for sources that can speak to their callers",
                "required": ["source"],
                "additionalProperties": False,
                "properties": {
                    "source": source,
                    "transforms": transforms,
                    **{name: _or_env(spec) for name, spec in options(ReplySettings).items()},
                },
            },
            **{name: _or_env(spec) for name, spec in options(Settings).items()},
        },
        "$defs": definitions,
    }


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
