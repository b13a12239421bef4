"""The API of ``eka_ingest`` beyond a session's way: discovery, changes, ids, templates, as our client sees them."""

from __future__ import annotations

import pytest
from ingest_kit import running

from mediaflow import Secret, eka

pytestmark = pytest.mark.anyio

ANY = eka.Credentials(token=Secret("any"))


async def test_our_client_understands_our_service() -> None:
    """Discovery, templates, a login with its refresh, and what is not to be had here."""
    async with running(client_id="me", client_secret=Secret("pw")) as ingest:
        pair = eka.Credentials(client_id="me", client_secret=Secret("pw"))
        async with eka.connect(ingest.url, pair) as client:
            discovery = await client.discover()
            assert (discovery.longest("lite"), discovery.longest("pro")) == (600, 3600)
            assert {template.id for template in await client.templates()} == {
                "clinical_notes_template",
                "eka_emr_template",
                "transcript_template",
            }
            account = client._account
            account._renew_at = 0.0
            session = await client.create(eka.SessionRequest())
            assert ingest.engine.counts == {}
            with pytest.raises(eka.EkaError, match="audio_not_available"):
                await client.audio_url(session.id)


# What the service's OpenAPI description has in its answers, and of that what a service without a recogniser leaves out.
ANSWERS = {
    "created": {"session_id", "status", "created_at", "expires_at", "upload_url", "patient_details"},
    "ended": {"session_id", "status", "message", "audio_files_received", "audio_files"},
    "waiting": {"session_id", "status", "created_at"},
    "completed": {
        *("session_id", "status", "created_at", "completed_at", "expires_at", "model_used", "audio_files_received"),
        *("audio_files", "additional_data", "patient_details", "templates"),
    },
    "login": {"access_token", "expires_in", "refresh_token", "refresh_expires_in"},
    "refused": {"code", "message", "details"},
}


async def test_answers_have_the_documented_fields() -> None:
    """No more and no less, but for what was received, which the service does not tell so exactly."""
    async with running() as ingest:
        created = await ingest.create()
        _, waiting = await ingest.get(created)
        async with ingest.stream(created) as socket:
            await socket.send(bytes(3200))
            await socket.send('{"event": "stop"}')
            await socket.wait_closed()
        _, ended = await ingest.end(created)
        _, completed = await ingest.get(created)
        _, refused = await ingest.end(created)
        _, login = await ingest.ask("POST", "/connect-auth/v1/account/login", {"client_id": "a", "client_secret": "b"})
    assert completed.pop("audio") == {"samples": 1600, "sample_rate": 16000, "seconds": 0.1}
    given = {
        "created": created,
        "ended": ended,
        "waiting": waiting,
        "completed": completed,
        "login": login,
        "refused": refused["error"],
    }
    assert {name: set(body) for name, body in given.items()} == ANSWERS
    states = [given[name]["status"] for name in ("created", "waiting", "ended", "completed")]
    assert states == ["created", "initialized", "processing", "completed"]


async def test_a_session_can_be_changed() -> None:
    """additional_data is merged, the rest replaced; the model stays as it is after the end."""
    async with running() as ingest, eka.connect(ingest.url, ANY) as client:
        session = await client.create(eka.SessionRequest(upload_type="chunked", additional_data={"call_id": "c"}))
        await client.update(
            session.id, model="lite", additional_data={"more": 1}, patient_details={"oid": "p"}, templates=["a"]
        )
        await client.end(session.id)
        await client.update(session.id, patient_details={"oid": "q"})
        for change in ({"model": "pro"}, {"session_mode": "dictation"}):
            with pytest.raises(eka.EkaError, match="409 session_already_committed"):
                await client.update(session.id, **change)
        body = (await client.get(session.id)).body
        assert body["model_used"] == "lite"
        assert body["additional_data"] == {"call_id": "c", "more": 1}
        assert body["patient_details"] == {"oid": "q"}


@pytest.mark.parametrize(
    ("change", "status"),
    [({"unknown": 1}, 422), ({"templates": ["a", "b", "c"]}, 422), ({"additional_data": {"x": "y" * 4096}}, 400)],
)
async def test_a_change_that_is_none(change: dict[str, object], status: int) -> None:
    """Unknown fields, too many templates, too much data."""
    async with running() as ingest, eka.connect(ingest.url, ANY) as client:
        session = await client.create(eka.SessionRequest())
        with pytest.raises(eka.EkaError, match=f"HTTP {status} invalid_request"):
            await client.update(session.id, **change)


async def test_a_client_may_choose_the_id() -> None:
    """Asked for again before it is used, the session is the same; after that the id is taken."""
    async with running() as ingest, eka.connect(ingest.url, ANY) as client:
        wanted = eka.SessionRequest(session_id="call-0123456789ab")
        session = await client.create(wanted)
        assert session.id == "call-0123456789ab"
        assert await client.create(wanted) == session
        with pytest.raises(eka.EkaError, match="HTTP 409"):
            await client.create(eka.SessionRequest(session_id="call-0123456789ab", model="lite"))
        await client.end(session.id)
        with pytest.raises(eka.EkaError, match="HTTP 409"):
            await client.create(wanted)


@pytest.mark.parametrize(
    "fields",
    [{"session_id": "short"}, {"session_id": "x" * 65}, {"templates": ["a", "b", "c"]}, {"session_mode": "song"}],
)
async def test_a_session_that_the_service_would_refuse(fields: dict[str, object]) -> None:
    """Is refused here, too."""
    async with running() as ingest:
        status, body = await ingest.ask("POST", "/voice/v1/sessions", {"upload_type": "stream", **fields})
        assert (status, body["error"]["code"]) == (400, "invalid_request")


async def test_a_refresh_that_is_refused() -> None:
    """In the envelope of the logins, which is another."""
    async with running(client_id="me", client_secret=Secret("pw")) as ingest:
        path = "/connect-auth/v1/account/refresh-token"
        status, body = await ingest.ask("POST", path, {"refresh_token": "x", "access_token": "y"})
        assert (status, body["code"]) == (401, 401)


async def test_a_body_that_is_too_long() -> None:
    """Only chunks may be long."""
    async with running() as ingest:
        status, _ = await ingest.ask("POST", "/voice/v1/sessions", {"upload_type": "x" * (1 << 20)})
        assert status == 413
