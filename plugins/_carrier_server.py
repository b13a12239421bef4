"""A WebSocket server that carriers fork the audio of their calls to, for the sources that take one.

The carrier connects, says ``start``, sends some milliseconds of base64 per message and track, and closes.  It
authenticates by nothing but the address it was given, so that address ends in a secret.  On the same port
``GET /healthz`` answers a load balancer.

What is answered before a connection becomes a WebSocket::

    path                    answer
    /healthz                200 and the number of open calls
    listen path + /secret   upgrade
    listen path + other     403, counted as refused-token
    any other               404

Where several workers serve the source (``mediaflow.fellows``), each call belongs to one of them.  A carrier that loses
a socket and comes back may be taken by another one, which learns so when ``start`` names the call: it passes the
connection on to the worker that has the call, message by message.  ``/healthz`` counts the calls of all.
"""

from __future__ import annotations

import hmac
import logging
import socket
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Annotated, Any, Protocol
from urllib.parse import unquote

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    Dtmf,
    Engine,
    Finding,
    Gap,
    Secret,
    Source,
    SourceError,
    WireAlarm,
    WireError,
    envelope,
    fellows,
    tls,
    websocket,
)
from mediaflow.dialects import Dialect
from mediaflow.envelope import Media
from mediaflow.fellows import Claim
from mediaflow.ordered_session import Order
from mediaflow.websocket import Address, Answer, Closed, WebSocket

from ._carrier_call import NORMAL, UNSUPPORTED, Call, Link
from ._carrier_greeting import greet
from ._health import Health, ask, unchecked
from ._talk_back import TalkBack

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long who has our port may take to say that it is one of us."""

AGAIN_S = 0.05
"""When a call is asked for again whose worker is about to be gone."""

AFTER_STOP_S = 1.0
"""How long a socket stays open behind ``stop``, for the carrier to close it."""


class Desk(Protocol):
    """What hears of calls beside their sockets."""

    async def serve(self, ready: Callable[[], bool], *, task_status: TaskStatus[None] = ...) -> None:
        """Answer until cancelled."""

    def hung_up(self, call_id: str) -> bool:
        """Return True for a call that is over, whatever its sockets say."""

    def opened(self, call_id: str, call: Call) -> None:
        """Take note of a call that has begun."""

    def closed(self, call_id: str, call: Call) -> None:
        """Take note of a call that is over."""


class CarrierSource(Source, frozen=True):
    """What the sources of carriers share: the options and the server."""

    emits = (Dtmf, Gap, WireAlarm)

    listens = divisible = True
    speaker = TalkBack()

    listen: Annotated[str, Meta(description="ws:// or wss:// address to take calls at")] = "ws://127.0.0.1:8080/media"
    secret: Annotated[Secret | None, Meta(description="last part of the path; required beyond loopback")] = None
    certificate: Annotated[str, Meta(description="file with the certificate chain (PEM), for wss and https")] = ""
    key: Annotated[str, Meta(description="file with the private key (PEM), for wss and https")] = ""
    byte_order: Annotated[Order, Meta(description="of audio/x-l16; auto finds out by listening")] = "auto"
    reconnect_s: Annotated[
        float, Meta(ge=0, description="how long a call waits for a new socket after a close without stop")
    ] = 3.0
    idle_s: Annotated[float, Meta(gt=0, description="a call ends when nothing has come for so long")] = 60.0

    def check(self) -> None:
        address = Address.parse(self.listen)
        if not self.secret and not address.is_loopback:
            raise ValueError(f"listen at {address.host} can be reached by others: it needs a secret")
        schemes = self.schemes(address)
        if schemes & {"wss", "https"}:
            if not (self.certificate and self.key):
                raise ValueError(f"{' and '.join(sorted(schemes))} need both certificate and key")
        elif self.certificate or self.key:
            raise ValueError("certificate and key are for wss:// and https://, but nothing here listens so")

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Say whether the address can be listened at, with that certificate, and who can reach it."""
        address = Address.parse(self.listen)
        place = f"{address.host}:{address.port}"
        try:
            listener = await anyio.create_tcp_listener(local_host=address.host, local_port=address.port)
            await listener.aclose()
            yield Finding(True, f"{place} is free to listen at")
        except OSError as error:
            # Over TLS it is not asked: what does not speak it would leave a handshake hanging.
            plain = address.scheme == "ws"
            here = address._replace(scheme="http", path="").url(address.port)
            health = await ask(here, unchecked(), PATIENCE_S) if plain else Health()
            if health.calls is not None:
                text = f"a pipeline takes calls at {place} already, {health.calls} at the moment"
                yield Finding(None, text, "change listen, unless it is this pipeline that runs")
            else:
                yield Finding(False, f"cannot listen at {place}: {error}", "stop what listens there, or change listen")
        if address.scheme == "wss":
            try:
                tls.server_context(self.certificate, self.key)
                yield Finding(True, "certificate and key belong together")
            except SourceError as error:
                yield Finding(False, str(error), "renew them, or mend their paths")
        if address.is_loopback:
            hint = "put a proxy that ends TLS in front, or listen at a public address with wss:// and a secret"
            yield Finding(None, f"{place} is this machine only: a carrier cannot reach it by itself", hint)

    def schemes(self, address: Address) -> set[str]:
        """Return the schemes of all addresses that the source listens at; raise ValueError if one is wrong."""
        return {address.scheme}

    def desk(self, path: str, engine: Engine, find: Callable[[str], Call | None]) -> Desk | None:
        """Return what answers the carrier's requests about calls, where it has a way for them beside the sockets."""
        return None

    @abstractmethod
    def dialects(self) -> tuple[Dialect, ...]:
        """Return the dialects that a call may speak; one alone is taken for granted, of several each start decides."""

    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        seen = set()
        for dialect in self.dialects():
            for format in dialect.formats:
                for tracks in (dialect.tracks,) if dialect.tracks else (("inbound",), ("outbound",), envelope.TRACKS):
                    if (format, tracks) not in seen:
                        seen.add((format, tracks))
                        yield format, tracks

    async def serve(self, engine: Engine) -> None:
        address = Address.parse(self.listen)
        context = tls.server_context(self.certificate, self.key) if address.scheme == "wss" else None
        failure: SourceError | None = None
        try:
            async with anyio.create_task_group() as calls:
                server = _Server(self, address, engine, calls)
                server.here.take = server.adopt
                if server.desk is not None:
                    await calls.start(server.desk.serve, lambda: server.ready or server.here.others("ready") > 0)
                with anyio.CancelScope(shield=True) as front:  # stopped by who minds the calls, behind them
                    calls.start_soon(server.mind, front)
                    await websocket.serve(
                        server.serve,
                        address,
                        admit=server.admit,
                        listening=server.listening,
                        tls=context,
                    )
        except* SourceError as group:
            failure = SourceError(str(group.exceptions[0]))
        except* OSError as group:
            failure = SourceError(f"cannot listen at {address.host}:{address.port}: {group.exceptions[0]}")
        if failure is not None:
            raise failure


