"""What the carrier asks and tells of calls by HTTP, and what that does to calls that are live."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import signal
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import anyio
import anyio.to_thread
import pytest
from cli_kit import running

from mediaflow import AudioFormat, Secret, SourceError, config, envelope, plugins, websocket
from mediaflow.delivery import ledger
from mediaflow.runner import Runner
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow.websocket import WebSocket
from mediaflow_plugins import _vobiz_control
from mediaflow_plugins._vobiz_control import EARLY_CALLS, EARLY_EACH
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio

MULAW = AudioFormat("mulaw", 8000)
PUBLIC = "https://calls.example.org"
EPOCH = 1_778_597_597_091
FRAME = bytes(range(160))


@pytest.fixture
def anyio_backend() -> str:
    """The control server runs on asyncio only."""
    return "asyncio"


class Carrier:
    """Plays Vobiz: connects sockets, and asks and tells by HTTP as the standard library does."""

    def __init__(self, engine: RecordingEngine, url: str, port: int) -> None:
        self.engine, self.url, self.port = engine, url, port

    @asynccontextmanager
    async def call(self, call: str = "call-1", stream: str = "stream-1") -> AsyncIterator[WebSocket]:
        """Connect, say start and send a frame."""
        async with websocket.connect(self.url) as ws:
            await ws.send(envelope.build_start(call, stream, "account", MULAW, ("inbound",)))
            await self.media(ws, 0)
            yield ws

    async def media(self, ws: WebSocket, number: int) -> None:
        """Send a frame."""
        await ws.send(envelope.build_media("stream-1", number, "inbound", number, EPOCH + 20 * number, FRAME))

    async def ask(
        self, path: str, fields: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """Post a form and return status, content type and body."""

        def ask() -> tuple[int, str, bytes]:
            body = urlencode(fields or {}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers or {})
            try:
                with urllib.request.urlopen(request, timeout=10) as reply:
                    return reply.status, reply.headers["Content-Type"], reply.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, "", b""

        return await anyio.to_thread.run_sync(ask)

    async def tell(self, event: str, path: str = "/status", **fields: str) -> int:
        """Send a callback of the call."""
        sent = {"CallUUID": "call-1", "StreamID": "stream-1", "Timestamp": "2025-11-06 09:58:40", "Event": event}
        return (await self.ask(path, {key: value for key, value in (sent | fields).items() if value}))[0]

    async def has(self, frames: int) -> RecordedSession:
        """Wait until the only session has so many frames."""
        await self.engine.until(
            lambda: (
                bool(self.engine.sessions)
                and len(self.engine.sessions[0].audio.get("inbound", b"")) == frames * len(FRAME)
            )
        )
        return self.engine.sessions[0]


@contextmanager
def _port() -> Iterator[list[int]]:
    """Learn from the log, as people do, where the control server answers."""
    ports: list[int] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "control answers at %s":
                ports.append(int(record.getMessage().rpartition(":")[2]))

    log, reader = logging.getLogger("mediaflow_plugins._vobiz_control"), Reader()
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(reader)
    try:
        yield ports
    finally:
        log.removeHandler(reader)
        log.setLevel(before)


@asynccontextmanager
async def _serving(state: Path | None = None, replies: bool = False, **options: Any) -> AsyncIterator[Carrier]:
    """Run the source with its control server."""
    defaults: dict[str, Any] = {
        "listen": "ws://127.0.0.1:0/vobiz",
        "control": "http://127.0.0.1:0",
        "public_url": PUBLIC,
        "reconnect_s": 3600.0,
        "idle_s": 3600.0,
    }
    source = Vobiz(**defaults | options)
    source.check()
    engine = RecordingEngine(state)
    engine.replies = replies
    with anyio.fail_after(20), _port() as port:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            url = await engine.url()
            yield Carrier(engine, url, *port)
            tasks.cancel_scope.cancel()


async def _one(carrier: Carrier) -> RecordedSession:
    (session,) = await carrier.engine.ended()
    return session


# --- The answer


async def test_the_answer_leads_the_call_here() -> None:
    """The XML names the public address of the socket with its secret and that of the callbacks, and dials."""
    async with _serving(secret=Secret("s3/cret"), dial="+911140001000", caller_id="+911140002000") as carrier:
        status, content_type, body = await carrier.ask("/answer/s3%2Fcret", {"CallUUID": "call-1"})
        assert (status, content_type) == (200, "application/xml")
        stream, dial = ET.fromstring(body)
        assert stream.text == "wss://calls.example.org/vobiz/s3%2Fcret"
        assert stream.get("statusCallbackUrl") == "https://calls.example.org/status/s3%2Fcret"
        assert (stream.get("audioTrack"), stream.get("maxRetries")) == ("both", "3")
        assert (dial.get("callerId"), dial[0].text) == ("+911140002000", "+911140001000")


async def test_the_answer_without_somebody_to_dial() -> None:
    """The call waits, and where no reconnect is waited for none is asked of the carrier."""
    async with _serving(reconnect_s=0.0) as carrier:
        stream, wait = ET.fromstring((await carrier.ask("/answer"))[2])
        assert stream.text == "wss://calls.example.org/vobiz"
        assert (stream.get("maxRetries"), wait.tag) == ("0", "Wait")


async def test_the_answer_to_a_call_that_is_spoken_to() -> None:
    """With a reply the stream goes both ways, holds the call, brings the caller's track, and ends it when it ends."""
    async with _serving(replies=True) as carrier:
        stream, hangup = ET.fromstring((await carrier.ask("/answer"))[2])
        assert (stream.get("bidirectional"), stream.get("audioTrack")) == ("true", "inbound")
        assert (stream.get("keepCallAlive"), hangup.tag) == ("true", "Hangup")


