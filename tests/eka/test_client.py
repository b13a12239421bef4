"""The client of EkaScribe's API: tokens, and shapes that the service may give."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import anyio.abc
import pytest
import stamina

from mediaflow import Secret, eka, httpd
from mediaflow.eka.auth import LOGIN
from mediaflow.eka.client import SESSIONS
from mediaflow.httpd import Request, Response
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio

PAIR = eka.Credentials(client_id="me", client_secret=Secret("pw"))


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, and only once."""
    with stamina.set_testing(True, attempts=2):
        yield


A = TypeVar("A", bound="Api")


class Api:
    """A service whose logins give numbered tokens; only those in ``good`` are taken."""

    def __init__(self) -> None:
        self.url = ""
        self.log: list[str] = []
        self.good: Callable[[str], bool] = lambda token: True
        self.expires_in: object = 1800
        self.created: object = {
            "session_id": "ses_1",
            "upload_url": "wss://x.example/str_1",
            "created_at": 17,
            "new": 1,
        }
        self.states: list[tuple[int, object]] = [(200, {"status": "completed"})]
        self.end_error: object = None
        self.pause = anyio.Event()
        self.pause.set()

    async def answer(self, request: Request) -> Response:
        if request.path == LOGIN:
            assert json.loads(request.body) == {"client_id": "me", "client_secret": "pw"}
            self.log.append("login")
            await self.pause.wait()
            token = f"token-{self.log.count('login')}"
            return self._json(200, {"access_token": token, "expires_in": self.expires_in, "new": [1]})
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.log.append(f"{request.method} {request.path.removeprefix(SESSIONS)} {token}")
        if not self.good(token):
            return self._json(401, {"error": {"code": "token_expired", "message": "x", "details": {}}})
        if request.path == SESSIONS:
            return self._json(201, self.created)
        if request.path.endswith("/end") and self.end_error:
            return self._json(400, {"error": self.end_error})
        if request.path.endswith("/end"):
            return self._json(202, {"session_id": "ses_1", "status": "processing"})
        return self._json(*(self.states.pop(0) if len(self.states) > 1 else self.states[0]))

    def _json(self, status: int, body: object) -> Response:
        return Response(status, json.dumps(body).encode())


@asynccontextmanager
async def running(api: A) -> AsyncIterator[A]:
    """Run a service, and fail after ten seconds."""
    up = anyio.Event()

    def listening(port: int) -> None:
        api.url = f"http://127.0.0.1:{port}"
        up.set()

    async def serve() -> None:
        await httpd.serve(api.answer, Address("http", "127.0.0.1", 0, ""), listening=listening)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            yield api
            tasks.cancel_scope.cancel()


async def test_a_session_tolerates_what_the_service_adds_or_changes() -> None:
    """Times as numbers and unknown fields are no reason to fail, and the stream's address does not show itself."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        session = await client.create(eka.SessionRequest())
        assert session.id == "ses_1"
        assert session.upload_url.reveal() == "wss://x.example/str_1"
        assert "str_1" not in repr(session)
        templates: list[Any] = [{"clinical_notes_template": {"status": "success", "data": "x"}}]
        api.states = [(200, {"status": "completed", "completed_at": 17.5, "templates": templates})]
        state = await client.get("ses_1")
        assert (state.http_status, state.status, state.body["templates"]) == (200, "completed", templates)


async def test_one_login_serves_all_that_wait_for_it() -> None:
    """Ten calls that begin together log in once, and later ones use the same token."""
    async with running(Api()) as api:
        api.pause = anyio.Event()

        async def create() -> None:
            async with eka.connect(api.url, PAIR) as client:
                await client.create(eka.SessionRequest())

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(create)
            await anyio.wait_all_tasks_blocked()
            api.pause.set()
        await create()
    assert api.log == ["login"] + ["POST  token-1"] * 11


async def test_a_token_is_replaced_before_it_ends() -> None:
    """A token that has as good as ended is not used any more."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        api.expires_in = 0
        await client.end("ses_1")
        api.expires_in = "1800"
        await client.end("ses_1")
        await client.end("ses_1")
    assert [line for line in api.log if line == "login"] == ["login", "login"]


