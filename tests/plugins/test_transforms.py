"""What holds for every transform, whoever wrote it: the slicing of the input changes nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies as st

from mediaflow import AudioFormat, AudioFrame, Event, Item, Joiner, SpeechEnded, SpeechStarted, Transform, rescale
from mediaflow.testing import feed, frames
from mediaflow_plugins.transform_alaw_decode import AlawDecode
from mediaflow_plugins.transform_alaw_encode import AlawEncode
from mediaflow_plugins.transform_energy_vad import EnergyVad
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_mulaw_encode import MulawEncode
from mediaflow_plugins.transform_resample import Resample
from mediaflow_plugins.transform_select import Select
from mediaflow_plugins.transform_speech_chunks import SpeechChunks
from mediaflow_plugins.transform_stereo import Stereo

PCM = AudioFormat("s16le", 8000)

TRANSFORMS: list[tuple[Transform, AudioFormat]] = [
    (MulawDecode(), AudioFormat("mulaw", 8000)),
    (AlawDecode(), AudioFormat("alaw", 8000)),
    (MulawEncode(), PCM),
    (AlawEncode(), PCM),
    (Resample(rate=16_000), PCM),
    (Resample(rate=11_025, quality="strict"), PCM),
    (Resample(rate=4000), PCM),
    (EnergyVad(), PCM),
    (SpeechChunks(min_s=1.0, max_s=2.0), PCM),
]
JOINERS: list[Joiner] = [Mix(), Stereo(), Select(track="outbound")]


def placed(items: list[Item]) -> tuple[bytes, list[tuple[int, Event]]]:
    """Return the audio in one piece, and each event with the number of samples that stand before it."""
    audio, events, before = [], [], 0
    for item in items:
        if isinstance(item, AudioFrame):
            audio.append(item.data)
            before += item.sample_count
        else:
            events.append((before, item))
    return b"".join(audio), events


def follows(items: list[Item], start: int) -> None:
    """Check that the frames of each track stand end to end from ``start``."""
    at: dict[str, int] = {}
    for item in items:
        if isinstance(item, AudioFrame):
            assert item.position == at.get(item.track, start)
            at[item.track] = item.end


def loud_and_quiet(blocks: list[tuple[int, int]], format: AudioFormat) -> bytes:
    """Make a tone that is loud and quiet by turns, so that detectors have something to find."""
    samples = [round(level * math.sin(0.5 * n + 0.0003 * n * n)) for length, level in blocks for n in range(length)]
    pcm = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    return pcm if format.encoding == "s16le" else pcm[::2]


BLOCKS = st.lists(st.tuples(st.integers(1, 6000), st.sampled_from([0, 5, 9000])), min_size=1, max_size=8)
CUTS = st.lists(st.integers(0, 48_000), max_size=12)


@pytest.mark.parametrize(("transform", "format"), TRANSFORMS, ids=lambda value: type(value).__name__)
@settings(max_examples=40)
@given(blocks=BLOCKS, cuts=CUTS)
def test_slicing_changes_nothing(
    transform: Transform, format: AudioFormat, blocks: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Any way of slicing the input gives the same samples and the same events in the same places."""
    data = loud_and_quiet(blocks, format)
    total = format.sample_count(data)
    whole = feed(transform, frames(data, format))
    sliced = feed(transform, frames(data, format, [cut % (total + 1) for cut in cuts]))

    assert placed(sliced) == placed(whole)
    follows(whole, 0)
    follows(sliced, 0)


@pytest.mark.parametrize("joiner", JOINERS, ids=lambda value: type(value).__name__)
@settings(max_examples=60)
@given(
    data=st.data(),
    lengths=st.tuples(st.integers(0, 4000), st.integers(1, 4000)),
    offset=st.integers(-3000, 3000),
)
def test_the_order_in_which_tracks_arrive_changes_nothing(
    joiner: Joiner, data: st.DataObject, lengths: tuple[int, int], offset: int
) -> None:
    """While no track lags longer than the wait, the result depends on neither slicing nor interleaving."""
    tracks = ("inbound", "outbound")
    pieces = []
    for track, length, start in zip(tracks, lengths, (0, offset), strict=True):
        pcm = loud_and_quiet([(length, 9000 if track == "inbound" else 5000)], PCM)
        cuts = data.draw(st.lists(st.integers(0, length), max_size=6))
        pieces.append([frame.replace(frame.data, position=frame.position + start) for frame in frames(pcm, PCM, cuts)])
        pieces[-1] = [AudioFrame(f.data, f.format, track, f.position) for f in pieces[-1]]
    one, two = pieces
    order = data.draw(st.permutations([0] * len(one) + [1] * len(two)))
    queues = [iter(one), iter(two)]
    mixed = [next(queues[side]) for side in order]

    assert placed(feed(joiner, mixed, tracks)) == placed(feed(joiner, [*one, *two], tracks))


@pytest.mark.parametrize(("transform", "format"), TRANSFORMS, ids=lambda value: type(value).__name__)
def test_events_pass_in_their_place(transform: Transform, format: AudioFormat) -> None:
    """An event from further up comes out, once, and later events after it."""
    items: list[Item] = []
    for number, frame in enumerate(frames(bytes(3200 * format.sample_bytes), format, range(0, 3200, 160))):
        items += [frame, SpeechStarted("inbound", number / 50), SpeechEnded("inbound", number / 50 + 0.01)]
    out = [item for item in feed(transform, items) if isinstance(item, SpeechStarted | SpeechEnded)]
    assert out == [item for item in items if isinstance(item, Event)]


@pytest.mark.parametrize(("transform", "format"), TRANSFORMS, ids=lambda value: type(value).__name__)
def test_a_stream_may_be_empty_and_begin_anywhere(transform: Transform, format: AudioFormat) -> None:
    """No audio gives no audio; a track that begins at a position keeps its place."""
    assert placed(feed(transform, [AudioFrame(b"", format)]))[0] == b""
    out = feed(transform, [AudioFrame(format.silence(4000), format, "outbound", 800)])
    rate = next(item for item in out if isinstance(item, AudioFrame)).format.sample_rate
    follows(out, rescale(800, 8000, rate))