class _Server:
    """The live calls of a source, and the sockets that lead to them."""

    def __init__(self, source: CarrierSource, address: Address, engine: Engine, tasks: TaskGroup) -> None:
        self.options, self.engine, self._tasks = source, engine, tasks
        self._address, self._path = address, address.path
        self._secret = source.secret.reveal().encode() if source.secret else None
        spoken = source.dialects()
        self._dialect = spoken[0] if len(spoken) == 1 else None  # None: each start shows it
        self._calls: dict[str, Call] = {}  # by the carrier's call id, the newest one
        self._ids: set[str] = set()  # of sessions that are not finished yet
        self.ready = False
        """True while sockets are taken."""
        self.here = fellows.here()
        self.desk = source.desk(address.path, engine, self._calls.get)

    def listening(self, port: int) -> None:
        """Let everybody know that sockets are taken at ``port``."""
        self.ready = True
        self.here.publish("ready", 1)
        self.engine.listening(self._address.url(port))

    def admit(self, target: str) -> Answer | None:
        """Decide on a request by its path; what stands behind a question mark is the carrier's affair."""
        path = target.partition("?")[0]
        if path == "/healthz":
            body = msgspec.json.encode({"status": "ok", "calls": self._open() + self.here.others("calls")})
            return Answer(200, body.decode(), "application/json")
        below = path.removeprefix(self._path)
        if not path.startswith(self._path) or below[:1] not in ("", "/"):
            return Answer(404, "not found\n")
        token = unquote(below[1:]).encode()
        if self._secret is None:
            return Answer(404, "not found\n") if token else None
        if hmac.compare_digest(token, self._secret):
            return None
        self.engine.count("refused-token")
        return Answer(403, "forbidden\n")

    def _open(self) -> int:
        return sum(call.open for call in self._calls.values())

    def adopt(self, line: socket.socket) -> None:
        """Serve a socket that another worker has taken, and that is of a call of ours."""
        self._tasks.start_soon(websocket.adopt, self.serve, line)

    async def mind(self, front: anyio.CancelScope) -> None:
        """Mind the calls that no task is at: look now and then whether they still are; cancelled, end them.

        One look at all, of which a call takes 0.15 µs, costs less than a timer for each.  ``front`` takes connections
        until then: a call says why it closes its socket before that would be closed.
        """
        try:
            while True:
                await anyio.sleep(self.options.idle_s / 16)
                now = time.monotonic()
                for call in list(self._calls.values()):
                    call.look(now)
        finally:
            for call in list(self._calls.values()):
                call.stop()
            front.cancel()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one socket: read it up to its start and lend it to its call."""
        said: list[str | bytes] = []
        link = await greet(socket, self._dialect, self.options.idle_s, self.engine, said)
        if link is None:
            return
        if self.here.alone:
            del said
            await self._lend(link)
            return
        while not await self._place(link, said):
            pass

    async def _place(self, link: Link, said: list[str | bytes]) -> bool:
        """See the socket through with its call, wherever that is; False if it was just about to go."""
        claim = self.here.claimed(link.start.call_id)
        async with claim as line:
            if line is None:
                said.clear()  # it is the call's now
                await self._lend(link, claim)
                return True
            try:
                async with websocket.adopted(line) as other:
                    self.engine.count("passed-on")
                    logger.info("call %s: another worker has it: its socket is passed on", link.start.call_id)
                    await websocket.pass_on(link.socket, said, other)
                return True
            except Closed:
                # Who had the call has died, or leaves it: a carrier that comes back is quicker than that news.
                await anyio.sleep(AGAIN_S)
                return False

    async def _lend(self, link: Link, claim: Claim | None = None) -> None:
        """Give a socket to its call, which is begun in this task if there is none; wait for one that is not carried."""
        try:
            call = self._assign(link, claim)
            if call is not None:
                await call.attend()
        finally:
            if not link.socket.carried:
                with anyio.CancelScope(shield=True):
                    await link.socket.wait_gone()

    # What the calls want of their house.

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start_soon(work)

    def put_away(self, socket: WebSocket, code: int, reason: str, stopped: bool) -> None:
        socket.release()
        if stopped:
            self._tasks.start_soon(self._after_stop, socket)
        else:
            socket.close_nowait(code, reason)

    def shut(self) -> None:
        if not self.here.alone:  # counting them takes time where many end together
            self.here.publish("calls", self._open())

    def over(self, call: Call) -> None:
        self._ids.discard(call.id)
        if call.claim is not None:
            call.claim.release()
        if self._calls.get(call.call_id) is call:
            del self._calls[call.call_id]
            if self.desk is not None:
                self.desk.closed(call.call_id, call)

    def _assign(self, link: Link, claim: Claim | None) -> Call | None:
        """Lend a socket to its call, or close it; return a call that has only just begun."""
        call_id = link.start.call_id
        call = self._calls.get(call_id)
        if call is not None and call.stopped:
            # Carriers are known to connect once more behind the end of a call; that must not become a call.
            self.engine.count("start-after-stop")
            link.socket.close_nowait(NORMAL, "the call has ended")
        elif call is not None and call.open:
            if link.start.format == call.format:
                call.lend(link)
            else:
                self.engine.count("changed-format")
                logger.error("call %s: came back as %s after %s: refused", call.id, link.start.format, call.format)
                link.socket.close_nowait(UNSUPPORTED, "the format has changed")
        elif self.desk is not None and self.desk.hung_up(call_id):
            self.engine.count("start-after-hangup")
            link.socket.close_nowait(NORMAL, "the call has ended")
        else:
            # The session that gave up waiting may still be finishing, under the id of the call.
            id, number = call_id, 2
            while id in self._ids:
                id, number = f"{call_id}.{number}", number + 1
            call = Call(id, link.start, self, claim)
            call.lend(link)
            if claim is not None:
                claim.keep()
            self._calls[call_id] = call
            self._ids.add(id)
            self.shut()
            if self.desk is not None:
                self.desk.opened(call_id, call)
            return call
        return None

    async def _after_stop(self, socket: WebSocket) -> None:
        """Give the carrier time to close a socket that it has said ``stop`` on, and then close it."""
        try:
            with anyio.move_on_after(AFTER_STOP_S):
                while True:
                    if _is_media(await socket.recv()):
                        self.engine.count("media-after-stop")
        except Closed:
            pass
        finally:
            socket.close_nowait()


def _is_media(text: str | bytes) -> bool:
    try:
        return isinstance(envelope.parse(text), Media)
    except WireError:
        return False
