"""Compiled steps that are fused give what they give one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mediaflow import AudioFormat, AudioFrame, Compiled, Event, Item, Processor, SpeechStarted, dsp
from mediaflow.compiled import Fused, fuse
from mediaflow.testing import frames
from mediaflow_plugins.transform_energy_vad import EnergyVad
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_mulaw_encode import MulawEncode
from mediaflow_plugins.transform_resample import Resample

MULAW, PCM, WIDE = AudioFormat("mulaw", 8000), AudioFormat("s16le", 8000), AudioFormat("s16le", 16_000)
RNG = np.random.default_rng(7)
SPEECH = np.concatenate([RNG.normal(0, level, 6000) for level in (3, 6000, 3, 9000, 2)]).astype("<i2")
CODES = dsp.mulaw_encode(SPEECH.tobytes())


class Same(Processor):
    """Passes everything on, in Python."""

    def process(self, frame: AudioFrame) -> tuple[AudioFrame]:
        return (frame,)


def steps() -> list[tuple[str, Processor]]:
    """Open the steps of a call, each with its label."""
    return [
        ("decode", MulawDecode().open(MULAW)),
        ("resample", Resample(rate=16_000).open(PCM)),
        ("vad", EnergyVad().open(WIDE)),
    ]


def run(chain: Sequence[tuple[str, Processor | Fused]], input: list[AudioFrame]) -> list[Item]:
    """Send frames through a chain, step by step as a session does, flush included."""
    out: list[Item] = []
    for frame in input:
        out += _pass(chain, [frame])
    for index, (_, step) in enumerate(chain):
        out += _pass(chain[index + 1 :], list(step.flush()))
    return out


def _pass(chain: Sequence[tuple[str, Processor | Fused]], items: list[Item]) -> list[Item]:
    for _, step in chain:
        out: list[Item] = []
        for item in items:
            out += step.process(item) if isinstance(item, AudioFrame) else step.event(item)
        items = out
    return items


def test_neighbours_become_one() -> None:
    """Only compiled steps are joined, in their order, and behind one that tells of events a new chain begins."""
    chain = fuse([*steps(), ("same", Same()), ("encode", MulawEncode().open(WIDE))])

    assert [label for label, _ in chain] == ["decode, resample, vad", "same", "encode"]
    assert [type(step) for _, step in chain] == [Fused, Same, Fused]

    pair = fuse([("vad", EnergyVad().open(PCM)), ("encode", MulawEncode().open(PCM))])
    assert [label for label, _ in pair] == ["vad", "encode"]


def test_more_than_a_stage() -> None:
    """A compiled step that does something by itself is run as it is: fused, what it does would be passed over."""

    class Silent(Compiled):
        def process(self, frame: AudioFrame) -> tuple[AudioFrame]:
            return (frame.replace(bytes(len(frame.data))),)

    class Deaf(Compiled):
        def event(self, event: Event) -> tuple[()]:
            return ()

    for kind in (Silent, Deaf):
        chain = fuse([("decode", MulawDecode().open(MULAW)), ("own", kind(dsp.mulaw_encode, PCM, MULAW))])
        assert [(label, type(step)) for label, step in chain] == [("decode", Fused), ("own", kind)]


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, len(CODES)), max_size=20), start=st.integers(0, 10**9))
def test_fused_equals_one_by_one(cuts: list[int], start: int) -> None:
    """Whatever the slicing and the place where the track begins, frames and events are the same."""
    cut = [
        AudioFrame(CODES[a:b], MULAW, "outbound", start + a)
        for a, b in itertools.pairwise([0, *sorted(cuts), len(CODES)])
    ]

    assert run(fuse(steps()), cut) == run(steps(), cut)


def test_what_comes_out() -> None:
    """The samples are those of the plain functions, the events stand where the detector alone puts them."""
    late = 4000  # the track begins half a second after the stream
    cut = [
        frame.replace(frame.data, position=frame.position + late)
        for frame in frames(CODES, MULAW, range(160, len(CODES), 160))
    ]
    items = run(fuse(steps()), cut)

    resampler = dsp.Resampler(8000, 16_000)
    pcm = resampler.process(dsp.mulaw_decode(CODES)) + resampler.flush()
    alone = dsp.EnergyVad(16_000)
    found = [*alone.process(pcm).events, *alone.flush().events]
    assert b"".join(item.data for item in items if isinstance(item, AudioFrame)) == pcm
    events = [(isinstance(item, SpeechStarted), item.time) for item in items if isinstance(item, Event)]
    assert events == [(event.started, (2 * late + event.position) / 16_000) for event in found]
    assert len(events) == 4


def test_without_a_resampler_positions_are_the_inputs() -> None:
    """A step in front may leave audio out: the hole stays where it is."""
    holes = [AudioFrame(CODES[:160], MULAW, "inbound", 40), AudioFrame(CODES[160:320], MULAW, "inbound", 900)]

    out = run(fuse(steps()[:1]), holes)

    assert [(item.position, item.data) for item in out if isinstance(item, AudioFrame)] == [
        (40, dsp.mulaw_decode(CODES[:160])),
        (900, dsp.mulaw_decode(CODES[160:320])),
    ]


def test_a_stream_without_audio() -> None:
    """Nothing came, so nothing is flushed."""
    ((_, fused),) = fuse(steps())
    assert list(fused.flush()) == []
    assert list(Compiled(dsp.mulaw_decode, MULAW, PCM).flush()) == []


def test_a_call_does_not_grow() -> None:
    """What a detector finds that is no news is forgotten, however long nobody speaks."""
    vad = dsp.EnergyVad(8000)
    chain = dsp.Chain([vad])
    for _ in range(50):
        chain.process(bytes(320))
        assert not chain.news()
    assert vad.take() == dsp.VadResult([], [], [])


def test_stages_that_do_not_fit() -> None:
    """Two steps whose rates do not meet are refused when the call is opened, with both named."""
    with pytest.raises(ValueError, match="takes 16000 Hz, but what comes before it gives 8000"):
        fuse([("resample", Resample(rate=8000).open(WIDE)), ("vad", EnergyVad().open(WIDE))])
