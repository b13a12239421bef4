"""Speaking into a call: the way back over the sockets that the call's audio comes on.

A ``Line`` is that way, for one call: it knows which socket the call is on at the moment, and is told the carrier's
answers by the task that reads the socket.  A ``TalkBack`` is the sink that plays a reply over it::

    any mono audio ─▶ in the format the carrier plays ─▶ chunks ─▶ each when it is due ─▶ audio, audio, mark, audio …
                                                                                                     │
    delivered ◀──────────────────────────────── the carrier's answer, once all before it was played ◀┘

**Pace.**  A carrier keeps what it is sent and plays it in real time.  If it had everything at once, it could only be
silenced by a message that it may be late to obey; if it had nothing, every hiccup of the line would be heard.  So it is
kept ``LEAD_S`` ahead of what it has had time to play, and never more than a chunk further.

**What is confirmed.**  After every ``MARK_S`` and at the end stands a mark, which the carrier answers once all before
it has been played.  That, and nothing earlier, counts as delivered.  The answers may never come: a stream that goes one
way only ignores all this without a word.  So the last one is waited for no longer than ``CONFIRM_S`` after it is due,
and with ``UNHEARD_S`` of audio unconfirmed the reply is given up.

**Another socket.**  A carrier that connects again has lost what it had not played.  What is not confirmed is sent
again: nothing is left out, and mostly less than ``MARK_S + LEAD_S`` is heard twice.

**Silencing.**  Cut off, the sink tells the carrier to clear what waits there, and hears for ``CLEAR_S`` at most what
was played before.  Vobiz and Plivo say when they have cleared; the others send back the marks that they did not come
to, as if they had, so from there on nothing counts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import anyio

from mediaflow import AudioFormat, AudioFrame, FormatError, Item, Sink, SinkError, Stream, Writer, dsp
from mediaflow.dialects import Dialect
from mediaflow.envelope import Cleared, Played
from mediaflow.websocket import Closed, WebSocket

LEAD_S = 0.4
"""Outlasts one lost segment: TCP sends it again after 200 ms at the earliest, and a round trip later it is there."""

CHUNK_MS = 60
"""Vobiz recommends 20 to 60 ms a message, and the longest cost the least."""

MARK_S = 1.0
"""How finely it is known what was played of a reply that is cut off; Vobiz may post a callback for every mark."""

CONFIRM_S = 5.0
"""How long after it is due the answer to the last mark is waited for: the carrier may have begun to play late."""

UNHEARD_S = 30.0
"""With so much unconfirmed nobody is listening; it is also all that is ever kept, to be sent again."""

CLEAR_S = 1.0
"""How long the answer to a clear is waited for; Vobiz's own advice."""

SEND_S = 1.0
"""How long a message may wait for the socket, which holds many seconds of such audio: one that is full is dead."""


class Line:
    """The way back into one call, over whichever socket the call is on."""

    def __init__(self, dialect: Dialect, format: AudioFormat) -> None:
        self.dialect = dialect
        self.format = dialect.reply_format(format)
        self.socket: WebSocket | None = None
        self.stream_id = ""
        self.connections = 0
        """How many sockets the call has been on."""
        self.hear: Callable[[Played | Cleared], None] = _nobody
        self._changed = anyio.Event()

    def connect(self, socket: WebSocket, stream_id: str) -> None:
        """Speak over ``socket`` from now on."""
        self.socket, self.stream_id = socket, stream_id
        self.connections += 1
        self._change()

    def disconnect(self) -> None:
        """Take the socket for lost."""
        self.socket = None
        self._change()

    def answer(self, message: Played | Cleared) -> None:
        """Take an answer of the carrier to what was spoken."""
        self.hear(message)
        self._change()

    async def change(self) -> None:
        """Wait until there is another socket, none, or an answer."""
        await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _nobody(message: Played | Cleared) -> None:
    """Nobody listens to the answers."""


