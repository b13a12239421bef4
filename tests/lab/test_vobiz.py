"""The lab's REST API, driven by Plivo's SDK, by our client, and by requests that no client would send."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import stamina
from lab_kit import Stage, staged

from mediaflow import Secret, vobiz
from mediaflow.lab.telephone import Call
from mediaflow.lab.vobiz import CREDENTIALS
from mediaflow.vobiz import Credentials, StreamRequest, VobizError

pytestmark = pytest.mark.anyio

ID, TOKEN = CREDENTIALS.auth_id, CREDENTIALS.auth_token.reveal()
OWN = {"X-Auth-ID": ID, "X-Auth-Token": TOKEN}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lab writes below the working directory; clients try again at once."""
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True, attempts=2):
        yield


@asynccontextmanager
async def _live(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Stage, Call, str]]:
    """Give a stage with a call that is being waited in, and the address of its media socket."""
    async with staged(tmp_path, speed=1.0, frames=60_000, **options) as stage:
        stage.app.xml = b"<Response><Wait length='3600'/></Response>"
        call = stage.carrier.calls[await stage.call()]
        while call.status == "ringing":  # noqa: ASYNC110 (a call does not tell of its states)
            await anyio.sleep(0.01)
        yield stage, call, f"{stage.app.url.replace('http', 'ws', 1)}/media"


async def test_our_client_streams_a_live_call(tmp_path: Path) -> None:
    """Streams are started, listed, shown and stopped one by one and all at once, and carry what was asked for."""
    async with _live(tmp_path) as (stage, call, url):
        status = f"{stage.app.url}/status"
        request = StreamRequest(
            url, "inbound", bidirectional=True, status_callback_url=status, extra_headers={"clinic": "7"}
        )
        first = await stage.client.start_stream(call.id, request)
        second = await stage.client.start_stream(
            call.id, StreamRequest(url, "both", content_type="audio/x-l16;rate=16000")
        )
        await stage.app.until(lambda: len(stage.app.sockets) == 2 and all(s.messages for s in stage.app.sockets))
        listed = [stream async for stream in stage.client.streams(call.id, page=1)]
        assert [stream.stream_id for stream in listed] == [first.stream_id, second.stream_id]
        shown = await stage.client.stream(call.id, first.stream_id)
        assert shown == listed[0]
        assert (shown.audio_track, shown.bidirectional, shown.status) == ("inbound", True, "in-progress")
        assert (shown.content_type, shown.sampling_rate) == ("audio/x-mulaw;rate=8000", 8000)
        assert (shown.service_url.reveal(), shown.end_time) == (url, "")
        assert (await stage.app.told("StartStream")).fields["X-VH-clinic"] == "7"
        by_id = {socket.start["streamId"]: socket for socket in stage.app.sockets}
        assert by_id[second.stream_id].start["tracks"] == ["inbound", "outbound"]
        assert by_id[second.stream_id].start["mediaFormat"]["sampleRate"] == 16_000
        await stage.client.stop_stream(call.id, first.stream_id)
        await stage.app.until(lambda: by_id[first.stream_id].closed)
        assert (await stage.app.told("StopStream")).fields["StreamID"] == first.stream_id
        assert not by_id[second.stream_id].closed
        await stage.client.stop_streams(call.id)
        await stage.app.until(lambda: by_id[second.stream_id].closed)
        await call.forks[1].over.wait()
        ended = [stream async for stream in stage.client.streams(call.id)]
        assert [stream.status for stream in ended] == ["completed", "completed"]
        assert all(stream.end_time for stream in ended)
        assert call.status == "in-progress"
        assert await stage.client.hang_up(call.id)
        await stage.hung_up()
        assert not await stage.client.hang_up(call.id)


async def test_plivos_own_client_drives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK of Vobiz's relative makes a call, finds it, streams it, and hangs it up."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("plivo")
    import plivo
    import plivo.rest.client as module

    done: dict[str, Any] = {}

    def drive(base: str, answer: str, media: str) -> None:
        for name in ("PLIVO_API_BASE_URI", "API_VOICE_BASE_URI"):
            monkeypatch.setattr(module, name, base)
        for number in (1, 2):
            monkeypatch.setattr(module, f"API_VOICE_BASE_URI_FALLBACK_{number}", base)
        with plivo.RestClient(ID, TOKEN) as client:
            made = client.calls.create("+911140001000", "+919800000000", answer)
            call = done["call"] = made.request_uuid
            while client.calls.get(call).call_status != "in-progress":
                pass
            done["live"] = [each.call_uuid for each in client.calls.list(limit=20)]
            started = client.calls.start_stream(call, service_url=media, audio_track="both", bidirectional=False)
            done["stream"] = client.calls.get_details_of_specific_stream(call, started.stream_id)
            done["streams"] = client.calls.get_all_streams(call)
            client.calls.delete_specific_stream(call, started.stream_id)
            client.calls.delete_all_streams(call)
            client.calls.hangup(call)
            with pytest.raises(plivo.exceptions.ResourceNotFoundError):
                client.calls.hangup("none")

    async with staged(tmp_path, speed=1.0, frames=60_000) as stage:
        stage.app.xml = b"<Response><Wait length='3600'/></Response>"
        media = f"{stage.app.url.replace('http', 'ws', 1)}/media"
        await anyio.to_thread.run_sync(drive, f"{stage.url}/Account", f"{stage.app.url}/answer", media)
        call = stage.carrier.calls[done["call"]]
        while call.status != "completed":  # noqa: ASYNC110 (a call does not tell of its states)
            await anyio.sleep(0.01)
        assert done["live"] == [call.id]
        assert done["stream"].stream_id == call.forks[0].id
        assert (done["stream"].service_url, done["stream"].audio_track) == (media, "both")
        assert call.source == "API"


