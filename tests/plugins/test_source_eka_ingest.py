"""The source ``eka_ingest``: its API, its streams, and clients that nobody here wrote."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trustme
from ingest_kit import Ingest, running
from websockets.sync.client import connect as sync_connect

from mediaflow import AudioFormat, Secret, SessionError, SourceError, envelope, http
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow.websocket import Refused, connect
from mediaflow_plugins import _eka_sessions
from mediaflow_plugins.source_eka_ingest import EkaIngest

pytestmark = pytest.mark.anyio

PEERS = Path(__file__).parent.parent / "peers"
AUDIO = bytes(index % 251 for index in range(32000))
STOP = '{"event": "stop"}'


def media(pcm: bytes) -> str:
    return json.dumps({"event": "media", "media": {"payload": base64.b64encode(pcm).decode()}})


def start(rate: object) -> str:
    return json.dumps({"event": "start", "start": {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": rate}}})


async def test_a_session_from_creation_to_result() -> None:
    """The states of the API in their order, and a result that says what was received and invents nothing."""
    async with running() as ingest:
        session = await ingest.create(additional_data={"call_id": "c1", "more": 1}, patient_details={"oid": "p"})
        assert session["session_id"].startswith("ses_")
        assert (session["status"], session["patient_details"]) == ("created", {"oid": "p"})
        prefix = ingest.url.replace("http://", "ws://") + "/voice/v1/stream/sessions/str_"
        assert session["upload_url"].startswith(prefix) and session["upload_url"].endswith("/audio")
        assert len(session["upload_url"]) == len(prefix) + 20 + len("/audio")
        status, body = await ingest.get(session)
        assert (status, body["status"]) == (202, "initialized")
        async with ingest.stream(session) as socket:
            await socket.send(AUDIO)
            await socket.send(STOP)
            assert (await socket.wait_closed()).code == 1000
        status, body = await ingest.end(session)
        assert (status, body["status"], body["audio_files_received"]) == (202, "processing", 1)
        status, body = await ingest.get(session)
        assert (status, body["status"], body["templates"]) == (200, "completed", [])
        assert body["additional_data"] == {"call_id": "c1", "more": 1}
        assert body["audio"] == {"samples": 16000, "sample_rate": 16000, "seconds": 1.0}
        assert "transcript" not in body
        status, body = await ingest.end(session)
        assert (status, body["error"]["code"]) == (400, "session_ended")
        assert await ingest.audio() == AUDIO
        [live] = ingest.engine.sessions
        assert live.stream.format == AudioFormat("s16le", 16000)
        assert live.stream.id == session["session_id"]
        assert live.stream.metadata["call_id"] == "c1"


@pytest.mark.parametrize(
    "messages",
    [
        (AUDIO, STOP),
        (media(AUDIO), STOP),
        (start(16000), media(AUDIO[:500]), media(AUDIO[500:]), STOP),
        (AUDIO[:500], media(AUDIO[500:]), STOP),
        (start("16000"), media(AUDIO), STOP),
        (AUDIO[:501], AUDIO[501:800], AUDIO[800:803], media(AUDIO[803:]), STOP),
        ("hello", "[]", '{"event": "dtmf"}', '{"event": "media"}', AUDIO, STOP),
    ],
    ids=["raw", "json without start", "json", "mixed", "rate as text", "cut inside samples", "noise"],
)
async def test_every_way_to_send_audio_gives_the_same_bytes(messages: tuple[str | bytes, ...]) -> None:
    """Raw or JSON, cut anywhere, with things between that nobody knows: the samples are the same."""
    async with running() as ingest:
        closed, _ = await ingest.send(*messages)
        assert (closed.code, closed.by) == (1000, "peer")
        assert await ingest.audio() == AUDIO


async def test_what_is_odd_is_counted() -> None:
    """Everything that was tolerated shows up in the counts."""
    async with running() as ingest:
        await ingest.send("hello", "[]", '{"event":"x"}', '{"event":"media"}', start("8000"), b"abc", start(8000), STOP)
        counts = ingest.engine.counts
        assert counts == {
            "not-json": 1,
            "not-an-object": 1,
            "unknown-event": 1,
            "no-payload": 1,
            "rate-ignored": 2,
            "odd-message": 1,
            "half-sample": 1,
        }
        assert await ingest.audio() == b"ab"


async def test_a_rate_that_start_announces() -> None:
    """8000 Hz is taken from start; another rate would be mislabelled and is refused."""
    async with running() as ingest:
        await ingest.send(start(8000), AUDIO, STOP)
        assert ingest.engine.sessions[0].stream.format == AudioFormat("s16le", 8000)
        closed, _ = await ingest.send(start(44100), AUDIO, STOP)
        assert closed.code == 1003
        assert len(ingest.engine.sessions) == 1


async def test_bad_base64_ends_the_stream_with_what_came_before() -> None:
    """As the service does: the audio up to there is kept, and the session can be ended."""
    async with running() as ingest:
        closed, session = await ingest.send(
            media(AUDIO), '{"event": "media", "media": {"payload": "=!"}}', media(AUDIO)
        )
        assert closed.code == 1007
        assert await ingest.audio() == AUDIO
        assert (await ingest.end(session))[1]["audio_files_received"] == 1


async def test_silence_and_a_close_end_the_stream_too() -> None:
    """A client that says nothing any more, and one that just closes: everything that came is kept."""
    async with running(idle_s=0.05) as ingest:
        closed, session = await ingest.send(AUDIO)
        assert closed.code == 1001
        assert await ingest.audio() == AUDIO
        assert (await ingest.end(session))[0] == 202
        async with ingest.stream(await ingest.create()) as socket:
            await socket.send(AUDIO)
        assert await ingest.audio(2) == AUDIO


async def test_a_line_that_breaks_ends_the_stream_too() -> None:
    """Without a closing handshake: everything that came is kept, and the session can be ended."""

    def send_and_vanish(url: str) -> None:
        with sync_connect(url, proxy=None) as websocket:
            websocket.send(AUDIO)
            assert websocket.ping().wait(5)
            websocket.socket.shutdown(socket.SHUT_RDWR)

    async with running() as ingest:
        session = await ingest.create()
        await anyio.to_thread.run_sync(send_and_vanish, session["upload_url"])
        assert await ingest.audio() == AUDIO
        assert (await ingest.end(session))[0] == 202


class SlowEngine(RecordingEngine):
    """An engine whose sinks take their time to finish."""

    def __init__(self) -> None:
        super().__init__()
        self.finishing, self.finished = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def open(self, stream: Any) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            yield session
            self.finishing.set()
            await self.finished.wait()


async def test_the_close_comes_after_the_sinks_have_finished() -> None:
    """The close is the receipt; until then the session is processing, even if it was ended too early."""
    engine = SlowEngine()
    async with running(engine) as ingest:
        session = await ingest.create()
        async with ingest.stream(session) as socket:
            await socket.send(AUDIO)
            await socket.send(STOP)
            await engine.finishing.wait()
            with anyio.move_on_after(0.05) as early:
                await socket.recv()
            assert early.cancelled_caught
            assert (await ingest.end(session))[1]["audio_files_received"] == 0
            assert (await ingest.get(session))[1]["status"] == "processing"
            engine.finished.set()
            assert (await socket.wait_closed()).code == 1000
        assert (await ingest.get(session))[1]["audio_files_received"] == 1


class FailingEngine(RecordingEngine):
    """An engine whose sinks have all failed."""

    @asynccontextmanager
    async def open(self, stream: Any) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            yield session
            raise SessionError("every sink has failed")


async def test_audio_that_could_not_be_stored_gets_no_receipt() -> None:
    """The client sees 1011 where the pipeline failed."""
    async with running(FailingEngine()) as ingest:
        closed, _ = await ingest.send(AUDIO, STOP)
        assert closed.code == 1011


async def test_a_stream_can_be_used_once() -> None:
    """Unknown, used and ended streams are accepted and closed with 4000."""
    async with running() as ingest:
        _, used = await ingest.send(AUDIO, STOP)
        ended = await ingest.create()
        await ingest.end(ended)
        unknown = {"upload_url": used["upload_url"].replace("/str_", "/str_0")}
        for session in (used, ended, unknown):
            async with ingest.stream(session) as socket:
                closed = await socket.wait_closed()
                assert (closed.code, closed.reason) == (4000, "unknown stream_id")
        assert ingest.engine.counts["unknown-stream"] == 3
        with pytest.raises(Refused):
            async with connect(ingest.url.replace("http", "ws") + "/voice/v1/elsewhere"):
                pass


async def test_a_session_without_audio() -> None:
    """It can be ended, has no files, and no call was opened for it."""
    async with running() as ingest:
        closed, session = await ingest.send(STOP)
        assert closed.code == 1000
        await ingest.end(session)
        status, body = await ingest.get(session)
        assert (status, body["audio_files"], body["audio"]["samples"]) == (200, [], 0)
        assert ingest.engine.sessions == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/voice/v1/sessions", {"upload_type": "single"}, 400, "invalid_request"),
        ("POST", "/voice/v1/sessions", {}, 400, "invalid_request"),
        ("POST", "/voice/v1/sessions", ["x"], 400, "invalid_request"),
        ("POST", "/voice/v1/sessions", None, 400, "invalid_request"),
        (
            "POST",
            "/voice/v1/sessions",
            {"upload_type": "stream", "additional_data": {"x": "y" * 4096}},
            400,
            "invalid_request",
        ),
        ("GET", "/voice/v1/sessions/ses_0", None, 404, "session_not_found"),
        ("POST", "/voice/v1/sessions/ses_0/end", {}, 404, "session_not_found"),
        ("DELETE", "/voice/v1/sessions/ses_0", None, 405, "invalid_request"),
        ("GET", "/elsewhere", None, 404, "resource_not_found"),
    ],
)
async def test_errors_come_in_the_envelope(method: str, path: str, body: object, status: int, code: str) -> None:
    """Every refusal has a code, a message and details."""
    async with running() as ingest:
        found, answer = await ingest.ask(method, path, body)
        assert (found, answer["error"]["code"]) == (status, code)
        assert set(answer["error"]) == {"code", "message", "details"}


async def test_the_token_is_asked_for_everywhere_but_where_it_is_not() -> None:
    """Without it 401, with a wrong one too; discovery is public."""
    async with running(token=Secret("right")) as ingest:
        for token in ("", "wrong"):
            status, body = await ingest.ask("POST", "/voice/v1/sessions", {"upload_type": "stream"}, token)
            assert (status, body["error"]["code"]) == (401, "authentication_failed")
        assert ingest.engine.counts == {"refused-token": 2}
        assert (await ingest.ask("GET", "/voice/v1/sessions/ses_0", token="right"))[0] == 404
        status, body = await ingest.ask("GET", "/voice/v1/.well-known/medscribealliance", token="")
        assert (status, body["capabilities"]["upload_methods"]) == (200, ["chunked", "stream"])


async def test_the_login_gives_a_token_that_works() -> None:
    """The configured pair gets a token; another pair does not, and tokens of others do not work."""
    login = "/connect-auth/v1/account/login"
    async with running(client_id="me", client_secret=Secret("pw")) as ingest:
        status, body = await ingest.ask("POST", login, {"client_id": "me", "client_secret": "no"}, token="")
        assert (status, body["code"]) == (401, 401)
        status, body = await ingest.ask("POST", login, {"client_id": "me", "client_secret": "pw"}, token="")
        assert (status, body["expires_in"]) == (200, 1800)
        assert (await ingest.ask("GET", "/voice/v1/sessions/ses_0", token=body["access_token"]))[0] == 404
        assert (await ingest.ask("GET", "/voice/v1/sessions/ses_0", token="x"))[0] == 401


async def test_a_session_that_nobody_ends_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 410, and its stream is not known any more."""
    async with running() as ingest:
        monkeypatch.setattr(_eka_sessions, "LIFETIME_S", -1.0)
        session = await ingest.create()
        monkeypatch.setattr(_eka_sessions, "LIFETIME_S", 3600.0)
        status, body = await ingest.get(session)
        assert (status, body["status"], body["error"]["code"]) == (410, "expired", "session_expired")
        assert (await ingest.end(session))[0] == 410
        async with ingest.stream(session) as socket:
            assert (await socket.wait_closed()).code == 4000


