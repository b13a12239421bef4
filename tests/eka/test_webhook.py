"""Webhooks of EkaScribe: signatures, repeats, and a real server that takes them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mediaflow import Secret, WireError, http
from mediaflow.eka import webhook

pytestmark = pytest.mark.anyio

KEY = Secret("s3cret-key")
NOW = 1_790_000_000
# printf '1790000000.{"a": 1}' | openssl dgst -sha256 -hmac s3cret-key
SIGNED = "t=1790000000,v1=d14b6b362eda37ef1773aba21bcf7d25b6ac558d832510d56669b5634a0a8b16"

EVENT: dict[str, Any] = {
    "business_id": "b",
    "client_id": "c",
    "service_id": "v2rx",
    "event_id": "v2rx.completed",
    "payload": {
        "service": "v2rx",
        "event": "v2rx.completed",
        "event_time": 1_790_000_000,
        "transaction_id": "ses_1",
        "data": {"x": 1},
    },
}


def test_the_signature_is_that_of_an_independent_program() -> None:
    """openssl agrees, byte for byte."""
    assert webhook.sign(KEY, b'{"a": 1}', NOW) == SIGNED
    webhook.check(KEY, SIGNED, b'{"a": 1}', NOW)


@pytest.mark.parametrize("off", [-180, 0, 180])
def test_a_signature_lasts_three_minutes_both_ways(off: int) -> None:
    """Clocks differ, and deliveries take a while."""
    webhook.check(KEY, SIGNED, b'{"a": 1}', NOW + off)


@pytest.mark.parametrize(
    ("header", "body", "off", "code"),
    [
        (SIGNED, b'{"a": 2}', 0, "bad-signature"),
        (SIGNED.replace("d14b", "d14c"), b'{"a": 1}', 0, "bad-signature"),
        (SIGNED.replace("t=179", "t=178"), b'{"a": 1}', 0, "bad-signature"),
        (SIGNED, b'{"a": 1}', 181, "old-signature"),
        (SIGNED, b'{"a": 1}', -181, "old-signature"),
        ("", b'{"a": 1}', 0, "bad-signature"),
        ("t=1790000000", b'{"a": 1}', 0, "bad-signature"),
        ("v1=d14b6b36", b'{"a": 1}', 0, "bad-signature"),
        (f"t=1,{SIGNED}", b'{"a": 1}', 0, "bad-signature"),
        ("t=x,v1=y", b'{"a": 1}', 0, "bad-signature"),
        ("t=1790000000,v1=µ", b'{"a": 1}', 0, "bad-signature"),
        (f"t={'9' * 5000},v1=y", b'{"a": 1}', 0, "bad-signature"),
    ],
)
def test_what_is_not_the_service_s_is_refused(header: str, body: bytes, off: int, code: str) -> None:
    """Changed, unsigned, signed at another time: each is refused with what may be the matter."""
    with pytest.raises(WireError) as caught:
        webhook.check(KEY, header, body, NOW + off)
    assert caught.value.code == code


def test_one_good_signature_of_several_is_enough() -> None:
    """While a key is exchanged, the service may sign with both."""
    webhook.check(KEY, f"{SIGNED},v1=00", b'{"a": 1}', NOW)
    webhook.check(KEY, SIGNED.replace("v1=", "v1=00, v1="), b'{"a": 1}', NOW)


def test_both_shapes_of_an_event_are_read() -> None:
    """Within an envelope and without."""
    wanted = webhook.Delivery("v2rx.completed", "ses_1", NOW, {"x": 1})
    assert webhook.parse(json.dumps(EVENT).encode()) == wanted
    assert webhook.parse(json.dumps(EVENT["payload"]).encode()) == wanted
    bare = {"event_id": "v2rx.completed", "payload": {"transaction_id": "ses_1"}}
    assert webhook.parse(json.dumps(bare).encode()) == webhook.Delivery("v2rx.completed", "ses_1", 0, {})


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"event":1,"transaction_id":"x"}', b'{"payload":7}'])
def test_what_is_no_event_is_an_error(body: bytes) -> None:
    """Anything else raises, and does not quote what came."""
    with pytest.raises(WireError):
        webhook.parse(body)


def test_a_receiver_needs_a_key() -> None:
    """With an empty one everybody could sign."""

    async def handler(delivery: webhook.Delivery) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="signing key"):
        webhook.Receiver(Secret(""), handler)


class Taken:
    """A handler that keeps what it is given, or fails."""

    def __init__(self) -> None:
        self.deliveries: list[webhook.Delivery] = []
        self.fails = False

    async def __call__(self, delivery: webhook.Delivery) -> None:
        if self.fails:
            raise ZeroDivisionError("a secret")
        self.deliveries.append(delivery)


def receive(taken: Taken) -> tuple[webhook.Receiver, Callable[[dict[str, object]], tuple[str, bytes]]]:
    """Return a receiver whose clock stands still, and a signer."""

    def signed(event: dict[str, object]) -> tuple[str, bytes]:
        body = json.dumps(event).encode()
        return webhook.sign(KEY, body, NOW), body

    return webhook.Receiver(KEY, taken, clock=lambda: NOW), signed


async def test_a_repeated_event_is_handled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was signed again or recorded; another session's is another event; memory is bounded."""
    monkeypatch.setattr(webhook, "MAX_REMEMBERED", 2)
    taken = Taken()
    receiver, signed = receive(taken)
    assert [await receiver.receive(*signed(EVENT)) for _ in range(3)] == [200, 200, 200]
    assert len(taken.deliveries) == 1
    for number in range(2):
        other = {**EVENT, "payload": {**EVENT["payload"], "transaction_id": f"other{number}"}}
        assert await receiver.receive(*signed(other)) == 200
    assert [delivery.session_id for delivery in taken.deliveries] == ["ses_1", "other0", "other1"]
    assert await receiver.receive(*signed(EVENT)) == 200
    assert len(taken.deliveries) == 4


