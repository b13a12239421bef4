"""The sink ``eka_raw``: against the project's own ingest, and against a server made of stock parts."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import stamina
from eka_service import Plan, Service, running_service
from engine_kit import S16_8K, make_runner

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Engine,
    FormatError,
    PathTemplate,
    Secret,
    SinkError,
    SpeechStarted,
    Stream,
    websocket,
)
from mediaflow._websocket import core, stream
from mediaflow.testing import RecordingEngine, frames, write_all
from mediaflow_plugins.sink_eka_raw import EkaRaw
from mediaflow_plugins.source_eka_ingest import EkaIngest
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_resample import Resample

pytestmark = pytest.mark.anyio

PCM = AudioFormat("s16le", 16000)
AUDIO = bytes(index % 251 for index in range(16000 * 2 * 2))
CALL = Stream("call-7", PCM, ("inbound",), {"from": "secret-number"})


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try again at once, and only once."""
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture(params=["lines", "portable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Connect over lines of our own, and as where there is no epoll, where a task reads each connection."""
    if request.param == "portable":
        monkeypatch.setattr(websocket, "driver", stream)
    return str(request.param)


def sink(base_url: str, folder: Path, **options: object) -> EkaRaw:
    """Return a sink for a server on loopback."""
    options = {
        "token": Secret("t0ken"),
        "poll_s": 0.01,
        "results": PathTemplate(f"{folder}/{{call_id}}.json"),
    } | options
    return EkaRaw(base_url=base_url, **options)  # type: ignore[arg-type]


async def play(sink: EkaRaw, data: bytes = AUDIO, cuts: range = range(320, 32000, 320)) -> dict[str, object]:
    """Write ``data`` in frames of 20 ms and return the outcome."""
    writer = await write_all(sink, CALL, frames(data, PCM, [cut for cut in cuts if cut < len(data) // 2]))
    assert writer.delivered == len(data) // 2
    return dict(writer.outcome)


@pytest.mark.usefixtures("way")
async def test_to_our_own_ingest_and_back(tmp_path: Path) -> None:
    """Every byte arrives, the result is fetched, and the call id comes back with it."""
    engine = RecordingEngine()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            source = EkaIngest(listen="http://127.0.0.1:0", client_id="me", client_secret=Secret("pw"))
            tasks.start_soon(source.serve, engine)
            target = sink(await engine.url(), tmp_path, token=Secret(""), client_id="me", client_secret=Secret("pw"))
            outcome = await play(target)
            [session] = await engine.ended()
            tasks.cancel_scope.cancel()
    assert session.audio["inbound"] == AUDIO
    assert session.stream.metadata["call_id"] == "call-7"
    assert outcome["status"] == "completed"
    result = json.loads((tmp_path / "call-7.json").read_bytes())
    assert result["additional_data"] == {"call_id": "call-7"}
    assert result["audio"] == {"samples": len(AUDIO) // 2, "sample_rate": 16000, "seconds": 2.0}
    assert stat.S_IMODE(os.stat(tmp_path / "call-7.json").st_mode) == 0o600
    assert os.listdir(tmp_path) == ["call-7.json"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"sharing_key": Secret("k")}, {"sharing_key": Secret("k")}),
        ({"sharing_key": Secret("k")}, {"api_key": Secret("k")}),
        ({"sharing_key": Secret("k")}, {"sharing_key": Secret("x")}),
        ({}, {"jwt_payload": Secret('{"b-id": "b", "iss": "i"}')}),
    ],
)
async def test_other_ways_to_be_let_in(tmp_path: Path, theirs: dict[str, Secret], ours: dict[str, Secret]) -> None:
    """A key of another workspace goes with the login, under either name; ``jwt-payload`` needs no login at all."""
    engine = RecordingEngine()
    pair = {"client_id": "me", "client_secret": Secret("pw")}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            theirs = theirs and pair | theirs  # type: ignore[assignment]
            tasks.start_soon(EkaIngest(listen="http://127.0.0.1:0", **theirs).serve, engine)  # type: ignore[arg-type]
            ours = ours if "jwt_payload" in ours else pair | ours  # type: ignore[assignment]
            target = sink(await engine.url(), tmp_path, token=Secret(""), **ours)
            if ours.get("sharing_key") == Secret("x"):
                with pytest.raises(SinkError, match="key of the other workspace"):
                    await play(target)
            else:
                assert (await play(target))["status"] == "completed"
            tasks.cancel_scope.cancel()


async def test_the_order_of_the_service_is_kept(tmp_path: Path) -> None:
    """Login is not needed with a token; then create, audio, stop, the server's close, end, poll."""
    async with running_service(Plan(polls=[(202, "processing"), (200, "completed")])) as service:
        outcome = await play(sink(service.url, tmp_path))
    assert service.log == ["create", "open", "stop", "closed", "end", "get", "get"]
    assert service.audio == AUDIO
    assert service.authorization == {"Bearer t0ken"}
    assert service.created == {
        "upload_type": "stream",
        "communication_protocol": "websocket",
        "model": "pro",
        "session_mode": "consultation",
        "templates": ["clinical_notes_template"],
        "language_hint": ["auto_detect"],
        "additional_data": {"call_id": "call-7"},
    }
    assert service.stream_headers.get("authorization") is None
    assert outcome == {"session_id": "ses_1", "status": "completed", "result": f"{tmp_path}/call-7.json"}


async def test_frames_are_put_together_to_messages(tmp_path: Path) -> None:
    """Frames of 20 ms become messages of message_ms, the last one shorter, and events are nothing to send."""
    async with running_service(Plan()) as service:
        items = frames(AUDIO[:7000], PCM, range(320, 3500, 320))
        await write_all(sink(service.url, tmp_path), CALL, [items[0], SpeechStarted("inbound", 0.0), *items[1:]])
    assert [len(message) for message in service.messages] == [3200, 3200, 600]


@pytest.mark.parametrize("cuts", [[], [1], [15999], [1600, 1601, 30000]])
async def test_any_slicing_gives_the_same_messages(tmp_path: Path, cuts: list[int]) -> None:
    """What the service gets does not depend on how the audio was cut into frames."""
    async with running_service(Plan()) as service:
        writer = await write_all(sink(service.url, tmp_path), CALL, frames(AUDIO, PCM, cuts))
    assert [len(message) for message in service.messages] == [3200] * 20
    assert service.audio == AUDIO
    assert writer.delivered == 32000


async def test_trailing_silence_is_sent_but_not_booked(tmp_path: Path) -> None:
    """The silence stands behind the audio and counts as nothing delivered."""
    async with running_service(Plan()) as service:
        await play(sink(service.url, tmp_path, trailing_silence_ms=250))
    assert service.audio == AUDIO + bytes(8000)


async def test_a_call_without_audio_is_ended_too(tmp_path: Path) -> None:
    """Nothing was said: the session is closed in the same order."""
    async with running_service(Plan()) as service, sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)):
        pass
    assert service.log == ["create", "open", "stop", "closed", "end", "get"]


async def test_a_refused_token_says_so(tmp_path: Path) -> None:
    """A token that the service does not take is an error that names where it is set, but not the token."""
    async with running_service(Plan(token="other")) as service:
        with pytest.raises(SinkError, match="EKA_TOKEN") as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "login-refused"
    assert "t0ken" not in str(caught.value)


async def test_a_refused_login_says_so(tmp_path: Path) -> None:
    """A client id that the service does not take is an error that names where it is set."""
    async with running_service(Plan(login_status=401)) as service:
        with pytest.raises(SinkError, match="EKA_CLIENT_SECRET") as caught:
            await play(sink(service.url, tmp_path, token=Secret(""), client_id="me", client_secret=Secret("pw")))
    assert caught.value.code == "login-refused"
    assert service.log == ["login"]


async def test_a_refused_session_gives_the_service_s_code(tmp_path: Path) -> None:
    """The code of the error envelope is told, its message not."""
    async with running_service(Plan(create_status=422)) as service:
        with pytest.raises(SinkError, match="HTTP 422 invalid_template") as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "session-refused"
    assert "message" not in str(caught.value)


async def test_nobody_there(tmp_path: Path) -> None:
    """A service that does not answer is unreachable, and the text names the place."""
    async with running_service(Plan()) as service:
        url = service.url
    with pytest.raises(SinkError, match=url) as caught:
        await play(sink(url, tmp_path))
    assert caught.value.code == "unreachable"


async def test_a_stream_that_cannot_be_reached_does_not_show_its_address(tmp_path: Path) -> None:
    """The address of a stream lets anybody in, so no error repeats it; the session is ended all the same."""
    async with running_service(Plan(upload_url="ws://127.0.0.1:1/voice/str_capability")) as service:
        with pytest.raises(SinkError) as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "unreachable"
    assert "capability" not in str(caught.value)
    assert service.log == ["create", "end"]


async def test_a_stream_without_tls_is_not_used(tmp_path: Path) -> None:
    """Audio never goes in the clear to another machine."""
    async with running_service(Plan(upload_url="ws://192.0.2.1/str_capability")) as service:
        with pytest.raises(SinkError, match="not a wss:// address") as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "session-refused"
    assert "capability" not in str(caught.value)


async def test_an_unknown_stream(tmp_path: Path) -> None:
    """Close code 4000 has a name of its own, and nothing counts as delivered."""
    async with running_service(Plan(close_at=0, close_code=4000)) as service:
        stream_lost = await lost(service, tmp_path)
    assert stream_lost.code == "stream-unknown"


async def lost(service: Service, folder: Path, mark: bool = False) -> SinkError:
    """Write one message after the other until the sink fails."""
    [first, *rest] = frames(AUDIO, PCM, range(1600, 32000, 1600))
    delivered = -1
    with pytest.raises(SinkError) as caught:
        async with sink(service.url, folder).open(CALL, PCM, ("inbound",)) as writer:
            await writer.write(first)
            if mark:
                while not writer.delivered:
                    await anyio.lowlevel.checkpoint()
            service.go_on.set()
            await service.wait_gone()
            for frame in rest:
                await writer.write(frame)
                delivered = writer.delivered
                await anyio.lowlevel.checkpoint()  # in which the end of the line is seen
    assert delivered <= 1600
    return caught.value


@pytest.mark.usefixtures("way")
async def test_a_line_that_breaks_in_the_middle(tmp_path: Path) -> None:
    """Where no other session is to be had the error says how much is confirmed, and that of what arrived is ended."""
    async with running_service(Plan(close_at=1, close_code=1006, wait=True, create_again=422)) as service:
        error = await lost(service, tmp_path, mark=True)
    assert error.code == "stream-lost"
    assert "1600 are confirmed; another session could not be had: " in str(error)
    assert service.log[-2:] == ["create", "end"]


async def test_a_server_that_never_closes(tmp_path: Path) -> None:
    """The wait has an end; then the session is ended, the result fetched, and the sink says that it is not sure."""
    async with running_service(Plan(close_after_stop=False)) as service:
        with pytest.raises(SinkError) as caught:
            await play(sink(service.url, tmp_path, close_timeout_s=0.05))
    assert caught.value.code == "not-closed"
    assert service.log[:3] == ["create", "open", "stop"]
    assert service.log[-2:] == ["end", "get"]
    assert (tmp_path / "call-7.json").exists()


@pytest.mark.usefixtures("way")
async def test_a_server_that_fails_while_it_stores(tmp_path: Path) -> None:
    """A close behind stop with another code than 1000 is no receipt."""
    async with running_service(Plan(close_code=1011)) as service:
        with pytest.raises(SinkError, match="1011") as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "stream-lost"
    assert service.log[-1] == "end"


@pytest.mark.usefixtures("way")
async def test_a_note_of_what_had_come_through(tmp_path: Path) -> None:
    """A stream that breaks at the end fails the sink, but what was confirmed before has its note."""
    async with running_service(Plan(close_code=1011)) as service:
        with pytest.raises(SinkError, match="1011") as caught:
            async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(AudioFrame(AUDIO, PCM))
                while not writer.delivered:
                    await anyio.lowlevel.checkpoint()
    assert caught.value.code == "stream-lost"
    assert service.log[-2:] == ["end", "get"]
    assert (tmp_path / "call-7.json").exists()


@pytest.mark.usefixtures("way")
async def test_ten_seconds_are_in_doubt_at_most(tmp_path: Path) -> None:
    """A service that does not answer is not given more, though the kernel would take it; then all of it arrives."""
    taken = 0
    async with running_service(Plan(wait=True)) as service:
        async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
            data = AUDIO * 8
            for start in range(0, len(data), 640):
                frame = AudioFrame(data[start : start + 640], PCM)
                if not writer.write_nowait(frame):
                    if taken >= 160_000:
                        break
                    await writer.write(frame)
                taken += 320
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writer.write, frame)
                await anyio.wait_all_tasks_blocked()
                assert writer.delivered < 32000
                service.go_on.set()
            assert writer.delivered == 160_000
        assert writer.delivered == 160_320
    assert taken == 160_000
    assert b"".join(map(bytes, service.messages)) == data[: 2 * 160_320]  # type: ignore[arg-type]


