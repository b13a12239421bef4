"""``mediaflow explain``: what a pipeline does with every format that may arrive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ._pipeline import config_errors, file_argument, load

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..graph import Plan


@click.command()
@file_argument
def command(file: str) -> None:
    """Show every format that may arrive, and what each step makes of it: format, latency, queue bound."""
    from .. import graph

    with config_errors():
        pipeline, plans, _ = load(file)
        replies = [] if pipeline.reply is None else graph.check(pipeline.reply)
    _explain_all(pipeline, plans, "")
    if pipeline.reply is not None:
        _explain_all(
            pipeline.reply,
            replies,
            "reply, until the caller speaks, from " if pipeline.reply.barge_in else "reply from ",
        )


def _explain_all(pipeline: Pipeline, plans: Iterable[Plan], before: str) -> None:
    from ..errors import FormatError

    for plan in plans:
        click.echo(f"{before}{pipeline.names[('source',)]}: {plan.input}, {_tracks(plan.input_tracks)}")
        try:
            _explain(pipeline, plan)
        except FormatError as error:
            click.echo(f"  refused: {error}")


def _explain(pipeline: Pipeline, plan: Plan) -> None:
    latency = 0.0
    own, shared = plan.processors()
    opened = dict(step for chain in (*own.values(), shared) for step in chain)
    for step in plan.steps:
        if step.applies:
            delay = opened[step.label].latency
            latency += delay
            added = f", adds {delay * 1000:.1f} ms" if delay else ""
            click.echo(f"  {step.label} → {step.output}{added}")
        else:
            click.echo(f"  {step.label} left out: nothing to do")
    for index, sink in enumerate(pipeline.sinks):
        click.echo(
            f"  {pipeline.label(('sinks', index))} ← {plan.output}, {_tracks(plan.output_tracks)}, "
            f"queue {sink.queue_ms} ms then {sink.when_full}, {latency * 1000:.1f} ms behind the source"
        )


def _tracks(tracks: tuple[str, ...]) -> str:
    return f"{'track' if len(tracks) == 1 else 'tracks'} {' and '.join(tracks)}"
