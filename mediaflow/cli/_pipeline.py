"""What several commands do first: load the plugins and a pipeline, and say what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..graph import Plan
    from ..plugins import Plugins

file_argument = click.argument("file", type=click.Path(dir_okay=False))


@contextmanager
def config_errors() -> Iterator[None]:
    """Print the problems of a pipeline file and exit with 2."""
    from ..errors import ConfigError

    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(2)


def load(file: str, env: Mapping[str, str] | None = None) -> tuple[Pipeline, list[Plan], Plugins]:
    """Load ``file`` and walk all its formats; raise ``ConfigError`` if anything is wrong."""
    from .. import config, graph, plugins

    installed = plugins.load()
    pipeline = config.load(file, installed, env)
    return pipeline, graph.check(pipeline), installed
