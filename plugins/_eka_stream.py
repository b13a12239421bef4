"""What ``eka_raw`` and ``eka_json`` share: the stream of a session as a sink.

``delivered`` follows the pongs: the peer answers a ping once it has read what came before it, so the pong says that it
holds this much.  Whoever asks for ``delivered``, as the ledger does now and then, hears what is known and causes the
next ping, so that a stream needs neither a task nor a timer for it.  The ping leaves with the next audio, or when one
asks again.  At the end the close by the service is the receipt for the rest; where it does not come in
``close_timeout_s`` the result is fetched all the same, and the sink says ``not-closed``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal

from anyio.abc import TaskGroup
from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Item, SinkError, eka, websocket

from ._eka_session import EkaSink, EkaWriter

IN_DOUBT_S = 10.0
"""How much audio may have left and not be confirmed: twice what is while all is well and the ledger asks.

Of a service that does not answer any more the kernel would take megabytes, a minute and more, which would all be in
doubt.  What waits in front of the sink instead is for the next session to have."""


class EkaStream(EkaSink, frozen=True):
    """The options of both sinks."""

    upload_type: ClassVar[Literal["stream", "chunked"]] = "stream"

    in_json: ClassVar[bool]
    """Whether the audio goes in JSON, with its rate, or as it is."""

    message_ms: Annotated[
        int, Meta(ge=20, le=1000, description="least audio per message, in ms; the last is shorter")
    ] = 100
    trailing_silence_ms: Annotated[
        int, Meta(ge=0, le=5000, description="silence sent behind the last sample, in ms; it is not booked as audio")
    ] = 0
    close_timeout_s: Annotated[
        float, Meta(ge=30, description="how long the service may take to store the last audio and close")
    ] = eka.stream.CLOSE_S

    @property
    def resident(self) -> bool:  # type: ignore[override]
        """Only where a task reads the connection: the block holds the group that it is in."""
        return websocket.reads_in_tasks()

    async def writer(
        self, tasks: TaskGroup | None, client: eka.EkaClient, session: eka.Session, format: AudioFormat
    ) -> EkaWriter:
        stream = await eka.stream.open_in(tasks, session, format.sample_rate if self.in_json else None)
        return _Writer(self, stream, format)


class _Writer(EkaWriter):
    __slots__ = ("_mark", "_marked", "_packer", "_sink", "_stream")

    in_doubt_s = IN_DOUBT_S

    def __init__(self, sink: EkaStream, stream: eka.stream.AudioStream, format: AudioFormat) -> None:
        super().__init__(format)
        self._sink, self._stream = sink, stream
        size = format.sample_rate * sink.message_ms // 1000 * format.sample_bytes
        self._packer = eka.Packer(stream.send_nowait, size)
        self.put = self._packer.put
        self._mark = self._marked = 0  # the question how far the service has read, and how much was sent by then

    @property
    def sent(self) -> int:
        return self._packer.sent // self._format.sample_bytes

    @property
    def delivered(self) -> int:
        if self._delivered < self._marked:
            if self._stream.reached >= self._mark:
                self._delivered = self._marked
            else:
                self._stream.press()  # there was no audio that could have taken the ping along
        if self._delivered == self._marked < self.sent and not self._stream.finished:
            self._mark, self._marked = self._stream.mark(), self.sent
        return self._delivered

    def write_nowait(self, item: Item) -> bool:
        return not isinstance(item, AudioFrame) or self.put(item.data)

    def rest(self) -> bytes:
        return self._packer.rest()

    async def sure(self) -> None:
        sent = self.sent
        with self._told_how_far():
            await self._stream.confirmed()
        self._delivered = self._marked = max(self._delivered, sent)

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            self._packer.keep(item.data)
            while self._packer.waiting >= self._packer.size:
                await self._send_audio()

    async def finish(self) -> None:
        try:
            await self._finish()
        except BaseException:
            await self.abort()
            raise

    async def abort(self) -> None:
        await self._stream.abort()

    async def _finish(self) -> None:
        """Send the rest and wait until all is stored; raise ``SinkError`` if the stream is lost."""
        while self._packer.waiting:
            await self._send_audio()
        silence = self._format.silence(self._format.sample_rate * self._sink.trailing_silence_ms // 1000)
        with self._told_how_far():
            for start in range(0, len(silence), self._packer.size):
                await self._stream.send(silence[start : start + self._packer.size])
            try:
                await self._stream.finish(self._sink.close_timeout_s)
            except eka.EkaError as error:
                if error.code != "not-closed":
                    raise
                self.doubt = error
            else:
                self._delivered = self.sent

    async def _send_audio(self) -> None:
        pcm = self._packer.head()
        with self._told_how_far():
            await self._stream.send(pcm)
        self._packer.sent_head(len(pcm))

    @contextmanager
    def _told_how_far(self) -> Iterator[None]:
        try:
            yield
        except eka.EkaError as error:
            if error.code != "stream-lost":
                raise
            text = f"{error}: of {self.sent} samples sent, {self.delivered} are confirmed"
            raise SinkError(error.code, text) from None
