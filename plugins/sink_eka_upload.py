"""Audio to EkaScribe in chunks over HTTP, where a WebSocket cannot be had or does not last.

Every chunk is a WAV file of its own, ``chunk_0.wav``, ``chunk_1.wav`` and so on.  The answer to it is the receipt;
where there is none it is sent again under the same name, so a line that comes and goes costs time and no audio.  A
stream of EkaScribe, in contrast, cannot be taken up again.  The price is that nothing is understood before a chunk is
full.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import anyio
from anyio.abc import TaskGroup
from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Cut, Item, Register, SinkError, eka, hookimpl, wav

from ._eka_session import EkaSink, EkaWriter

AGAIN_S = 1.0
"""The pause after a round of tries that found nobody."""


class EkaUpload(EkaSink, frozen=True):
    """Upload a call to EkaScribe in WAV chunks and fetch the clinical note.

    Takes one track of s16le at 16000 or 8000 Hz.  A chunk ends where `speech_chunks` says so, and at ``chunk_s`` at the
    latest.  When the call is over the session is ended, and its result is written to ``results``.
    """

    upload_type: ClassVar[Literal["stream", "chunked"]] = "chunked"

    # As long as a chunk is tried again, and a little more: what is said meanwhile has to wait somewhere.
    queue_ms: Annotated[int, Meta(ge=20, le=3_600_000, description="audio that may wait for the sink, in ms")] = 360_000
    chunk_s: Annotated[
        int, Meta(ge=1, le=eka.MAX_CHUNK_S, description="audio per chunk at most, in s; the service advises 20")
    ] = eka.MAX_CHUNK_S
    retry_s: Annotated[
        float, Meta(ge=0, description="how long a chunk is tried again while the service cannot be reached")
    ] = 300.0

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        self.require(format, tracks, rates=(16000, 8000))

    async def writer(
        self, tasks: TaskGroup | None, client: eka.EkaClient, session: eka.Session, format: AudioFormat
    ) -> EkaWriter:
        return _Writer(self, client, session, format)


class _Writer(EkaWriter):
    def __init__(
        self,
        sink: EkaUpload,
        client: eka.EkaClient,
        session: eka.Session,
        format: AudioFormat,
    ) -> None:
        super().__init__(format)
        self._session_id = session.id
        self._client, self._retry_s = client, sink.retry_s
        self._size = sink.chunk_s * format.sample_rate * format.sample_bytes
        self._pending = bytearray()
        self.put = self._gather

    def write_nowait(self, item: Item) -> bool:
        if isinstance(item, AudioFrame):
            return self.put(item.data)
        return not isinstance(item, Cut) or not self._pending

    def _gather(self, pcm: bytes) -> bool:
        if len(self._pending) + len(pcm) >= self._size:
            return False
        self._pending += pcm
        return True

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            self._pending += item.data
            while len(self._pending) >= self._size:
                await self._upload(self._size)
        elif isinstance(item, Cut) and self._pending:
            await self._upload(len(self._pending))

    async def finish(self) -> None:
        if self._pending:
            await self._upload(len(self._pending))

    def ended(self, ended: eka.Ended) -> None:
        received = ended.audio_files_received
        if received is not None and received < self.files_sent:
            text = f"session {self._session_id}: the service has {received} of {self.files_sent} chunks"
            self.doubt = SinkError("chunks-missing", text)

    async def _upload(self, size: int) -> None:
        samples = size // self._format.sample_bytes
        data = wav.wav_header(self._format, samples) + self._pending[:size]
        give_up = anyio.current_time() + self._retry_s
        while True:
            try:
                await self._client.upload(self._session_id, f"chunk_{self.files_sent}.wav", data)
                break
            except eka.EkaError as error:
                if error.code != "unreachable" or anyio.current_time() >= give_up:
                    raise
            await anyio.sleep(AGAIN_S)
        del self._pending[:size]
        self.files_sent += 1
        self._delivered += samples


@hookimpl
def register_components(register: Register) -> None:
    register("eka_upload", EkaUpload)
