"""Callbacks as the carrier sends them: their shape, their signatures, and what happens where nobody takes them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import anyio
import pytest
import stamina

from mediaflow import Secret, WireError, callback, httpd
from mediaflow.httpd import Request, Response
from mediaflow.lab.courier import Courier, Routes
from mediaflow.vobiz import Credentials
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio

ACCOUNT = Credentials("MA_1", Secret("t0ken"))
FIELDS = {"Event": "PlayedStream", "CallUUID": "call-1", "StreamID": "s-1", "Name": "a b&c", "Timestamp": "2025-11-06"}


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, as often as ever."""
    with stamina.set_testing(True, attempts=9, cap=True):
        yield


class Ear:
    """A server that keeps what it is told, and answers with what it is given first."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.statuses: list[int] = []

    async def take(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def _listening() -> AsyncIterator[Ear]:
    ear, up = Ear(), anyio.Event()
    address = Address("http", "127.0.0.1", 0, "")

    def listening(port: int) -> None:
        ear.url = address.url(port)
        up.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: httpd.serve(ear.take, address, listening=listening))
            await up.wait()
            yield ear
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["form", "json", "query"])
async def test_a_callback_is_understood_and_believed(way: str) -> None:
    """In each of its three shapes our own reader finds the same in it, and takes its signature, but only once."""
    async with _listening() as ear:
        courier = Courier(ACCOUNT, Routes(), as_json=way == "json")
        url = f"{ear.url}/status/x?mine=1"
        assert not await courier.tell(url, "GET" if way == "query" else "POST", FIELDS)
        (request,) = ear.requests
        assert (request.method, request.path) == ("GET" if way == "query" else "POST", "/status/x")
        assert request.headers["user-agent"] == "Vobiz-Webhook/1.0"
        found = callback.parse(request)
        assert (found.event, found.call_id, found.stream_id) == ("PlayedStream", "call-1", "s-1")
        assert found.facts["name"] == "a b&c"
        if way == "query":
            assert dict(parse_qsl(request.query)) == {"mine": "1", **FIELDS}
        else:
            kinds = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
            assert (request.headers["content-type"], request.query) == (kinds[way], "mine=1")
        signatures = callback.Signatures(Secret("t0ken"), ear.url)
        signatures.remember(signatures.check(request))
        with pytest.raises(WireError, match="answered already"):
            signatures.check(request)
        with pytest.raises(WireError, match="not signed"):
            callback.Signatures(Secret("another"), ear.url).check(request)


async def test_each_version_is_believed_by_itself() -> None:
    """Version 2 and version 3 are both right, also for a receiver that knows one of them only."""
    courier = Courier(ACCOUNT, Routes())
    headers = {name.lower(): value for name, value in courier.signatures("https://a.example/status?x=1").items()}
    for version in ("v2", "v3"):
        own = {name: value for name, value in headers.items() if f"-{version}" in name}
        request = Request("POST", "/status", "x=1", own, b"")
        assert len(callback.Signatures(Secret("t0ken"), "https://a.example").check(request)) == 1


async def test_plivos_validator_believes_it() -> None:
    """The SDK of Vobiz's relative, which signs version 2 by the same formula, says that it is right."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("plivo")
    from plivo.utils import validate_signature

    url = "https://a.example/status?x=1"
    headers = Courier(ACCOUNT, Routes()).signatures(url)
    nonce, signature = headers["X-Vobiz-Signature-V2-Nonce"], headers["X-Vobiz-Signature-V2"]
    assert validate_signature(url, nonce, signature, "t0ken")
    assert not validate_signature(url, nonce, signature, "another")


async def test_it_is_sent_again() -> None:
    """What is not taken is sent three times more, as it was; then it is said why it could not be delivered."""
    async with _listening() as ear:
        courier = Courier(ACCOUNT, Routes())
        ear.statuses = [500, 503, 500]
        assert await courier.tell(f"{ear.url}/status", "POST", FIELDS) == ""
        assert len(ear.requests) == 4
        assert len({request.headers["x-vobiz-signature-v3-nonce"] for request in ear.requests}) == 1
        ear.statuses = [500] * 4
        assert await courier.tell(f"{ear.url}/status", "POST", FIELDS) == "HTTP 500"
        ear.statuses = [403]
        assert await courier.tell(f"{ear.url}/status", "POST", FIELDS) == "HTTP 403"
    assert await courier.tell(f"{ear.url}/s3cret", "POST", FIELDS) != ""
    assert "s3cret" not in await courier.tell(f"{ear.url}/s3cret", "POST", FIELDS)


async def test_it_goes_where_a_proxy_would_lead_it() -> None:
    """A public address is signed, and the local one is connected to."""
    async with _listening() as ear:
        courier = Courier(ACCOUNT, Routes([("https://calls.example.org/", ear.url)]))
        assert not await courier.tell("https://calls.example.org/status", "POST", FIELDS)
        callback.Signatures(Secret("t0ken"), "https://calls.example.org").check(ear.requests[0])


@pytest.mark.parametrize(
    ("url", "led"),
    [
        ("https://a.example/vobiz/x?y=1", "http://127.0.0.1:1/in/x?y=1"),
        ("wss://a.example/vobiz", "ws://127.0.0.1:1/in"),
        ("wss://a.example/vobiz2", "ws://127.0.0.1:2/vobiz2"),
        ("https://a.example", "http://127.0.0.1:2"),
        ("https://a.example.org/vobiz", "https://a.example.org/vobiz"),
    ],
)
def test_routes(url: str, led: str) -> None:
    """The longest that fits is taken, whole parts of a path only, and a WebSocket stays one."""
    routes = Routes(
        [("https://a.example", "http://127.0.0.1:2/"), ("https://a.example/vobiz", "http://127.0.0.1:1/in")]
    )
    assert routes.lead(url) == led
