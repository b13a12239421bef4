"""What an option takes, in words."""

from __future__ import annotations

from typing import Any

import pytest

from mediaflow import option


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5}, "a whole number from 1 to 5"),
        ({"type": "integer", "minimum": 1}, "a whole number of at least 1"),
        ({"type": "number", "maximum": 5}, "a number of at most 5"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "a number above 0 below 1"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1}, "text that is not empty"),
        ({"type": "string", "minLength": 8, "maxLength": 9}, "text of at least 8 characters of at most 9 characters"),
        ({"type": "string", "pattern": "^a"}, "text that matches ^a"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({"enum": ["max"]}, "max"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"enum": ["max"]}]}, "a number above 0 or max"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or nothing"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "a list, each text of at least 2 items"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "a mapping, each a whole number"),
        ({"$ref": "#/$defs/X"}, "a mapping"),
        ({}, "anything"),
    ],
)
def test_a_schema_in_words(spec: dict[str, Any], words: str) -> None:
    """People are told what an option takes in the words that errors use."""
    assert option.describe(spec) == words
