"""A simulated carrier: plays a stream to a Media Streams server as Vobiz would, or another of the family.

It opens the WebSocket, says ``start``, sends frames of exactly 20 ms (100 of Exotel) with the carrier's stamps, and
closes.  With the source ``file`` before it, it makes test calls; behind any source it hands a call on to another
server.

The stamps follow the audio, not the clock on the wall: a frame's ``timestamp`` is its position, counted from the moment
this process began.  A call that is opened again after a failure therefore goes on with the same clock, as a carrier's
second socket does, and the receiver can measure what is missing.  Of Twilio, Telnyx and Exotel each socket counts from
its own first frame.

Messages from the app are obeyed as a carrier does, with a queue in the place of the telephone (``_playout``):

    playAudio    played into the call at the pace of speech, and kept in a file if ``played`` names one
    checkpoint   answered with playedStream when everything before it was played
    clearAudio   what has not been played is gone; answered with clearedAudio
    stop         the call is over: the sink fails with the code ``stopped``

As on the wire, ``playAudio`` without the ``streamId`` of this stream is passed over without a word, and so is all but
``stop`` where the stream is not ``bidirectional``; both are counted in the outcome.

What a carrier would tell in its status callbacks is noted in the account of the call, under the same names:
StartStream, PlayedStream, ClearedAudio, StopStream, and DegradedStream where the app is ``DEGRADED_S`` behind with
reading.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import anyio
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Dtmf,
    FormatError,
    Item,
    PathTemplate,
    Register,
    Secret,
    Sink,
    SinkError,
    Stream,
    WireError,
    Writer,
    dsp,
    envelope,
    hookimpl,
    websocket,
)
from mediaflow.carrier import Carrier
from mediaflow.dialects import DIALECTS
from mediaflow.websocket import Closed, Refused, Unreachable, WebSocket

from ._playout import TalkBack

LEAD_MS = 200
"""How far one track may run ahead of the other before it is sent out of the order of time."""

CONFIRM_S = 1.0
"""How often a ping asks how far the peer has read."""

DEGRADED_S = 2.0
"""How far the app may be behind before the connection counts as degraded; carriers do not say where their limit is."""

FINISH_S = 30.0
"""How long the peer may take to read the last audio."""

_EPOCH_MS = time.time_ns() // 1_000_000

_FORMATS = {
    "audio/x-mulaw;rate=8000": AudioFormat("mulaw", 8000),
    "audio/x-alaw;rate=8000": AudioFormat("alaw", 8000),
    "audio/x-l16;rate=8000": AudioFormat("s16le", 8000),
    "audio/x-l16;rate=16000": AudioFormat("s16le", 16000),
    "audio/x-l16;rate=24000": AudioFormat("s16le", 24000),
}


class VobizCall(Sink, frozen=True, kw_only=True):
    """Play the stream as a call to a Media Streams server, in the place of the carrier.

    One or two tracks; a joined one is sent as ``inbound``.  ``flat`` is the shape of Vobiz's older documents.
    """

    url: Annotated[Secret, Meta(description="ws:// or wss:// address of the server, with its secret")]
    dialect: Annotated[
        Literal["vobiz", "plivo", "twilio", "telnyx", "exotel"], Meta(description="whose messages are sent")
    ] = "vobiz"
    shape: Annotated[
        Literal["nested", "flat"], Meta(description="of Vobiz's messages; nested is on the wire today")
    ] = "nested"
    content_type: Annotated[
        Literal[
            "audio/x-mulaw;rate=8000",
            "audio/x-alaw;rate=8000",
            "audio/x-l16;rate=8000",
            "audio/x-l16;rate=16000",
            "audio/x-l16;rate=24000",
        ],
        Meta(description="what the call carries; the stream must have this format"),
    ] = "audio/x-mulaw;rate=8000"
    byte_order: Annotated[Literal["little", "big"], Meta(description="of audio/x-l16")] = "little"
    end: Annotated[Literal["close", "stop"], Meta(description="close only, as on today's wire, or say stop first")] = (
        "close"
    )
    stream_id: Annotated[str, Meta(description="of the start message; made up if not given")] = ""
    account_id: Annotated[str, Meta(description="of the start message, where the stream brings none")] = "mediaflow"
    bidirectional: Annotated[bool, Meta(description="whether the app may play audio into the call")] = True
    speed: Annotated[
        Annotated[float, Meta(gt=0)] | Literal["max"],
        Meta(description="pace at which the app's audio is played; 1.0 is real time"),
    ] = 1.0
    played: Annotated[
        PathTemplate | None, Meta(description="WAV file for what the app has played, as in {call_id}.wav")
    ] = None

    def check(self) -> None:
        parts = urlsplit(self.url.reveal())
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError("url is not a ws:// or wss:// address with a host")
        known = [name for name, format in _FORMATS.items() if format in DIALECTS[self.dialect].formats]
        if self.content_type not in known:
            raise ValueError(f"{self.dialect} has no {self.content_type}, only {', '.join(known)}")
        if self.shape == "flat" and self.dialect != "vobiz":
            raise ValueError("the flat shape is Vobiz's alone")

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        wanted = _FORMATS[self.content_type]
        if format != wanted:
            raise FormatError(
                f"content_type {self.content_type} takes {wanted}, not {format}", _missing_step(format, wanted)
            )
        if len(tracks) > 1 and set(tracks) != set(envelope.TRACKS):
            raise FormatError(
                f"takes one track, or inbound and outbound, not {' and '.join(tracks)}", "add `- use: mix` before it"
            )
        if len(tracks) > 1 and DIALECTS[self.dialect].tracks is not None:
            raise FormatError(f"{self.dialect} has one track, not {' and '.join(tracks)}", "add `- use: mix` before it")

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        self.check_format(format, tracks)
        failure: Exception | None = None
        try:
            async with websocket.connect(self.url.reveal()) as socket:
                writer = _Caller(self, socket, stream, format, tracks)
                await writer.start()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(writer.listen)
                    tasks.start_soon(writer.confirm)
                    tasks.start_soon(writer.play)
                    try:
                        yield writer
                        await writer.finish()
                    except Exception as error:  # raised outside, where the task group cannot wrap it
                        failure = error
                    tasks.cancel_scope.cancel()
                if failure is not None:
                    raise failure
        except Refused as error:
            raise SinkError("refused", str(error)) from None
        except Unreachable as error:
            raise SinkError("unreachable", str(error)) from None
        except Closed as error:
            raise _hung_up(error) from None


def _missing_step(format: AudioFormat, wanted: AudioFormat) -> str:
    if format.channels != wanted.channels:
        return "add `- use: mix` before it"
    if format.sample_rate != wanted.sample_rate:
        return f"add `- use: resample` with `rate: {wanted.sample_rate}` before it"
    step = f"{wanted.encoding}_encode" if format.encoding == "s16le" else f"{format.encoding}_decode"
    return f"add `- use: {step}` before it"


def _hung_up(closed: Closed) -> SinkError:
    return SinkError(f"closed-{closed.code}", f"the server ended the call: {closed}")


class _Track:
    """What is left of a track's audio between two frames, and how far the track has come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = bytearray()
        self.position: int | None = None  # of the next sample to send, None until there was one
        self.chunk = 0
        self.sent = 0  # samples, in all
        self.read = 0  # of those, what the peer is known to have read
        self.known = 0  # of those, what is counted as delivered


