"""What every sink to EkaScribe shares: a session from its creation to its result, however the audio goes there.

The order is the service's, and anything earlier loses words::

    create session → audio … → all of it is stored → end session → poll → result
                                                      └ lists what is stored at this moment

How the ways out differ::

    left how                      wait for the store     end           result    raises
    normally                      yes                    yes           yes       —
    … it is not sure what is      all of it              yes           yes       what is in doubt
      stored
    … the way there broke         —                      quickly       no        why
    … and some had come through   —                      yes           yes       why
    … and the call goes on        —                      yes           yes       what it failed at
    by an exception               ``ABORT_S``            quickly       no        that exception

So audio that arrived is processed even when a call is cut off.  A call that is longer than a session may be is carried
over several of them (``_eka_relay``), each of which goes this way by itself, and so is one whose stream breaks.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup
from msgspec import Meta

from mediaflow import AudioFormat, Finding, FormatError, PathTemplate, Secret, Sink, SinkError, Stream, Writer, eka
from mediaflow.eka import webhook
from mediaflow.websocket import Address

from ._eka_relay import LOST, Part, PartWriter, Relay

logger = logging.getLogger(__name__)

ABORT_S = 5.0
"""How long each step of an end by exception may take."""

CLOCK_S, WRONG_S = 3.0, 60.0
"""How far clocks may differ: less is the time that an answer takes, more is a third of what signatures bear."""

DISCOVERY_S = 2.0
"""How long a call waits to hear what the service can do; it goes on without."""


class EkaWriter(PartWriter):
    """The running part of every sink here."""

    __slots__ = ("_delivered", "_format", "doubt", "files_sent")

    def __init__(self, format: AudioFormat) -> None:
        self.files_sent = 0
        """How many chunks were uploaded; none on a stream."""
        self.doubt: SinkError | None = None
        """Why it is not sure that everything is stored, though all was sent."""
        self._format = format
        self._delivered = 0

    @property
    def delivered(self) -> int:
        return self._delivered

    async def finish(self) -> None:
        """Send the rest and return when all of it is stored, or is in ``doubt``."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Give the way up, quickly and whatever cancels."""

    def ended(self, ended: eka.Ended) -> None:
        """Compare what the service says at the end with what was sent."""