async def test_a_slow_reader_loses_nothing(tmp_path: Path) -> None:
    """A server that does not read holds the writer up once all buffers are full, and gets everything later."""
    written = bytearray()
    async with running_service(Plan(wait=True)) as service:
        async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
            for number in range(200):
                frame = AudioFrame(number.to_bytes(2, "little") * 160_000, PCM)
                if not writer.write_nowait(frame):
                    break
                written += frame.data
            service.go_on.set()
            if not written:  # on trio nothing is taken without waiting
                await writer.write(frame)
                written += frame.data
        assert writer.delivered == len(written) // 2
    assert service.audio == written


async def test_what_the_service_has_is_told_though_nothing_follows(tmp_path: Path, way: str) -> None:
    """The question how far it has read leaves by itself where no audio takes it along, long before the next ping."""
    async with (
        running_service(Plan()) as service,
        sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer,
    ):
        await writer.write(AudioFrame(AUDIO[:3200], PCM))
        with anyio.fail_after(core.PING_INTERVAL / 2):
            while writer.delivered < 1600:
                await anyio.lowlevel.checkpoint()


async def test_a_call_takes_no_task_while_it_streams(tmp_path: Path, way: str) -> None:
    """Four take as many as one, and so all of them none; but where tasks read, two each: that one, and the sink's."""

    async def act(engine: Engine) -> None:
        counts = []
        async with AsyncExitStack() as calls:
            for number in range(4):
                session = await calls.enter_async_context(engine.open(Stream(f"c{number}", S16_8K)))
                session.push(AUDIO[:3200])
                while not runner.sessions[f"c{number}"].account()["sinks"][0]["delivered"]:
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                counts.append(len(anyio.get_running_tasks()))
        assert counts == [counts[0] + number * (2 if way == "portable" else 0) for number in range(4)]

    async with running_service(Plan()) as service:
        target = sink(service.url, tmp_path)
        runner = make_runner(tmp_path, act, target, transforms=[Mix(), Resample(rate=16000)])
        await runner.run()
        assert sorted(service.log) == sorted(["create", "open", "stop", "closed", "end", "get"] * 4)
    assert [account["sinks"][0]["delivered"] for account in runner.accounts] == [3200] * 4


