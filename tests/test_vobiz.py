"""The client of Vobiz's REST API, against a service that is as particular as Vobiz is."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
import stamina
from vobiz_service import ACCOUNT, CALL, ROOT, TOKEN, Service, running

from mediaflow import Secret, WireError, http, vobiz
from mediaflow.vobiz import CallRequest, Client, Credentials, StreamRequest, VobizError

pytestmark = pytest.mark.anyio

URL = "wss://calls.example.org/vobiz/s3cret"


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, three times in all."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def service() -> Iterator[Service]:
    """Run a service."""
    with running() as service:
        yield service


@asynccontextmanager
async def _client(service: Service, account: str = ACCOUNT, token: str = TOKEN) -> AsyncIterator[Client]:
    async with vobiz.connect(Credentials(account, Secret(token)), service.url) as client:
        yield client


async def test_a_stream_from_its_start_to_its_stop(service: Service) -> None:
    """Each request has the path, the headers and the body that Vobiz wants, to the letter."""
    request = StreamRequest(
        URL,
        "inbound",
        bidirectional=True,
        stream_timeout_s=60,
        status_callback_url="https://calls.example.org/status",
        extra_headers={"clinic": "7", "doctor": "9"},
    )
    async with _client(service) as client:
        started = await client.start_stream(CALL, request)
        assert started == vobiz.StreamStarted("stream-0", "audio streaming started")
        stream = await client.stream(CALL, "stream-0")
        await client.stop_stream(CALL, "stream-0")
        await client.start_stream(CALL, StreamRequest(URL))
        await client.stop_streams(CALL)
    base = f"{ROOT}/Call/{CALL}/Stream/"
    assert [(seen.method, seen.path) for seen in service.seen] == [
        ("POST", base),
        ("GET", f"{base}stream-0/"),
        ("DELETE", f"{base}stream-0/"),
        ("POST", base),
        ("DELETE", base),
    ]
    for seen in service.seen:
        assert (seen.headers["x-auth-id"], seen.headers["x-auth-token"]) == (ACCOUNT, TOKEN)
    assert service.seen[0].headers["content-type"] == "application/json"
    assert service.seen[0].body == {
        "service_url": URL,
        "audio_track": "inbound",
        "bidirectional": "true",
        "content_type": "audio/x-mulaw;rate=8000",
        "stream_timeout": 60,
        "status_callback_url": "https://calls.example.org/status",
        "status_callback_method": "POST",
        "extra_headers": "clinic=7,doctor=9",
    }
    assert service.seen[3].body == {
        "service_url": URL,
        "audio_track": "both",
        "bidirectional": "false",
        "content_type": "audio/x-mulaw;rate=8000",
        "stream_timeout": 86_400,
    }
    assert stream.bidirectional and stream.status == "in-progress" and stream.end_time == ""
    assert (stream.sampling_rate, stream.stream_timeout_s) == (8000, 60)
    assert stream.service_url.reveal() == URL


# A stream as the carrier's page on the stream object shows it, and the answers of its page on starting one and of the
# OpenAPI description beside it, which are not the same.
STREAM = (
    b'{"api_id":"a1","stream_id":"s-1","call_uuid":"c-1","service_url":"wss://calls.example.org/s3cret",'
    b'"audio_track":"both","bidirectional":false,"content_type":"audio/x-mulaw;rate=8000","sampling_rate":"8000",'
    b'"stream_timeout":86400,"status_callback_url":null,"status_callback_method":"POST","status":"completed",'
    b'"start_time":"2025-11-06 13:49:10+00:00","end_time":"2025-11-06T13:50:10Z","resource_uri":"/v1/x/","bill":"0.1"}'
)
INFO = vobiz.StreamInfo(
    stream_id="s-1",
    call_uuid="c-1",
    service_url=Secret("wss://calls.example.org/s3cret"),
    audio_track="both",
    content_type="audio/x-mulaw;rate=8000",
    sampling_rate=8000,
    stream_timeout_s=86_400,
    status="completed",
    start_time="2025-11-06 13:49:10+00:00",
    end_time="2025-11-06T13:50:10Z",
)
BASE = f"{ROOT}/Call/c-1/"
WIRE: list[tuple[Callable[[Client], Any], tuple[int, bytes], object, str, bytes]] = [
    (
        lambda client: client.start_stream("c-1", StreamRequest("wss://x.example/s", "inbound", bidirectional=True)),
        (202, b'{"api_id":"a1","message":"audio streaming started","stream_id":"s-1"}'),
        vobiz.StreamStarted("s-1", "audio streaming started"),
        f"POST {BASE}Stream/",
        (
            b'{"service_url":"wss://x.example/s","audio_track":"inbound","bidirectional":"true",'
            b'"content_type":"audio/x-mulaw;rate=8000","stream_timeout":86400}'
        ),
    ),
    (
        lambda client: client.start_stream("c-1", StreamRequest("wss://x.example/s", extra_headers={"a": "1"})),
        (200, b'{"stream_id":"str_1","message":"Stream started"}'),
        vobiz.StreamStarted("str_1", "Stream started"),
        f"POST {BASE}Stream/",
        (
            b'{"service_url":"wss://x.example/s","audio_track":"both","bidirectional":"false",'
            b'"content_type":"audio/x-mulaw;rate=8000","stream_timeout":86400,"extra_headers":"a=1"}'
        ),
    ),
    (lambda client: client.stream("c-1", "s-1"), (200, STREAM), INFO, f"GET {BASE}Stream/s-1/", b""),
    (
        lambda client: _listed(client),
        (
            200,
            b'{"api_id":"a1","meta":{"limit":20,"offset":0,"next":null,"total_count":1},"objects":[' + STREAM + b"]}",
        ),
        [INFO],
        f"GET {BASE}Stream/?limit=20&offset=0",
        b"",
    ),
    (lambda client: client.stop_stream("c-1", "s-1"), (204, b""), None, f"DELETE {BASE}Stream/s-1/", b""),
    (lambda client: client.stop_streams("c-1"), (204, b""), None, f"DELETE {BASE}Stream/", b""),
    (
        lambda client: client.make_call(
            CallRequest(caller="1", callee="2", answer_url="https://x.example/a", hangup_url="https://x.example/h")
        ),
        (201, b'{"api_id":"a1","message":"Call fired","request_uuid":"c-1"}'),
        vobiz.CallStarted("c-1", "Call fired"),
        f"POST {ROOT}/Call/",
        (
            b'{"from":"1","to":"2","answer_url":"https://x.example/a","answer_method":"POST","time_limit":14400,'
            b'"hangup_url":"https://x.example/h"}'
        ),
    ),
    (lambda client: client.hang_up("c-1"), (204, b""), True, f"DELETE {BASE}", b""),
    (
        lambda client: client.hang_up("c-1"),
        (404, b'{"api_id":"a1","error":"Call not found"}'),
        False,
        f"DELETE {BASE}",
        b"",
    ),
]


async def _listed(client: Client) -> list[vobiz.StreamInfo]:
    return [stream async for stream in client.streams("c-1")]


@pytest.mark.parametrize(("ask", "reply", "value", "line", "body"), WIRE, ids=lambda value: None)
async def test_every_request_is_the_documented_one(
    service: Service,
    ask: Callable[[Client], Any],
    reply: tuple[int, bytes],
    value: object,
    line: str,
    body: bytes,
) -> None:
    """Method, path and body to the byte, and what is read of the answer."""
    service.answers = [(*reply, {})]
    async with _client(service) as client:
        assert await ask(client) == value
    [seen] = service.seen
    assert f"{seen.method} {seen.path}" == line
    assert (json.dumps(seen.body, separators=(",", ":")).encode() if seen.body is not None else b"") == body


@pytest.mark.parametrize("shape", ["objects", "list"])
@pytest.mark.parametrize("number", [0, 1, 4, 5])
async def test_a_list_is_fetched_page_by_page(service: Service, shape: str, number: int) -> None:
    """Every stream comes once, whether the list comes in pages or as a whole."""
    service.list_shape = shape
    service.streams = [{"stream_id": str(n), "bidirectional": "true", "sampling_rate": "8000"} for n in range(number)]
    page = 2 if shape == "objects" else 9
    async with _client(service) as client:
        found = [stream async for stream in client.streams(CALL, page=page)]
    assert [stream.stream_id for stream in found] == [str(n) for n in range(number)]
    assert all(stream.bidirectional and stream.sampling_rate == 8000 for stream in found)
    assert len(service.seen) == (max(1, -(-number // 2)) if shape == "objects" else 1)


async def test_calls(service: Service) -> None:
    """A call is made and hung up; to hang up what is over already is no error."""
    request = CallRequest(caller="+911140001000", callee="+919800000000", answer_url="https://calls.example.org/answer")
    async with _client(service) as client:
        call = await client.make_call(request)
        assert (call.call_uuid, call.message) == ("new-call", "Call fired")
        assert await client.hang_up(call.call_uuid)
        assert not await client.hang_up(call.call_uuid)
    assert [(seen.method, seen.path) for seen in service.seen[:2]] == [
        ("POST", f"{ROOT}/Call/"),
        ("DELETE", f"{ROOT}/Call/new-call/"),
    ]
    assert service.seen[0].body == {
        "from": "+911140001000",
        "to": "+919800000000",
        "answer_url": "https://calls.example.org/answer",
        "answer_method": "POST",
        "time_limit": 14_400,
    }


@pytest.mark.parametrize(
    ("status", "body", "code", "message", "request_id"),
    [
        (404, {"api_id": "a9", "error": "Stream not found"}, "not-found", "Stream not found", "a9"),
        (400, {"api_id": "a9", "error": "no", "message": "bad track"}, "bad-request", "no: bad track", "a9"),
        (402, {"error": "no money", "details": "top up"}, "payment-required", "no money: top up", ""),
        (
            400,
            {"status": "error", "error": {"code": "E7", "message": "no", "details": {}}, "requestId": "r9"},
            "E7",
            "no",
            "r9",
        ),
        (403, b"<html>a proxy</html>", "forbidden", "Forbidden", ""),
        (409, ["?"], "conflict", "Conflict", ""),
        (499, {"error": None}, "unknown-status", "unknown status", ""),
    ],
)
async def test_every_shape_of_refusal(
    service: Service, status: int, body: object, code: str, message: str, request_id: str
) -> None:
    """Whatever a refusal looks like, one error says status, code, message and request."""
    service.answers = [(status, body, {})]
    async with _client(service) as client:
        with pytest.raises(VobizError) as caught:
            await client.stop_streams(CALL)
    error = caught.value
    assert (error.status, error.code, error.message, error.request_id) == (status, code, message, request_id)


async def test_a_wrong_token_and_a_wrong_path_look_alike(service: Service) -> None:
    """A 401 reminds that Vobiz says it of paths too, and shows no credentials."""
    async with _client(service, token="wr0ng") as client:
        with pytest.raises(VobizError, match=r"HTTP 401.*also a path in wrong case") as caught:
            await client.stop_streams(CALL)
    assert "wr0ng" not in str(caught.value)


async def test_errors_and_requests_show_no_numbers_and_no_secrets(service: Service) -> None:
    """What Vobiz quotes of a number or an address, and how a request shows itself, can be logged."""
    service.answers = [(400, {"error": f"cannot ring +919800000000 or stream to {URL}"}, {})]
    call = CallRequest(caller="+911140001000", callee="+919800000000", answer_url="https://u:p@a.example.org/s3cret")
    async with _client(service) as client:
        with pytest.raises(VobizError) as caught:
            await client.make_call(call)
    assert caught.value.message == "cannot ring … or stream to wss://calls.example.org/…"
    shown = f"{call!r} {StreamRequest(URL)!r}"
    assert shown == "CallRequest(https://a.example.org/…) StreamRequest(wss://calls.example.org/…, both)"


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [({"Retry-After": "600"}, {}, 600.0), ({}, {"limitType": "cps", "retryAfter": 601}, 601.0), ({}, {}, None)],
)
async def test_too_many_requests(
    service: Service, headers: dict[str, str], details: dict[str, Any], seconds: float | None
) -> None:
    """What asks for a pause longer than we wait is told to the caller; otherwise it is asked again, calls too."""
    refusal = (429, {"status": "error", "error": {"code": "LIMIT", "message": "slow", "details": details}}, headers)
    service.answers = [refusal] * 3
    async with _client(service) as client:
        with pytest.raises(VobizError) as caught:
            await client.start_stream(CALL, StreamRequest(URL))
        assert (caught.value.code, caught.value.retry_after_s) == ("LIMIT", seconds)
        assert len(service.seen) == (3 if seconds is None else 1)
        service.answers = [(429, {"error": {"details": {"retryAfter": 0}}}, {})]
        assert (await client.start_stream(CALL, StreamRequest(URL))).stream_id == "stream-0"


@pytest.mark.parametrize("trouble", [500, 0])
async def test_nobody_is_rung_up_twice(service: Service, trouble: int) -> None:
    """Where an answer is lost or is an error of theirs, a call is not made again; a question is asked again."""
    call = CallRequest(caller="+911140001000", callee="+919800000000", answer_url="https://calls.example.org/answer")
    async with _client(service) as client:
        service.answers = [(trouble, {}, {})]
        with pytest.raises((VobizError, http.Unreachable)):
            await client.make_call(call)
        assert len(service.seen) == 1
        service.answers = [(trouble, {}, {})]
        assert not [stream async for stream in client.streams(CALL)]
        assert len(service.seen) == 3


@pytest.mark.parametrize("body", [b"hello", {}, {"objects": {}}, {"objects": [3]}, [{"id": "x"}], 7])
async def test_an_answer_that_is_none(service: Service, body: object) -> None:
    """A list of something else is an error of the wire, not an empty list."""
    service.answers = [(200, body, {})]
    async with _client(service) as client:
        with pytest.raises(WireError):
            _ = [stream async for stream in client.streams(CALL)]


async def test_an_id_cannot_change_the_path(service: Service) -> None:
    """An empty id, which would stop every stream, is refused; a slash in one stays in it."""
    async with _client(service) as client:
        with pytest.raises(ValueError, match="the stream's id is empty"):
            await client.stop_stream(CALL, " ")
        with pytest.raises(ValueError, match="the call's id is empty"):
            await client.hang_up("")
        with pytest.raises(VobizError, match="Stream not found"):
            await client.stop_stream(CALL, "../x?")
    assert [seen.path for seen in service.seen] == [f"{ROOT}/Call/{CALL}/Stream/..%2Fx%3F/"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: StreamRequest("https://calls.example.org"), "ws:// or wss://"),
        (lambda: StreamRequest(URL, "both", bidirectional=True), "carries the track inbound, not both"),
        (lambda: StreamRequest(URL, stream_timeout_s=0), "at least 1"),
        (lambda: StreamRequest(URL, extra_headers={"a": "b,c=d"}), "letters, digits and _ only"),
        (lambda: CallRequest(caller="a", callee="b", answer_url="ftp://x"), "http:// or https://"),
        (lambda: Credentials("", Secret("t")), "both an auth id"),
    ],
)
def test_what_would_go_wrong_without_a_word(make: Any, what: str) -> None:
    """A request that Vobiz would take and not do is refused here."""
    with pytest.raises(ValueError, match=what):
        make()


async def test_plivos_own_client_agrees(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK of Vobiz's relative drives the same service: our paths are not only what we think they are."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("plivo")
    import plivo
    import plivo.rest.client as module

    for name in ("PLIVO_API_BASE_URI", "API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1"):
        monkeypatch.setattr(module, name, f"{service.url}/Account")
    monkeypatch.setattr(module, "API_VOICE_BASE_URI_FALLBACK_2", f"{service.url}/Account")

    def drive() -> None:
        with plivo.RestClient(ACCOUNT, TOKEN) as client:
            started = client.calls.start_stream(CALL, service_url=URL, audio_track="both")
            client.calls.get_details_of_specific_stream(CALL, started.stream_id)
            client.calls.get_all_streams(CALL)
            client.calls.delete_specific_stream(CALL, started.stream_id)
            client.calls.delete_all_streams(CALL)

    await anyio.to_thread.run_sync(drive)
    theirs = [(seen.method, seen.path.partition("?")[0]) for seen in service.seen]
    service.seen.clear()
    async with _client(service) as ours:
        started = await ours.start_stream(CALL, StreamRequest(URL))
        await ours.stream(CALL, started.stream_id)
        _ = [stream async for stream in ours.streams(CALL)]
        await ours.stop_stream(CALL, started.stream_id)
        await ours.stop_streams(CALL)
    assert [(seen.method, seen.path.partition("?")[0]) for seen in service.seen] == theirs