class _Message(NamedTuple):
    text: str
    track: _Track | None = None
    samples: int = 0


class _Caller(Writer):
    def __init__(
        self, sink: VobizCall, socket: WebSocket, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]
    ) -> None:
        self._sink, self._socket, self._stream, self._format = sink, socket, stream, format
        self._stream_id = sink.stream_id or str(uuid.uuid4())
        self._dialect = DIALECTS[sink.dialect]
        self._frame = format.sample_rate * self._dialect.frame_ms // 1000
        self._lead = format.sample_rate * LEAD_MS // 1000
        names = tracks if len(tracks) > 1 or tracks[0] in envelope.TRACKS else ("inbound",)
        self._tracks = {track: _Track(name) for track, name in zip(tracks, names, strict=True)}
        self._carrier = Carrier(
            dialect=self._dialect,
            call_id=stream.id,
            stream_id=self._stream_id,
            account_id=stream.metadata.get("account_id", sink.account_id),
            format=format,
            tracks=tuple(names),
            metadata=stream.metadata,
        )
        self._zero_ms: float | None = None if self._dialect.own_clock else -_EPOCH_MS  # what timestamps count from
        self._sequence = 0
        self._outbox: deque[_Message] = deque()
        self._written: deque[tuple[_Track, int]] = deque()  # runs of samples not known to be read, as they were written
        self._delivered = 0
        self._failure: SinkError | None = None
        self._counts: Counter[str] = Counter()
        ids = {**stream.metadata, "call_id": stream.id, "stream_id": self._stream_id}
        file = sink.played.fill(ids) if sink.played else None

        def note(name: str, /, **facts: str) -> None:
            self.note(name, **facts)  # the engine sets it later than this

        self._talk_back = TalkBack(
            self._stream_id,
            sink.bidirectional,
            sink.speed,
            file,
            socket.send,
            note,
            played=lambda name: self._carrier.played(self._sequence, name),
            cleared=envelope.build_cleared(self._stream_id) if self._dialect.verbs[2] == "clearAudio" else "",
        )

    @property
    def delivered(self) -> int:
        return self._delivered

    @property
    def outcome(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {
            "stream_id": self._stream_id,
            "messages": self._sequence,
            **self._counts,
            **self._talk_back.outcome,
        }

    def write_nowait(self, item: Item) -> bool:
        if self._failure is not None:
            raise self._failure
        if not self._send_nowait():
            return False
        self._accept(item)
        self._send_nowait()  # what it refuses goes before the next item, or at the end
        return True

    async def write(self, item: Item) -> None:
        if self._failure is not None:
            raise self._failure
        self._accept(item)
        try:
            await self._send()
        except Closed as closed:
            raise _hung_up(closed) from None

    # The ways of the call, in the order they are gone.

    async def start(self) -> None:
        """Introduce the call."""
        if self._sink.shape == "flat":
            known = self._carrier
            names, metadata = known.tracks, known.metadata
            start = envelope.build_start(
                known.call_id, known.stream_id, known.account_id, self._format, names, metadata, "flat"
            )
            await self._socket.send(start)
        else:
            opening = self._carrier.opening()
            self._sequence = len(opening) - 1
            for text in opening:
                await self._socket.send(text)

    async def listen(self) -> None:
        """Obey the app until it closes."""
        self.note("StartStream", stream_id=self._stream_id)
        try:
            while True:
                await self._obey(await self._socket.recv())
        except Closed as closed:
            if self._failure is None:
                self._failure = _hung_up(closed)

    async def confirm(self) -> None:
        """Ask every so often how far the peer has read."""
        try:
            while True:
                await anyio.sleep(CONFIRM_S)
                if any(track.sent > track.read for track in self._tracks.values()):
                    with anyio.move_on_after(DEGRADED_S) as behind:
                        await self._confirm()
                    if behind.cancelled_caught:
                        self.note("DegradedStream", stream_id=self._stream_id, error="connection degraded")
                        await self._confirm()
        except Closed:
            pass  # ``listen`` has heard it too

    async def play(self) -> None:
        """Play what the app sends."""
        with suppress(Closed):  # ``listen`` has heard it too
            await self._talk_back.run()

    async def finish(self) -> None:
        """Send the rest, wait until it is read, and hang up."""
        if self._failure is not None:
            raise self._failure
        self._merge(last=True)
        try:
            with anyio.fail_after(FINISH_S):
                await self._send()
                await self._confirm()
        except TimeoutError:
            raise SinkError("timeout", f"the server did not read the last audio within {FINISH_S:g} s") from None
        with suppress(Closed):  # the server holds everything: it may hang up first
            if self._sink.end == "stop":
                await self._socket.send(self._carrier.stop(self._sequence + 1, "call_ended"))
            await self._socket.close()

    # Audio out.

    def _accept(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            track = self._tracks[item.track]
            if track.position is None or item.position != track.position + len(track.data) // self._format.sample_bytes:
                self._cut(track, len(track.data))  # audio was left out before this frame: the stamps must show it
                track.position = item.position
            track.data += item.data
            self._written.append((track, item.sample_count))
            self._merge()
        elif isinstance(item, Dtmf):
            self._sequence += 1
            track = self._tracks.get(item.track, next(iter(self._tracks.values())))
            self._outbox.append(_Message(self._carrier.dtmf(self._sequence, item.digit, track.name)))

    def _merge(self, last: bool = False) -> None:
        """Cut frames off the tracks in the order of time."""
        size = self._frame * self._format.sample_bytes
        while ready := [track for track in self._tracks.values() if len(track.data) >= (1 if last else size)]:
            first = min(ready, key=lambda track: track.position or 0)
            if not last and len(first.data) < self._lead * self._format.sample_bytes and self._may_precede(first):
                return
            self._cut(first, size)

    def _may_precede(self, first: _Track) -> bool:
        """Return True if another track may still bring audio from before ``first``."""
        at = first.position or 0
        return any(
            track.position is None or track.position < at for track in self._tracks.values() if track is not first
        )

    def _cut(self, track: _Track, size: int) -> None:
        payload = bytes(track.data[:size])
        if not payload or track.position is None:
            return
        del track.data[:size]
        samples = self._format.sample_count(payload)
        position_ms = track.position * 1000 / self._format.sample_rate
        if self._zero_ms is None:
            self._zero_ms = position_ms
        timestamp_ms = round(position_ms - self._zero_ms)
        if self._sink.byte_order == "big" and self._format.encoding == "s16le":
            payload = dsp.swap_bytes(payload)
        track.position += samples
        track.chunk += 1
        self._sequence += 1
        if self._sink.shape == "nested":
            text = self._carrier.media(self._sequence, track.name, track.chunk, timestamp_ms, payload)
        else:
            name = track.name if len(self._tracks) > 1 else None
            text = envelope.build_flat_media(self._stream_id, self._format, timestamp_ms, payload, name)
        self._outbox.append(_Message(text, track, samples))

    def _send_nowait(self) -> bool:
        while self._outbox:
            if not self._socket.send_nowait(self._outbox[0].text):
                return False
            self._sent()
        return True

    async def _send(self) -> None:
        while self._outbox:
            await self._socket.send(self._outbox[0].text)
            self._sent()

    def _sent(self) -> None:
        message = self._outbox.popleft()
        if message.track is not None:
            message.track.sent += message.samples

    async def _confirm(self) -> None:
        mark = [(track, track.sent) for track in self._tracks.values()]
        await self._socket.ping()
        for track, sent in mark:
            track.read = max(track.read, sent)
        while self._written:
            track, samples = self._written.popleft()
            now_known = min(samples, track.read - track.known)
            track.known += now_known
            self._delivered += now_known
            if now_known < samples:
                self._written.appendleft((track, samples - now_known))
                return

    # The app's messages.

    async def _obey(self, text: str | bytes) -> None:
        try:
            message = envelope.parse(text)
        except WireError as error:
            self._counts[error.code] += 1
            return
        if isinstance(message, envelope.Media):  # of carriers whose app speaks as they do
            message = envelope.PlayAudio(self._stream_id, message.payload, self._dialect.reply_format(self._format))
        elif isinstance(message, envelope.Played):
            message = envelope.Checkpoint(self._stream_id, message.name)
        if isinstance(message, envelope.PlayAudio | envelope.Checkpoint | envelope.ClearAudio):
            await self._talk_back.take(message)
        elif isinstance(message, envelope.Stop):
            self._counts["stop"] += 1
            if self._failure is None:
                self.note("StopStream", stream_id=self._stream_id)
                self._failure = SinkError("stopped", "the server asked the carrier to end the stream")
        else:
            self._counts["unknown_event"] += 1


@hookimpl
def register_components(register: Register) -> None:
    register("vobiz_call", VobizCall)
