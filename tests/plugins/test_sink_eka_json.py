"""The sink ``eka_json``: its messages, and the whole way to the project's own ingest."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import anyio
import pytest
from eka_service import Plan, running_service

from mediaflow import AudioFormat, FormatError, PathTemplate, Secret, Stream
from mediaflow.testing import RecordingEngine, frames, write_all
from mediaflow_plugins.sink_eka_json import EkaJson
from mediaflow_plugins.source_eka_ingest import EkaIngest

pytestmark = pytest.mark.anyio

AUDIO = bytes(index % 251 for index in range(16000))


def sink(base_url: str, folder: Path) -> EkaJson:
    """Return a sink for a server on loopback."""
    return EkaJson(
        base_url=base_url, token=Secret("t0ken"), poll_s=0.01, results=PathTemplate(f"{folder}/{{session_id}}.json")
    )


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_to_our_own_ingest_and_back(tmp_path: Path, rate: int) -> None:
    """Every byte arrives at the rate that start announced, and is confirmed."""
    engine = RecordingEngine()
    format = AudioFormat("s16le", rate)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EkaIngest(listen="http://127.0.0.1:0", token=Secret("t0ken")).serve, engine)
            target = sink(await engine.url(), tmp_path)
            writer = await write_all(target, Stream("c", format), frames(AUDIO, format, range(160, 8000, 160)))
            [session] = await engine.ended()
            tasks.cancel_scope.cancel()
    assert session.stream.format == format
    assert session.audio["inbound"] == AUDIO
    assert writer.delivered == 8000
    assert writer.outcome["status"] == "completed"


async def test_the_messages_are_those_of_the_documents(tmp_path: Path) -> None:
    """start with an integer rate, media with base64, then stop."""
    format = AudioFormat("s16le", 8000)
    async with running_service(Plan()) as service:
        await write_all(sink(service.url, tmp_path), Stream("c", format), frames(AUDIO[:2000], format, [800]))
    start, *media = (json.loads(message) for message in service.messages)
    assert start == {"event": "start", "start": {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 8000}}}
    assert [message["event"] for message in media] == ["media", "media"]
    assert b"".join(base64.b64decode(message["media"]["payload"]) for message in media) == AUDIO[:2000]
    assert service.log == ["create", "open", "stop", "closed", "end", "get"]


@pytest.mark.parametrize(
    ("format", "tracks", "hint"),
    [
        (AudioFormat("mulaw", 8000), ("inbound",), "- use: mulaw_decode"),
        (AudioFormat("s16le", 24000), ("inbound",), "- use: resample"),
        (AudioFormat("s16le", 8000), ("inbound", "outbound"), "- use: mix"),
    ],
)
def test_a_format_that_does_not_fit_names_the_step(format: AudioFormat, tracks: tuple[str, ...], hint: str) -> None:
    """µ-law would be taken for PCM without an error; other rates would be mislabelled."""
    with pytest.raises(FormatError, match=hint):
        EkaJson(token=Secret("t")).check_format(format, tracks)