async def test_what_is_refused_and_how(tmp_path: Path) -> None:
    """Each refusal has the status and the shape that Vobiz gives it; our client makes its error of them."""
    async with _live(tmp_path) as (stage, call, url), httpx.AsyncClient(trust_env=False) as web:
        root = f"{stage.url}/Account/{ID}"

        async def ask(method: str, path: str, body: object = None, headers: dict[str, str] = OWN) -> tuple[int, Any]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
            reply = await web.request(method, f"{root}{path}", content=content, headers=headers)
            return reply.status_code, reply.json() if reply.content else None

        for path in (f"/call/{call.id}/", f"/Call/{call.id}", f"/Call/{call.id}/stream/", "/", "/Call//", "/../Call/"):
            status, body = await ask("GET", path)
            assert (status, body["error"]) == (401, "authentication failed")
        for headers in ({}, {"X-Auth-ID": ID}, OWN | {"X-Auth-Token": "no"}, OWN | {"X-Auth-ID": "no"}):
            assert (await ask("GET", "/Call/", headers=headers))[0] == 401
        assert (await web.get(f"{root}/Call/", auth=(ID, TOKEN))).status_code == 200
        assert (await web.get(f"{root}/Call/", auth=(ID, "no"))).status_code == 401
        elsewhere = f"{stage.url.removesuffix('/api/v1')}/Call/{call.id}/"
        assert (await web.get(elsewhere, headers=OWN)).status_code == 401
        assert (await ask("DELETE", "/Call/none/"))[1]["error"] == "Call not found"
        assert (await ask("GET", f"/Call/{call.id}/Stream/none/"))[1]["error"] == "Stream not found"
        assert (await ask("PUT", f"/Call/{call.id}/"))[0] == 405
        for path, body, details in (
            ("/Call/", b"{", "not a JSON object"),
            ("/Call/", {"to": "+1", "answer_url": "http://a"}, "from is missing"),
            ("/Call/", {"from": "+1", "to": "+1", "answer_url": "ftp://a"}, "answer_url is not"),
            ("/Call/", {"from": "+1", "to": "+1", "answer_url": "http://a", "time_limit": "long"}, "time_limit is not"),
            (f"/Call/{call.id}/Stream/", {}, "ws:// or wss://"),
            (f"/Call/{call.id}/Stream/", {"service_url": url, "audio_track": "left"}, "audioTrack is one of"),
            (f"/Call/{call.id}/Stream/", {"service_url": url, "bidirectional": "true"}, "carries the track inbound"),
        ):
            status, said = await ask("POST", path, body)
            assert status == 400 and details in said["details"], (path, body, said)
        assert (await ask("GET", f"/Call/{call.id}/Stream/?limit=x"))[0] == 400
        status, _ = await ask("POST", f"/Call/{call.id}/Stream/", {"service_url": url, "bidirectional": True})
        assert status == 202
        assert any('the string "true" is meant' in line for line in stage.said)
        async with vobiz.connect(Credentials(ID, Secret("wrong")), stage.url) as stranger:
            with pytest.raises(VobizError, match="HTTP 401"):
                await stranger.stop_streams(call.id)


async def test_one_call_too_many(tmp_path: Path) -> None:
    """What exceeds the limit is refused with 429 and its details, and can be made once there is room."""
    async with _live(tmp_path, concurrency=1) as (stage, call, _):
        with pytest.raises(VobizError) as caught:
            await stage.call()
        assert (caught.value.status, caught.value.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert caught.value.retry_after_s == 1.0
        await stage.client.hang_up(call.id)
        await stage.hung_up()
        assert await stage.call() in stage.carrier.calls


async def test_a_call_as_it_is_described(tmp_path: Path) -> None:
    """While it lives and once it is over, a call can be looked at; a list has those that live."""
    async with _live(tmp_path) as (stage, call, _), httpx.AsyncClient(trust_env=False, headers=OWN) as web:
        root = f"{stage.url}/Account/{ID}"
        body = (await web.get(f"{root}/Call/{call.id}/")).json()
        assert (body["call_uuid"], body["call_status"], body["end_time"]) == (call.id, "in-progress", None)
        assert (body["from_number"], body["to_number"]) == ("+911140001000", "+919800000000")
        listed = (await web.get(f"{root}/Call/?limit=1")).json()
        assert [each["call_uuid"] for each in listed["objects"]] == [call.id]
        assert listed["meta"] == {"limit": 1, "offset": 0, "next": None, "previous": None, "total_count": 1}
        await stage.client.hang_up(call.id)
        await stage.hung_up()
        body = (await web.get(f"{root}/Call/{call.id}/")).json()
        assert (body["call_status"], body["hangup_cause_code"], body["hangup_source"]) == ("completed", 4000, "API")
        assert (await web.get(f"{root}/Call/")).json()["objects"] == []
        assert (await web.get(f"{root}/Call/{call.id}/Stream/")).json()["objects"] == []


async def test_a_stop_hangs_up_and_tells(tmp_path: Path) -> None:
    """A lab that is stopped ends its calls as it would otherwise, and waits until all have been told."""
    async with _live(tmp_path) as (stage, call, url):
        await stage.client.start_stream(call.id, StreamRequest(url))
        await stage.app.until(lambda: stage.app.sockets and stage.app.sockets[0].messages)
    hangup = await stage.hung_up()
    assert (hangup["CallUUID"], hangup["HangupSource"]) == (call.id, "Vobiz")
    assert call.status == "completed"
    assert stage.app.sockets[0].closed
