"""The webhooks that ``eka_ingest`` sends, as the client's own receiver takes them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from ingest_kit import running

from mediaflow import Secret, eka, httpd
from mediaflow.eka import webhook
from mediaflow.websocket import Address
from mediaflow_plugins import _eka_webhooks
from mediaflow_plugins._eka_webhooks import Subscription, Webhooks

pytestmark = pytest.mark.anyio

KEY = Secret("a signing key")
STOP = '{"event": "stop"}'


class Endpoint:
    """A server that takes webhooks, with the status it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.taken: list[webhook.Delivery] = []
        self.requests: list[httpd.Request] = []
        self.came = anyio.Event()
        self.receiver = webhook.Receiver(KEY, self.handle, clock=time.time)

    async def handle(self, delivery: webhook.Delivery) -> None:
        self.taken.append(delivery)

    async def answer(self, request: httpd.Request) -> httpd.Response:
        self.requests.append(request)
        status = await self.receiver.receive(request.headers.get(webhook.HEADER.lower(), ""), request.body)
        self.came.set()
        return httpd.Response(status if self.status == 200 else self.status)


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """Run an endpoint on loopback."""
    taker, up = Endpoint(), anyio.Event()

    def listening(port: int) -> None:
        taker.url = f"http://127.0.0.1:{port}/hook?x=1"
        up.set()

    async def serve() -> None:
        await httpd.serve(taker.answer, Address("http", "127.0.0.1", 0, ""), listening=listening)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await up.wait()
        yield taker
        tasks.cancel_scope.cancel()


async def test_a_session_that_is_done_is_told() -> None:
    """Subscribed through our client, signed so that our receiver takes it, once, and with nothing but ids."""
    async with running() as ingest, endpoint() as taker:
        async with eka.connect(ingest.url, eka.Credentials(token=Secret("t"))) as client:
            await client.subscribe(taker.url, KEY)
        _, session = await ingest.send(b"ab", STOP)
        assert not taker.taken
        await ingest.end(session)
        await taker.came.wait()
        [delivery] = taker.taken
        assert (delivery.event, delivery.session_id) == ("v2rx.completed", session["session_id"])
        [request] = taker.requests
        assert (request.path, request.query, request.headers["content-type"]) == ("/hook", "x=1", "application/json")


async def test_an_endpoint_that_does_not_take_it_is_counted() -> None:
    """It harms nobody: the session is done all the same."""
    async with running() as ingest, endpoint() as taker:
        taker.status = 410
        async with eka.connect(ingest.url, eka.Credentials(token=Secret("t"))) as client:
            await client.subscribe(taker.url, KEY)
        _, session = await ingest.send(STOP)
        await ingest.end(session)
        await ingest.engine.counted("webhook-failed")
        assert (await ingest.get(session))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"event_names": ["v2rx.completed"], "endpoint": "http://example.org", "signing_key": "k", "protocol": "http"},
        {"event_names": [], "endpoint": "https://x:y", "signing_key": "k", "protocol": "https"},
        {"event_names": [], "endpoint": "https://x", "signing_key": "k", "protocol": "http"},
        {"event_names": [], "endpoint": "https://x", "signing_key": "", "protocol": "https"},
        {"event_names": [], "endpoint": "ftp://x", "signing_key": "k", "protocol": "ftp"},
        {"endpoint": "https://x"},
    ],
)
async def test_a_subscription_that_is_none(body: object) -> None:
    """In the clear to another machine, without a key, or to no address at all."""
    async with running() as ingest:
        status, answer = await ingest.ask("POST", "/notification/v1/connect/webhook/subscriptions", body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")


def test_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an endpoint replaces an older one."""
    monkeypatch.setattr(_eka_webhooks, "MAX_SUBSCRIPTIONS", 1)
    webhooks = Webhooks("", lambda name: None)

    def wanted(endpoint: str) -> Subscription:
        body = {"event_names": [], "endpoint": endpoint, "signing_key": "k", "protocol": "https"}
        return msgspec.convert(body, Subscription)

    assert webhooks.subscribe(wanted("https://x"))
    assert webhooks.subscribe(wanted("https://x"))
    assert not webhooks.subscribe(wanted("https://y"))
