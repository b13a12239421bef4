"""Whether a wire carries what it says: speech, silence, noise and tones, announced rightly and wrongly."""

from __future__ import annotations

import wave
from collections.abc import Callable

import numpy
import pytest
import soxr
from hypothesis import example, given, settings, strategies as st

from mediaflow import AudioFormat, dsp
from mediaflow.frame import Encoding
from mediaflow.lab import CLIP
from mediaflow.wire_truth import ByteOrder, Finding, WireTruth, sounds_like

RATE = 8000
LEVELS = (-10, -15, -20, -25, -30, -35, -40, -45)
BOTH = ("inbound", "outbound")
SEND: dict[str, Callable[[bytes], bytes]] = {
    "mulaw": dsp.mulaw_encode,
    "alaw": dsp.alaw_encode,
    "little": bytes,
    "big": dsp.swap_bytes,
}
Samples = numpy.ndarray


def _encoding(wire: str) -> Encoding:
    return "mulaw" if wire == "mulaw" else "alaw" if wire == "alaw" else "s16le"


def _clip() -> tuple[Samples, Samples]:
    """Return both sides of the lab's consultation, spoken by espeak at -20 dBFS over a line of -65 dBFS."""
    with wave.open(str(CLIP)) as file:
        samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return samples[:, 0].astype(float), samples[:, 1].astype(float)


PATIENT, DOCTOR = _clip()


def _pcm(samples: Samples, level: float = -20.0, snr: float | None = None) -> bytes:
    """Bring speech of -20 dBFS to another level, with noise under it."""
    samples = samples * 10 ** ((level + 20) / 20)
    if snr is not None:
        samples = samples + _noise(len(samples), level - snr)
    clipped: Samples = numpy.clip(numpy.rint(samples), -32768, 32767)
    return clipped.astype("<i2").tobytes()


def _noise(count: int, level: float) -> Samples:
    return numpy.random.default_rng(7).standard_normal(count) * 32768 * 10 ** (level / 20)


