"""Formats meet before anything runs: what each step makes of them, what is left out, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from mediaflow import (
    AudioFormat,
    ConfigError,
    Dtmf,
    Engine,
    FormatError,
    Joiner,
    PathTemplate,
    Processor,
    Sink,
    Source,
    SourceError,
    Transform,
)
from mediaflow.config import Pipeline, Place
from mediaflow.delivery.account import Join, Rate
from mediaflow.graph import Misfit, check, plan
from mediaflow_plugins.sink_disk import Disk
from mediaflow_plugins.source_vobiz import Vobiz
from mediaflow_plugins.transform_alaw_decode import AlawDecode
from mediaflow_plugins.transform_energy_vad import EnergyVad
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_resample import Resample
from mediaflow_plugins.transform_select import Select
from mediaflow_plugins.transform_speech_chunks import SpeechChunks
from mediaflow_plugins.transform_stereo import Stereo

MULAW, PCM_8K, PCM_16K = AudioFormat("mulaw", 8000), AudioFormat("s16le", 8000), AudioFormat("s16le", 16000)
ONE, BOTH = ("inbound",), ("inbound", "outbound")


class Brings(Source, frozen=True, kw_only=True):
    """Says that it brings ``what``."""

    what: Sequence[tuple[AudioFormat, tuple[str, ...]]] = ()
    fails: Any = None

    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        if self.fails is not None:
            raise self.fails
        return self.what

    async def serve(self, engine: Engine) -> None: ...


class Rings(Brings, frozen=True, kw_only=True):
    """Brings key events along."""

    emits = (Dtmf,)


class Picky(Sink, frozen=True, kw_only=True):
    """Takes one format."""

    wants: AudioFormat

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        if format != self.wants:
            raise FormatError(f"takes {self.wants}")

    def open(self, *_: Any) -> Any:
        raise NotImplementedError


class Presses(Transform, frozen=True):
    """Makes key events of µ-law, and leaves the rest."""

    emits = (Dtmf,)

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding == "mulaw"

    def open(self, format: AudioFormat) -> Processor:
        return Processor()


class NeedsKeys(Transform, frozen=True):
    """Needs key events."""

    needs = (Dtmf,)

    def open(self, format: AudioFormat) -> Processor:
        return Processor()


class Breaks(Transform, frozen=True, kw_only=True):
    """Breaks when it is asked."""

    def applies(self, format: AudioFormat) -> bool:
        raise ZeroDivisionError("division by zero")

    def open(self, format: AudioFormat) -> Processor:
        return Processor()


EACH = Disk(path=PathTemplate("{call_id}-{track}.wav"))


def pipeline(
    *transforms: Transform | Joiner, sinks: Sequence[Sink] = (EACH,), source: Source | None = None
) -> Pipeline:
    """Return a pipeline of these parts, of which the nth stands on line n."""
    source = source or Brings(what=[(MULAW, ONE)])
    places: list[tuple[Place, Any]] = [(("source",), source)]
    places += [(("transforms", index), each) for index, each in enumerate(transforms)]
    places += [(("sinks", index), each) for index, each in enumerate(sinks)]
    return Pipeline(
        file="p.yaml",
        source=source,
        transforms=transforms,
        sinks=tuple(sinks),
        names={place: type(part).__name__.lower() for place, part in places},
        marks={place: (line, 1) for line, (place, _) in enumerate(places, 1)},
    )


def test_the_walk_of_a_format() -> None:
    """Each step gets what the one before it makes; one with nothing to do is left out."""
    steps = plan(pipeline(MulawDecode(), AlawDecode(), Mix(), Resample(rate=16000)), MULAW, BOTH)
    assert [(step.label, step.applies) for step in steps.steps] == [
        ("transforms[0] mulawdecode", True),
        ("transforms[1] alawdecode", False),
        ("transforms[2] mix", True),
        ("transforms[3] resample", True),
    ]
    assert [(step.input, step.tracks, step.output) for step in steps.steps] == [
        (MULAW, BOTH, PCM_8K),
        (PCM_8K, BOTH, PCM_8K),
        (PCM_8K, BOTH, PCM_8K),
        (PCM_8K, ("mix",), PCM_16K),
    ]
    assert (steps.input, steps.input_tracks, steps.output, steps.output_tracks) == (MULAW, BOTH, PCM_16K, ("mix",))


@pytest.mark.parametrize(
    ("format", "tracks", "applied"),
    [
        (MULAW, BOTH, ["mulawdecode", "mix", "resample"]),
        (MULAW, ONE, ["mulawdecode", "resample"]),
        (PCM_8K, BOTH, ["mix", "resample"]),
        (PCM_16K, BOTH, ["mix"]),
        (PCM_16K, ONE, []),
    ],
)
def test_one_pipeline_serves_every_format(format: AudioFormat, tracks: tuple[str, ...], applied: list[str]) -> None:
    """Whatever the carrier announces arrives as one track of 16 kHz, and only the steps that it needs are run."""
    walk = plan(pipeline(MulawDecode(), Mix(), Resample(rate=16000)), format, tracks)
    assert [step.label.split()[1] for step in walk.steps if step.applies] == applied
    assert walk.output == PCM_16K
    assert len(walk.output_tracks) == 1
    steps = {
        track: [step.split()[1] for label, _ in chain for step in label.split(", ")]
        for track, chain in walk.open().items()
    }
    assert steps == dict.fromkeys(tracks, applied)


def test_the_path_of_positions() -> None:
    """The account knows every change of rate and every join, in order, and nothing of steps that are left out."""
    steps = (MulawDecode(), Resample(rate=16000), Select(track="inbound"), Resample(rate=48000), Resample(rate=48000))
    walk = plan(pipeline(*steps), MULAW, BOTH)
    assert walk.path == (Rate(8000, 16000), Join("inbound", ("inbound",)), Rate(16000, 48000))
    assert plan(pipeline(*steps), MULAW, ONE).path == (Rate(8000, 16000), Rate(16000, 48000))
    assert plan(pipeline(Mix()), PCM_8K, BOTH).path == (Join("mix", BOTH),)


def test_tracks_have_processors_of_their_own_until_they_are_joined() -> None:
    """Before the join each track has its own instance; from the join on all share one."""
    chains = plan(pipeline(MulawDecode(), EnergyVad(), Mix(), Resample(rate=16000)), MULAW, BOTH).open()
    (own, a), (_, b), (_, c) = chains["inbound"]
    (_, d), (_, e), (_, f) = chains["outbound"]
    assert own == "transforms[0] mulawdecode, transforms[1] energyvad"
    assert a is not d
    assert b is e and c is f
    again = plan(pipeline(MulawDecode(), EnergyVad(), Mix(), Resample(rate=16000)), MULAW, BOTH).open()
    assert again["inbound"][2][1] is not c


def test_a_track_that_is_missing_is_found_when_the_stream_opens() -> None:
    """A carrier may fork one side only; the step that wants the other one says so."""
    walk = plan(pipeline(MulawDecode(), Select(track="inbound")), MULAW, ("outbound",))
    with pytest.raises(FormatError, match="has no track 'inbound', only outbound"):
        walk.open()


def test_a_track_that_never_comes() -> None:
    """A step that refuses everything the source may bring is found by ``check``; one that refuses some is right."""
    brings = Brings(what=[(MULAW, tracks) for tracks in (("inbound",), ("outbound",), BOTH)])
    assert len(check(pipeline(Select(track="outbound"), source=brings))) == 3
    with pytest.raises(ConfigError) as error:
        check(pipeline(MulawDecode(), Select(track="inbond"), source=brings))
    (problem,) = error.value.problems
    assert (problem.line, problem.text) == (3, "transforms[1] select: the call has no track 'inbond', only inbound")


@pytest.mark.parametrize(
    ("transforms", "fits"),
    [
        ((EnergyVad(), SpeechChunks()), True),
        ((EnergyVad(), Mix(), Resample(rate=16000), SpeechChunks()), True),
        ((SpeechChunks(), EnergyVad()), False),
        ((Presses(), NeedsKeys()), False),  # the first is left out: what comes is PCM
    ],
)
def test_events_must_be_made_before_they_are_needed(transforms: tuple[Transform, ...], fits: bool) -> None:
    """Only a step that stands before, and is not left out, satisfies the need."""
    if fits:
        plan(pipeline(*transforms), PCM_8K, BOTH)
    else:
        with pytest.raises(Misfit, match="events, which nothing before it makes"):
            plan(pipeline(*transforms), PCM_8K, BOTH)


def test_the_hint_for_missing_events() -> None:
    """For speech events the step that makes them is named; for others no step is guessed."""
    assert plan(pipeline(Presses(), NeedsKeys()), MULAW, ONE)
    with pytest.raises(Misfit) as speech:
        plan(pipeline(SpeechChunks()), PCM_8K, ONE)
    with pytest.raises(Misfit) as keys:
        plan(pipeline(NeedsKeys()), PCM_8K, ONE)
    assert [each.problems[0].hint for each in (speech.value, keys.value)] == ["add `- use: energy_vad` before it", ""]


def test_a_misfit_names_both_sides() -> None:
    """The problem stands at the first that cannot take what it gets, and says who gives it."""
    with pytest.raises(Misfit) as misfit:
        plan(pipeline(MulawDecode(), AlawDecode(), Stereo(), Resample(rate=16000), EnergyVad()), MULAW, BOTH)
    (problem,) = misfit.value.problems
    assert problem[:4] == ("p.yaml", 5, 1, "format")
    assert problem.text.startswith("transforms[3] resample: takes one channel a track, not 2; ")
    assert problem.text.endswith("; transforms[2] stereo gives it s16le 8000 Hz stereo, track stereo")
    assert isinstance(misfit.value, FormatError) and problem.text in str(misfit.value)


def test_every_sink_that_does_not_fit_is_told() -> None:
    """Sinks do not depend on each other, so all their problems are reported at once."""
    sinks = [Picky(wants=PCM_8K), EACH, Picky(wants=PCM_16K)]
    with pytest.raises(Misfit) as misfit:
        plan(pipeline(sinks=sinks), MULAW, ONE)
    assert [problem.line for problem in misfit.value.problems] == [2, 4]
    with pytest.raises(ConfigError) as error:
        check(pipeline(sinks=sinks, source=Brings(what=[(MULAW, ONE), (PCM_8K, ONE)])))
    assert [(problem.line, "mulaw" in problem.text) for problem in error.value.problems] == [(2, True), (4, True)]


def test_every_format_of_the_source_is_walked() -> None:
    """A format that fits does not hide one that does not, and each place is reported once."""
    brings = [(format, tracks) for format in (PCM_16K, MULAW, PCM_8K) for tracks in (ONE, BOTH)]
    source = Brings(what=brings)
    assert [(walk.input, walk.input_tracks) for walk in check(pipeline(source=source))] == brings
    with pytest.raises(ConfigError) as error:
        check(pipeline(EnergyVad(), source=source, sinks=[Picky(wants=PCM_16K)]))
    assert [(problem.line, problem.text.partition(";")[0]) for problem in error.value.problems] == [
        (2, "transforms[0] energyvad: takes s16le, not mulaw"),
        (3, "sinks[0] picky: takes s16le 16000 Hz mono"),
    ]


@pytest.mark.parametrize(
    ("fails", "code", "text", "hint"),
    [
        (FormatError("no rate", "give one"), "format", "source brings: no rate", "give one"),
        (SourceError("the file is gone"), "format", "source brings: the file is gone", ""),
        (ZeroDivisionError("x"), "broken", "source brings: broke while", "this is a fault of the component"),
    ],
)
def test_a_source_that_cannot_say_what_it_brings(fails: Exception, code: str, text: str, hint: str) -> None:
    """Whatever a source raises when it is asked for its formats becomes a problem at its place."""
    with pytest.raises(ConfigError) as error:
        check(pipeline(source=Brings(fails=fails)))
    (problem,) = error.value.problems
    assert (problem.line, problem.code) == (1, code)
    assert problem.text.startswith(text) and problem.hint.startswith(hint)


def test_a_component_that_breaks_is_named() -> None:
    """An error that no component should raise is wrapped once, with the name and the place of the component."""
    with pytest.raises(Misfit) as misfit:
        plan(pipeline(Breaks()), MULAW, ONE)
    (problem,) = misfit.value.problems
    assert problem[1:4] == (2, 1, "broken")
    assert (
        problem.text == "transforms[0] breaks: broke while formats were compared: ZeroDivisionError: division by zero"
    )


def test_a_source_may_bring_what_a_transform_needs() -> None:
    """What the source says that it emits is there from the first step on, and only that."""
    assert check(pipeline(NeedsKeys(), source=Rings(what=[(MULAW, ONE)])))
    with pytest.raises(ConfigError, match="needs Dtmf events, which nothing before it makes"):
        check(pipeline(NeedsKeys(), source=Brings(what=[(MULAW, ONE)])))
    assert check(pipeline(NeedsKeys(), source=Vobiz()))
