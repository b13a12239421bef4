"""What an option takes, as JSON Schema and in words; and the options of a pipeline and of its reply themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .component import Secret
from .path_template import PathTemplate

Spec = dict[str, Any]
"""The JSON Schema of one value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a pipeline itself."""

    state: Annotated[str, Meta(min_length=1, description="folder of the ledger")] = "mediaflow-data"
    drain_s: Annotated[float, Meta(ge=0, description="seconds that a stop leaves the sinks to finish")] = 30.0


class ReplySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a reply itself."""

    barge_in: Annotated[bool, Meta(description="stop the reply as soon as the caller speaks")] = False


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


def _own_type(type_: type) -> Spec:
    if type_ is Secret:
        return {"type": "string", "writeOnly": True}
    if type_ is PathTemplate:
        return {"type": "string", "minLength": 1, "format": "path"}
    raise TypeError(f"an option cannot be of type {type_.__name__}: YAML has no such values")


def _plain(value: Any) -> str:
    return "" if isinstance(value, Secret) else str(value)
