"""The stream of a session by itself, against a service made of stock parts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import pytest
import stamina
from eka_service import Plan, Service, running_service
from ingest_kit import running

from mediaflow import Secret, eka

pytestmark = pytest.mark.anyio

TOKEN = eka.Credentials(token=Secret("t0ken"))
PCM = bytes(range(200)) * 16


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, and only once."""
    with stamina.set_testing(True, attempts=2):
        yield


async def create(service: Service) -> eka.Session:
    async with eka.connect(service.url, TOKEN) as client:
        return await client.create(eka.SessionRequest())


@pytest.mark.parametrize("rate", [None, 8000, 16000])
async def test_a_consultation_without_a_pipeline(rate: int | None) -> None:
    """Create, stream, end, ask: in the service's order, with the messages that the official SDK sends."""
    async with running_service(Plan()) as service, eka.connect(service.url, TOKEN) as client:
        session = await client.create(eka.SessionRequest())
        async with eka.stream.connect(session, rate) as stream:
            await stream.send(PCM)
            if not stream.send_nowait(PCM):  # on trio nothing is taken without waiting
                await stream.send(PCM)
            mark = stream.mark()
            stream.press()
            with anyio.fail_after(5):
                while stream.reached < mark:
                    await anyio.lowlevel.checkpoint()
        await client.end(session.id)
        state = await client.result(session.id)
    assert state.status == "completed"
    assert service.log == ["create", "open", "stop", "closed", "end", "get"]
    assert "authorization" not in service.stream_headers
    if rate is None:
        assert service.messages == [PCM, PCM]
        return
    start, *media = (json.loads(message) for message in service.messages)
    assert start == {"event": "start", "start": {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": rate}}}
    assert [set(message) for message in media] == [{"event", "media"}] * 2


@pytest.mark.parametrize(("code", "name"), [(4000, "stream-unknown"), (1011, "stream-lost"), (1006, "stream-lost")])
async def test_a_close_that_is_no_receipt(code: int, name: str) -> None:
    """Behind stop only 1000 says that all is stored."""
    async with running_service(Plan(close_code=code)) as service:
        session = await create(service)
        with pytest.raises(eka.EkaError) as caught:
            async with eka.stream.connect(session) as stream:
                await stream.send(PCM)
    assert caught.value.code == name
    assert "str_1" not in str(caught.value)


async def test_a_service_that_leaves_in_the_middle() -> None:
    """Sending to it raises, and it is not waited for."""
    async with running_service(Plan(close_at=1, close_code=1011)) as service:
        session = await create(service)
        with pytest.raises(eka.EkaError) as caught:
            async with eka.stream.connect(session) as stream:
                await stream.send(PCM)
                await stream.closed()
                assert stream.mark() > stream.reached  # and is not answered any more
                await stream.send(PCM)
    assert caught.value.code == "stream-lost"
    assert "stop" not in service.log


async def test_a_service_that_never_closes() -> None:
    """The wait has an end, and nobody knows what is stored."""
    async with running_service(Plan(close_after_stop=False)) as service:
        session = await create(service)
        with pytest.raises(eka.EkaError, match=r"0\.05 s") as caught:
            async with eka.stream.connect(session) as stream:
                await stream.finish(timeout_s=0.05)
    assert caught.value.code == "not-closed"
    assert service.log.count("stop") == 1


@pytest.mark.parametrize("cancelled", [True, False])
async def test_leaving_by_an_exception_still_says_stop(cancelled: bool) -> None:
    """So what was sent is kept by the service."""
    async with running_service(Plan()) as service:
        session = await create(service)
        with anyio.CancelScope() as scope:
            try:
                async with eka.stream.connect(session) as stream:
                    await stream.send(PCM)
                    if not cancelled:
                        raise ZeroDivisionError
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
            except ZeroDivisionError:
                assert not cancelled
    assert service.log == ["create", "open", "stop", "closed"]
    assert service.messages == [PCM]


@pytest.mark.parametrize(
    ("url", "code"),
    [("ws://127.0.0.1:1/str_secret", "unreachable"), ("ws://192.0.2.1/str_secret", "session-refused")],
)
async def test_a_stream_that_cannot_be_opened(url: str, code: str) -> None:
    """Nobody there, and one where the audio would travel in the clear; neither error shows the address."""
    with pytest.raises(eka.EkaError) as caught:
        async with eka.stream.connect(eka.Session("ses_1", Secret(url))):
            raise AssertionError("it opened")
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


async def test_a_stream_that_is_refused() -> None:
    """An answer of HTTP in the place of a stream has its status told."""
    async with running() as ingest:
        url = ingest.url.replace("http", "ws") + "/voice/v1/elsewhere"
        with pytest.raises(eka.EkaError, match="HTTP 404") as caught:
            async with eka.stream.connect(eka.Session("ses_1", Secret(url))):
                raise AssertionError("it opened")
    assert caught.value.code == "stream-refused"