async def test_failed_is_no_success_though_it_comes_with_200(tmp_path: Path) -> None:
    """The result says failed: the sink does too, but the audio was delivered."""
    async with running_service(Plan(polls=[(200, "failed")])) as service:
        target, error = sink(service.url, tmp_path), None
        try:
            async with target.open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(frames(AUDIO, PCM)[0])
        except SinkError as caught:
            error = caught
    assert error is not None and error.code == "result-failed"
    assert writer.delivered == 32000
    assert writer.outcome["status"] == "failed"


async def test_partial_is_a_result_with_errors(tmp_path: Path) -> None:
    """206 is no failure; the outcome says what could not be used."""
    async with running_service(Plan(polls=[(206, "partial")])) as service:
        outcome = await play(sink(service.url, tmp_path))
    assert outcome["status"] == "partial"
    assert outcome["processing_errors"] == [{"code": "audio_too_short"}]


@pytest.mark.parametrize(("status", "word", "code"), [(404, "", "result-missing"), (410, "expired", "result-expired")])
async def test_a_result_that_is_gone(tmp_path: Path, status: int, word: str, code: str) -> None:
    """A session that is not known or has expired is told apart from one that failed."""
    async with running_service(Plan(polls=[(status, word)])) as service:
        with pytest.raises(SinkError) as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == code