async def test_a_call_that_is_spoken_to_and_not_waited_for() -> None:
    """Where no reconnect is waited for, the call is not kept alive for one."""
    async with _serving(replies=True, reconnect_s=0.0) as carrier:
        stream, _ = ET.fromstring((await carrier.ask("/answer"))[2])
        assert (stream.get("keepCallAlive"), stream.get("maxRetries")) == (None, "0")


# --- Who may ask


async def test_without_the_secret_nobody_is_answered() -> None:
    """The paths end in the secret, as the socket's does; else it is 403, and counted."""
    async with _serving(secret=Secret("s3cret")) as carrier:
        for path in ("/answer", "/answer/other", "/status", "/hangup/s3cret/x"):
            assert (await carrier.ask(path, {"Event": "Hangup", "CallUUID": "c"}))[0] == 403
        assert await carrier.tell("StartStream", "/status/s3cret") == 200
        assert carrier.engine.counts == {"refused-token": 4}


def _signed(path: str, nonce: str) -> dict[str, str]:
    digest = hmac.new(b"t0ken", f"{PUBLIC}{path}.{nonce}".encode(), hashlib.sha256).digest()
    return {"X-Vobiz-Signature-V3": base64.b64encode(digest).decode(), "X-Vobiz-Signature-V3-Nonce": nonce}


async def test_with_a_token_requests_are_signed() -> None:
    """A signed request passes once; an unsigned, a wrongly signed and a repeated one do not, and the log says why."""
    fields = {"Event": "StartStream", "CallUUID": "call-1", "Timestamp": "1"}
    async with _serving(auth_token=Secret("t0ken"), secret=Secret("s3cret")) as carrier:
        stream = ET.fromstring((await carrier.ask("/answer", {}, _signed("/answer", "1")))[2])[0]
        assert stream.get("statusCallbackUrl") == f"{PUBLIC}/status"
        assert (await carrier.ask("/status", fields, _signed("/status", "2")))[0] == 200
        assert (await carrier.ask("/status", fields, _signed("/status", "2")))[0] == 403
        assert (await carrier.ask("/status", fields, _signed("/answer", "3")))[0] == 403
        assert (await carrier.ask("/status", fields))[0] == 403
        assert (await carrier.ask("/answer/s3cret", {}))[0] == 403
        assert carrier.engine.counts == {
            "replayed-nonce": 1,
            "bad-signature": 1,
            "no-signature": 1,
            "refused-token": 1,
        }


async def test_a_request_that_was_copied_is_refused_after_a_restart(tmp_path: Path) -> None:
    """What an earlier process has answered is known; one that it has refused may come again."""
    fields = {"Event": "StartStream", "CallUUID": "call-1", "Timestamp": "1"}
    for signed, refused in (("1", "2"), ("3", "1")):
        async with _serving(tmp_path, auth_token=Secret("t0ken")) as carrier:
            assert (await carrier.ask("/status", fields, _signed("/status", signed)))[0] == 200
            status = 400 if refused == "2" else 403
            assert (await carrier.ask("/status", {"Event": "StartStream"}, _signed("/status", refused)))[0] == status
    async with _serving(tmp_path, auth_token=Secret("t0ken")) as carrier:
        assert (await carrier.ask("/status", fields, _signed("/status", "2")))[0] == 200
        assert (await carrier.ask("/status", fields, _signed("/status", "3")))[0] == 403
        assert carrier.engine.counts == {"replayed-nonce": 1}