async def test_the_number_of_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused until the old ones expire."""
    monkeypatch.setattr(_eka_sessions, "MAX_SESSIONS", 2)
    sessions = _eka_sessions.Sessions(lambda: now)
    request = _eka_sessions.Create("stream")
    now = 0.0
    assert sessions.create(request) and sessions.create(request)
    assert sessions.create(request) is None
    now = _eka_sessions.LIFETIME_S
    assert sessions.create(request) is not None


async def test_stopping_the_source_finishes_its_streams() -> None:
    """A cancelled source leaves its calls in order and tells the client that it goes away."""
    engine = RecordingEngine()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EkaIngest(listen="http://127.0.0.1:0").serve, engine)
            url = await engine.url()
            async with http.connect(url) as client:
                session = await Ingest(engine, client, url).create()
            async with connect(session["upload_url"]) as socket:
                await socket.send(AUDIO)
                await socket.ping()
                await engine.until(lambda: bool(engine.sessions))
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    assert (await socket.wait_closed()).code == 1001
                    [live] = await engine.ended()
    assert live.audio["inbound"] == AUDIO


async def test_a_proxy_s_address_is_what_clients_are_told() -> None:
    """With public_url, the stream's address is below it."""
    async with running(public_url="https://ingest.example.org/") as ingest:
        session = await ingest.create()
        assert session["upload_url"].startswith("wss://ingest.example.org/voice/v1/stream/sessions/str_")