async def test_endless_processing_has_an_end(tmp_path: Path) -> None:
    """After result_timeout_s the sink gives up on the result."""
    async with running_service(Plan(polls=[(202, "processing")])) as service:
        with pytest.raises(SinkError, match=r"0\.05 s") as caught:
            await play(sink(service.url, tmp_path, result_timeout_s=0.05))
    assert caught.value.code == "result-timeout"


async def test_an_end_that_got_lost_is_repeated(tmp_path: Path) -> None:
    """``initialized`` behind an accepted end means that it was not: it is sent again, and ended already is fine."""
    polls = [(202, "initialized"), (202, "initialized"), (200, "completed")]
    async with running_service(Plan(polls=polls, end_again=400)) as service:
        await play(sink(service.url, tmp_path))
    assert service.log.count("end") == 3


async def test_a_refused_end(tmp_path: Path) -> None:
    """An end that is refused for another reason than having happened is an error."""
    async with running_service(Plan(end_status=404)) as service:
        with pytest.raises(SinkError) as caught:
            await play(sink(service.url, tmp_path))
    assert caught.value.code == "end-refused"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cancelled", [True, False])
async def test_leaving_by_an_exception_finishes_quickly(tmp_path: Path, cancelled: bool) -> None:
    """A cancelled or broken call still sends stop and ends its session, but asks for no result."""
    async with running_service(Plan()) as service, AsyncExitStack() as stack:
        if not cancelled:
            stack.enter_context(pytest.raises(ZeroDivisionError))
        scope = stack.enter_context(anyio.CancelScope())
        async with sink(service.url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
            await writer.write(frames(AUDIO, PCM, [16000])[0])
            if not cancelled:
                raise ZeroDivisionError
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert service.log == ["create", "open", "stop", "closed", "end"]
    assert service.audio == AUDIO[:32000]


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[tuple[str, anyio.Event]]:
    """Stand before the service at ``url``, and tell when a connection to it is closed by who opened it."""
    gone = anyio.Event()

    async def carry(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        async for data in source:
            await target.send(data)

    async def take(client: anyio.abc.ByteStream) -> None:
        port = int(url.rpartition(":")[2])
        async with client, await anyio.connect_tcp("127.0.0.1", port) as service, anyio.create_task_group() as tasks:
            tasks.start_soon(carry, service, client)
            await carry(client, service)
            gone.set()
            tasks.cancel_scope.cancel()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, take)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}", gone
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["finished", "broken", "refused"])
async def test_no_connection_to_the_service_is_left_behind(tmp_path: Path, how: str) -> None:
    """Whether the block was left in peace, by an exception, or could not be entered."""
    plan = Plan(create_status=422 if how == "refused" else 201)
    async with running_service(plan) as service, watched(service.url) as (url, gone):
        with suppress(ZeroDivisionError, SinkError):
            async with sink(url, tmp_path).open(CALL, PCM, ("inbound",)) as writer:
                await writer.write(frames(AUDIO, PCM, [16000])[0])
                assert not gone.is_set()
                if how == "broken":
                    raise ZeroDivisionError
        await gone.wait()
    assert ("get" in service.log) == (how == "finished")


