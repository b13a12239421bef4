"""The JSON Schema says of a pipeline file what the loader says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pipeline_kit import with_shout

from mediaflow import schema
from mediaflow.plugins import Plugins

PIPELINES = sorted((Path(__file__).parent.parent / "pipelines").glob("*.yaml"))

Validator = jsonschema.Draft202012Validator


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Load what is installed."""
    return with_shout()


@pytest.fixture(scope="module")
def validator(plugins: Plugins) -> Any:
    """Return a validator of the schema with everything that is installed."""
    return Validator(schema.pipeline(plugins))


def good() -> dict[str, Any]:
    """Return a pipeline with options of every kind."""
    return {
        "source": {"use": "file", "path": "a.wav", "speed": "max"},
        "transforms": [
            {"use": "resample", "rate": 16000},
            {"use": "shout", "words": ["a"], "grid": [[1]], "levels": {"a": 1}, "voice": {"pitch": 3}, "loud": True},
            {"use": "resample", "rate": "${RATE:-8000}", "quality": "${QUALITY}"},
        ],
        "sinks": [{"use": "disk", "path": "{call_id}.wav", "when_full": "drop_oldest"}],
        "state": "x",
        "drain_s": 1,
        "reply": {
            "source": {"use": "file", "path": "b.wav"},
            "transforms": [{"use": "mix"}],
            "barge_in": True,
        },
    }


def test_it_is_a_schema(plugins: Plugins) -> None:
    """The metaschema accepts it, and every reference in it leads somewhere."""
    made = schema.pipeline(plugins)
    Validator.check_schema(made)
    references = re.findall(r"'\$ref': '#/\$defs/([^']+)'", str(made))
    assert references.count("shout.Voice") == 1
    assert set(references) == set(made["$defs"])


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_it_accepts_what_is_shipped(file: Path, validator: Any) -> None:
    """No pipeline that comes with the package is marked wrong by an editor; a wrong key in it is."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    validator.validate(tree)
    for part in (tree, tree["source"], *tree.get("transforms", ()), *tree["sinks"]):
        part["nonsense"] = 1
        assert not validator.is_valid(tree)
        del part["nonsense"]
    validator.validate(tree)


def test_it_accepts_what_the_loader_accepts(validator: Any) -> None:
    """Options of every kind, and ``${…}`` in the place of any."""
    validator.validate(good())
    validator.validate({**good(), "transforms": None})
    validator.validate({key: value for key, value in good().items() if key in ("source", "sinks")})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("source",), None),
        (("source",), []),
        (("source", "use"), "disk"),
        (("source", "use"), "nonsense"),
        (("source", "path"), None),
        (("source", "path"), ""),
        (("source", "speed"), 0),
        (("sinks",), []),
        (("sinks",), {"use": "disk"}),
        (("sinks", 0, "queue_ms"), 1),
        (("sinks", 0, "when_full"), "never"),
        (("transforms", 0, "rate"), "16000"),
        (("transforms", 0, "rate"), 1),
        (("transforms", 1, "words"), "a"),
        (("transforms", 1, "grid"), [["a"]]),
        (("transforms", 1, "voice"), {"pitch": "high"}),
        (("transforms", 1, "voice"), {"pitch": 3, "volume": 4}),
        (("drain_s",), -1),
        (("state",), ""),
        (("reply",), None),
        (("reply",), {}),
        (("reply", "barge_in"), "yes"),
        (("reply", "sinks"), []),
        (("reply", "source", "use"), "disk"),
        (("reply", "transforms", 0, "use"), "file"),
    ],
)
def test_it_rejects_what_the_loader_rejects(place: tuple[str | int, ...], value: Any, validator: Any) -> None:
    """A wrong value at any place makes the whole wrong."""
    tree: Any = good()
    part = tree
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    assert not validator.is_valid(tree)


@pytest.mark.parametrize("missing", [("source",), ("sinks",), ("source", "use"), ("source", "path")])
def test_it_rejects_what_is_incomplete(missing: tuple[str, ...], validator: Any) -> None:
    """What the loader needs, the schema needs."""
    tree: Any = good()
    part = tree
    for step in missing[:-1]:
        part = part[step]
    del part[missing[-1]]
    assert not validator.is_valid(tree)


def test_no_secret_is_in_it(plugins: Plugins) -> None:
    """Options that are secrets are marked as such, and their defaults are not told."""
    secret = plugins.components["vobiz"].options["secret"]
    assert "writeOnly" in str(secret)
    assert plugins.components["eka_raw"].options["token"]["default"] == ""
