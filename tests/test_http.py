"""The HTTP client: what is asked again and what is not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import anyio
import msgspec
import pytest
import stamina
import trustme

from mediaflow import WireError, http, httpd
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, three times in all."""
    with stamina.set_testing(True, attempts=3):
        yield


class Script:
    """A server that gives prepared answers, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: httpd.Response) -> None:
        self.requests: list[httpd.Request] = []
        self._answers = list(answers)
        self._port = 0
        self._listening = anyio.Event()

    async def answer(self, request: httpd.Request) -> httpd.Response:
        self.requests.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def listening(self, port: int) -> None:
        self._port = port
        self._listening.set()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Listen, and give the URL."""
        host = "127.0.0.1" if tls is None else "localhost"
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                address = Address("http", host, 0, "")

                async def serve() -> None:
                    await httpd.serve(self.answer, address, listening=self.listening, tls=tls)

                tasks.start_soon(serve)
                await self._listening.wait()
                yield f"http{'s' if tls else ''}://{host}:{self._port}"
                tasks.cancel_scope.cancel()


async def test_json_there_and_back() -> None:
    """The body is JSON, the headers go along, and the answer is read as what is expected."""
    script = Script(httpd.Response(200, b'{"a": 1}'))
    async with script.running() as url, http.connect(url) as client:
        reply = await client.request("POST", "/x?y=z", {"grüß": [1]}, headers={"Authorization": "Bearer t"})
    assert reply.status == 200
    assert reply.json(dict[str, int]) == {"a": 1}
    [request] = script.requests
    assert (request.method, request.path, request.query) == ("POST", "/x", "y=z")
    assert request.headers["authorization"] == "Bearer t"
    assert request.headers["content-type"] == "application/json"
    assert msgspec.json.decode(request.body) == {"grüß": [1]}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_go_better_later_is_asked_again(status: int) -> None:
    """Too many requests and trouble in the server are tried again, with the same body."""
    script = Script(httpd.Response(status), httpd.Response(status), httpd.Response(200, b"{}"))
    async with script.running() as url, http.connect(url) as client:
        assert (await client.request("POST", "/", {"a": 1})).status == 200
    assert [request.body for request in script.requests] == [b'{"a":1}'] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
async def test_what_is_decided_is_not_asked_again(status: int) -> None:
    """Any other answer is returned at once."""
    script = Script(httpd.Response(status))
    async with script.running() as url, http.connect(url) as client:
        assert (await client.request("GET", "/")).status == status
    assert len(script.requests) == 1


async def test_the_last_answer_is_returned_when_it_does_not_get_better() -> None:
    """After all attempts the caller sees the status."""
    script = Script(httpd.Response(503))
    async with script.running() as url, http.connect(url) as client:
        assert (await client.request("GET", "/")).status == 503
    assert len(script.requests) == 3


async def test_who_connects_says_how_often() -> None:
    """A client that is to ask less often does."""
    with stamina.set_testing(True, attempts=9, cap=True):
        script = Script(httpd.Response(503))
        async with script.running() as url, http.connect(url, attempts=2) as client:
            assert (await client.request("GET", "/")).status == 503
    assert len(script.requests) == 2


async def test_retry_after_is_honoured() -> None:
    """The pause is the one that the server asks for."""
    stamina.set_testing(False)
    script = Script(httpd.Response(429, headers=(("Retry-After", "1"),)), httpd.Response(200))
    async with script.running() as url, http.connect(url) as client:
        before = anyio.current_time()
        assert (await client.request("GET", "/")).status == 200
        assert anyio.current_time() - before >= 1.0


async def test_a_very_long_retry_after_is_the_caller_s_affair() -> None:
    """An hour is not waited for here."""
    script = Script(httpd.Response(429, headers=(("Retry-After", "3600"),)), httpd.Response(200))
    async with script.running() as url, http.connect(url) as client:
        assert (await client.request("GET", "/")).status == 429


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after_holds_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """What is neither says nothing."""
    assert http.retry_after(http.Reply(429, {"retry-after": value}, b"")) == seconds


def test_retry_after_with_a_date_to_come() -> None:
    """A date gives the time until then."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    value = http.retry_after(http.Reply(429, {"retry-after": date}, b""))
    assert value is not None and 25 < value <= 30


@pytest.mark.parametrize(("status", "requests"), [(503, 1), (429, 3)])
async def test_what_must_not_happen_twice(status: int, requests: int) -> None:
    """It is asked again where the server surely did nothing, and not where it may have done it before it failed."""
    script = Script(httpd.Response(status))
    async with script.running() as url, http.connect(url) as client:
        assert (await client.request("POST", "/", {}, once=True)).status == status
    assert len(script.requests) == requests


async def test_who_asks_but_once_is_answered_but_once() -> None:
    """Also with what may go better later."""
    script = Script(httpd.Response(503))
    with stamina.set_testing(True, attempts=3, cap=True):
        async with script.running() as url, http.connect(url, attempts=1) as client:
            assert (await client.request("GET", "/")).status == 503
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("date", "ahead"), [("Sun, 09 Sep 2001 01:46:40 GMT", 0.5), ("Sun, 09 Sep 2001 01:47:40 GMT", 60.5), ("soon", None)]
)
async def test_the_clock_of_a_server(monkeypatch: pytest.MonkeyPatch, date: str, ahead: float | None) -> None:
    """Its Date tells it, by whole seconds."""
    monkeypatch.setattr(http, "time", SimpleNamespace(time=lambda: 1e9))
    assert http.clock_ahead(http.Reply(200, {"date": date}, b"")) == ahead
    assert http.clock_ahead(http.Reply(200, {}, b"")) is None


async def test_nobody_there() -> None:
    """It is ``Unreachable``, and the text names the place but not the path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(http.Unreachable, match=f"http://127.0.0.1:{port}: ") as caught:
        async with http.connect(f"http://127.0.0.1:{port}") as client:
            await client.request("GET", "/secret")
    assert "secret" not in str(caught.value)


async def test_a_server_that_does_not_answer() -> None:
    """A timeout is ``Unreachable`` too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with http.connect(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.05) as client:
            with pytest.raises(http.Unreachable, match="ReadTimeout"):
                await client.request("GET", "/")


async def test_tls_and_a_certificate_that_nobody_trusts() -> None:
    """https works with a trusted authority and not without."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    script = Script(httpd.Response(200))
    async with script.running(theirs) as url:
        async with http.connect(url, tls=ours) as client:
            assert (await client.request("GET", "/")).status == 200
        async with http.connect(url) as client:
            with pytest.raises(http.Unreachable, match="certificate"):
                await client.request("GET", "/")


@pytest.mark.parametrize("body", [b"", b"secret", b"[1]", b'{"a": "secret"}'])
def test_what_is_not_the_json_expected(body: bytes) -> None:
    """The error says how much came, never what."""
    with pytest.raises(WireError, match=f"{len(body)} bytes") as caught:
        http.Reply(200, {}, body).json(dict[str, int])
    assert "secret" not in str(caught.value)
