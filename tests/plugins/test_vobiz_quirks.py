"""What the misbehaving carrier says, message by message, and what it does to real sockets."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable
from typing import Any, get_args

import pytest

from mediaflow import AudioFormat, Secret, dsp, envelope
from mediaflow_plugins import _vobiz_quirks as quirks
from mediaflow_plugins._vobiz_quirks import Conduct, Quirk, Reconnect, Wait
from mediaflow_plugins.sink_vobiz_call import VobizCall

MULAW = AudioFormat("mulaw", 8000)
L16 = AudioFormat("s16le", 8000)


def payload(number: int, size: int = 160) -> bytes:
    """Return a frame that no other number has."""
    return bytes((number * 7 + at) % 251 for at in range(size))


def said(
    names: Iterable[Quirk], frames: int = 160, tracks: tuple[str, ...] = ("inbound",), format: AudioFormat = MULAW
) -> tuple[list[dict[str, Any] | Wait | Reconnect], Conduct]:
    """Pass a call of so many frames per track through ``names``; return what came out, read as JSON."""
    conduct = Conduct(tuple(names))
    steps = conduct.take(envelope.build_start("CALL", "one", "acc", format, tracks))
    sequence = 0
    for number in range(frames):
        for track in tracks:
            sequence += 1
            data = payload(number, 160 * format.sample_bytes)
            steps += conduct.take(envelope.build_media("one", sequence, track, number + 1, 5000 + 20 * number, data))
    steps += conduct.rest()
    return [json.loads(step) if isinstance(step, str) else step for step in steps], conduct


def media(steps: Iterable[Any], track: str = "inbound") -> list[dict[str, Any]]:
    """Return the media of a track."""
    found = [step["media"] for step in steps if isinstance(step, dict) and step["event"] == "media"]
    return [each for each in found if each["track"] == track]


def audio(steps: Iterable[Any], track: str = "inbound") -> bytes:
    """Return the audio of a track."""
    return b"".join(base64.b64decode(each["payload"]) for each in media(steps, track))


WHOLE = b"".join(map(payload, range(160)))


@pytest.mark.parametrize(
    "quirk",
    [
        "late_start", "slow_start", "media_before_start", "second_start", "bursts", "odd_sizes", "huge_message",
        "unknown_events", "reformats", "dtmf", "drifts", "reconnects", "silent_track",
    ],
)  # fmt: skip
def test_what_changes_no_audio(quirk: Quirk) -> None:
    """Nothing is lost, doubled or moved: every byte is said, in order, and the quirk is counted."""
    steps, conduct = said([quirk])
    assert audio(steps) == WHOLE
    assert conduct.withheld == {}
    assert conduct.done[quirk] or quirk == "silent_track"


def events(steps: Iterable[Any]) -> list[str]:
    """Return what kind each step is of."""
    return [step["event"] if isinstance(step, dict) else type(step).__name__ for step in steps]


def test_the_beginnings() -> None:
    """Start comes late, or alone, or behind audio, or twice."""
    assert events(said(["late_start"])[0])[:3] == ["Wait", "start", "media"]
    assert events(said(["slow_start"])[0])[:3] == ["start", "Wait", "media"]
    assert events(said(["media_before_start"])[0])[:12] == ["media"] * 10 + ["start", "media"]
    assert events(said(["media_before_start"], frames=3)[0]) == ["media"] * 3 + ["start"]
    second = events(said(["second_start"])[0])
    assert [at for at, event in enumerate(second) if event == "start"] == [0, 101]


def test_lost_audio_leaves_a_jump_in_the_stamps() -> None:
    """The numbers and stamps of what is said are those it would have had, and the loss is told."""
    steps, conduct = said(["skips"], tracks=("inbound", "outbound"))
    stamps = [int(each["timestamp"]) for each in media(steps)]
    assert len(stamps) == 140
    assert max(late - early for early, late in itertools.pairwise(stamps)) == 420
    assert conduct.withheld == {"inbound": [(2000.0, 2400.0)], "outbound": [(2000.0, 2400.0)]}


def test_a_track_may_be_silent() -> None:
    """It is announced, and nothing comes."""
    steps, conduct = said(["silent_track"], tracks=("inbound", "outbound"))
    assert isinstance(steps[0], dict)
    assert steps[0]["start"]["tracks"] == ["inbound", "outbound"]
    assert (media(steps, "outbound"), audio(steps)) == ([], WHOLE)
    assert conduct.withheld == {"outbound": [(0.0, 3200.0)]}


def test_frames_twice_and_in_the_other_order() -> None:
    """A repeat has the number and stamp of the first; a swap keeps them too."""
    numbers = [each["chunk"] for each in media(said(["duplicates"])[0])]
    assert numbers[:27] == [*range(1, 26), 25, 26]
    assert len(numbers) == 166
    numbers = [each["chunk"] for each in media(said(["swaps_frames"])[0])]
    assert numbers[48:52] == [49, 51, 50, 52]
    assert sorted(numbers) == list(range(1, 161))


def test_odd_frames_are_stamped_by_their_samples() -> None:
    """Each is numbered, and its stamp is that of its first sample, to the millisecond."""
    frames = media(said(["odd_sizes"], format=L16)[0])
    position = 0
    for number, each in enumerate(frames, 1):
        assert (each["chunk"], int(each["timestamp"])) == (number, 5000 + round(position / 8))
        position += len(base64.b64decode(each["payload"])) // 2
    assert position == 160 * 160
    assert [len(base64.b64decode(each["payload"])) // 2 for each in frames[:6]] == list(quirks.SIZES)


def test_long_messages() -> None:
    """A burst is the frames as they are; the huge message is one, under 64 KiB."""
    assert len(media(said(["bursts"])[0])) == 160
    steps, conduct = said(["huge_message"], frames=400)
    assert audio(steps) == b"".join(map(payload, range(400)))
    longest = max(len(json.dumps(step)) for step in steps)
    assert 40_000 < longest < 65_536
    assert conduct.done["huge_message"] == 2  # of four seconds, and of the rest


def test_one_frame_cannot_be_read() -> None:
    """Of each track one payload is no base64, and its place is told as withheld."""
    steps, conduct = said(["bad_base64"], tracks=("inbound", "outbound"))
    for track in ("inbound", "outbound"):
        assert [each["chunk"] for each in media(steps, track) if "~" in each["payload"]] == [101]
        assert conduct.withheld[track] == [(2000.0, 2020.0)]


def test_clocks_drift_apart() -> None:
    """One runs fast and the other slow; the audio is the same."""
    steps, _ = said(["drifts"], frames=1000, tracks=("inbound", "outbound"))
    assert int(media(steps, "inbound")[-1]["timestamp"]) == 5000 + 20 * 999 + 40
    assert int(media(steps, "outbound")[-1]["timestamp"]) == 5000 + 20 * 999 - 40


def test_spelling() -> None:
    """What is turned or renamed is the same message to whoever reads JSON and both spellings."""
    plain = envelope.build_media("one", 1, "inbound", 1, 5000, payload(1))
    conduct = Conduct(["reformats"])
    (turned,) = conduct.take(plain)
    assert isinstance(turned, str)
    assert "\n" in turned and list(json.loads(turned)) == list(reversed(json.loads(plain)))
    assert envelope.parse(turned) == envelope.parse(plain)
    (renamed,) = Conduct(["snake_case"]).take(plain)
    assert isinstance(renamed, str)
    assert {"stream_id", "sequence_number"} <= set(json.loads(renamed))
    assert envelope.parse(renamed) == envelope.parse(plain)


def test_strangers_between_the_messages() -> None:
    """Unknown events and keys are there and are JSON; the key that was pressed is one that we read."""
    steps, _ = said(["unknown_events", "dtmf"])
    assert {"connected", "weather", "dtmf"} <= set(events(steps))
    assert all("mood" in each for each in media(steps))
    (dtmf,) = [step for step in steps if isinstance(step, dict) and step["event"] == "dtmf"]
    assert envelope.parse(json.dumps(dtmf)) == envelope.Dtmf("5", "inbound")


def test_lies() -> None:
    """The rate in start is the other one, or the bytes are of the other law."""
    steps, _ = said(["lying_rate"], format=L16)
    assert isinstance(steps[0], dict)
    assert steps[0]["start"]["mediaFormat"]["sampleRate"] == 16000
    assert audio(said(["mislabelled_law"])[0]) == dsp.alaw_encode(dsp.mulaw_decode(WHOLE))


@pytest.mark.parametrize(
    ("more", "chunk", "stamp"), [((), 101, 7000), (("restarts_count",), 1, 7000), (("restarts_clock",), 1, 0)]
)
def test_the_second_socket(more: tuple[Quirk, ...], chunk: int, stamp: int) -> None:
    """It begins with a fresh start of the same call; count and clock go on, or begin anew."""
    steps, _ = said(["reconnects", *more])
    at = events(steps).index("Reconnect")
    start, first = steps[at + 1], steps[at + 2]
    assert isinstance(start, dict) and isinstance(first, dict)
    assert start["start"]["callId"] == "CALL"
    assert start["start"]["streamId"] == first["streamId"] != "one"
    assert (first["media"]["chunk"], int(first["media"]["timestamp"])) == (chunk, stamp)
    assert audio(steps) == WHOLE


def test_quirks_that_would_do_nothing_are_refused() -> None:
    """A way to reconnect needs a reconnect; audio behind stop needs a stop."""
    with pytest.raises(ValueError, match="add reconnects"):
        VobizCall(url=Secret("ws://127.0.0.1:1"), quirks=("overlaps",)).check()
    with pytest.raises(ValueError, match="end: stop"):
        VobizCall(url=Secret("ws://127.0.0.1:1"), quirks=("media_after_stop",)).check()


def test_every_quirk_is_written_down() -> None:
    """Each has its line in the module's table."""
    table = (quirks.__doc__ or "").partition("::\n")[2]
    assert set(re.findall(r"^    ([a-z]+(?:_[a-z0-9]+)*)  +\S", table, re.MULTILINE)) - {"quirk"} == set(
        get_args(Quirk)
    )
