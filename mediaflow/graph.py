"""Formats meet before anything runs.

A source says which formats its streams may have.  For each of them ``plan`` walks the transforms, asks each what it
makes of its input, leaves out those that have nothing to do, and asks every sink whether it takes the end of it.  So
``mediaflow check`` can refuse a pipeline without opening a socket, and a stream that a carrier announces takes the same
walk once more when it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .compiled import Fused, fuse
from .component import Joiner, Processor, Transform
from .config import Pipeline, Place
from .delivery.account import Join, Rate
from .errors import ConfigError, FormatError, MediaflowError, Problem
from .frame import AudioFormat, Event, SpeechEnded, SpeechStarted

Tracks = tuple[str, ...]

Chain = list[tuple[str, Processor | Fused]]
"""What a track goes through, by label."""


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
    path: tuple[Rate | Join, ...]
    """What happens to sample positions on the way."""

    def open(self) -> dict[str, Chain]:
        """Open what each track goes through, neighbours fused where they can be; what tracks share is one object."""
        own, shared = self.processors()
        behind = fuse(shared)
        return {track: fuse(chain) + behind for track, chain in own.items()}

    def processors(self) -> tuple[dict[str, list[tuple[str, Processor]]], list[tuple[str, Processor]]]:
        """Open the processors, by label: those that each track has to itself, then those that all tracks share."""
        own: dict[str, list[tuple[str, Processor]]] = {track: [] for track in self.input_tracks}
        shared: list[tuple[str, Processor]] = []
        for step in self.steps:
            if not step.applies:
                continue
            if isinstance(step.transform, Joiner):
                shared.append((step.label, step.transform.open(step.input, step.tracks)))
            elif shared:
                shared.append((step.label, step.transform.open(step.input)))
            else:
                for chain in own.values():
                    chain.append((step.label, step.transform.open(step.input)))
        return own, shared


class Misfit(FormatError):
    """Neighbours in a pipeline do not fit; ``problems`` say where in the file."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def plan(pipeline: Pipeline, format: AudioFormat, tracks: Tracks) -> Plan:
    """Walk one format through the pipeline; raise ``Misfit`` for the first step, or all sinks, that do not take it."""
    walk = _Walk(pipeline, format, tracks)
    for index, transform in enumerate(pipeline.transforms):
        with walk.at(("transforms", index)):
            walk.take(transform)
        walk.stop_if_wrong()
    for index, sink in enumerate(pipeline.sinks):
        with walk.at(("sinks", index)):
            sink.check_format(walk.format, walk.tracks)
    walk.stop_if_wrong()
    return Plan(format, tracks, tuple(walk.steps), walk.format, walk.tracks, tuple(_path(walk.steps)))


def _path(steps: Iterable[Step]) -> Iterator[Rate | Join]:
    for step in steps:
        if step.applies and isinstance(step.transform, Joiner):
            yield Join(step.transform.output_track, step.transform.keeps(step.tracks))
        if step.input.sample_rate != step.output.sample_rate:
            yield Rate(step.input.sample_rate, step.output.sample_rate)


def check(pipeline: Pipeline) -> list[Plan]:
    """Plan every format that the source may bring; raise ``ConfigError`` with all that does not fit, reply included."""
    plans, problems = _check(pipeline)
    if pipeline.reply is not None:
        problems += _check(pipeline.reply)[1]
        if not problems and pipeline.reply.barge_in and not any(_marks_speech(plan) for plan in plans):
            text, hint = "barge_in needs SpeechStarted events, which no transform makes", "add `- use: energy_vad`"
            problems.append(
                pipeline.reply.problem(("sinks", 0), "format", text, f"{hint} to the transforms of the call")
            )
    if problems:
        raise ConfigError(problems)
    return plans


def _check(pipeline: Pipeline) -> tuple[list[Plan], list[Problem]]:
    """Return the plans of all formats that fit, and what does not."""
    plans: list[Plan] = []
    problems: dict[tuple[int, int], Problem] = {}
    for format, tracks in _formats(pipeline):
        try:
            plans.append(plan(pipeline, format, tracks))
        except Misfit as misfit:
            # One report per place: what holds for one format of the carrier mostly holds for all.
            for problem in misfit.problems:
                problems.setdefault((problem.line, problem.column), problem)
    return plans, list(problems.values()) or list(_refused(pipeline, plans))


