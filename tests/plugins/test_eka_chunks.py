"""Uploads to ``eka_ingest``: order, repeats, what is no chunk."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from ingest_kit import Ingest, running

from mediaflow import AudioFormat, SessionError
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow_plugins import _eka_chunks, _eka_sessions
from mediaflow_plugins._eka_chunks import MAX_HELD, Refused, read_wav

pytestmark = pytest.mark.anyio

AUDIO = bytes(index % 251 for index in range(8000))
PARTS = [AUDIO[:1000], AUDIO[1000:1500], AUDIO[1500:5000], AUDIO[5000:]]


def wav(pcm: bytes, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """Return a WAV file as the standard library writes it."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return out.getvalue()


async def upload(ingest: Ingest, session: Any, name: str, data: bytes) -> tuple[int, Any]:
    return await ingest.ask("POST", f"/voice/v1/sessions/{session['session_id']}/audio/{name}", data)


async def result(ingest: Ingest, session: Any) -> tuple[int, Any]:
    """End a session and ask until it is done."""
    assert (await ingest.end(session))[0] == 202
    while True:
        status, body = await ingest.get(session)
        if status != 202:
            return status, body


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 2, 1]])
async def test_chunks_are_put_in_order(first: int, order: list[int]) -> None:
    """Counted from 0 or 1, in any order behind the first: the samples are those of the call."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked", additional_data={"call_id": "c"})
        assert session["upload_url"] == f"{ingest.url}/voice/v1/sessions/{session['session_id']}/audio"
        for part in order:
            name = f"chunk_{part + first}.wav"
            status, body = await upload(ingest, session, name, wav(PARTS[part]))
            assert (status, body) == (
                200,
                {"session_id": session["session_id"], "success": True, "original_filename": name},
            )
        status, body = await result(ingest, session)
        assert (status, body["status"], body["audio_files_received"]) == (200, "completed", 4)
        assert body["audio_files"] == [f"chunk_{part + first}.wav" for part in range(4)]
        assert await ingest.audio() == AUDIO
        [live] = ingest.engine.sessions
        assert live.stream.format == AudioFormat("s16le", 8000)
        assert live.stream.metadata["call_id"] == "c"


async def test_a_chunk_that_comes_twice_is_used_once() -> None:
    """Its first answer was lost; the second one is the same."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked")
        for part in (0, 0, 1, 0, 1):
            assert (await upload(ingest, session, f"chunk_{part}.wav", wav(PARTS[part])))[0] == 200
        await result(ingest, session)
        assert await ingest.audio() == AUDIO[:1500]


async def test_a_chunk_that_never_comes_leaves_a_partial_result() -> None:
    """What is behind it is kept, and the result says what is missing."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked")
        for part in (0, 3, 2):
            await upload(ingest, session, f"chunk_{part}.wav", wav(PARTS[part]))
        status, body = await result(ingest, session)
        assert (status, body["status"]) == (206, "partial")
        assert body["processing_errors"] == [{"code": "audio_missing", "sequence": 1}]
        assert await ingest.audio() == PARTS[0] + PARTS[2] + PARTS[3]


async def test_chunks_too_far_ahead_have_to_wait() -> None:
    """They are held in memory, so not more than a few."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked")
        await upload(ingest, session, "chunk_0.wav", wav(AUDIO))
        for number in range(2, 2 + MAX_HELD):
            assert (await upload(ingest, session, f"chunk_{number}.wav", wav(AUDIO)))[0] == 200
        api = ingest.client._client  # one request without tries
        path = f"/voice/v1/sessions/{session['session_id']}/audio/chunk_{2 + MAX_HELD}.wav"
        reply = await api.post(path, content=wav(AUDIO), headers={"Authorization": "Bearer any"})
        assert reply.status_code == 429
        assert (await upload(ingest, session, "chunk_1.wav", wav(AUDIO)))[0] == 200
        assert (await upload(ingest, session, f"chunk_{2 + MAX_HELD}.wav", wav(AUDIO)))[0] == 200
        await result(ingest, session)
        assert await ingest.audio() == AUDIO * (3 + MAX_HELD)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no RIFF",
        wav(AUDIO)[:30],
        wav(AUDIO, rate=44100),
        wav(AUDIO, channels=2),
        wav(AUDIO, width=1),
    ],
    ids=["nothing", "no wav", "cut off", "rate", "stereo", "8 bits"],
)
def test_what_is_no_chunk(data: bytes) -> None:
    """It is refused with the service's code."""
    with pytest.raises(Refused) as caught:
        read_wav(data)
    assert (caught.value.status, caught.value.code) == (400, "invalid_audio_format")


