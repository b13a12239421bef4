"""The detector finds synthetic talk, ignores what is none, and does not see how the stream was cut."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dsp import reference
from hypothesis import given, settings, strategies as st

from mediaflow import dsp

RATES = [8000, 11025, 16000, 44100, 48000]


def voice(seconds: float, rate: int, amplitude: float = 6000, pitch: float = 120) -> reference.Signal:
    """Make a vowel: harmonics of a wavering pitch, strongest near 500 Hz."""
    times = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * pitch * times + 2 * np.sin(2 * np.pi * 5 * times)
    harmonics = range(1, int(3000 / pitch))
    vowel = sum(np.sin(n * phase + n * n) / (1 + ((n * pitch - 500) / 400) ** 2) for n in harmonics)
    return np.asarray(vowel / np.std(vowel) * amplitude / 3)


def talk(rate: int, *segments: float, level: float = 0.0) -> bytes:
    """Alternate silence and voice of the given seconds, over white noise of the given deviation."""
    parts = [voice(s, rate) if i % 2 else np.zeros(round(s * rate)) for i, s in enumerate(segments)]
    clean = np.concatenate(parts)
    return reference.pcm(clean + np.random.default_rng(7).normal(0, level, len(clean)))


def detect(pcm: bytes, rate: int, **options: float) -> tuple[list[bool], list[dsp.VadEvent]]:
    """Run a whole stream and return its decisions and events."""
    vad = dsp.EnergyVad(rate, **options)  # type: ignore[arg-type]
    result = vad.process(pcm)
    return result.speech, result.events + vad.flush().events


@pytest.mark.parametrize("level", [0, 3, 100, 600])
@pytest.mark.parametrize("rate", RATES)
def test_finds_talk(rate: int, level: float) -> None:
    """Words between pauses are found at every rate: their start within a frame, their end within 100 ms.

    At 10 dB over the noise a third of a second is as near as the end can be told.
    """
    _, events = detect(talk(rate, 1.0, 0.5, 0.7, 1.2, 1.0, level=level), rate)

    assert [event.started for event in events] == [True, False, True, False]
    for event, seconds in zip(events, [1.0, 1.5, 2.2, 3.4], strict=True):
        late = event.position / rate - seconds
        assert -0.021 <= late <= (0.021 if event.started else 0.1 if level < 600 else 0.33)


@pytest.mark.parametrize("frame_ms", [10, 20])
@pytest.mark.parametrize("offset", [0, 1, 79, 159])
@pytest.mark.parametrize("level", [0, 100])
def test_a_pause_of_200_ms_splits(frame_ms: int, offset: int, level: float) -> None:
    """The end of speech is reported within 200 ms of its last sample, wherever the frames lie."""
    rate = 8000
    pcm = talk(rate, 0.5 + offset / rate, 0.5, 0.2, 0.5, 0.5, level=level)
    vad = dsp.EnergyVad(rate, frame_ms=frame_ms)
    reported = [
        (event.started, start + 8)
        for start in range(0, len(pcm) // 2, 8)
        for event in vad.process(pcm[2 * start : 2 * start + 16]).events
    ]

    assert [started for started, _ in reported] == [True, False, True, False]
    assert reported[1][1] <= offset + rate * 1.2
    assert reported[3][1] <= offset + rate * 1.9


@pytest.mark.parametrize("rate", RATES)
def test_silence_and_noise_are_no_speech(rate: int) -> None:
    """Digital silence has no speech frame, white noise of any usual level few, and none has an event."""
    generator = np.random.default_rng(8)
    for level in (0, 1, 10, 100, 400):
        speech, events = detect(reference.pcm(generator.normal(0, level, 20 * rate)), rate)

        assert events == []
        assert np.mean(speech) <= (0.15 if level else 0)


@pytest.mark.parametrize("value", [-20000, 300, 32767])
def test_a_constant_is_no_speech(value: int) -> None:
    """An offset is silence from the first frame on."""
    speech, events = detect(reference.pcm([value] * 16000), 8000)

    assert events == []
    assert not any(speech)


def test_speech_from_the_first_sample() -> None:
    """A stream that begins in the middle of a word is speech from position 0."""
    _, events = detect(reference.pcm(voice(0.6, 8000)) + bytes(16000), 8000)

    assert [event.started for event in events] == [True, False]
    assert events[0].position == 0


def test_louder_noise_is_learnt() -> None:
    """Noise that becomes 20 dB louder counts as speech for three seconds at most."""
    generator = np.random.default_rng(9)
    quiet, loud = generator.normal(0, 60, 40000), generator.normal(0, 600, 80000)

    _, events = detect(reference.pcm(np.concatenate([quiet, loud])), 8000)

    assert [event.started for event in events] == [True, False]
    assert events[1].position - 40000 <= 3.2 * 8000


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("frame_ms", [10, 20])
def test_equals_the_reference(rate: int, frame_ms: int) -> None:
    """Every frame scores, and is decided on, as in the plain numpy version."""
    pcm = talk(rate, 0.6, 0.4, 0.3, 4.5, 0.2, 0.1, 0.5, level=50)

    result = dsp.EnergyVad(rate, frame_ms=frame_ms).process(pcm)
    scores, decisions = reference.vad(reference.samples(pcm), rate, frame_ms)

    assert result.scores == pytest.approx(scores.tolist(), abs=1e-3)
    assert result.speech == decisions


def test_higher_thresholds_mark_less() -> None:
    """Raising start_db and stop_db takes speech frames away and adds none."""
    pcm = talk(8000, 0.5, 0.6, 0.3, 0.4, 1, level=300)

    eager = dsp.EnergyVad(8000, start_db=4, stop_db=3).process(pcm).speech
    strict = dsp.EnergyVad(8000, start_db=12, stop_db=10).process(pcm).speech

    assert sum(strict) < sum(eager)
    assert not any(late and not early for late, early in zip(strict, eager, strict=True))


def test_short_sounds_are_no_event() -> None:
    """A click shorter than min_speech_ms marks its frames and starts nothing."""
    pcm = talk(8000, 0.5, 0.03, 0.5)

    assert detect(pcm, 8000, min_speech_ms=200)[1] == []
    assert any(detect(pcm, 8000, min_speech_ms=200)[0])
    assert len(detect(pcm, 8000, min_speech_ms=0)[1]) == 2


def test_hangover_joins() -> None:
    """A pause shorter than hangover_ms stays inside the segment."""
    pcm = talk(8000, 0.5, 0.5, 0.4, 0.5, 2.0)

    assert len(detect(pcm, 8000, hangover_ms=100)[1]) == 4
    assert len(detect(pcm, 8000, hangover_ms=600)[1]) == 2


def test_flush_ends_speech() -> None:
    """Speech that reaches the end of the stream ends with its last whole frame; then all starts anew."""
    vad = dsp.EnergyVad(8000)
    pcm = talk(8000, 0.5, 0.5) + bytes(100)

    first = vad.process(pcm)
    assert vad.speaking
    assert vad.flush() == dsp.VadResult([], [], [dsp.VadEvent(False, 8000)])
    assert not vad.speaking
    assert vad.flush() == dsp.VadResult([], [], [])
    assert vad.process(pcm) == first
    vad.reset()
    assert vad.process(pcm) == first


@settings(max_examples=100)
@given(
    cuts=st.lists(st.integers(0, 24000), max_size=40),
    rate=st.sampled_from([8000, 11025, 16000]),
    frame_ms=st.sampled_from([10, 20]),
    level=st.sampled_from([0, 80]),
)
def test_chunking_does_not_matter(cuts: list[int], rate: int, frame_ms: int, level: float) -> None:
    """Any way of slicing the stream gives the same decisions, scores and positions."""
    pcm = talk(rate, 0.3, 0.4, 0.25, 0.3, 0.25, level=level)
    whole = dsp.EnergyVad(rate, frame_ms=frame_ms).process(pcm)
    sliced = dsp.EnergyVad(rate, frame_ms=frame_ms)
    bounds = [0, *sorted(min(2 * cut, len(pcm)) for cut in cuts), len(pcm)]

    results = [sliced.process(pcm[start:end]) for start, end in itertools.pairwise(bounds)]

    assert [item for result in results for item in result.speech] == whole.speech
    assert [item for result in results for item in result.scores] == whole.scores
    assert [item for result in results for item in result.events] == whole.events


def test_single_samples() -> None:
    """Feeding sample by sample gives the same result, one frame at a time."""
    pcm = talk(8000, 0.3, 0.4, 0.3, level=40)
    vad = dsp.EnergyVad(8000)

    results = [vad.process(pcm[start : start + 2]) for start in range(0, len(pcm), 2)]

    assert [score for result in results for score in result.scores] == dsp.EnergyVad(8000).process(pcm).scores
    assert [len(result.speech) for result in results[:320]] == [0] * 159 + [1] + [0] * 159 + [1]


def test_floor_and_attributes() -> None:
    """The detector tells its rate, its frame and the noise floor it has found."""
    vad = dsp.EnergyVad(8000, frame_ms=10)
    vad.process(reference.pcm(np.random.default_rng(3).normal(0, 300, 32000)))

    assert (vad.rate, vad.frame_samples) == (8000, 80)
    assert vad.floor_dbfs == pytest.approx(-46, abs=2)


def test_results_show_themselves() -> None:
    """Results compare by value and print what they hold."""
    result = dsp.VadResult([True], [7.5], [dsp.VadEvent(True, 160)])

    assert result == dsp.VadResult([True], [7.5], [dsp.VadEvent(True, 160)])
    assert result != dsp.VadResult([True], [7.5], [])
    assert result != "something else"
    assert repr(result) == "VadResult(speech=[True], scores=[7.5], events=[VadEvent(started=True, position=160)])"


def test_threads() -> None:
    """Several threads with an object each see the same as one."""
    pcm = talk(8000, 0.5, 0.5, 0.5, 0.7, 0.5, level=60)
    expected = dsp.EnergyVad(8000).process(pcm)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: dsp.EnergyVad(8000).process(pcm), range(32)))

    assert all(result == expected for result in results)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 3999}, ValueError, "rate must be 4000 to 384000 Hz, not 3999"),
        ({"rate": "8000"}, TypeError, "rate must be an int, not str"),
        ({"frame_ms": 30}, ValueError, "frame_ms must be 10 or 20, not 30"),
        ({"start_db": 19}, ValueError, "start_db must be 0.5 to 18 dB, not 19"),
        ({"start_db": float("nan")}, ValueError, "start_db must be 0.5 to 18 dB, not nan"),
        ({"stop_db": 6}, ValueError, r"stop_db must be 0 to 5 dB \(start_db\), not 6"),
        ({"silence_dbfs": 0}, ValueError, "silence_dbfs must be -90 to -20 dBFS, not 0"),
        ({"min_speech_ms": -1}, ValueError, "min_speech_ms must be 0 to 1000 ms, not -1"),
        ({"hangover_ms": 5001}, ValueError, "hangover_ms must be 0 to 5000 ms, not 5001"),
    ],
)
def test_options_out_of_range(options: dict[str, object], error: type[Exception], message: str) -> None:
    """Each option is refused out of its range, with the range and the value."""
    with pytest.raises(error, match=message):
        dsp.EnergyVad(**{"rate": 8000, **options})  # type: ignore[arg-type]
