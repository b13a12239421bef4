"""The detector's accuracy on the labelled set, which espeak-ng speaks while the test runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import vad_set
from benchmarks.dsp_quality import Detection, auc, detect
from mediaflow import dsp

# False alarms and misses of webrtcvad's modes on this set, measured; it is not needed for the test.
WEBRTCVAD = {0: (0.653, 0.0108), 1: (0.557, 0.0180), 2: (0.459, 0.0469), 3: (0.388, 0.0850)}


@pytest.fixture(scope="module")
def found(needs: Callable[..., None]) -> Detection:
    needs("espeak-ng")
    return detect()


@pytest.mark.slow
def test_ranking(found: Detection) -> None:
    """A speech frame scores above another in 98 of 100 pairs, over all noises and ratios."""
    assert auc(found.scores, found.truth) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("mode", WEBRTCVAD)
def test_misses(found: Detection, mode: int) -> None:
    """At the false alarms of each mode of webrtcvad, at most a fifth of its misses."""
    alarms, misses = WEBRTCVAD[mode]
    threshold = np.quantile(found.scores[~found.truth], 1 - alarms)

    assert (found.scores[found.truth] <= threshold).mean() <= misses / 5


@pytest.mark.slow
def test_onsets(found: Detection) -> None:
    """Speech is marked within 20 ms half of the time and within 80 ms in nine of ten cases."""
    assert np.median(found.onsets) * 20 <= 20
    assert np.quantile(found.onsets, 0.9) * 20 <= 80


@pytest.mark.slow
def test_digital_silence(found: Detection) -> None:
    """Between words without any noise, at most 3 of 1000 frames are taken for speech."""
    assert found.quiet_alarms <= 0.003


@pytest.mark.slow
def test_cuts(needs: Callable[..., None]) -> None:
    """Chunks keep their lengths, and a cut lies in speech only where the window has no pause of 200 ms."""
    needs("espeak-ng")
    for track in [*vad_set.quiet_tracks("test"), *vad_set.tracks("test", ("white", "pink"), (20,))]:
        chunks = dsp.speech_chunks(track.pcm, vad_set.RATE)

        assert chunks[0][0] == 0
        assert chunks[-1][1] == len(track.pcm) // 2
        for (start, end), (following, _) in itertools.pairwise(chunks):
            assert end == following
            assert 10 * vad_set.RATE <= end - start <= 25 * vad_set.RATE
            window = track.truth[start // vad_set.FRAME + 500 : start // vad_set.FRAME + 1250]
            pauses = "".join("x" if speech else " " for speech in window)
            assert " " * 11 not in pauses or not track.truth[end // vad_set.FRAME]