async def test_what_does_not_fit_the_session() -> None:
    """Another rate, a number from before, another kind of file, after the end, on a stream, too long."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked")
        assert (await upload(ingest, session, "chunk_1.wav", wav(AUDIO)))[0] == 200
        for name, data, status, code in [
            ("chunk_2.wav", wav(AUDIO, rate=16000), 400, "invalid_audio_format"),
            ("chunk_0.wav", wav(AUDIO), 400, "invalid_request"),
            ("chunk_2.webm", b"x", 400, "invalid_audio_format"),
            ("chunk_2.wav", bytes(_eka_chunks.MAX_CHUNK_BYTES + 1), 413, "chunk_too_large"),
        ]:
            found, body = await upload(ingest, session, name, data)
            assert (found, body["error"]["code"]) == (status, code)
        await result(ingest, session)
        found, body = await upload(ingest, session, "chunk_3.wav", wav(AUDIO))
        assert (found, body["error"]["code"]) == (400, "session_ended")
        stream = await ingest.create()
        found, body = await upload(ingest, stream, "chunk_0.wav", wav(AUDIO))
        assert (found, body["error"]["code"]) == (400, "invalid_request")


class FailingEngine(RecordingEngine):
    """An engine whose sinks have all failed before the first sample."""

    def open(self, stream: Any) -> Any:
        raise SessionError("every sink has failed")


async def test_audio_that_cannot_be_stored_gets_no_receipt() -> None:
    """The client is told, and can come again or give up; the source goes on."""
    async with running(FailingEngine()) as ingest:
        session = await ingest.create(upload_type="chunked")
        path = f"/voice/v1/sessions/{session['session_id']}/audio/chunk_0.wav"
        headers = {"Authorization": "Bearer any"}
        reply = await ingest.client._client.post(path, content=wav(AUDIO), headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
        assert ingest.engine.counts == {"chunks-not-stored": 1}
        assert (await ingest.end(session))[1]["audio_files_received"] == 0


class FailingLater(RecordingEngine):
    """An engine whose sinks have failed by the end."""

    @asynccontextmanager
    async def open(self, stream: Any) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            yield session
            raise SessionError("every sink has failed")


async def test_audio_that_was_taken_and_not_stored_is_no_success() -> None:
    """The result says failed, since the answers to the chunks are given."""
    async with running(FailingLater()) as ingest:
        session = await ingest.create(upload_type="chunked")
        assert (await upload(ingest, session, "chunk_0.wav", wav(AUDIO)))[0] == 200
        status, body = await result(ingest, session)
        assert (status, body["status"]) == (200, "failed")


async def test_stopping_the_source_finishes_its_uploads() -> None:
    """What was taken is in the pipeline, also of a session that nobody has ended."""
    engine = RecordingEngine()
    async with running(engine) as ingest:
        session = await ingest.create(upload_type="chunked")
        await upload(ingest, session, "chunk_0.wav", wav(AUDIO))
        await engine.until(lambda: bool(engine.sessions) and len(engine.sessions[0].audio) > 0)
    live: RecordedSession = engine.sessions[0]
    assert live.ended and live.audio["inbound"] == AUDIO


async def test_an_upload_that_nobody_ends_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the lifetime of a session its call is over."""
    async with running() as ingest:
        session = await ingest.create(upload_type="chunked")
        monkeypatch.setattr(_eka_sessions, "LIFETIME_S", 0.05)
        await upload(ingest, session, "chunk_0.wav", wav(AUDIO))
        with anyio.fail_after(5):
            [live] = await ingest.engine.ended()
        assert live.audio["inbound"] == AUDIO
