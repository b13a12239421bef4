"""The sound that is said in a rehearsal: what hears it takes it for a voice, and every mark of it is found again."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import soxr

from mediaflow.lab import watermark
from mediaflow.lab.watermark import MARK, RATE, Search, white
from mediaflow.wire_truth import sounds_like

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

S = 4.0
SPOKEN = watermark.make("inbound", S, 8000)
Sound = np.ndarray[Any, np.dtype[Any]]


def telephone(track: str) -> Sound:
    """Return what a receiver decodes of µ-law at 8 kHz, brought to 16."""
    coded = audioop.lin2ulaw(watermark.make(track, S, 8000), 2)
    decoded: Sound = soxr.resample(np.frombuffer(audioop.ulaw2lin(coded, 2), "<i2").astype(float), 8000, RATE)
    return decoded


MIX = telephone("inbound") + telephone("outbound")


def search(heard: Sound, track: str = "inbound") -> Search:
    """Look for a track."""
    return Search(white(heard, track), white(watermark.sound(track, S, RATE), track))


def test_every_mark_of_both_tracks_is_found_in_the_mix() -> None:
    """In its place, to a millisecond, though both were coded, resampled and added."""
    for track in ("inbound", "outbound"):
        found = search(MIX, track).found
        assert len(found) == 200
        for number, place in enumerate(found):
            assert place is not None and abs(place - number * MARK) <= 16


def test_what_is_not_there_is_not_found() -> None:
    """Neither in silence, nor in noise, nor in the other track."""
    noise = np.random.default_rng(7).normal(size=len(MIX)) * 3000
    for heard in (np.zeros(len(MIX)), noise, telephone("outbound")):
        looked = search(heard)
        assert not looked.present
        assert looked.found == [None] * 200


def test_chance_stays_below_the_thresholds() -> None:
    """Of marks that are not there, the best place anywhere in four seconds is well below what counts as found."""
    other = Search(white(np.random.default_rng(8).normal(size=len(MIX)) * 3000, "inbound"), white(MIX, "inbound"))
    best = [other.places.best(mark)[0] for mark in other.marks]
    assert max(best) < 0.65 < watermark.ANYWHERE


def test_the_sound_is_a_voice_to_whoever_judges_by_the_sound() -> None:
    """Half a second of it has one byte order and one law; two tracks can be added without clipping."""
    assert sounds_like(SPOKEN[8000:12_000]) == "little"
    assert sounds_like(audioop.lin2ulaw(SPOKEN[8000:16_000], 2)) == "mulaw"
    assert np.abs(MIX).max() < 32_000


def test_the_sound_is_the_same_at_both_rates() -> None:
    """What is said at 8 kHz is what is said at 16 kHz, brought down."""
    narrow = np.frombuffer(watermark.make("inbound", S, 16_000), "<i2").astype(float)
    difference = soxr.resample(narrow, 16_000, 8000, quality="VHQ") - np.frombuffer(SPOKEN, "<i2")
    assert np.sqrt(np.mean(difference[400:-400] ** 2)) < 3
