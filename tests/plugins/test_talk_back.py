"""What is spoken into calls, heard by carriers that are written on the websockets library alone."""

from __future__ import annotations

import base64
import json
import struct
import time
import warnings
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.to_thread import run_sync
from engine_kit import booked
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from mediaflow import config, plugins
from mediaflow.lab import CLIP
from mediaflow.runner import Runner
from mediaflow_plugins import _talk_back
from mediaflow_plugins._talk_back import CHUNK_MS, LEAD_S

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

pytestmark = pytest.mark.anyio

PLUGINS = plugins.load()
PEERS = Path(__file__).parents[1] / "peers"
EPOCH = 1_778_597_597_091

PIPELINE = """
source: {{use: {source}, listen: "ws://127.0.0.1:0/calls", reconnect_s: 20}}
transforms: [{{use: mulaw_decode}}, {{use: alaw_decode}}, {{use: energy_vad}}]
sinks: [{{use: disk, path: "{folder}/{{call_id}}-{{track}}.wav"}}]
reply:
  source: {{use: file, path: "{folder}/notice.wav"}}
  barge_in: {barge_in}
state: {folder}
"""


class Carrier:
    """A call of a carrier: its socket, and all that was sent to it.  Everything waits for ten seconds at most."""

    def __init__(self, url: str, stream: str = "s1", encoding: str = "audio/x-mulaw", rate: int = 8000) -> None:
        self.started = {
            "event": "start",
            "sequenceNumber": 0,
            "start": {
                "callId": "CALL_1",
                "streamId": stream,
                "accountId": "500",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": encoding, "sampleRate": rate},
            },
            "extra_headers": "{}",
        }
        self.begun = time.monotonic()
        self._url, self._stream, self._frames = url, stream, 0
        self.heard: list[dict[str, Any]] = []
        self.early: list[float] = []
        """By how many seconds the audio so far outlasted the call so far, at every message of audio."""
        self.second = rate * (2 if encoding.endswith("16") else 1)
        """Bytes of a second."""

    def __enter__(self) -> Carrier:
        self._connection = connect(self._url, compression=None, proxy=None, close_timeout=1)
        self._socket = self._connection.__enter__()
        self.say(**self.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

    def say(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def speak(self, codes: bytes) -> None:
        """Send the caller's audio, as µ-law."""
        for at in range(0, len(codes), 160):
            self._frames += 1
            payload = base64.b64encode(codes[at : at + 160]).decode()
            stamp = str(EPOCH + 20 * self._frames)
            media = {"track": "inbound", "chunk": self._frames, "timestamp": stamp, "payload": payload}
            self.say(event="media", sequenceNumber=self._frames, streamId=self._stream, media=media)

    def hear(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=10))
        self.heard.append(message)
        if message["event"] in ("playAudio", "media"):
            self.early.append(len(self.audio) / self.second - (time.monotonic() - self.begun))
        return message

    def hear_until(self, event: str, number: int = 1) -> dict[str, Any]:
        """Hear messages until so many of ``event`` have come."""
        while sum(message["event"] == event for message in self.heard) < number:
            self.hear()
        return self.heard[-1]

    def obey(self) -> None:
        """Play everything at once and confirm it, until the app closes the call."""
        try:
            while True:
                message = self.hear()
                if message["event"] == "checkpoint":
                    self.confirm(message)
        except ConnectionClosed:
            pass

    def confirm(self, checkpoint: dict[str, Any]) -> None:
        self.say(event="playedStream", streamId=self._stream, name=checkpoint["name"])

    def stop(self) -> None:
        """End the call."""
        self.say(event="stop", streamId=self._stream)

    @property
    def audio(self) -> bytes:
        """All that was to be played."""
        return b"".join(
            base64.b64decode(m["media"]["payload"], validate=True)
            for m in self.heard
            if m["event"] in ("playAudio", "media")
        )


def voice(seconds: float, rate: int = 8000) -> bytes:
    """Return a tone that rises, as 16-bit PCM: no two places in it are alike."""
    at = np.arange(round(seconds * rate)) / rate
    samples: np.ndarray = np.round(9000 * np.sin(2 * np.pi * (300 + 150 * at) * at)).astype("<i2")
    return samples.tobytes()


def record(folder: Path, pcm: bytes, rate: int = 8000) -> None:
    """Write the notice that the pipeline names."""
    with wave.open(str(folder / "notice.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)


def caller() -> bytes:
    """Return four seconds in which the patient of the lab's clip speaks, as µ-law."""
    with wave.open(str(CLIP)) as clip:
        clip.setpos(round(4.5 * 8000))
        return audioop.lin2ulaw(audioop.tomono(clip.readframes(4 * 8000), 2, 1, 0), 2)


@asynccontextmanager
async def answering(folder: Path, source: str = "vobiz", barge_in: bool = False) -> AsyncIterator[Runner]:
    """Run a pipeline with a reply; leaving stops it, and every account is exact."""
    file = folder / "call.yaml"
    file.write_text(PIPELINE.format(source=source, folder=folder, barge_in=str(barge_in).lower()))
    runner = Runner(config.load(str(file), PLUGINS, {}), PLUGINS)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await runner.up.wait()
            yield runner
            runner.stop()
    for account in runner.accounts:
        for figures in (*account["sinks"], *account["reply"]["sinks"]):
            assert figures["received"] == booked(figures)
            assert figures["spooled"] == 0


async def carry(runner: Runner, act: Callable[[Carrier], None], **start: Any) -> tuple[Carrier, dict[str, Any]]:
    """Let a carrier do ``act`` in a call, then end the call; return the carrier and the account of the reply."""

    def play() -> Carrier:
        with Carrier(runner.url, **start) as carrier:
            act(carrier)
            carrier.stop()
        return carrier

    carrier = await run_sync(play)
    await runner.over(1)
    (account,) = runner.accounts
    assert (account["status"], account["error"]) == ("complete", "")
    return carrier, account


def confirming(number: int) -> Callable[[Carrier], None]:
    """Return what confirms so many checkpoints as they come: one after 1.02 s, and one at the end."""

    def act(carrier: Carrier) -> None:
        for n in range(number):
            carrier.confirm(carrier.hear_until("checkpoint", n + 1))

    return act


def dropped(account: dict[str, Any]) -> dict[str, int]:
    (sink,) = account["reply"]["sinks"]
    return dict(sink["dropped"])


# --- To the end


@pytest.mark.parametrize(("encoding", "rate"), [("audio/x-mulaw", 8000), ("audio/x-l16", 8000), ("audio/x-l16", 16000)])
async def test_a_notice_is_played(encoding: str, rate: int, tmp_path: Path) -> None:
    """The call's own format, bit for bit, in messages as they are documented; all of it is confirmed and booked."""
    pcm = voice(1.3, rate)
    record(tmp_path, pcm, rate)
    async with answering(tmp_path) as runner:
        carrier, account = await carry(runner, confirming(2), encoding=encoding, rate=rate)
    if encoding == "audio/x-mulaw":
        assert carrier.audio == audioop.lin2ulaw(pcm, 2)
    else:
        assert carrier.audio == pcm
    play, *_ = carrier.heard
    assert play == {
        "event": "playAudio",
        "streamId": "s1",
        "media": {"contentType": encoding, "sampleRate": rate, "payload": play["media"]["payload"]},
    }
    marks = [m for m in carrier.heard if m["event"] == "checkpoint"]
    assert marks == [{"event": "checkpoint", "streamId": "s1", "name": f"reply-{n}"} for n in (1, 2)]
    assert carrier.heard[-1] == marks[-1]
    reply = account["reply"]
    assert (reply["status"], reply["error"]) == ("complete", "")
    (sink,) = reply["sinks"]
    assert sink["received"] == sink["delivered"] == len(pcm) // 2
    assert [event["event"] for event in account["events"]] == ["ReplyStarted", "ReplyEnded"]
    assert account["events"][1]["status"] == "complete"


async def test_any_recording_is_played(tmp_path: Path) -> None:
    """A notice at a rate of music's comes out as long as it was, as the same sound."""
    record(tmp_path, voice(0.5, 22050), 22050)
    async with answering(tmp_path) as runner:
        carrier, account = await carry(runner, confirming(1))
    assert account["reply"]["sinks"][0]["delivered"] == 11025
    heard = np.frombuffer(audioop.ulaw2lin(carrier.audio, 2), "<i2").astype(float)
    wanted = np.frombuffer(voice(0.5), "<i2").astype(float)
    assert len(heard) == len(wanted) == 4000
    inner = slice(100, -100)  # the filter rings where the sound begins and ends
    noise = np.mean((heard - wanted)[inner] ** 2)
    assert 10 * np.log10(np.mean(wanted[inner] ** 2) / noise) > 35  # µ-law itself leaves 38 dB


async def test_the_pace_is_that_of_speech(tmp_path: Path) -> None:
    """Whatever the carrier does, it is never sent more than the lead and a chunk ahead of the time that has passed."""
    record(tmp_path, voice(1.6))
    async with answering(tmp_path) as runner:
        carrier, _ = await carry(runner, confirming(2))
    assert len(carrier.audio) == 12800
    assert max(carrier.early) <= LEAD_S + CHUNK_MS / 1000


async def test_both_sides_of_a_call_go_on(tmp_path: Path) -> None:
    """While the notice is played, the caller's audio and keys are carried as ever."""
    record(tmp_path, voice(0.3))
    codes = caller()[:8000]

    def act(carrier: Carrier) -> None:
        carrier.speak(codes)
        carrier.say(event="dtmf", streamId="s1", dtmf={"digit": "5", "track": "inbound"})
        confirming(1)(carrier)

    async with answering(tmp_path) as runner:
        _, account = await carry(runner, act)
    assert account["reply"]["status"] == "complete"
    assert account["sinks"][0]["delivered"] == 8000
    with wave.open(str(tmp_path / "CALL_1-inbound.wav")) as file:
        assert file.readframes(8000) == audioop.ulaw2lin(codes, 2)


# --- Cut off


async def test_a_caller_who_speaks_is_not_talked_over(tmp_path: Path) -> None:
    """With barge_in the carrier is told to clear, and what it had played by then is what counts as delivered."""
    record(tmp_path, voice(20))

    def act(carrier: Carrier) -> None:
        first = carrier.hear_until("checkpoint")
        carrier.speak(caller())
        carrier.hear_until("clearAudio")
        carrier.confirm(first)  # it had been played: the carrier says so before it says what it cleared
        carrier.say(event="clearedAudio", streamId="s1")
        _until_ended(runner)

    async with answering(tmp_path, barge_in=True) as runner:
        carrier, account = await carry(runner, act)
    assert carrier.heard[-1] == {"event": "clearAudio", "streamId": "s1"}
    reply = account["reply"]
    assert (reply["status"], reply["error"]) == ("barge-in", "")
    sink = reply["sinks"][0]
    assert sink["delivered"] == sum(len(base64.b64decode(m["media"]["payload"])) for m in carrier.heard[:17])
    assert sink["dropped"] == {"barge-in": sink["received"] - sink["delivered"]}
    assert not {"unanswered_clear", "reconnected"} & set(sink["outcome"])
    assert account["sinks"][0]["delivered"] == 32000


async def test_a_clear_that_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is waited for no longer than the back-stop; the call goes on, and the record says so."""
    monkeypatch.setattr(_talk_back, "CLEAR_S", 0.1)
    record(tmp_path, voice(20))

    def act(carrier: Carrier) -> None:
        carrier.hear()
        carrier.speak(caller())
        carrier.hear_until("clearAudio")
        _until_ended(runner)

    async with answering(tmp_path, barge_in=True) as runner:
        _, account = await carry(runner, act)
    assert account["reply"]["status"] == "barge-in"
    assert account["reply"]["sinks"][0]["outcome"]["unanswered_clear"] == 1
    assert dropped(account) == {"barge-in": account["reply"]["sinks"][0]["received"]}


def _until_ended(runner: Runner) -> None:
    """Wait, from a thread, until the reply of the only call is over."""

    async def wait() -> None:
        with anyio.fail_after(10):
            while not runner.sessions:  # noqa: ASYNC110 (nobody is told)
                await anyio.sleep(0.01)
            (session,) = runner.sessions.values()
            assert session.reply is not None
            await session.reply.over.wait()

    anyio.from_thread.run(wait)


async def test_without_barge_in_speech_changes_nothing(tmp_path: Path) -> None:
    """A notice that has to be heard is not cut off by a caller who speaks."""
    record(tmp_path, voice(0.7))

    def act(carrier: Carrier) -> None:
        carrier.speak(caller())
        confirming(1)(carrier)

    async with answering(tmp_path) as runner:
        carrier, account = await carry(runner, act)
    assert account["reply"]["status"] == "complete"
    assert "clearAudio" not in [message["event"] for message in carrier.heard]


async def test_the_end_of_the_call_ends_the_reply(tmp_path: Path) -> None:
    """A caller who hangs up in the middle leaves the call complete and the reply cut off, exactly booked."""
    record(tmp_path, voice(20))
    async with answering(tmp_path) as runner:
        _, account = await carry(runner, lambda carrier: carrier.confirm(carrier.hear_until("checkpoint")))
    reply = account["reply"]
    assert (reply["status"], reply["error"], runner.failed) == ("call-ended", "", 0)
    (sink,) = reply["sinks"]
    assert sink["delivered"] in (0, 8160)  # the confirmation may be overtaken by the end, read behind it
    assert sink["dropped"] == {"call-ended": sink["received"] - sink["delivered"]}


async def test_a_stop_does_not_wait_for_the_reply(tmp_path: Path) -> None:
    """SIGTERM in the middle of a long notice: the call ends with its audio, the reply is cut off."""
    record(tmp_path, voice(20))
    done = anyio.Event()

    def play() -> None:
        with Carrier(runner.url) as carrier:
            carrier.speak(caller()[:1600])
            carrier.hear()
            anyio.from_thread.run_sync(done.set)
            carrier.obey()

    async with answering(tmp_path) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(run_sync, play)
        await done.wait()
        runner.stop()
        await runner.over(1)
    (account,) = runner.accounts
    assert (account["status"], account["reply"]["status"]) == ("complete", "call-ended")
    assert account["sinks"][0]["delivered"] == account["sinks"][0]["received"]
    assert "unanswered_clear" not in account["reply"]["sinks"][0]["outcome"]  # its socket was closed: nothing to say


# --- Another socket


async def test_another_socket_hears_what_the_first_did_not_confirm(tmp_path: Path) -> None:
    """A carrier that connects again is sent all again that it had not confirmed, and nothing else twice."""
    pcm = voice(1.5)
    record(tmp_path, pcm)

    def play() -> tuple[Carrier, Carrier]:
        with Carrier(runner.url, "s1") as first:
            first.confirm(first.hear_until("checkpoint"))
            confirmed = len(first.audio)
            _until_delivered(runner, confirmed)
            first.hear_until("playAudio", confirmed // 480 + 3)
        with Carrier(runner.url, "s2") as second:
            second.confirm(second.hear_until("checkpoint"))
            _until_ended(runner)
            second.stop()
        first.heard = first.heard[: confirmed // 480 + 1]
        return first, second

    async with answering(tmp_path) as runner:
        first, second = await run_sync(play)
        await runner.over(1)
    assert first.audio + second.audio == audioop.lin2ulaw(pcm, 2)
    assert {message["streamId"] for message in second.heard} == {"s2"}
    (account,) = runner.accounts
    assert account["reply"]["status"] == "complete"
    (sink,) = account["reply"]["sinks"]
    assert sink["delivered"] == sink["received"] == 12000
    assert sink["outcome"]["reconnected"] == 1
    assert sink["outcome"]["sent_again_ms"] >= 180


async def test_an_answer_to_what_another_socket_was_sent(tmp_path: Path) -> None:
    """What was sent again has to be confirmed again: an old mark confirms nothing."""
    record(tmp_path, voice(20))

    def play() -> None:
        with Carrier(runner.url, "s1") as first:
            old = first.hear_until("checkpoint")
        with Carrier(runner.url, "s2") as second:
            second.hear()
            second.confirm(old)
            second.stop()

    async with answering(tmp_path) as runner:
        await run_sync(play)
        await runner.over(1)
    (account,) = runner.accounts
    assert account["reply"]["status"] == "call-ended"
    assert account["reply"]["sinks"][0]["delivered"] == 0


def _until_delivered(runner: Runner, samples: int) -> None:
    """Wait, from a thread, until so much of the reply is confirmed."""

    async def wait() -> None:
        (session,) = runner.sessions.values()
        with anyio.fail_after(10):
            while session.account()["reply"]["sinks"][0]["delivered"] < samples:  # noqa: ASYNC110 (nobody is told)
                await anyio.sleep(0.01)

    anyio.from_thread.run(wait)


# --- What fails, and harms nothing


async def test_a_carrier_that_confirms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that goes one way ignores everything: after the back-stop the reply has failed, and the call goes on."""
    monkeypatch.setattr(_talk_back, "CONFIRM_S", 0.1)
    record(tmp_path, voice(0.3))

    def act(carrier: Carrier) -> None:
        carrier.hear_until("checkpoint")
        _until_ended(runner)

    async with answering(tmp_path) as runner:
        _, account = await carry(runner, act)
    assert dropped(account) == {"unconfirmed": 2400}
    assert account["reply"]["status"] == "failed"
    assert "one way" in account["reply"]["error"]
    assert (runner.failed, runner.counts["reply-failed"]) == (1, 1)


async def test_a_carrier_that_never_confirms_anything_is_not_talked_to_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so much unconfirmed, the reply is given up long before its end."""
    monkeypatch.setattr(_talk_back, "UNHEARD_S", 0.3)
    record(tmp_path, voice(20))

    async with answering(tmp_path) as runner:
        _, account = await carry(runner, lambda carrier: _until_ended(runner))
    assert set(dropped(account)) == {"unconfirmed"}
    assert account["reply"]["status"] == "failed"


async def test_a_carrier_that_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nothing more goes into its socket the reply has failed; the call, which comes the other way, goes on."""
    for name, seconds in (("LEAD_S", 1e6), ("UNHEARD_S", 1e6), ("SEND_S", 0.2), ("CLEAR_S", 0.2)):
        monkeypatch.setattr(_talk_back, name, seconds)  # so that all is sent at once
    record(tmp_path, bytes(16_000_000), 16_000)

    def act(carrier: Carrier) -> None:
        _until_ended(runner)
        carrier.speak(bytes(3200))

    async with answering(tmp_path) as runner:
        _, account = await carry(runner, act, encoding="audio/x-l16", rate=16_000)
    assert account["reply"]["status"] == "failed"
    assert account["reply"]["error"] == "the carrier's socket has taken nothing for 0.2 s"
    assert set(dropped(account)) == {"stuck"}
    assert account["sinks"][0]["delivered"] == 1600


async def test_a_notice_that_is_gone(tmp_path: Path) -> None:
    """A file that is deleted while the pipeline runs costs the reply and nothing else."""
    record(tmp_path, voice(0.3))

    def act(carrier: Carrier) -> None:
        carrier.speak(caller()[:1600])
        _until_ended(runner)

    async with answering(tmp_path) as runner:
        (tmp_path / "notice.wav").unlink()
        carrier, account = await carry(runner, act)
    assert not carrier.heard
    assert account["sinks"][0]["delivered"] == 1600
    assert account["reply"]["status"] == "failed"
    assert "No such file" in account["reply"]["error"]
    assert account["reply"]["sinks"] == []


async def test_a_stream_of_both_tracks_cannot_be_spoken_to(tmp_path: Path) -> None:
    """Carriers speak both ways only on streams of the caller's track: nothing is sent, and the account says why."""
    record(tmp_path, voice(0.3))

    def play() -> Carrier:
        carrier = Carrier(runner.url)
        start: Any = carrier.started["start"]
        start["tracks"] = ["inbound", "outbound"]
        with carrier:
            carrier.speak(caller()[:1600])
            carrier.stop()
        return carrier

    async with answering(tmp_path) as runner:
        carrier = await run_sync(play)
        await runner.over(1)
    assert not carrier.heard
    (account,) = runner.accounts
    assert account["status"] == "complete"
    assert (account["reply"]["status"], account["reply"]["error"]) == ("failed", "this call cannot be spoken to")


# --- The sister wires


async def test_a_twilio_call(tmp_path: Path) -> None:
    """Twilio's names; and the marks that it sends back when it clears confirm nothing."""
    record(tmp_path, voice(20))

    def play() -> Carrier:
        carrier = Carrier(runner.url)
        fields = {"accountSid": "AC1", "callSid": "CALL_1", "streamSid": "MZ1", "tracks": ["inbound"]}
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        carrier.started = {"event": "start", "streamSid": "MZ1", "start": fields | {"mediaFormat": media_format}}
        with carrier:
            mark = carrier.hear_until("mark")
            carrier.say(event="mark", streamSid="MZ1", mark=mark["mark"])
            second = carrier.hear_until("mark", 2)
            carrier.speak(caller())
            clear = carrier.hear_until("clear")
            carrier.say(event="mark", streamSid="MZ1", mark=second["mark"])
            assert mark == {"event": "mark", "streamSid": "MZ1", "mark": {"name": "reply-1"}}
            assert clear == {"event": "clear", "streamSid": "MZ1"}
            carrier.stop()
        return carrier

    async with answering(tmp_path, "media_streams", barge_in=True) as runner:
        carrier = await run_sync(play)
        await runner.over(1)
    assert carrier.heard[0]["streamSid"] == "MZ1"
    assert set(carrier.heard[0]["media"]) == {"payload"}
    (account,) = runner.accounts
    assert account["reply"]["status"] == "barge-in"
    assert account["reply"]["sinks"][0]["delivered"] == 8160


async def test_we_speak_to_plivo_as_pipecat_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same samples Pipecat's serializer made the same messages, clearing included; ours ask for answers too."""
    version, *audio, clear = map(json.loads, (PEERS / "pipecat_plivo.jsonl").read_text().splitlines())
    assert set(version) == {"pipecat-ai"}
    record(tmp_path, struct.pack("<1440h", *((n * 4099) % 65536 - 32768 for n in range(1440))))

    def play() -> Carrier:
        carrier = Carrier(runner.url)
        carrier.started["extra_headers"] = "visit=42"
        with carrier:
            carrier.hear_until("checkpoint")
            carrier.speak(caller())
            carrier.hear_until("clearAudio")
            carrier.say(event="clearedAudio", streamId="s1")
            carrier.stop()
        return carrier

    async with answering(tmp_path, "media_streams", barge_in=True) as runner:
        carrier = await run_sync(play)
    assert [message for message in carrier.heard if message["event"] != "checkpoint"] == [*audio, clear]


async def test_an_exotel_call(tmp_path: Path) -> None:
    """Every message holds a number of bytes that Exotel plays well, the last one filled up with silence."""
    pcm = voice(0.5)
    record(tmp_path, pcm)

    def play() -> Carrier:
        carrier = Carrier(runner.url, encoding="audio/x-l16")
        fields = {"account_sid": "a1", "call_sid": "CALL_1", "stream_sid": "s1"}
        media_format = {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"}
        carrier.started = {"event": "start", "stream_sid": "s1", "start": fields | {"media_format": media_format}}
        with carrier:
            mark = carrier.hear_until("mark")
            carrier.say(event="mark", stream_sid="s1", mark=mark["mark"])
            _until_ended(runner)
            carrier.stop()
        return carrier

    async with answering(tmp_path, "media_streams") as runner:
        carrier = await run_sync(play)
        await runner.over(1)
    sizes = [len(base64.b64decode(m["media"]["payload"])) for m in carrier.heard if m["event"] == "media"]
    assert sizes == [3200, 3200, 3200]
    assert carrier.audio == pcm + bytes(1600)
    (account,) = runner.accounts
    assert account["reply"]["status"] == "complete"
    assert account["reply"]["sinks"][0]["delivered"] == 4000


async def test_a_call_in_a_law(tmp_path: Path) -> None:
    """Where the carrier cannot be sent what it sends, it is sent what it plays."""
    record(tmp_path, voice(0.3))
    async with answering(tmp_path) as runner:
        carrier, account = await carry(runner, confirming(1), encoding="audio/x-alaw")
    assert carrier.heard[0]["media"]["contentType"] == "audio/x-mulaw"
    assert carrier.audio == audioop.lin2ulaw(voice(0.3), 2)
    assert account["reply"]["sinks"][0]["outcome"]["format"] == "mulaw 8000 Hz mono"