async def test_a_port_that_is_taken() -> None:
    """It is a ``SourceError`` that names the place."""
    async with running() as ingest:
        with pytest.raises(SourceError, match=r"cannot listen at 127\.0\.0\.1"):
            await EkaIngest(listen=ingest.url).serve(RecordingEngine())


async def test_over_tls(tmp_path: Path) -> None:
    """With a certificate everything goes over https and wss; a certificate that cannot be read says so."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    engine = RecordingEngine()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            source = EkaIngest(listen="https://localhost:0", certificate=chain, key=key)
            source.check()
            tasks.start_soon(source.serve, engine)
            async with http.connect(await engine.url(), tls=ours) as client:
                session = await Ingest(engine, client, "").create()
            assert session["upload_url"].startswith("wss://localhost:")
            async with connect(session["upload_url"], tls=ours) as socket:
                await socket.send(AUDIO)
                await socket.send(STOP)
                assert (await socket.wait_closed()).code == 1000
            tasks.cancel_scope.cancel()
    assert engine.sessions[0].audio["inbound"] == AUDIO
    with pytest.raises(SourceError, match="cannot be used"):
        await EkaIngest(listen="https://localhost:0", certificate=chain, key=chain).serve(engine)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"listen": "ws://127.0.0.1:1"}, "http:// or https://"),
        ({"listen": "http://127.0.0.1:1/path"}, "has a path"),
        ({"listen": "http://192.0.2.1:1"}, "can be reached by others"),
        ({"listen": "http://0.0.0.0:1", "token": Secret("t")}, "public_url"),
        ({"client_id": "a"}, "belong together"),
        ({"listen": "https://127.0.0.1:1"}, "certificate and key"),
        ({"public_url": "ingest.example.org"}, "public_url"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], complaint: str) -> None:
    """What cannot work or is not safe is refused before anything runs."""
    with pytest.raises(ValueError, match=complaint):
        EkaIngest(**options).check()  # type: ignore[arg-type]


def test_good_options() -> None:
    """Loopback needs nothing; others a token or a login, and an address for clients."""
    EkaIngest().check()
    EkaIngest(listen="http://0.0.0.0:1", token=Secret("t"), public_url="https://x.example").check()
    assert {format.sample_rate for format, _ in EkaIngest().formats()} == {8000, 16000}


@pytest.mark.parametrize("mode", ["raw", "json"])
@pytest.mark.parametrize("peer", ["eka_browser.mjs", "eka_python.py"])
async def test_clients_that_nobody_here_wrote(peer: str, mode: str, needs: Any) -> None:
    """Node's ``ws`` as a browser would use it, and a program on stock ``websockets``, follow the documents."""
    if peer.endswith(".mjs"):
        needs("node", "npm")
        if not (PEERS / "node_modules" / "ws").exists():
            pytest.skip("needs tests/peers/node_modules, which `npm ci` in tests/peers brings")
    command = ["node" if peer.endswith(".mjs") else sys.executable, str(PEERS / peer)]
    async with running() as ingest:
        session = await ingest.create()
        result = await anyio.run_process(
            [*command, session["upload_url"], mode], input=AUDIO, env={**os.environ, "PYTHONWARNINGS": "error"}
        )
        assert json.loads(result.stdout) == {"code": 1000}
        assert await ingest.audio() == AUDIO
        assert (await ingest.end(session))[1]["audio_files_received"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["raw", "json"])
async def test_a_browser(mode: str, needs: Any, tmp_path: Path) -> None:
    """Chromium's WebSocket, from a page as the documents write it: the samples that are stored are those it sent."""
    needs("chromium")
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage"]
    async with running(limit_s=60) as ingest:
        session = await ingest.create()
        page = f"{(PEERS / 'eka_page.html').as_uri()}#{mode},{session['upload_url']}"
        command = ["chromium", "--headless=new", "--no-sandbox", "--no-first-run", f"--user-data-dir={tmp_path}"]
        command += [f"--disable-{each}" for each in quiet]
        async with await anyio.open_process([*command, page], stdout=DEVNULL, stderr=DEVNULL) as browser:
            assert await ingest.audio() == AUDIO
            status, body = await ingest.end(session)
            assert (status, body["audio_files_received"]) == (202, 1)
            browser.terminate()


def test_the_stop_of_our_sinks_is_the_documents_one() -> None:
    """What a client sends as stop is what the tests here send."""
    assert json.loads(envelope.build_eka_stop()) == json.loads(STOP)