async def test_a_refused_token_is_replaced_once() -> None:
    """One new login and one more try; a token that another call has just replaced needs no login of its own."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        await client.end("ses_1")
        api.good = lambda token: token != "token-1"

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.end, "ses_1")
        assert api.log.count("login") == 2
        api.good = lambda token: False
        with pytest.raises(eka.EkaError, match="token_expired") as caught:
            await client.end("ses_1")
        assert caught.value.code == "login-refused"
        assert api.log.count("login") == 3


async def test_a_login_that_gives_no_token() -> None:
    """An answer without one is an error, not a crash."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        api.expires_in = "soon"
        with pytest.raises(eka.EkaError) as caught:
            await client.end("ses_1")
    assert caught.value.code == "login-failed"


@pytest.mark.parametrize("created", [{}, [], {"session_id": 1, "upload_url": "wss://secret"}, "secret"])
async def test_a_session_without_what_it_needs(created: object) -> None:
    """The error does not quote the answer."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        api.created = created
        with pytest.raises(eka.EkaError) as caught:
            await client.create(eka.SessionRequest())
    assert caught.value.code == "session-refused"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "is_fine"),
    [
        ({"code": "session_ended", "message": ""}, True),
        ({"code": "invalid_request", "message": "Session already ended"}, True),
        ("already committed", True),
        ({"code": "invalid_request", "message": "bad body"}, False),
        (17, False),
    ],
)
async def test_an_end_that_happened_before_is_fine(error: object, is_fine: bool) -> None:
    """However the service says it; anything else it says is an error."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        api.end_error = error
        if is_fine:
            await client.end("ses_1")
        else:
            with pytest.raises(eka.EkaError) as caught:
                await client.end("ses_1")
            assert caught.value.code == "end-refused"


async def test_trouble_while_waiting_for_a_result_is_waited_out() -> None:
    """A service that fails for a while is asked again until the time is up."""
    async with running(Api()) as api, eka.connect(api.url, PAIR) as client:
        api.states = [(503, {})] * 3 + [(202, {"status": "processing"}), (206, {"status": "partial"})]
        state = await client.result("ses_1", poll_s=0.001, timeout_s=5)
        assert (state.http_status, state.status) == (206, "partial")
        api.states = [(503, {})]
        with pytest.raises(eka.EkaError) as caught:
            await client.result("ses_1", poll_s=0.001, timeout_s=0.05)
    assert caught.value.code == "result-timeout"


async def test_the_credentials_do_not_show_themselves() -> None:
    """Neither in repr nor in the error of a service that is not there."""
    assert "pw" not in repr(PAIR)
    with pytest.raises(eka.EkaError) as caught:
        async with eka.connect("http://127.0.0.1:1", PAIR) as client:
            await client.create(eka.SessionRequest())
    assert caught.value.code == "unreachable"
    assert "pw" not in str(caught.value) and "me" not in str(caught.value).split()