class EkaSink(Sink, frozen=True):
    """The options of every sink here."""

    upload_type: ClassVar[Literal["stream", "chunked"]]

    resident: ClassVar[bool] = False

    base_url: Annotated[str, Meta(description="address of the service; https beyond loopback")] = eka.BASE_URL
    token: Annotated[Secret, Meta(description="long-lived token of the service, instead of a client id")] = Secret("")
    client_id: Annotated[str, Meta(description="client id to log in with")] = ""
    client_secret: Annotated[Secret, Meta(description="secret of the client id")] = Secret("")
    sharing_key: Annotated[Secret, Meta(description="lets the client id into the workspace of who made it")] = Secret(
        ""
    )
    api_key: Annotated[Secret, Meta(description="the same, by its name in the OpenAPI description")] = Secret("")
    jwt_payload: Annotated[
        Secret, Meta(description="JSON with b-id and iss that a service of one's own takes instead of a token")
    ] = Secret("")
    model: Annotated[str, Meta(description="pro takes an hour and ten languages, lite ten minutes, en and hi")] = "pro"
    session_mode: Annotated[str, Meta(description="consultation or dictation")] = "consultation"
    templates: Annotated[tuple[str, ...], Meta(max_length=2, description="ids of the documents to be made")] = (
        "clinical_notes_template",
    )
    language_hint: Annotated[tuple[str, ...], Meta(description="languages spoken, or auto_detect")] = ("auto_detect",)
    poll_s: Annotated[float, Meta(gt=0, description="least time between two questions for the result")] = 1.0
    result_timeout_s: Annotated[float, Meta(gt=0, description="how long the service may take for the result")] = 600.0
    results: Annotated[PathTemplate, Meta(description="file that the result is written to")] = PathTemplate(
        "mediaflow-data/results/{call_id}/{session_id}.json"
    )

    def check(self) -> None:
        parts = urlsplit(self.base_url)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts))):
            raise ValueError(f"base_url {self.base_url!r} is not an https:// address; only loopback may do without TLS")
        if not self.credentials():
            raise ValueError(
                "give token (EKA_TOKEN), or client_id and client_secret (EKA_CLIENT_ID, EKA_CLIENT_SECRET), or "
                "jwt_payload"
            )

    def credentials(self) -> eka.Credentials:
        """Return what the service is shown; raise ValueError if options contradict each other."""
        return eka.Credentials(
            self.token, self.client_id, self.client_secret, self.sharing_key, self.api_key, self.jwt_payload
        )

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Ask the service whether it is there, and whether it knows these credentials and templates."""
        async with eka.connect(self.base_url, self.credentials()) as client:
            try:
                await client.discover()
            except SinkError as error:
                yield Finding(False, f"{error.code}: {error}", "look at base_url and at the network")
                return
            yield Finding(True, f"the service answers at {urlsplit(self.base_url).netloc}")
            with suppress(SinkError):
                ahead = await client.clock_ahead()
                if ahead is not None:
                    yield _clock(ahead)
            try:
                known = {template.id for template in await client.templates()}
            except SinkError as error:
                hint = "look at EKA_TOKEN, or EKA_CLIENT_ID and EKA_CLIENT_SECRET"
                yield Finding(False, f"{error.code}: {error}", hint)
                return
            yield Finding(True, "the service takes the credentials")
        unknown = [template for template in self.templates if template not in known]
        if unknown:
            text = f"the service does not list the template {' and '.join(unknown)}"
            yield Finding(None, text, f"it lists {', '.join(sorted(known)) or 'none'}")

    def require(self, format: AudioFormat, tracks: tuple[str, ...], rates: Sequence[int]) -> None:
        """Raise ``FormatError``, with the step that is missing, unless this is mono 16-bit PCM at one of ``rates``."""
        if format.encoding != "s16le":
            raise FormatError(f"takes s16le, not {format.encoding}", f"add `- use: {format.encoding}_decode` before it")
        if len(tracks) > 1:
            raise FormatError(f"takes one track, not {' and '.join(tracks)}", "add `- use: mix` before it")
        if format.channels > 1:
            raise FormatError("takes mono, not stereo", "use `- use: mix` instead of `- use: stereo`")
        if format.sample_rate not in rates:
            raise FormatError(
                f"takes {' or '.join(map(str, rates))} Hz, not {format.sample_rate}",
                f"add `- use: resample` with `rate: {rates[0]}` before it",
            )

    @abstractmethod
    async def writer(
        self, tasks: TaskGroup | None, client: eka.EkaClient, session: eka.Session, format: AudioFormat
    ) -> EkaWriter:
        """Open the way for the audio of ``session``; ``finish`` or ``abort`` ends it, in whatever task.

        A connection is read in ``tasks`` where that takes a task; it is None for a sink that is not ``resident``.
        """

    def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AbstractAsyncContextManager[Writer]:
        self.check_format(format, tracks)
        call = _Call(self, stream, format)
        return _with_tasks(call) if self.resident else call


class _Call:
    """The block of a call, which may be left in another task.  A class: one that is a generator takes a kilobyte."""

    __slots__ = ("client", "format", "relay", "sink", "stream", "tasks")

    def __init__(self, sink: EkaSink, stream: Stream, format: AudioFormat) -> None:
        self.sink, self.stream, self.format = sink, stream, format
        self.client = eka.connect(sink.base_url, sink.credentials())
        self.tasks: TaskGroup | None = None
        self.relay: Relay

    async def __aenter__(self) -> Relay:
        await self.client.__aenter__()
        try:
            self.relay = Relay(self, self.format, await self._longest())
            await self.relay.open()
        except BaseException:
            await self.client.__aexit__()
            raise
        return self.relay

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            await self.relay.leave(error)
        finally:
            await self.client.__aexit__()

    def part(self, number: int, before: str) -> Part:
        """Return the session with that number."""
        return _Part(self, number, before)

    async def _longest(self) -> float | None:
        """Ask how many seconds a session may last; None where the service does not say."""
        with anyio.move_on_after(DISCOVERY_S), suppress(eka.EkaError):
            return (await self.client.discover()).longest(self.sink.model)
        return None


@asynccontextmanager
async def _with_tasks(call: _Call) -> AsyncIterator[Writer]:
    """Hold the group for tasks that read connections."""
    failure: Exception | None = None
    async with anyio.create_task_group() as call.tasks:
        try:
            async with call as relay:
                yield relay
        except Exception as error:  # raised again where the group does not wrap it
            failure = error
    if failure is not None:
        raise failure


class _Part(Part):
    """One session of a call, from its creation to its result."""

    __slots__ = ("_call",)

    writer: EkaWriter

    def __init__(self, call: _Call, number: int, before: str) -> None:
        super().__init__(number, before)
        self._call = call

    async def open(self) -> None:
        call = self._call
        session = await call.client.create(self._request())
        self.session_id = session.id
        self.status = "streaming"
        logger.info("call %s: EkaScribe session created", call.stream.id)
        try:
            self.writer = await call.sink.writer(call.tasks, call.client, session, call.format)
        except BaseException:
            await self._end_quickly(0)
            raise

    async def finish(self) -> None:
        async with self._call.client:  # beside a call this goes on when the block of the call is left
            await self._finish()

    async def _finish(self) -> None:
        try:
            await self.writer.finish()
        except BaseException as error:
            if isinstance(error, SinkError) and error.code == LOST and self.writer.delivered:
                with suppress(SinkError):  # the one that is raised already says more
                    await self._fetch()
            else:
                await self._end_quickly(self.writer.files_sent)
            raise
        await self._fetch()

    async def salvage(self) -> None:
        async with self._call.client:
            await self.writer.abort()
            await self._fetch()

    async def _fetch(self) -> None:
        """End the session, of which all is stored that will be, and keep its result."""
        writer, sink, client = self.writer, self._call.sink, self._call.client
        writer.ended(await client.end(self.session_id, writer.files_sent))
        self.status = "processing"
        state = await client.result(
            self.session_id, poll_s=sink.poll_s, timeout_s=sink.result_timeout_s, files_sent=writer.files_sent
        )
        await self._keep(state)
        if writer.doubt is not None:
            raise writer.doubt
        if state.status == "failed":
            raise SinkError("result-failed", f"session {self.session_id}: the service could not process the audio")

    async def abort(self) -> None:
        async with self._call.client:
            await self.writer.abort()
            await self._end_quickly(self.writer.files_sent)

    async def _end_quickly(self, files_sent: int) -> None:
        with anyio.move_on_after(ABORT_S, shield=True), suppress(SinkError):
            await self._call.client.end(self.session_id, files_sent)

    def _request(self) -> eka.SessionRequest:
        sink = self._call.sink
        continues = {"part": self.number, "continues": self.before} if self.before else {}
        return eka.SessionRequest(
            model=sink.model,
            session_mode=sink.session_mode,
            templates=sink.templates,
            language_hint=sink.language_hint,
            upload_type=sink.upload_type,
            additional_data={"call_id": self._call.stream.id, **continues},
        )

    async def _keep(self, state: eka.SessionState) -> None:
        """Write the result to a file of its own."""
        results, stream = self._call.sink.results, self._call.stream
        path = results.fill({**stream.metadata, "call_id": stream.id, "session_id": self.session_id})
        if self.before and "session_id" not in results.names:
            path = path.with_stem(f"{path.stem}-{self.number}")
        try:
            await anyio.to_thread.run_sync(_write_private, path, msgspec.json.encode(state.body))
        except OSError as error:
            raise SinkError("result-unwritten", f"session {self.session_id}: the result: {error.strerror}") from None
        self.status = "partial" if state.http_status == 206 else state.status
        self.facts = {**self.facts, "result": str(path)}
        if errors := state.body.get("processing_errors"):
            self.facts["processing_errors"] = errors


def _clock(ahead: float) -> Finding:
    if abs(ahead) <= CLOCK_S:
        return Finding(True, f"the clock agrees with the service's to within {CLOCK_S:g} s")
    text = f"the clock of this machine is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the service's"
    hint = f"set it by NTP: webhooks are refused from {webhook.TOLERANCE_S:g} s on, and times in records are wrong"
    return Finding(False if abs(ahead) > WRONG_S else None, text, hint)


def is_loopback(parts: SplitResult) -> bool:
    """Say whether a URL leads to this machine."""
    return Address(parts.scheme, parts.hostname or "", 0, "").is_loopback


def _write_private(path: Path, data: bytes) -> None:
    """Write a clinical document: for its owner's eyes, and whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
