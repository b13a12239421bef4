"""Joining tracks: in their places in time, whatever is missing or late."""

from __future__ import annotations

import numpy as np
import pytest

from mediaflow import AudioFormat, AudioFrame, FormatError, Item, Lost, SpeechStarted
from mediaflow.testing import feed
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_select import Select
from mediaflow_plugins.transform_stereo import Stereo

PCM = AudioFormat("s16le", 8000)
BOTH = ("inbound", "outbound")
RNG = np.random.default_rng(7)


def frame(samples: np.ndarray, track: str, position: int = 0) -> AudioFrame:
    """Make a frame of int16 samples."""
    return AudioFrame(samples.astype("<i2").tobytes(), PCM, track, position)


def audio(items: list[Item]) -> np.ndarray:
    """Return the samples of all frames, one after the other."""
    frames = [item for item in items if isinstance(item, AudioFrame)]
    return np.concatenate([each.samples for each in frames])


def test_mix_adds_in_place_and_does_not_wrap() -> None:
    """Samples of both tracks are added where they stand; what exceeds 16 bits is held at the limit."""
    one = RNG.integers(-32768, 32768, 1000)
    two = RNG.integers(-32768, 32768, 700)
    out = audio(feed(Mix(), [frame(one, "inbound"), frame(two, "outbound", 500)], BOTH))

    expected = np.zeros(1200, dtype=int)
    expected[:1000] += one
    expected[500:] += two
    assert np.array_equal(out, np.clip(expected, -32768, 32767))


def test_mix_waits_for_a_slow_track_only_so_long() -> None:
    """A track that lags more than the wait is taken to be silent; what then comes too late is reported as lost."""
    one, two = RNG.integers(-1000, 1000, 4000), RNG.integers(-1000, 1000, 4000)
    items = [frame(one, "inbound"), frame(two, "outbound")]
    out = feed(Mix(wait_ms=100), items, BOTH)

    given_up = 4000 - 800
    assert np.array_equal(audio(out)[:given_up], one[:given_up])
    assert np.array_equal(audio(out)[given_up:], (one + two)[given_up:])
    assert [item for item in out if isinstance(item, Lost)] == [Lost("outbound", 0.0, given_up / 8000, "late")]


def test_a_track_that_begins_before_the_other_is_kept_whole() -> None:
    """A position below zero, where the second track turns out to have begun earlier, loses nothing."""
    one, two = RNG.integers(-1000, 1000, 300), RNG.integers(-1000, 1000, 300)
    out = feed(Mix(), [frame(one, "inbound"), frame(two, "outbound", -160)], BOTH)
    first = next(item for item in out if isinstance(item, AudioFrame))
    assert first.position == -160
    assert np.array_equal(audio(out)[:160], two[:160])
    assert np.array_equal(audio(out)[300:], one[140:])


def test_one_silent_track_does_not_hold_the_other() -> None:
    """A track that never sends anything is silence; the other comes out as it is, whole."""
    one = RNG.integers(-1000, 1000, 30_000)
    assert np.array_equal(audio(feed(Mix(), [frame(one, "inbound")], BOTH)), one)


def test_stereo_puts_the_first_track_on_the_left() -> None:
    """The two tracks become the two channels, padded to the longer."""
    one, two = RNG.integers(-1000, 1000, 500), RNG.integers(-1000, 1000, 400)
    out = feed(Stereo(), [frame(one, "inbound"), frame(two, "outbound")], BOTH)
    samples = audio(out)
    assert samples.shape == (500, 2)
    assert np.array_equal(samples[:, 0], one)
    assert np.array_equal(samples[:, 1], np.concatenate([two, np.zeros(100, dtype=int)]))


def test_stereo_takes_two_tracks() -> None:
    """Three tracks have no place in stereo."""
    with pytest.raises(FormatError, match="two tracks, not 3"):
        Stereo().output_format(PCM, ("a", "b", "c"))


def test_select_gives_one_track_and_its_events() -> None:
    """Only the chosen track and what happened on it go on."""
    one, two = RNG.integers(-1000, 1000, 500), RNG.integers(-1000, 1000, 400)
    items: list[Item] = [frame(one, "inbound"), SpeechStarted("inbound", 0.0), SpeechStarted("outbound", 0.0)]
    out = feed(Select(track="outbound"), [*items, frame(two, "outbound")], BOTH)
    assert np.array_equal(audio(out), two)
    assert [item.track for item in out] == ["outbound", "outbound"]


def test_select_refuses_a_call_without_its_track() -> None:
    """A call that lacks the wanted side is refused with what it has."""
    with pytest.raises(FormatError, match="no track 'outbound', only inbound"):
        Select(track="outbound").open(PCM, ("inbound",))


def test_events_of_tracks_come_out_when_the_audio_has_reached_them() -> None:
    """An event of the leading track waits for the audio at its place."""
    quiet = np.zeros(400)
    items: list[Item] = [frame(np.zeros(800), "inbound"), SpeechStarted("inbound", 0.09)]
    out = feed(Mix(), [*items, frame(quiet, "outbound"), frame(quiet, "outbound", 400)], BOTH)
    before = 0
    for item in out:
        if isinstance(item, AudioFrame):
            before += item.sample_count
        else:
            assert before >= 0.09 * 8000