class TalkBack(Sink, frozen=True, kw_only=True):
    """Play one track of mono audio into a call, in the format that the carrier takes there."""

    queue_ms: int = 1000
    line: Line | None = None

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        if len(tracks) > 1:
            hint = "add `- use: mix` to the transforms of the reply"
            raise FormatError(f"plays one track, not {' and '.join(tracks)}", hint)
        if format.channels > 1:
            raise FormatError(f"plays one channel, not {format.channels}", "put `- use: mix` in the place of stereo")

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        assert self.line is not None  # None only stands in pipelines, for checking
        player = _Player(self.line, format)
        self.line.hear = player.hear
        try:
            yield player
            await player.finish()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await player.silence()
            raise
        finally:
            self.line.hear = _nobody


class _Chunk(NamedTuple):
    """What one message plays.  Without payload it is a mark, for all before it."""

    payload: bytes
    seconds: float
    upto: int
    """How many samples of the reply have been played once it has been."""


class _Player(Writer):
    def __init__(self, line: Line, format: AudioFormat) -> None:
        self._line = line
        self._input, self._output = format, line.format
        self._converter = _Converter(format, line.format)
        sizes = line.dialect.reply_sizes
        size = self._output.sample_rate * CHUNK_MS // 1000 * self._output.sample_bytes
        self._size = size if sizes is None else max(sizes.start, -(-size // sizes.step) * sizes.step)
        self._rest = bytearray()  # converted, and less than a chunk
        self._written = 0  # samples, as they come
        self._cut_off = 0  # samples, as they go, in chunks
        self._since_mark = 0.0
        self._ready: deque[_Chunk] = deque()
        self._unheard: deque[_Chunk] = deque()  # sent, and not confirmed
        self._unheard_s = 0.0
        self._marks: deque[tuple[str, int]] = deque()  # their names, and up to where each confirms
        self._named = 0
        self._delivered = 0
        self._connection = 0  # of the line: which socket that was sent over
        self._played_at = float("-inf")  # when the carrier, playing without a pause, has come to the end of it
        self._cleared = self._deaf = False
        self._counts: Counter[str] = Counter()

    @property
    def delivered(self) -> int:
        return self._delivered

    @property
    def outcome(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {"format": str(self._output), "stream_id": self._line.stream_id, **self._counts}

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            self._written += item.sample_count
            self._cut(self._converter.process(item.data))
            await self._send()

    async def finish(self) -> None:
        """Send the rest, and wait until all of it has been played."""
        self._cut(self._converter.flush(), last=True)
        while True:
            await self._send()
            if self._delivered >= self._written:
                return
            limit = float("inf") if self._line.socket is None else self._played_at + CONFIRM_S
            with anyio.CancelScope(deadline=limit) as scope:
                await self._line.change()
            if scope.cancelled_caught:
                raise _unconfirmed()

    async def silence(self) -> None:
        """Have the carrier throw away what it has not played, and hear what it has."""
        socket = self._line.socket
        if socket is None or not self._unheard:
            return
        self._deaf = not self._line.dialect.confirms_clear
        with anyio.move_on_after(CLEAR_S) as scope, suppress(Closed):
            await socket.send(self._line.dialect.build_clear(self._line.stream_id))
            while not self._cleared and not self._deaf and self._line.socket is socket:
                await self._line.change()
        if scope.cancelled_caught:
            self._counts["unanswered_clear"] += 1

    def hear(self, message: Played | Cleared) -> None:
        """Take an answer of the carrier."""
        if isinstance(message, Cleared):
            self._cleared = True
        elif not self._deaf and any(name == message.name for name, _ in self._marks):
            name = ""
            while name != message.name:
                name, self._delivered = self._marks.popleft()
            while self._unheard and self._unheard[0].upto <= self._delivered:
                self._unheard_s -= self._unheard.popleft().seconds

    def _cut(self, data: bytes, last: bool = False) -> None:
        """Make chunks of what was converted."""
        self._rest += data
        while len(self._rest) >= self._size or (last and self._rest):
            payload = bytes(self._rest[: self._size])
            del self._rest[: self._size]
            samples = self._output.sample_count(payload)
            self._cut_off += samples
            seconds = samples / self._output.sample_rate
            # What the resampler holds back has not been sent: counted by what came out, it is not confirmed either.
            upto = min(self._written, self._cut_off * self._input.sample_rate // self._output.sample_rate)
            self._ready.append(_Chunk(self._fill(payload), seconds, upto))
            self._since_mark += seconds
            if self._since_mark >= MARK_S:
                self._since_mark = 0.0
                self._ready.append(_Chunk(b"", 0.0, upto))
        if last:
            self._ready.append(_Chunk(b"", 0.0, self._written))

    def _fill(self, payload: bytes) -> bytes:
        """Fill the last chunk up, for a carrier that garbles short ones."""
        if self._line.dialect.reply_sizes is None:
            return payload
        return payload + self._output.silence((self._size - len(payload)) // self._output.sample_bytes)

    async def _send(self) -> None:
        """Send what is ready, each chunk when it is due, over whichever socket the call is on then."""
        while True:
            socket = self._line.socket
            if socket is not None and self._line.connections != self._connection:
                self._begin_again()
            if not self._ready:
                return
            if socket is None:
                await self._line.change()
                continue
            now = anyio.current_time()
            if self._ready[0].payload and self._played_at - LEAD_S > now:
                await anyio.sleep_until(self._played_at - LEAD_S)
                continue
            if await self._say(socket, self._ready[0]):
                chunk = self._ready.popleft()
                self._unheard.append(chunk)
                self._unheard_s += chunk.seconds
                # If it was late, the carrier has run dry and counts from now: what was missed is not made up for.
                self._played_at = max(self._played_at, now) + chunk.seconds
            if self._unheard_s > UNHEARD_S:
                raise _unconfirmed()

    async def _say(self, socket: WebSocket, chunk: _Chunk) -> bool:
        """Send the message of a chunk; return False if the socket is lost."""
        dialect, stream_id = self._line.dialect, self._line.stream_id
        if chunk.payload:
            text = dialect.build_audio(stream_id, self._output, chunk.payload)
        else:
            self._named += 1
            self._marks.append((f"reply-{self._named}", chunk.upto))
            text = dialect.build_mark(stream_id, f"reply-{self._named}")
        try:
            # Shielded: a message that is broken off in the middle would garble all that follows it.
            with anyio.move_on_after(SEND_S, shield=True) as scope:
                await socket.send(text)
        except Closed:
            if self._line.socket is socket:
                self._line.disconnect()
            return False
        if scope.cancelled_caught:
            raise SinkError("stuck", f"the carrier's socket has taken nothing for {SEND_S:g} s")
        return True

    def _begin_again(self) -> None:
        """Take back what was sent over another socket and is not confirmed."""
        if self._connection:
            self._counts["reconnected"] += 1
            self._counts["sent_again_ms"] += round(1000 * self._unheard_s)
        self._connection = self._line.connections
        self._ready.extendleft(reversed(self._unheard))
        self._unheard.clear()
        self._marks.clear()
        self._unheard_s, self._played_at = 0.0, float("-inf")


def _unconfirmed() -> SinkError:
    return SinkError(
        "unconfirmed", "the carrier does not say that it has played anything: its stream may go one way only"
    )


class _Converter:
    """Makes of any mono audio what the carrier plays; where that is the same, the bytes stay as they are."""

    def __init__(self, input: AudioFormat, output: AudioFormat) -> None:
        same = input == output
        self._decode = None if same else {"mulaw": dsp.mulaw_decode, "alaw": dsp.alaw_decode}.get(input.encoding)
        self._encode = None if same else {"mulaw": dsp.mulaw_encode, "alaw": dsp.alaw_encode}.get(output.encoding)
        self._resampler = None
        if input.sample_rate != output.sample_rate:
            # Strict, for a notice is often recorded at music's rates: what a telephone cannot carry must not fold.
            self._resampler = dsp.Resampler(input.sample_rate, output.sample_rate, "strict")

    def process(self, data: bytes) -> bytes:
        pcm = data if self._decode is None else self._decode(data)
        return self._finish(pcm if self._resampler is None else self._resampler.process(pcm))

    def flush(self) -> bytes:
        return b"" if self._resampler is None else self._finish(self._resampler.flush())

    def _finish(self, pcm: bytes) -> bytes:
        return pcm if self._encode is None else self._encode(pcm)
