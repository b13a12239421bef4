"""Chunks are cut in pauses, between two lengths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from mediaflow import AudioFormat, AudioFrame, Cut, Item, SpeechEnded, SpeechStarted
from mediaflow.testing import feed
from mediaflow_plugins.transform_speech_chunks import SpeechChunks

PCM = AudioFormat("s16le", 8000)
CHUNKS = SpeechChunks(min_s=10.0, max_s=25.0)


def talk(*turns: tuple[float, float], total: float) -> list[Item]:
    """Make ``total`` seconds with speech in ``turns`` (from, to), told as energy_vad tells it: a little later."""
    told: list[tuple[float, Item]] = [(start + 0.06, SpeechStarted("inbound", start)) for start, _ in turns]
    told += [(end + 0.1, SpeechEnded("inbound", end)) for _, end in turns]
    items: list[Item] = []
    position = 0
    for when, event in sorted(told, key=lambda each: each[0]):
        end = round(min(when, total) * 8000)
        items += [AudioFrame(bytes(2 * (end - position)), PCM, "inbound", position), event]
        position = end
    return [*items, AudioFrame(bytes(2 * (round(total * 8000) - position)), PCM, "inbound", position)]


def cuts(items: list[Item]) -> list[float]:
    """Return where the stream is cut, in seconds, having checked that each cut stands between its samples."""
    found, before = [], 0
    for item in feed(CHUNKS, items):
        if isinstance(item, AudioFrame):
            before += item.sample_count
        elif isinstance(item, Cut):
            assert before == round(item.time * 8000)
            found.append(item.time)
    return found


@pytest.mark.parametrize(
    ("turns", "total", "expected"),
    [
        ((), 24, [10.0, 20.0]),
        (((0, 12), (13, 30)), 30, [12.0]),
        (((0, 9), (9.5, 30)), 31, [25.0]),
        (((0, 30),), 31, [25.0]),
        (((0, 4), (11, 20)), 20, [10.0]),
        (((0, 9.9), (10.05, 24)), 25, [10.0, 24.0]),
        (((0, 12), (12.2, 24)), 25, [12.0, 24.0]),
        (((10.0, 30.0),), 31, [10.0, 30.0]),
    ],
)
def test_the_cut_is_the_first_silence_after_the_shortest_length(
    turns: tuple[tuple[float, float], ...], total: float, expected: list[float]
) -> None:
    """From 10 s on the first silent place ends a chunk; without one, 25 s do."""
    found = cuts(talk(*turns, total=total))
    assert len(found) == len(expected)
    for cut, wanted in zip(found, expected, strict=True):
        # The end of speech is told 100 ms after it, so a cut may lie that far into the pause.
        assert wanted <= cut <= wanted + 0.1


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(200, 3000), st.integers(100, 14_000)), max_size=12), st.integers(0, 5000))
def test_speech_is_cut_only_where_there_is_no_pause(turns: list[tuple[int, int]], tail: int) -> None:
    """Every chunk is within its lengths, and a cut lies in speech only if its window held no pause of 200 ms."""
    spoken, at = [], 0
    for pause, speech in turns:
        spoken.append(((at + pause) / 1000, (at + pause + speech) / 1000))
        at += pause + speech
    total = (at + tail) / 1000
    found = cuts(talk(*spoken, total=total)) if total else []
    start = 0.0
    for cut in found:
        assert 10 <= round(cut - start, 6) <= 25
        if any(begin < cut < end for begin, end in spoken):
            assert cut == start + 25
            for (_, pause_start), (pause_end, _) in zip([(0.0, 0.0), *spoken], spoken, strict=False):
                inside = min(pause_end, start + 25) - max(pause_start, start + 10)
                assert inside < 0.2
        start = cut
    assert total - start <= 25 + 0.1
