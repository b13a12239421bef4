"""Formats meet before anything runs.

A source says which formats its streams may have.  For each of them ``plan`` walks the transforms, asks each what it
makes of its input, leaves out those that have nothing to do, and asks every sink whether it takes the end of it.  So
``mediaflow check`` can refuse a pipeline without opening a socket, and a stream that a carrier announces takes the same
walk once more when it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .component import Joiner, Processor, Transform
from .config import Pipeline
from .delivery.account import Join, Rate
from .errors import ConfigError, FormatError, Problem
from .frame import AudioFormat, Event

Tracks = tuple[str, ...]


class Step(NamedTuple):
    """One transform in the walk of one format."""

    label: str
    transform: Transform | Joiner
    input: AudioFormat
    tracks: Tracks
    applies: bool
    output: AudioFormat


class Plan(NamedTuple):
    """How streams of one format go through the pipeline."""

    input: AudioFormat
    input_tracks: Tracks
    steps: tuple[Step, ...]
    output: AudioFormat
    output_tracks: Tracks

    @property
    def path(self) -> tuple[Rate | Join, ...]:
        """What happens to sample positions on the way."""
        path: list[Rate | Join] = []
        for step in self.steps:
            if step.applies and isinstance(step.transform, Joiner):
                path.append(Join(step.transform.output_track, step.transform.keeps(step.tracks)))
            if step.input.sample_rate != step.output.sample_rate:
                path.append(Rate(step.input.sample_rate, step.output.sample_rate))
        return tuple(path)

    def open(self) -> dict[str, list[tuple[str, Processor]]]:
        """Open the processors: for every track its own ones, then those that all tracks share."""
        chains: dict[str, list[tuple[str, Processor]]] = {track: [] for track in self.input_tracks}
        joined = False
        for step in self.steps:
            if not step.applies:
                continue
            if isinstance(step.transform, Joiner) or joined:
                processor = (
                    step.transform.open(step.input, step.tracks)
                    if isinstance(step.transform, Joiner)
                    else step.transform.open(step.input)
                )
                joined = True
                for chain in chains.values():
                    chain.append((step.label, processor))
            else:
                for chain in chains.values():
                    chain.append((step.label, step.transform.open(step.input)))
        return chains


class Misfit(FormatError):
    """Two neighbours of a pipeline do not fit; ``problem`` says where in the file."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def plan(pipeline: Pipeline, format: AudioFormat, tracks: Tracks) -> Plan:
    """Walk one format through the pipeline; raise ``Misfit`` at the first place that does not take it."""
    steps: list[Step] = []
    events: set[type[Event]] = set()
    source, now, sides = "the source", format, tracks
    for index, transform in enumerate(pipeline.transforms):
        place = ("transforms", index)
        label = pipeline.label(place)
        try:
            if isinstance(transform, Joiner):
                applies = transform.applies(sides)
                output = transform.output_format(now, sides) if applies else now
            else:
                applies = transform.applies(now)
                output = transform.output_format(now) if applies else now
                missing = [event.__name__ for event in transform.needs if event not in events]
                if missing:
                    raise FormatError(
                        f"needs {' and '.join(missing)} events, which nothing before it makes",
                        "for speech events add `- use: energy_vad` before it",
                    )
                events.update(transform.emits)
        except FormatError as error:
            raise _misfit(pipeline, place, error, now, sides, source) from error
        steps.append(Step(label, transform, now, sides, applies, output))
        if applies:
            source, now = label, output
            if isinstance(transform, Joiner):
                sides = (transform.output_track,)
    for index, sink in enumerate(pipeline.sinks):
        try:
            sink.check_format(now, sides)
        except FormatError as error:
            raise _misfit(pipeline, ("sinks", index), error, now, sides, source) from error
    return Plan(format, tracks, tuple(steps), now, sides)


def check(pipeline: Pipeline) -> list[Plan]:
    """Plan every format that the source may bring; raise ``ConfigError`` with all that does not fit."""
    plans: list[Plan] = []
    problems: dict[tuple[int, int], Problem] = {}
    for format, tracks in _formats(pipeline):
        try:
            plans.append(plan(pipeline, format, tracks))
        except Misfit as misfit:
            # One report per place: what holds for one format of the carrier mostly holds for all.
            problems.setdefault((misfit.problem.line, misfit.problem.column), misfit.problem)
    if problems:
        raise ConfigError(list(problems.values()))
    return plans


def _formats(pipeline: Pipeline) -> Iterable[tuple[AudioFormat, Tracks]]:
    try:
        return list(pipeline.source.formats())
    except FormatError as error:
        raise ConfigError([pipeline.problem(("source",), "format", error.text, error.hint)]) from error


def _misfit(
    pipeline: Pipeline,
    place: tuple[str | int, ...],
    error: FormatError,
    format: AudioFormat,
    tracks: Tracks,
    source: str,
) -> Misfit:
    sides = "tracks" if len(tracks) > 1 else "track"
    text = f"{error.text}; {source} gives it {format}, {sides} {' and '.join(tracks)}"
    return Misfit(pipeline.problem(place, "format", text, error.hint))
