"""``mediaflow schema`` prints what editors need."""

from __future__ import annotations

import json

from click.testing import CliRunner

from mediaflow import schema
from mediaflow.cli import main
from mediaflow.plugins import load


def test_it_is_printed() -> None:
    """The schema of a pipeline with all that is installed, as JSON that people can read too."""
    result = CliRunner().invoke(main, ["schema"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == json.loads(json.dumps(schema.pipeline(load())))
    assert result.stdout.startswith("{\n  ")