def _marks_speech(plan: Plan) -> bool:
    return any(
        step.applies and isinstance(step.transform, Transform) and SpeechStarted in step.transform.emits
        for step in plan.steps
    )


def _refused(pipeline: Pipeline, plans: Sequence[Plan]) -> Iterator[Problem]:
    """A joiner may refuse some tracks when it is opened; one that refuses all that may come has a slip in it."""
    for index, transform in enumerate(pipeline.transforms):
        if isinstance(transform, Joiner):
            refusals = [_refusal(transform, plan.steps[index]) for plan in plans]
            first = refusals[0] if refusals else None
            if first is not None and None not in refusals:
                yield pipeline.problem(("transforms", index), "format", first.text, first.hint)


def _refusal(joiner: Joiner, step: Step) -> FormatError | None:
    try:
        if step.applies:
            joiner.open(step.input, step.tracks)
    except FormatError as error:
        return error
    return None


def _formats(pipeline: Pipeline) -> list[tuple[AudioFormat, Tracks]]:
    place = ("source",)
    try:
        return list(pipeline.source.formats())
    except MediaflowError as error:
        raise ConfigError([pipeline.problem(place, "format", *_words(error))]) from error
    except Exception as error:
        raise ConfigError([_broken(pipeline, place, error)]) from error


class _Walk:
    """How far a format has come, as what, and what did not fit."""

    def __init__(self, pipeline: Pipeline, format: AudioFormat, tracks: Tracks) -> None:
        self.format, self.tracks = format, tracks
        self.steps: list[Step] = []
        self._pipeline = pipeline
        self._giver = "the source"
        self._place: Place = ()
        self._events: set[type[Event]] = set(pipeline.source.emits)
        self._problems: list[Problem] = []

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Note what goes wrong with the component at ``place``."""
        self._place = place
        try:
            yield
        except FormatError as error:
            text, hint = _words(error)
            sides = f"{'tracks' if len(self.tracks) > 1 else 'track'} {' and '.join(self.tracks)}"
            text = f"{text}; {self._giver} gives it {self.format}, {sides}"
            self._problems.append(self._pipeline.problem(place, "format", text, hint))
        except Exception as error:
            self._problems.append(_broken(self._pipeline, place, error))

    def stop_if_wrong(self) -> None:
        """Raise ``Misfit`` if anything was noted."""
        if self._problems:
            raise Misfit(*self._problems)

    def take(self, transform: Transform | Joiner) -> None:
        """Go through ``transform``."""
        format, tracks = self.format, self.tracks
        if isinstance(transform, Joiner):
            applies = transform.applies(tracks)
            output = transform.output_format(format, tracks) if applies else format
        else:
            applies = transform.applies(format)
            output = transform.output_format(format) if applies else format
            self._check_events(transform)
        label = self._pipeline.label(self._place)
        self.steps.append(Step(label, transform, format, tracks, applies, output))
        if applies:
            self._giver, self.format = label, output
            if isinstance(transform, Joiner):
                self.tracks = (transform.output_track,)
            else:
                self._events.update(transform.emits)

    def _check_events(self, transform: Transform) -> None:
        missing = [event for event in transform.needs if event not in self._events]
        if missing:
            names = " and ".join(event.__name__ for event in missing)
            speech = any(event in (SpeechStarted, SpeechEnded) for event in missing)
            hint = "add `- use: energy_vad` before it" if speech else ""
            raise FormatError(f"needs {names} events, which nothing before it makes", hint)


def _words(error: MediaflowError) -> tuple[str, str]:
    return (error.text, error.hint) if isinstance(error, FormatError) else (str(error), "")


def _broken(pipeline: Pipeline, place: Place, error: Exception) -> Problem:
    """A component raised what it should not: wrapped once, with its name and its place."""
    text = f"broke while formats were compared: {type(error).__name__}: {error}"
    return pipeline.problem(place, "broken", text, "this is a fault of the component, not of the file")