class Tape(Api):
    """A service that keeps every request but the login, and answers all with one body."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.reply: tuple[int, object] = (200, {})

    async def answer(self, request: Request) -> Response:
        if request.path == LOGIN:
            return await super().answer(request)
        self.requests.append(request)
        return self._json(*self.reply)


BASE = "/voice/v1/sessions"
# What the official SDK was seen to send, and for the rest what the documents show.
NOTE = {
    "session_id": "ses_1",
    "status": "completed",
    "created_at": "2025-01-19T10:30:00Z",
    "completed_at": 1_737_283_000,
    "expires_at": "2025-01-20T10:30:00Z",
    "model_used": "pro",
    "language_detected": "hi",
    "audio_files_received": 1,
    "audio_files": ["ses_1"],
    "additional_data": {"call_id": "c-1"},
    "transcript": "…",
    "patient_details": None,
    "templates": [{"soap": {"status": "success", "data": "bm90ZQ==", "document_id": "doc_1", "errors": []}}],
}
"""A result as the OpenAPI description has it."""

WIRE: list[tuple[Callable[[eka.EkaClient], Any], tuple[int, object], object, str, bytes, str | None]] = [
    (
        lambda client: client.create(eka.SessionRequest(language_hint=())),
        (
            201,
            {
                "session_id": "ses_1",
                "status": "created",
                "created_at": "2025-01-19T10:30:00Z",
                "expires_at": "2025-01-19T11:30:00Z",
                "upload_url": "wss://api.eka.care/voice/v1/stream/sessions/str_1/audio",
                "patient_details": None,
            },
        ),
        eka.Session(
            "ses_1",
            Secret("wss://api.eka.care/voice/v1/stream/sessions/str_1/audio"),
            datetime(2025, 1, 19, 11, 30, tzinfo=UTC),
        ),
        f"POST {BASE}",
        (
            b'{"session_mode":"consultation","templates":["clinical_notes_template"],"model":"pro",'
            b'"upload_type":"stream","communication_protocol":"websocket"}'
        ),
        "application/json",
    ),
    *(
        (
            lambda client: client.get("ses_1"),
            (http_status, NOTE | {"status": status}),
            eka.SessionState(http_status, status, NOTE | {"status": status}),
            f"GET {BASE}/ses_1",
            b"",
            None,
        )
        for http_status, status in ((202, "initialized"), (202, "processing"), (200, "completed"), (200, "failed"))
    ),
    (
        lambda client: client.end("ses_1"),
        (202, {"audio_files_received": 3, "audio_files": []}),
        eka.Ended(3),
        f"POST {BASE}/ses_1/end",
        b'{"audio_files_sent":0}',
        "application/json",
    ),
    (
        lambda client: client.end("ses_1", 7),
        (200, {}),
        eka.Ended(),
        f"POST {BASE}/ses_1/end",
        b'{"audio_files_sent":7}',
        "application/json",
    ),
    (
        lambda client: client.upload("ses_1", "chunk_0.wav", b"RIFF"),
        (200, {"success": True}),
        None,
        f"POST {BASE}/ses_1/audio/chunk_0.wav",
        b"RIFF",
        "audio/wav",
    ),
    (
        lambda client: client.upload("ses_1", "audio_12.webm", b"x"),
        (200, {}),
        None,
        f"POST {BASE}/ses_1/audio/audio_12.webm",
        b"x",
        "audio/webm;codecs=opus",
    ),
    (
        lambda client: client.get("ses_1"),
        (206, {"status": "partial"}),
        eka.SessionState(206, "partial", {"status": "partial"}),
        f"GET {BASE}/ses_1",
        b"",
        None,
    ),
    (
        lambda client: client.get("ses_1", template_id="a&b"),
        (202, {"status": 1}),
        eka.SessionState(202, "", {"status": 1}),
        f"GET {BASE}/ses_1?template_id=a%26b",
        b"",
        None,
    ),
    (
        lambda client: client.update("ses_1", templates=["a"], patient_details={"oid": "p"}),
        (200, {"status": "success"}),
        None,
        f"PATCH {BASE}/ses_1",
        b'{"templates":["a"],"patient_details":{"oid":"p"}}',
        "application/json",
    ),
    (
        lambda client: client.audio_url("ses_1"),
        (200, {"session_id": "ses_1", "data": {"presigned_url": "https://s3/x"}}),
        Secret("https://s3/x"),
        f"GET {BASE}/ses_1/audio",
        b"",
        None,
    ),
    (
        lambda client: client.process_template("ses_1", "soap/x"),
        (202, {"session_id": "ses_1", "document_id": "doc_1", "status": "in-progress"}),
        eka.Document("doc_1", "in-progress"),
        f"POST {BASE}/ses_1/process/template/soap%2Fx",
        b"",
        None,
    ),
    (
        lambda client: client.convert("ses_1", "soap", target_language="hi"),
        (202, {"document_id": "doc_1", "template_id": "soap"}),
        eka.Document("doc_1", "", "soap"),
        "POST /voice/api/v1/transaction/ses_1/convert-to-template",
        b'{"template_id":"soap","target_language":"hi"}',
        "application/json",
    ),
    (
        lambda client: client.document("doc_1"),
        (200, {"status": "success", "data": {"document_id": "doc_1", "presigned_url": "https://s3/y", "errors": []}}),
        eka.Document("doc_1", presigned_url="https://s3/y"),
        "GET /voice/api/v1/documents/doc_1",
        b"",
        None,
    ),
    (
        lambda client: client.templates(),
        (200, {"items": [{"id": "soap", "title": "SOAP", "default": True, "section_ids": []}]}),
        (eka.Template("soap", "SOAP", True),),
        "GET /voice/api/v1/template",
        b"",
        None,
    ),
    (
        lambda client: client.subscribe("https://x.example/hook", Secret("key")),
        (201, {}),
        None,
        "POST /notification/v1/connect/webhook/subscriptions",
        b'{"event_names":["v2rx.completed"],"endpoint":"https://x.example/hook","signing_key":"key","protocol":"https"}',
        "application/json",
    ),
]


@pytest.mark.parametrize(("ask", "reply", "value", "line", "body", "type"), WIRE, ids=lambda value: None)
async def test_every_request_is_the_documented_one(
    ask: Callable[[eka.EkaClient], Any],
    reply: tuple[int, object],
    value: object,
    line: str,
    body: bytes,
    type: str | None,
) -> None:
    """Method, path, body to the byte and type of every request, and what becomes of its answer."""
    async with running(Tape()) as tape, eka.connect(tape.url, PAIR) as client:
        tape.reply = reply
        assert await ask(client) == value
        [request] = tape.requests
    query = f"?{request.query}" if request.query else ""
    assert (f"{request.method} {request.path}{query}", request.body) == (line, body)
    assert request.headers.get("content-type") == type
    assert request.headers["authorization"] == "Bearer token-1"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda client: client.upload("ses_1", "chunk_0.wav", b"x"), "chunk-refused"),
        (lambda client: client.update("ses_1", model="lite"), "update-refused"),
        (lambda client: client.audio_url("ses_1"), "audio-missing"),
        (lambda client: client.process_template("ses_1", "soap"), "document-refused"),
        (lambda client: client.convert("ses_1", "soap"), "document-refused"),
        (lambda client: client.document("doc_1"), "document-missing"),
        (lambda client: client.templates(), "templates-failed"),
        (lambda client: client.subscribe("https://x.example", Secret("key")), "subscription-refused"),
        (lambda client: client.discover(), "discovery-failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_every_refusal_has_a_code_of_its_own(ask: Callable[[eka.EkaClient], Any], code: str) -> None:
    """With the service's own word for it; an answer of 200 that is something else is one, too."""
    async with running(Tape()) as tape, eka.connect(tape.url, PAIR) as client:
        tape.reply = (404, {"error": {"code": "not_here", "message": "secret"}})
        with pytest.raises(eka.EkaError, match="HTTP 404 not_here") as caught:
            await ask(client)
        assert caught.value.code == code
        assert "secret" not in str(caught.value)
        if code not in ("chunk-refused", "update-refused", "subscription-refused"):
            tape.reply = (200, ["secret"])
            with pytest.raises(eka.EkaError) as caught:
                await ask(client)
            assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "size"), [("chunk.wav", 1), ("chunk_1.flac", 1), ("../x_1.wav", 1), ("chunk_1.wav", 10_000_001)]
)
async def test_a_chunk_that_would_be_refused_is_not_sent(name: str, size: int) -> None:
    """Its name has to tell its number, and it may have 10 MB."""
    async with running(Tape()) as tape, eka.connect(tape.url, PAIR) as client:
        with pytest.raises(eka.EkaError, match="expected") as caught:
            await client.upload("ses_1", name, bytes(size))
        assert tape.requests == []
    assert caught.value.code == "chunk-refused"


