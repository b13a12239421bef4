"""The sink ``eka_upload``: its chunks, what becomes of trouble, and the whole way to the project's own ingest."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import stamina

from mediaflow import AudioFormat, Cut, FormatError, Item, PathTemplate, Secret, SinkError, Stream, httpd
from mediaflow.httpd import Request, Response
from mediaflow.testing import RecordingEngine, frames, write_all
from mediaflow.websocket import Address
from mediaflow_plugins import sink_eka_upload
from mediaflow_plugins.sink_eka_upload import EkaUpload
from mediaflow_plugins.source_eka_ingest import EkaIngest

pytestmark = pytest.mark.anyio

PCM = AudioFormat("s16le", 8000)
AUDIO = bytes(index % 251 for index in range(8000 * 2 * 5))
CALL = Stream("call-7", PCM)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try again at once, and only once a round."""
    monkeypatch.setattr(sink_eka_upload, "AGAIN_S", 0.0)
    with stamina.set_testing(True, attempts=2):
        yield


def sink(base_url: str, folder: Path, **options: object) -> EkaUpload:
    """Return a sink for a server on loopback."""
    options = {
        "token": Secret("t0ken"),
        "poll_s": 0.01,
        "chunk_s": 2,
        "results": PathTemplate(f"{folder}/{{session_id}}.json"),
    } | options
    return EkaUpload(base_url=base_url, **options)  # type: ignore[arg-type]


class Service:
    """A service that keeps what is uploaded; ``trouble`` holds statuses to answer chunks with before it is well."""

    def __init__(self) -> None:
        self.url = ""
        self.log: list[str] = []
        self.chunks: dict[str, bytes] = {}
        self.created: dict[str, object] = {}
        self.sent: object = None
        self.trouble: list[int] = []
        self.received: int | None = None
        self.lost_ends = 0

    async def answer(self, request: Request) -> Response:
        if request.path.endswith("/medscribealliance"):
            return self._json(200, {"models": [{"id": "pro", "max_session_duration_seconds": 3600}]})
        assert request.headers["authorization"] == "Bearer t0ken"
        step = request.path.removeprefix("/voice/v1/sessions").removeprefix("/ses_1").lstrip("/")
        self.log.append(f"{request.method} {step}".strip())
        if request.method == "GET":
            done = self.log.count("POST end") > self.lost_ends
            return self._json(*((200, {"status": "completed"}) if done else (202, {"status": "initialized"})))
        if step == "end":
            self.sent = json.loads(request.body)
            received = len(self.chunks) if self.received is None else self.received
            return self._json(202, {"audio_files_received": received})
        if not step:
            self.created = json.loads(request.body)
            return self._json(201, {"session_id": "ses_1", "upload_url": "https://x.example"})
        if self.trouble:
            return self._json(self.trouble.pop(0), {"error": {"code": "chunk_too_large"}})
        assert request.headers["content-type"] == "audio/wav"
        self.chunks[step.removeprefix("audio/")] = request.body
        return self._json(200, {"success": True})

    def _json(self, status: int, body: object) -> Response:
        return Response(status, json.dumps(body).encode())

    def audio(self) -> list[bytes]:
        """Return the samples of each chunk, read by the standard library."""
        found = []
        for name in sorted(self.chunks):
            with wave.open(io.BytesIO(self.chunks[name])) as file:
                assert file.getparams()[:3] == (1, 2, 8000)
                found.append(file.readframes(file.getnframes()))
        return found


@asynccontextmanager
async def running_service() -> AsyncIterator[Service]:
    """Run a service on loopback, and fail after ten seconds."""
    service, up = Service(), anyio.Event()

    def listening(port: int) -> None:
        service.url = f"http://127.0.0.1:{port}"
        up.set()

    async def serve() -> None:
        await httpd.serve(service.answer, Address("http", "127.0.0.1", 0, ""), listening=listening)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            yield service
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_to_our_own_ingest_and_back(tmp_path: Path, rate: int) -> None:
    """Every byte arrives in its order at its rate, is confirmed, and the result knows the chunks."""
    engine, format = RecordingEngine(), AudioFormat("s16le", rate)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EkaIngest(listen="http://127.0.0.1:0", token=Secret("t0ken")).serve, engine)
            target = sink(await engine.url(), tmp_path, chunk_s=1)
            writer = await write_all(target, Stream("c", format), frames(AUDIO, format, range(160, 40000, 160)))
            [session] = await engine.ended()
            tasks.cancel_scope.cancel()
    assert session.stream.format == format
    assert session.stream.metadata["call_id"] == "c"
    assert session.audio["inbound"] == AUDIO
    assert writer.delivered == 40000
    assert writer.outcome["status"] == "completed"
    result = json.loads(await anyio.Path(str(writer.outcome["result"])).read_bytes())
    chunks = -(-5 * 8000 // rate)
    assert result["audio_files"] == [f"chunk_{number}.wav" for number in range(chunks)]


@pytest.mark.parametrize("cuts", [[], [1], range(160, 40000, 160), [15999, 16001, 39999]])
async def test_chunks_follow_one_another_in_order(tmp_path: Path, cuts: list[int]) -> None:
    """Each holds chunk_s, the last one the rest, however the audio was sliced; then end says how many there were."""
    async with running_service() as service:
        writer = await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM, cuts))
    assert service.audio() == [AUDIO[:32000], AUDIO[32000:64000], AUDIO[64000:]]
    assert service.log == ["POST", *(f"POST audio/chunk_{n}.wav" for n in range(3)), "POST end", "GET"]
    assert service.sent == {"audio_files_sent": 3}
    assert writer.delivered == 40000
    assert (service.created["upload_type"], service.created["communication_protocol"]) == ("chunked", "http")


