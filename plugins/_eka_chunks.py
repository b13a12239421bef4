"""Uploads to ``eka_ingest``: chunks of audio that come as requests and leave as one stream, in their order.

A chunk is named ``{base}_{n}.wav``.  Clients count from 0 or from 1 and may send several at once, so one that comes too
early is held until those before it are there, up to ``MAX_HELD`` of them.  A chunk that comes again is answered alike
and not used twice.  The answer to a chunk comes when the pipeline takes it, or when it is held; where it
could not be stored after all, the result of the session is ``failed``.
"""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Callable

import anyio

from mediaflow import AudioFormat, Engine, FormatError, SessionError, Stream

from . import _eka_sessions as eka_sessions

logger = logging.getLogger(__name__)

MAX_HELD = 8

MAX_CHUNK_BYTES = 10_000_000
"""What the service takes, as it documents it."""

RATES = (16000, 8000)


class Refused(Exception):
    """A chunk cannot be taken: HTTP status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


def read_wav(data: bytes) -> tuple[AudioFormat, bytes]:
    """Return format and samples of a WAV file; raise ``Refused`` unless it is mono 16-bit PCM at 8000 or 16000 Hz."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            shape = file.getnchannels(), file.getsampwidth(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError):
        raise Refused(400, "invalid_audio_format", "The chunk is not a WAV file of PCM.") from None
    if shape[:2] != (1, 2) or shape[2] not in RATES or len(pcm) % 2:
        raise Refused(400, "invalid_audio_format", "The chunk has to be mono, 16 bits, 8000 or 16000 Hz.")
    return AudioFormat("s16le", shape[2]), pcm


class Upload:
    """The chunks of one session on their way into the pipeline."""

    def __init__(
        self, session: eka_sessions.Session, engine: Engine, flushed: Callable[[], None], format: AudioFormat
    ) -> None:
        self._session, self._engine, self._flushed, self._format = session, engine, flushed, format
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)
        self._held: dict[int, bytes] = {}
        self._next: int | None = None
        self._turn = anyio.Lock()

    async def run(self) -> None:
        """Carry what is put until ``close``, or until nothing has come for the lifetime of a session."""
        session = self._session
        stream = Stream(session.id, self._format, ("inbound",), session.metadata)
        try:
            async with self._engine.open(stream) as live:
                while (pcm := await self._chunk()) is not None:
                    if not live.push(pcm):
                        await live.ready()
                    session.samples += len(pcm) // 2
        except (FormatError, SessionError):
            session.failed = True
            self._engine.count("chunks-not-stored")
        except Exception as error:  # the border of this call: no other may suffer from it
            session.failed = True
            logger.error("an upload broke: %s", type(error).__name__)
        finally:
            self._receive.close()
            self._send.close()
            self._flushed()

    async def _chunk(self) -> bytes | None:
        with anyio.move_on_after(eka_sessions.LIFETIME_S):
            try:
                return await self._receive.receive()
            except anyio.EndOfStream:
                pass
        return None

    async def put(self, number: int, name: str, format: AudioFormat, pcm: bytes) -> None:
        """Take chunk ``number``; raise ``Refused`` if that cannot be."""
        async with self._turn:
            if number in self._session.chunks:
                return
            if format != self._format:
                raise Refused(400, "invalid_audio_format", "The rate is not that of the chunks before.")
            expected = self._next if self._next is not None else min(number, 1)
            if number < expected:
                raise Refused(400, "invalid_request", "The chunk comes after those behind it.")
            if number > expected:
                if len(self._held) >= MAX_HELD:
                    raise Refused(429, "rate_limit_exceeded", "Too many chunks wait for one before them.")
                self._held[number] = pcm
            else:
                await self._pass(number, pcm)
            self._session.chunks[number] = name
            # One is forgotten only when it is through: the request that brings the next may be cut short.
            while self._next is not None and (held := self._held.get(self._next)) is not None:
                await self._pass(self._next, held)
                del self._held[self._next - 1]

    async def close(self) -> None:
        """Say that nothing more will come; what is held goes on without what it waited for."""
        async with self._turn:
            for number in sorted(self._held):
                self._session.missing += range(self._next or 0, number)
                await self._pass(number, self._held[number])
                del self._held[number]
            self._send.close()

    async def _pass(self, number: int, pcm: bytes) -> None:
        try:
            await self._send.send(pcm)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Refused(500, "internal_error", "The audio could not be stored.") from None
        self._next = number + 1