async def test_discovery_is_asked_for_once() -> None:
    """Without a token, for all clients of the service, and again when it is old."""
    async with running(Tape()) as tape:
        tape.reply = (200, {"models": [{"id": "pro", "max_session_duration_seconds": 3600}]})
        for _ in range(3):
            async with eka.connect(tape.url, PAIR) as client:
                assert (await client.discover()).longest("pro") == 3600
        [request] = tape.requests
        assert request.path == "/voice/v1/.well-known/medscribealliance"
        assert "authorization" not in request.headers
        client._service.discovery_ends = 0.0
        async with eka.connect(tape.url, PAIR) as client:
            await client.discover()
        assert len(tape.requests) == 2


async def test_a_stream_s_session_without_an_address_is_none() -> None:
    """One for chunks needs none."""
    async with running(Tape()) as tape, eka.connect(tape.url, PAIR) as client:
        tape.reply = (201, {"session_id": "ses_1", "expires_at": "2025-01-19T11:30:00Z"})
        session = await client.create(eka.SessionRequest(upload_type="chunked"))
        assert session.expires_at is not None and session.expires_at.hour == 11
        with pytest.raises(eka.EkaError, match="no upload_url"):
            await client.create(eka.SessionRequest())


async def test_the_clients_of_a_service_share_its_connections() -> None:
    """However many clients there are, requests one after the other need one connection; the last client closes it."""
    opened, gone = 0, anyio.Event()

    async def answer(stream: anyio.abc.SocketStream) -> None:
        nonlocal opened
        opened += 1
        async with stream:
            with suppress(anyio.EndOfStream):
                while True:
                    await stream.receive()
                    await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        gone.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            async with eka.connect(url, PAIR) as one:
                async with eka.connect(url, PAIR) as other:
                    await one.clock_ahead()
                    await other.clock_ahead()
                await one.clock_ahead()
                assert (opened, gone.is_set()) == (1, False)
            await gone.wait()
            async with eka.connect(url, PAIR) as late:
                await late.clock_ahead()
            assert opened == 2
            tasks.cancel_scope.cancel()