async def test_a_chunk_ends_where_a_pause_is(tmp_path: Path) -> None:
    """A cut ends it; one without audio before it does not make an empty chunk."""
    parts = frames(AUDIO[:20000], PCM, [4000])
    items: list[Item] = [Cut("inbound", 0.0), parts[0], Cut("inbound", 0.5), Cut("inbound", 0.5), parts[1]]
    async with running_service() as service:
        await write_all(sink(service.url, tmp_path), CALL, items)
    assert service.audio() == [AUDIO[:8000], AUDIO[8000:20000]]


async def test_a_call_without_audio_is_ended_too(tmp_path: Path) -> None:
    """Nothing was said: no chunk is sent."""
    async with running_service() as service, sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)):
        pass
    assert service.log == ["POST", "POST end", "GET"]
    assert service.sent == {"audio_files_sent": 0}


async def test_trouble_costs_time_and_no_audio(tmp_path: Path) -> None:
    """A chunk is sent again under its name until the service takes it."""
    async with running_service() as service:
        service.trouble = [503] * 7
        writer = await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM))
    assert b"".join(service.audio()) == AUDIO
    assert service.log.count("POST audio/chunk_0.wav") == 8
    assert writer.delivered == 40000


async def test_trouble_that_lasts_is_given_up(tmp_path: Path) -> None:
    """After retry_s; what was confirmed before stays so, and the session is ended with it."""
    async with running_service() as service:
        [first, rest] = frames(AUDIO, PCM, [16000])
        with pytest.raises(SinkError) as caught:
            async with sink(service.url, tmp_path, retry_s=0).open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(first)
                service.trouble = [503] * 4
                await writer.write(rest)
    assert caught.value.code == "unreachable"
    assert writer.delivered == 16000
    assert service.log[-1] == "POST end"
    assert service.sent == {"audio_files_sent": 1}


async def test_a_chunk_that_is_refused_is_an_error(tmp_path: Path) -> None:
    """What will not go better later is not tried again."""
    async with running_service() as service:
        service.trouble = [413]
        with pytest.raises(SinkError, match="chunk_too_large") as caught:
            await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM))
    assert caught.value.code == "chunk-refused"


async def test_chunks_that_the_service_does_not_have(tmp_path: Path) -> None:
    """The result is fetched all the same, and the sink says what is missing."""
    async with running_service() as service:
        service.received = 2
        with pytest.raises(SinkError, match="2 of 3 chunks") as caught:
            await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM))
    assert caught.value.code == "chunks-missing"
    assert (tmp_path / "ses_1.json").exists()


async def test_an_end_that_got_lost_is_repeated_with_its_count(tmp_path: Path) -> None:
    """The service is told again how many chunks there were."""
    async with running_service() as service:
        service.lost_ends = 2
        await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM))
    assert service.log.count("POST end") == 3
    assert service.sent == {"audio_files_sent": 3}


async def test_trouble_at_the_end_of_a_call(tmp_path: Path) -> None:
    """What was stored before and what the rest came to are both counted when the session is ended."""
    async with running_service() as service:
        with pytest.raises(SinkError):
            async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(frames(AUDIO, PCM, [17000])[0])
                service.trouble = [413]
    assert writer.delivered == 16000
    assert service.sent == {"audio_files_sent": 1}


async def test_leaving_by_an_exception_ends_what_is_stored(tmp_path: Path) -> None:
    """The chunks that are there are processed; nobody waits for a result."""
    async with running_service() as service:
        with pytest.raises(ZeroDivisionError):
            async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(frames(AUDIO, PCM, [17000])[0])
                raise ZeroDivisionError
    assert service.log == ["POST", "POST audio/chunk_0.wav", "POST end"]
    assert service.sent == {"audio_files_sent": 1}


@pytest.mark.parametrize(
    ("format", "tracks", "hint"),
    [
        (AudioFormat("mulaw", 8000), ("inbound",), "- use: mulaw_decode"),
        (AudioFormat("s16le", 24000), ("inbound",), "- use: resample"),
        (AudioFormat("s16le", 8000), ("inbound", "outbound"), "- use: mix"),
    ],
)
def test_a_format_that_does_not_fit_names_the_step(format: AudioFormat, tracks: tuple[str, ...], hint: str) -> None:
    """As for the streams."""
    with pytest.raises(FormatError, match=hint):
        EkaUpload(token=Secret("t")).check_format(format, tracks)