async def test_a_handler_that_fails_gets_the_event_again(caplog: pytest.LogCaptureFixture) -> None:
    """The service is told 500 and comes back; the reason is not logged in full."""
    taken = Taken()
    receiver, signed = receive(taken)
    taken.fails = True
    assert await receiver.receive(*signed(EVENT)) == 500
    taken.fails = False
    assert await receiver.receive(*signed(EVENT)) == 200
    assert len(taken.deliveries) == 1
    assert "ZeroDivisionError" in caplog.text and "a secret" not in caplog.text


async def test_bad_deliveries_get_their_status() -> None:
    """401 for who cannot sign, 400 for what is signed and no event."""
    taken = Taken()
    receiver, signed = receive(taken)
    assert await receiver.receive("", b"{}") == 401
    assert await receiver.receive(*signed({})) == 400
    assert taken.deliveries == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_route_in_an_application(anyio_backend: str) -> None:
    """Mounted in Starlette and served by uvicorn, which knows asyncio only, over a real socket."""
    import uvicorn
    from starlette.applications import Starlette

    taken = Taken()
    app = Starlette(routes=[webhook.route("/eka", KEY, taken)])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def run() -> None:
            await server.serve([listener])

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                async with http.connect(url) as client:
                    body = json.dumps(EVENT).encode()
                    headers = {webhook.HEADER: webhook.sign(KEY, body, int(time.time()))}
                    assert (await client.request("POST", "/eka", body, headers=headers)).status == 200
                    assert (await client.request("POST", "/eka", body)).status == 401
                    assert (await client.request("GET", "/eka", headers=headers)).status == 405
                    long = bytes(webhook.MAX_BODY + 1)
                    assert (await client.request("POST", "/eka", long, headers=headers)).status == 413
                server.should_exit = True
    assert [delivery.session_id for delivery in taken.deliveries] == ["ses_1"]