async def test_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even with everything switched on, no log names the token, the stream's address or a telephone number."""
    caplog.set_level(0)
    async with running_service(Plan()) as service:
        await play(sink(service.url, tmp_path))
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("websockets.s"))
    for secret in ("t0ken", "str_1", "secret-number"):
        assert secret not in ours


@pytest.mark.parametrize(
    ("format", "tracks", "hint"),
    [
        (AudioFormat("mulaw", 8000), ("inbound",), "- use: mulaw_decode"),
        (AudioFormat("s16le", 8000), ("inbound",), "`rate: 16000`"),
        (AudioFormat("s16le", 16000), ("inbound", "outbound"), "- use: mix"),
        (AudioFormat("s16le", 16000, 2), ("joined",), "- use: mix"),
    ],
)
def test_a_format_that_does_not_fit_names_the_step(format: AudioFormat, tracks: tuple[str, ...], hint: str) -> None:
    """Anything but mono PCM at 16000 Hz is refused with what to add."""
    with pytest.raises(FormatError, match=hint):
        EkaRaw(token=Secret("t")).check_format(format, tracks)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "EKA_TOKEN"),
        ({"client_id": "a"}, "EKA_CLIENT_SECRET"),
        ({"token": Secret("t"), "client_id": "a"}, "not several"),
        ({"token": Secret("t"), "jwt_payload": Secret('{"b-id": "b", "iss": "i"}')}, "not several"),
        ({"token": Secret("t"), "sharing_key": Secret("k")}, "client_id"),
        ({"jwt_payload": Secret('{"b-id": "b"}')}, "b-id"),
        ({"jwt_payload": Secret("b-id")}, "JSON object"),
        ({"token": Secret("t"), "base_url": "http://api.eka.care"}, "https://"),
        ({"token": Secret("t"), "base_url": "https:///x"}, "https://"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], complaint: str) -> None:
    """Missing or doubled credentials, and a token that would travel in the clear, are refused before anything runs."""
    with pytest.raises(ValueError, match=complaint):
        EkaRaw(**options).check()  # type: ignore[arg-type]


def test_good_options() -> None:
    """A token, or a client id with its secret and a key, or who one is; http on loopback."""
    EkaRaw(token=Secret("t")).check()
    EkaRaw(client_id="a", client_secret=Secret("b"), sharing_key=Secret("k"), api_key=Secret("k")).check()
    EkaRaw(jwt_payload=Secret('{"b-id": "b", "iss": "i"}')).check()
    EkaRaw(client_id="a", client_secret=Secret("b"), base_url="http://127.0.0.1:1").check()