def _listen(
    format: AudioFormat, tracks: dict[str, bytes], rate: int | None = None, stamped: bool = True
) -> list[Finding]:
    """Bring the tracks in turns, 20 ms at a time at the rate that is real, until nothing is open."""
    truth = WireTruth(format, tuple(tracks))
    size = (rate or format.sample_rate) // 50 * format.sample_bytes
    findings = []
    deaf = 0
    for number in range(max(map(len, tracks.values())) // size):
        for track, data in tracks.items():
            if deaf > 0:
                deaf -= size
            elif frame := data[number * size : (number + 1) * size]:
                findings += truth.hear(track, frame, 20 * number if stamped else None)
                deaf = truth.rest()
        if truth.settled:
            break
    return findings


def _codes(*args: object, **options: object) -> list[str]:
    return [finding.code for finding in _listen(*args, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("wire", SEND)
@pytest.mark.parametrize("snr", [None, 30, 20, 10])
def test_a_right_stream_is_never_doubted(wire: str, level: int, snr: float | None) -> None:
    """Speech that is what it says gives no alarm at any level, over any noise, and none of its windows misleads."""
    tracks = {
        "inbound": SEND[wire](_pcm(PATIENT, level, snr)),
        "outbound": SEND[wire](_pcm(DOCTOR, level, snr)),
    }
    format = AudioFormat(_encoding(wire), RATE)
    assert _listen(format, tracks) == []
    window = RATE // 4
    for data in tracks.values():
        heard = {sounds_like(data[at : at + window]) for at in range(0, len(data) - window, window)}
        assert heard <= {wire, None}
        assert wire in heard


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("wire", SEND)
def test_a_narrow_voice_in_a_wide_stream_is_never_doubted(wire: str, rate: int, level: int) -> None:
    """Telephone speech that the carrier has brought to a higher rate is as right as any."""
    speech = soxr.resample(PATIENT[: 12 * RATE], RATE, rate)
    data = SEND[wire](_pcm(speech, level))
    assert _listen(AudioFormat(_encoding(wire), rate), {"inbound": data}) == []


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("snr", [None, 30, 20, 10])
@pytest.mark.parametrize("wire", SEND)
@pytest.mark.parametrize("said", ["mulaw", "alaw", "s16le"])
def test_a_wrong_label_is_found(wire: str, said: Encoding, level: int, snr: float | None) -> None:
    """Speech under a wrong label is recognised for what it is, at any level and over noise 10 dB below it."""
    if said == _encoding(wire):
        return
    for speech in (PATIENT, DOCTOR):
        data = SEND[wire](_pcm(speech, level, snr))
        (finding,) = _listen(AudioFormat(said, RATE), {"inbound": data}, stamped=False)
        assert finding.code == f"sounds-like-{_encoding(wire)}"
        assert said in finding.text


@pytest.mark.parametrize("start_s", [0.6, 9.85, 15.29])
@pytest.mark.parametrize(("wire", "said"), [("alaw", "mulaw"), ("mulaw", "alaw"), ("little", "mulaw"), ("big", "alaw")])
def test_it_shows_soon(start_s: float, wire: str, said: Encoding) -> None:
    """A wrong label shows within 1.3 s of the first word, whatever silence was before it."""
    speech = DOCTOR[int(start_s * RATE) : int((start_s + 1.3) * RATE)]
    data = SEND[wire](bytes(3 * 2 * RATE) + _pcm(speech))
    assert _codes(AudioFormat(said, RATE), {"inbound": data}, stamped=False) == [f"sounds-like-{_encoding(wire)}"]


@pytest.mark.parametrize("noise_s", [19.0, 19.25, 19.5, 19.75])
@pytest.mark.parametrize(("wire", "said"), [("alaw", "mulaw"), ("mulaw", "s16le"), ("little", "mulaw")])
def test_it_shows_behind_noise(noise_s: float, wire: str, said: Encoding) -> None:
    """On a line that was loud before the first word a wrong label shows as well, wherever the first word falls."""
    data = SEND[wire](_pcm(_noise(int(noise_s * RATE), -40)) + _pcm(DOCTOR[int(0.6 * RATE) : int(3.9 * RATE)]))
    assert _codes(AudioFormat(said, RATE), {"inbound": data}, stamped=False) == [f"sounds-like-{_encoding(wire)}"]


@pytest.mark.parametrize(("noise_s", "found"), [(1.5, ["sounds-like-alaw"]), (5.1, [])])
def test_noise_is_listened_to_with_breaks(noise_s: float, found: list[str]) -> None:
    """Half a second of speech is heard in the first two seconds, and may fall into a break later."""
    speech = _pcm(DOCTOR[int(0.6 * RATE) : int(1.1 * RATE)])
    data = _pcm(_noise(int(noise_s * RATE), -40)) + speech + _pcm(_noise(2 * RATE, -40))
    assert _codes(AudioFormat("mulaw", RATE), {"inbound": dsp.alaw_encode(data)}, stamped=False) == found


@pytest.mark.parametrize("wire", SEND)
@pytest.mark.parametrize("said", ["mulaw", "alaw", "s16le"])
@pytest.mark.parametrize("level", [None, *range(-90, 0, 10)])
def test_silence_and_noise_decide_nothing(wire: str, said: Encoding, level: int | None) -> None:
    """Digital silence and white noise of any level leave every question open, whatever is announced."""
    samples = numpy.zeros(10 * RATE) if level is None else _noise(10 * RATE, level)
    data = SEND[wire](_pcm(samples))
    assert _codes(AudioFormat(said, RATE), {"inbound": data}, stamped=False) == []


TONES = st.lists(st.tuples(st.floats(60, 3950), st.floats(0.1, 1), st.floats(0, 6.28)), min_size=1, max_size=5)


@settings(max_examples=300)
@given(TONES, st.floats(-55, 0), st.sampled_from(sorted(SEND)))
@example([(3618.0, 0.29, 3.4), (1145.0, 0.25, 3.8)], -3.9, "mulaw")  # smooth if every other sample is left out
@example([(406.0, 0.46, 2.1), (112.0, 0.98, 5.5), (2073.0, 0.3, 1.0), (3664.0, 0.54, 3.6)], -26.1, "mulaw")
@example([(75.0, 0.9, 1.5), (3600.0, 0.9, 0.0)], -6.0, "mulaw")
@example([(60.0, 1.0, 0.0), (60.0, 1.0, 0.0), (2000.0, 1.0, 0.0)], 0.0, "alaw")
@example([(3811.0, 0.2, 1.0), (63.0, 0.3, 3.0)], -14.0, "mulaw")  # odd and even samples are the same smooth sound
@example([(78.0, 0.8, 1.7), (3921.0, 0.4, 5.0)], -23.0, "alaw")
@example([(3950.0, 1.0, 0.0)], 0.0, "alaw")  # so high that its odd and even samples differ, as bytes of L16 do
def test_tones_are_never_misheard(tones: list[tuple[float, float, float]], level: float, wire: str) -> None:
    """A tone or a chord of any pitch, rightly announced, gives no alarm."""
    time = numpy.arange(3 * RATE) / RATE
    sound = numpy.sum([size * numpy.sin(2 * numpy.pi * pitch * time + phase) for pitch, size, phase in tones], axis=0)
    peak = float(numpy.abs(sound).max()) or 1.0
    data = SEND[wire](_pcm(sound / peak * 32767 * 10 ** (level / 20)))
    assert _codes(AudioFormat(_encoding(wire), RATE), {"inbound": data}) == []


# --- The rate


@pytest.mark.parametrize(("said", "real"), [(16_000, 8_000), (8_000, 16_000), (24_000, 8_000), (16_000, 24_000)])
def test_a_wrong_rate_is_found(said: int, real: int) -> None:
    """Samples that come faster or slower than their stamps say are told, with the rate that is real."""
    data = _pcm(_noise(2 * real, -60))
    (finding,) = _listen(AudioFormat("s16le", said), {"inbound": data}, rate=real)
    assert finding.code == f"rate-is-{real}"


@given(st.integers(0, 2**32), st.sampled_from([8_000, 16_000, 24_000]), st.floats(0, 0.15), st.integers(0, 3))
def test_losses_and_jitter_are_no_wrong_rate(seed: int, rate: int, loss: float, jitter_ms: int) -> None:
    """Frames that are lost, and stamps that tremble, never make a right rate look like another."""
    chance = numpy.random.default_rng(seed)
    truth = WireTruth(AudioFormat("s16le", rate), ("inbound",))
    frame = bytes(rate // 50 * 2)
    for number in range(200):
        if chance.random() >= loss:
            stamp = 20 * number + int(chance.integers(-jitter_ms, jitter_ms + 1))
            assert truth.hear("inbound", frame, stamp) == []


def test_stamps_that_stand_still_say_nothing() -> None:
    """Stamps that do not move, or that are not there, leave the rate unknown."""
    truth = WireTruth(AudioFormat("mulaw", RATE), ("inbound",))
    for _ in range(100):
        assert truth.hear("inbound", bytes(160), 5) == []
        assert truth.hear("inbound", bytes(160), None) == []


# --- Tracks


def test_doubled_tracks_are_found() -> None:
    """The same audio on both tracks is told once, also when one is some frames behind."""
    data = dsp.mulaw_encode(_pcm(PATIENT))
    format = AudioFormat("mulaw", RATE)
    assert _codes(format, {"inbound": data, "outbound": data}) == ["tracks-identical"]
    late = bytes([0xFF]) * (160 * 10) + data
    assert _codes(format, {"inbound": data, "outbound": late}) == ["tracks-identical"]


def test_silence_on_both_tracks_is_not_doubled() -> None:
    """Digital silence, and the idle pattern of a codec, are alike on both tracks and mean nothing."""
    for idle in (bytes([0xFF]) * 160, bytes([0xFF, 0x7F]) * 80):
        assert _codes(AudioFormat("mulaw", RATE), {"inbound": idle * 200, "outbound": idle * 200}) == []


def test_listening_comes_to_an_end() -> None:
    """After a minute of nothing certain, and soon where all is, no more is listened to."""
    truth = WireTruth(AudioFormat("mulaw", RATE), ("inbound",))
    for _ in range(3_000):
        assert not truth.settled
        truth.hear("inbound", bytes(160), None)
    assert truth.settled

    truth, data = WireTruth(AudioFormat("mulaw", RATE), ("inbound",)), dsp.mulaw_encode(_pcm(PATIENT))
    for number in range(len(data) // 160):
        truth.hear("inbound", data[number * 160 :][:160], 20 * number)
    assert truth.settled


def test_what_need_not_be_heard_counts_for_the_end() -> None:
    """A minute of noise is a minute, though little of it is brought; two tracks are always brought."""
    noise = dsp.mulaw_encode(_pcm(_noise(80 * RATE, -40)))
    brought, passed, deaf, truth = 0, 0, 0, WireTruth(AudioFormat("mulaw", RATE), ("inbound",))
    for number in range(len(noise) // 160):
        if truth.settled:
            break
        if deaf > 0:
            deaf, passed = deaf - 160, passed + 1
        else:
            truth.hear("inbound", noise[number * 160 :][:160], 20 * number)
            deaf, brought = truth.rest(), brought + 1
    # A window is 13 frames; eight of them are the first two seconds, and each one behind them brings a rest of 25.
    rests = round((3000 - 8 * 13) / (13 + 25))
    assert (brought, passed) == (13 * (8 + rests), 25 * rests)
    both = WireTruth(AudioFormat("mulaw", RATE), ("inbound", "outbound"))
    for number in range(500):
        for track in ("inbound", "outbound"):
            both.hear(track, noise[number * 160 :][:160], 20 * number)
            assert both.rest() == 0


# --- The byte order


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("order", ["little", "big"])
def test_the_byte_order_of_speech_is_certain(order: str, level: int) -> None:
    """Speech of either order is recognised at any level, and the answer is final."""
    for speech in (PATIENT, DOCTOR):
        finder, data = ByteOrder(RATE), SEND[order](_pcm(speech, level))
        findings = [found for at in range(0, len(data), 320) if (found := finder.hear(data[at : at + 320]))]
        assert findings[-1] == order
        assert set(findings) <= {f"assumed-{order}", order}
        assert finder.certain
        assert finder.swap == (order == "big")


def test_zeros_wait_for_nothing() -> None:
    """Digital silence makes nobody wait; the first sound does, for half a second at most."""
    finder = ByteOrder(RATE)
    assert finder.hear(bytes(320)) == ""
    assert not finder.waiting
    noise = _pcm(_noise(RATE, -60))
    assert finder.hear(noise[:320]) == ""
    assert finder.waiting
    findings = [finder.hear(noise[at : at + 320]) for at in range(320, 8320, 320)]
    assert "assumed-little" in findings
    assert not finder.waiting and not finder.certain