async def test_a_disk_that_is_full_loses_no_callback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and said that its nonce is not kept."""
    async with _serving(tmp_path, auth_token=Secret("t0ken")) as carrier:
        with sqlite3.connect(tmp_path / "nonces.db") as other:
            other.execute("DROP TABLE nonces")
        other.close()
        fields = {"Event": "StartStream", "CallUUID": "call-1"}
        assert (await carrier.ask("/status", fields, _signed("/status", "5")))[0] == 200
        assert (await carrier.ask("/status", fields, _signed("/status", "5")))[0] == 403
        assert carrier.engine.counts == {"nonces-unwritten": 1, "replayed-nonce": 1}
    assert "no such table" in caplog.text


async def test_a_refused_callback_may_come_again_with_its_nonce() -> None:
    """What was not taken has not used its nonce up."""
    async with _serving(auth_token=Secret("t0ken")) as carrier:
        assert (await carrier.ask("/status", {"Event": "StartStream"}, _signed("/status", "5")))[0] == 400
        fields = {"Event": "StartStream", "CallUUID": "call-1"}
        assert (await carrier.ask("/status", fields, _signed("/status", "5")))[0] == 200


# --- What callbacks do


async def test_events_stand_in_the_calls_record() -> None:
    """Each is noted once, those that came before the socket first; numbers of people are nowhere."""
    async with _serving() as carrier:
        assert await carrier.tell("StartStream", From="+919800000000", ServiceURL="wss://x/s3cret") == 200
        async with carrier.call() as ws:
            session = await carrier.has(1)
            for _ in range(2):
                assert await carrier.tell("DegradedStream", Error="connection degraded") == 200
            assert await carrier.tell("PlayedStream", Name="greeting") == 200
            assert await carrier.tell("Moo") == 200
            assert await carrier.tell("") == 400
            await carrier.media(ws, 1)
            await carrier.has(2)
        time = {"carrier_time": "2025-11-06 09:58:40"}
        assert session.notes == [
            ("StartStream", time),
            ("DegradedStream", {"error": "connection degraded"} | time),
            ("PlayedStream", {"name": "greeting"} | time),
        ]
        assert carrier.engine.counts == {
            "degraded-stream": 1,
            "repeated-callback": 1,
            "unknown-event": 1,
            "bad-callback": 1,
        }
        assert not session.ended


@pytest.mark.parametrize("path", ["/hangup", "/status"])
async def test_a_hang_up_ends_the_wait_for_another_socket(path: str) -> None:
    """A call that waits an hour for its carrier to come back is over at once, and takes no further socket."""
    async with _serving() as carrier:
        async with carrier.call():
            await carrier.has(1)
        assert await carrier.tell("Hangup" if path == "/status" else "", path, StreamID="") == 200
        session = await _one(carrier)
        assert [name for name, _ in session.notes] == ["Hangup"]
        async with websocket.connect(carrier.url) as ws:
            await ws.send(envelope.build_start("call-1", "stream-2", "account", MULAW, ("inbound",)))
            assert (await ws.wait_closed()).code == 1000
        assert len(carrier.engine.sessions) == 1
        assert carrier.engine.counts == {"start-after-hangup": 1}


async def test_a_hang_up_ends_a_call_whose_socket_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in the socket is still carried, and the socket that the carrier leaves open is closed."""
    blocked, go_on = anyio.Event(), anyio.Event()

    class Full(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            super().push(data, track)
            return False

        async def ready(self) -> None:
            blocked.set()
            await go_on.wait()

    monkeypatch.setattr("mediaflow.testing.RecordedSession", Full)
    async with _serving() as carrier, carrier.call() as ws:
        await carrier.has(1)
        for number in range(1, 50):
            await carrier.media(ws, number)
        await blocked.wait()
        assert await carrier.tell("Hangup", "/hangup") == 200
        go_on.set()
        session = await _one(carrier)
        assert session.audio["inbound"] == FRAME * 50
        assert (await ws.wait_closed()).by == "peer"


async def test_a_stopped_stream_ends_its_call() -> None:
    """StopStream is told of the stream that is being read; of another it is only noted, and sockets are still taken."""
    async with _serving() as carrier, carrier.call():
        session = await carrier.has(1)
        assert await carrier.tell("StopStream", StreamID="stream-0") == 200
        assert [name for name, _ in session.notes] == ["StopStream"]
        async with websocket.connect(carrier.url) as ws:
            await ws.send(envelope.build_start("call-1", "stream-2", "account", MULAW, ("inbound",)))
            await carrier.media(ws, 1)
            await carrier.has(2)
            assert await carrier.tell("StopStream", StreamID="stream-2") == 200
            assert (await _one(carrier)).audio["inbound"] == FRAME * 2


async def test_a_dropped_stream_lets_the_call_wait_for_its_next_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that only looks open is left, and the session goes on with the next."""
    monkeypatch.setattr("mediaflow_plugins._carrier_call.QUIET_S", 0.0)
    async with _serving() as carrier, carrier.call() as dead:
        session = await carrier.has(1)
        assert await carrier.tell("DroppedStream", StreamID="stream-0", Timestamp="0") == 200
        await carrier.media(dead, 1)
        await carrier.has(2)
        assert await carrier.tell("DroppedStream", Error="connection disconnected with the remote service") == 200
        assert (await dead.wait_closed()).by == "peer"
        assert not session.ended
        async with websocket.connect(carrier.url) as ws:
            await ws.send(envelope.build_start("call-1", "stream-2", "account", MULAW, ("inbound",)))
            for number in range(2, 5):
                await carrier.media(ws, number)
                await carrier.has(number + 1)
        assert carrier.engine.counts == {"dropped-stream": 2, "reconnected": 1}
        assert len(carrier.engine.sessions) == 1


async def test_a_dropped_stream_whose_successor_is_there_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The news may be slower than the carrier's next socket: that one is not left for it."""
    monkeypatch.setattr("mediaflow_plugins._carrier_call.QUIET_S", 0.0)
    async with _serving() as carrier, carrier.call():
        await carrier.has(1)
        async with websocket.connect(carrier.url) as ws:
            await ws.send(envelope.build_start("call-1", "stream-2", "account", MULAW, ("inbound",)))
            await carrier.media(ws, 1)
            await carrier.has(2)
            assert await carrier.tell("DroppedStream") == 200
            for number in range(2, 5):
                await carrier.media(ws, number)
                session = await carrier.has(number + 1)
            assert not session.ended


async def test_callbacks_of_calls_that_never_come_are_forgotten() -> None:
    """Of calls that do not connect a bounded number is kept, and a bounded number of callbacks of each."""
    async with _serving() as carrier:
        for number in range(EARLY_EACH + 5):
            await carrier.tell("Ring", Timestamp=str(number))
        for number in range(EARLY_CALLS - 1):
            await carrier.tell("Ring", CallUUID=f"other-{number}")
        async with carrier.call() as ws:
            session = await carrier.has(1)
            assert len(session.notes) == EARLY_EACH
            await ws.send(envelope.build_start("x", "y", "z", MULAW, ("inbound",)))  # a duplicate: counted, not taken
            await carrier.engine.until(lambda: "duplicate-start" in carrier.engine.counts)
        await carrier.tell("Ring", CallUUID="other-last")
        await carrier.tell("Ring", CallUUID="other-very-last")
        async with carrier.call("other-0", "stream-9"):
            await carrier.engine.until(lambda: len(carrier.engine.sessions) == 2)
            assert not carrier.engine.sessions[1].notes


async def test_callbacks_of_a_call_that_is_over_stand_in_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the carrier tells behind the end is noted, of the last calls; it does not open them again."""
    monkeypatch.setattr(_vobiz_control, "LATE_CALLS", 1)
    async with _serving(reconnect_s=0) as carrier:
        for number in (1, 2):
            async with carrier.call(f"call-{number}"):
                await carrier.engine.until(lambda number=number: len(carrier.engine.sessions) == number)  # type: ignore[misc]
            await carrier.engine.ended(number)
        first, second = carrier.engine.sessions
        await carrier.tell("DroppedStream", CallUUID="call-2")
        await carrier.tell("Hangup", CallUUID="call-2", StreamID="")
        await carrier.tell("Hangup", StreamID="")
        assert [name for name, _ in second.notes] == ["DroppedStream", "Hangup"]
        assert first.notes == []
        assert len(carrier.engine.sessions) == 2


async def test_readiness_follows_the_socket() -> None:
    """A load balancer is told that calls are taken."""
    async with _serving() as carrier:
        assert (await _get(carrier, "/readyz")) == {"status": "ready"}
        assert (await _get(carrier, "/healthz"))["status"] == "ok"


async def _get(carrier: Carrier, path: str) -> Any:
    def get() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{carrier.port}{path}", timeout=10) as reply:
            return json.loads(reply.read())

    return await anyio.to_thread.run_sync(get)


# --- The whole of it


async def test_a_call_of_a_pipeline_with_its_record(tmp_path: Path) -> None:
    """In a pipeline of YAML, the callbacks of a call are in its account, with the stream time."""
    file = tmp_path / "call.yaml"
    file.write_text(
        f"source:\n  use: vobiz\n  listen: ws://127.0.0.1:0/vobiz\n  secret: s3cret\n"
        f"  control: http://127.0.0.1:0\n  public_url: {PUBLIC}\n"
        f"transforms: [{{use: mulaw_decode}}]\n"
        f"sinks: [{{use: disk, path: '{tmp_path}/{{call_id}}-{{track}}.wav'}}]\nstate: {tmp_path}\n"
    )
    installed = plugins.load()
    runner = Runner(config.load(str(file), installed, {}), installed)
    with anyio.fail_after(20), _port() as port:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await runner.up.wait()
            carrier = Carrier(RecordingEngine(), f"{runner.url}/s3cret", *port)
            async with carrier.call() as ws:
                await _session_with(runner, 160)
                assert await carrier.tell("DegradedStream", "/status/s3cret", Error="connection degraded") == 200
                await carrier.media(ws, 1)
                await _session_with(runner, 320)
                assert await carrier.tell("Hangup", "/hangup/s3cret", HangupCauseName="Normal Hangup") == 200
                await runner.over(1)
            assert await carrier.tell("StopStream", "/status/s3cret") == 200
            runner.stop()
    (account,) = runner.accounts
    time = {"carrier_time": "2025-11-06 09:58:40"}
    assert account["status"] == "complete"
    assert account["events"] == [
        {"event": "DegradedStream", "at": 0.02, "error": "connection degraded"} | time,
        {"event": "Hangup", "at": 0.04, "cause": "Normal Hangup"} | time,
        {"event": "StopStream", "at": 0.04} | time,  # when the account was settled already
    ]
    [kept] = ledger.read(tmp_path)
    assert kept["events"] == account["events"]


async def _session_with(runner: Runner, samples: int) -> None:
    """Wait until the call has so many samples: its task runs whenever this one lets it."""
    while not any(s.account()["tracks"]["inbound"]["received"] == samples for s in runner.sessions.values()):
        await anyio.lowlevel.checkpoint()


def test_a_process_with_control_stops_at_a_signal(tmp_path: Path) -> None:
    """`mediaflow run`, on its own event loop, answers a load balancer and ends well at SIGTERM."""
    (tmp_path / "call.yaml").write_text(
        f"source: {{use: vobiz, listen: 'ws://127.0.0.1:0/vobiz', control: 'http://127.0.0.1:0', "
        f"public_url: '{PUBLIC}'}}\ntransforms: [{{use: mulaw_decode}}, {{use: mix}}]\nsinks: [{{use: disk}}]\n"
    )
    with running(tmp_path, "run", "call.yaml") as process:
        url = process.wait_for("control answers at ").split()[-1]
        process.wait_for("listens at ")
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as reply:
            assert reply.status == 200
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0, process.output
    assert "Traceback" not in process.output


# --- What does not fit


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"control": ""}, "are for control, which is not given"),
        ({"control": "ws://127.0.0.1:1"}, "http:// or https://"),
        ({"control": "http://127.0.0.1:8081/x"}, "no path of its own"),
        ({"control": "http://127.0.0.1:8080"}, "a port of its own"),
        ({"control": "http://0.0.0.0:8081"}, "needs auth_token or secret"),
        ({"control": "https://127.0.0.1:8081"}, "https and ws need both certificate and key"),
        ({"certificate": "a", "key": "b"}, "nothing here listens so"),
        ({"public_url": ""}, "public_url has to be"),
        ({"public_url": "calls.example.org"}, "public_url has to be"),
        ({"public_url": f"{PUBLIC}?a=1"}, "public_url has to be"),
        ({"caller_id": "+911140001000"}, "dial is not given"),
        ({"dial": "the doctor"}, "number is not a telephone number"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], why: str) -> None:
    """They are refused before anything runs."""
    defaults: dict[str, Any] = {"listen": "ws://127.0.0.1:8080/vobiz", "control": "http://127.0.0.1:8081"}
    with pytest.raises(ValueError, match=why):
        Vobiz(**defaults | {"public_url": PUBLIC} | options).check()


async def test_a_control_port_that_is_taken() -> None:
    """The source says which, and takes no calls."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        source = Vobiz(listen="ws://127.0.0.1:0/vobiz", control=url, public_url=PUBLIC)
        with pytest.raises(SourceError, match=r"cannot listen at 127\.0\.0\.1:"):
            await source.serve(RecordingEngine())


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio() -> None:
    """The source says that control is not for trio."""
    source = Vobiz(listen="ws://127.0.0.1:0/vobiz", control="http://127.0.0.1:0", public_url=PUBLIC)
    with pytest.raises(SourceError, match="runs on asyncio only"):
        await source.serve(RecordingEngine())
