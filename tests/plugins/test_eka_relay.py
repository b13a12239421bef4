"""Calls in several sessions: handed over with nothing lost, and gone on with where a stream breaks; an exact ledger."""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
import stamina
from engine_kit import call, make_runner, run

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Cut,
    Engine,
    Item,
    PathTemplate,
    Secret,
    SessionError,
    Sink,
    SinkError,
    SpeechEnded,
    SpeechStarted,
    Stream,
    websocket,
)
from mediaflow._websocket import stream
from mediaflow.testing import RecordedSession, RecordingEngine, frames, write_all
from mediaflow_plugins import _eka_relay
from mediaflow_plugins._eka_relay import Part, PartWriter, Relay
from mediaflow_plugins.sink_eka_json import EkaJson
from mediaflow_plugins.sink_eka_raw import EkaRaw
from mediaflow_plugins.sink_eka_upload import EkaUpload
from mediaflow_plugins.source_eka_ingest import EkaIngest
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_resample import Resample

pytestmark = pytest.mark.anyio

SECOND = bytes(range(250)) * 64
"""A second at 8000 Hz."""

LAST = 23760
"""The first sample at 8000 Hz that a session of three seconds does not take: 99 % of it."""


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Try once."""
    with stamina.set_testing(True, attempts=1):
        yield


class SlowEngine(RecordingEngine):
    """Has not stored the first session before ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = anyio.Event()

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            yield session
            if session is self.sessions[0]:
                await self.go_on.wait()


@asynccontextmanager
async def ingest(*quirks: str, engine: RecordingEngine | None = None) -> AsyncIterator[tuple[RecordingEngine, str]]:
    """Run a service that behaves so, by itself takes sessions of three seconds and no more; fail after twenty."""
    engine = engine or RecordingEngine()
    quirks = quirks or ("short_sessions",)
    source = EkaIngest(listen="http://127.0.0.1:0", quirks=quirks)  # type: ignore[arg-type]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            yield engine, await engine.url()
            tasks.cancel_scope.cancel()


def make_sink(kind: str, url: str, folder: Path, results: str = "{session_id}", **options: object) -> Sink:
    """Return a sink that goes to the service."""
    options = {"results": PathTemplate(f"{folder}/{results}.json"), "token": Secret("t"), "poll_s": 0.001} | options
    if kind == "upload":
        options["chunk_s"] = 1
    sinks: dict[str, Any] = {"raw": EkaRaw, "json": EkaJson, "upload": EkaUpload}
    return sinks[kind](base_url=url, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["raw", "json", "upload", "portable"])
async def test_nothing_is_lost_at_the_seams(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds are four sessions; one behind the other they are the call, and each has its note in its file."""
    if kind == "portable":
        monkeypatch.setattr(websocket, "driver", stream)
        kind = "raw"
    rate = 16000 if kind == "raw" else 8000
    async with ingest() as (engine, url):
        sink = make_sink(kind, url, tmp_path / "notes")
        pushes = [(SECOND * 10)[start : start + 320] for start in range(0, 160000, 320)]
        runner = make_runner(tmp_path, call(*pushes), sink, transforms=[Mix(), Resample(rate=rate)])
        await runner.run()
        stored = [bytes(session.audio["inbound"]) for session in await engine.ended(4)]
        assert "quirk-short_sessions" not in engine.counts
    [ledger] = runner.accounts[0]["sinks"]
    assert ledger["failure"] is None
    assert ledger["received"] == ledger["delivered"] == 10 * rate
    assert not ledger["dropped"] and not ledger["spooled"]
    assert [len(audio) // 2 for audio in stored] == [LAST * rate // 8000] * 3 + [(80000 - 3 * LAST) * rate // 8000]
    if rate == 8000:
        assert b"".join(stored) == SECOND * 10
    assert ledger["outcome"]["status"] == "completed"
    sessions = ledger["outcome"]["sessions"]
    notes = [json.loads(await anyio.Path(session["result"]).read_bytes()) for session in sessions]
    assert [note["session_id"] for note in notes] == [session["session_id"] for session in sessions]
    assert len(os.listdir(tmp_path / "notes")) == 4
    assert notes[0]["additional_data"] == {"call_id": "c1"}
    assert notes[2]["additional_data"] == {"call_id": "c1", "part": 3, "continues": sessions[1]["session_id"]}


@pytest.mark.parametrize("kind", ["raw", "portable"])
async def test_an_early_session_that_is_stored_last_has_its_note(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes to fetch it is there although the last session is over, and its block is left."""
    if kind == "portable":
        monkeypatch.setattr(websocket, "driver", stream)
    engine = SlowEngine()

    async def act(call_engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry, call_engine)
            [last] = await engine.ended()
            assert last is not engine.sessions[0]
            while not (tmp_path / "notes" / f"{last.stream.id}.json").exists():
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            engine.go_on.set()

    async def carry(call_engine: Engine) -> None:
        await call(*[SECOND] * 4)(call_engine)

    async with ingest(engine=engine) as (_, url):
        sink = make_sink("raw", url, tmp_path / "notes")
        account = await run(make_runner(tmp_path, act, sink, transforms=[Mix(), Resample(rate=16000)]))
    [ledger] = account["sinks"]
    assert ledger["failure"] is None
    assert ledger["received"] == ledger["delivered"] == 64000
    assert [session["status"] for session in ledger["outcome"]["sessions"]] == ["completed"] * 2
    assert len(os.listdir(tmp_path / "notes")) == 2


async def test_a_path_without_the_session_holds_several_notes(tmp_path: Path) -> None:
    """The first has the name as it is, the next ones a number."""
    async with ingest() as (_, url):
        sink = make_sink("upload", url, tmp_path, results="{call_id}")
        await write_all(sink, Stream("c1", PCM), frames(SECOND * 7, PCM))
    assert sorted(os.listdir(tmp_path)) == ["c1-2.json", "c1-3.json", "c1.json"]


async def test_an_early_session_that_fails_is_told_at_the_end(tmp_path: Path) -> None:
    """The call goes on in the next one, and what the service could not make a note of is the sink's failure."""
    async with ingest("short_sessions", "result_failed") as (engine, url):
        sink = make_sink("json", url, tmp_path)
        runner = make_runner(tmp_path, call(*[SECOND] * 4), sink, transforms=[Mix()])
        await runner.run()
        assert sum(len(session.audio["inbound"]) for session in await engine.ended(2)) == 64000
    [ledger] = runner.accounts[0]["sinks"]
    assert ledger["failure"]["code"] == "result-failed"
    assert ledger["delivered"] == 32000
    assert [session["status"] for session in ledger["outcome"]["sessions"]] == ["failed", "failed"]


# What follows has no service: it is about where a call is cut, and who gets what.

PCM = AudioFormat("s16le", 8000)


class Kept(PartWriter):
    """Keeps what it is given and confirms what it is told to; takes no more than ``most`` bytes, and then breaks."""

    def __init__(self, nowait: bool = True, most: float = inf) -> None:
        self.audio = bytearray()
        self.confirmed: int | None = None
        self.asked = 0
        self.most, self._waiting = most, b""
        self.answer: anyio.Event | None = None
        """What ``sure`` waits for, and finds it broken if it takes nothing any more."""
        self._nowait = nowait
        self.put = self._keep

    @property
    def delivered(self) -> int:
        self.asked += 1
        return len(self.audio) // 2 if self.confirmed is None else self.confirmed

    def write_nowait(self, item: Item) -> bool:
        return self.put(item.data) if isinstance(item, AudioFrame) else self._nowait

    def _keep(self, pcm: bytes) -> bool:
        taken = self._nowait and len(self.audio) + len(pcm) <= self.most
        if taken:
            self.audio += pcm
        return taken

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            self._waiting = item.data
            if len(self.audio) + len(item.data) > self.most:
                raise SinkError("stream-lost", "the stream was closed early")
            self.audio += self.rest()

    async def sure(self) -> None:
        assert self.answer is not None
        await self.answer.wait()
        if self.most == 0:
            raise SinkError("stream-lost", "nobody answered")
        self.confirmed = None

    def rest(self) -> bytes:
        rest, self._waiting = self._waiting, b""
        return rest


class Line:
    """Sessions that are writers, numbered.

    Those in ``refused`` cannot be had, those in ``hangs`` take for ever to be had, those in ``fails`` end badly, and
    the first does not end before the event ``note``.  ``breaks`` says of some how many samples they take, and how many
    they have confirmed when they break; ``cuts`` of some how many they have confirmed when they break at their end.
    """

    def __init__(
        self,
        nowait: bool = True,
        refused: Sequence[int] = (),
        hangs: Sequence[int] = (),
        fails: Sequence[int] = (),
        note: anyio.Event | None = None,
        breaks: Mapping[int, tuple[int, int]] = MappingProxyType({}),
        cuts: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.writers: list[Kept] = []
        self.ended: list[int] = []
        self.aborted: list[int] = []
        self.salvaged: list[int] = []
        self.breaks, self.cuts = breaks, cuts
        self.opened: Callable[[], None] = lambda: None
        self.refusals = 0
        self.refusal = "session-refused"
        self.nowait, self.refused, self.hangs, self.fails, self.note = nowait, refused, hangs, fails, note

    def part(self, number: int, before: str) -> Part:
        return _Part(self, number, before)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds."""
        with anyio.fail_after(20):
            while not condition():
                await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def relay(self, longest_s: float | None = 3.0) -> AsyncIterator[Relay]:
        relay = Relay(self, PCM, longest_s)
        await relay.open()
        try:
            yield relay
        except BaseException as error:
            await relay.leave(error)
            raise
        await relay.leave(None)

    async def write(self, items: Sequence[Item], longest_s: float | None = 3.0) -> list[int]:
        """Write ``items`` and return how many samples each session got."""
        async with self.relay(longest_s) as relay:
            for item in items:
                if not relay.write_nowait(item):
                    await relay.write(item)
        assert relay.delivered == sum(len(writer.audio) for writer in self.writers) // 2
        return [len(writer.audio) // 2 for writer in self.writers]


class _Part(Part):
    def __init__(self, line: Line, number: int, before: str) -> None:
        super().__init__(number, before)
        self._line = line

    async def open(self) -> None:
        if self.number in self._line.hangs:
            await anyio.sleep_forever()
        if self.number in self._line.refused:
            self._line.refusals += 1
            raise SinkError(self._line.refusal, "no more of them")
        self.session_id, self.status = f"s{self.number}", "completed"
        most, confirmed = self._line.breaks.get(self.number, (inf, None))
        kept = self.writer = Kept(self._line.nowait, 2 * most)
        kept.confirmed = confirmed
        self._line.writers.append(kept)
        self._line.opened()

    async def finish(self) -> None:
        if self.number == 1 and self._line.note is not None:
            try:
                await self._line.note.wait()
            except BaseException:
                await self.abort()
                raise
        self._line.ended.append(self.number)
        if self.number in self._line.cuts:
            kept = self._line.writers[self.number - 1]
            kept.confirmed = self._line.cuts[self.number]
            if not kept.confirmed or self.number in self._line.fails:
                self.status = "streaming"
            raise SinkError("stream-lost", f"session {self.number} was cut off")
        if self.number in self._line.fails:
            raise SinkError("end-refused", f"session {self.number}")

    async def salvage(self) -> None:
        self._line.salvaged.append(self.number)
        if self.number in self._line.fails:
            raise SinkError("result-failed", f"session {self.number}")
        self.status = "completed"

    async def abort(self) -> None:
        self._line.aborted.append(self.number)


@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("cuts", [[], range(160, 56000, 160), range(7, 56000, 7777), [23759, 23760, 23761, 47520]])
async def test_any_slicing_is_cut_in_the_same_places(cuts: Sequence[int], nowait: bool) -> None:
    """Without pauses it is the 99 % of each session, also in the middle of a frame."""
    line = Line(nowait)
    assert await line.write(frames(SECOND * 7, PCM, cuts)) == [LAST, LAST, 56000 - 2 * LAST]
    assert b"".join(writer.audio for writer in line.writers) == SECOND * 7
    assert sorted(line.ended) == [1, 2, 3]


def told(seconds: float, *events: tuple[float, type[Cut | SpeechEnded | SpeechStarted]]) -> list[Item]:
    """Return audio in frames of 20 ms with events between them, each at its second."""
    items: list[Item] = [*frames(SECOND * int(seconds), PCM, range(160, int(seconds) * 8000, 160))]
    for at, event in sorted(events, key=lambda each: each[0], reverse=True):
        items.insert(round(at * 50), event("inbound", at))
    return items


@pytest.mark.parametrize(
    ("events", "seam"),
    [
        ([(1.0, SpeechStarted), (2.8, SpeechEnded)], 2.8),  # the first pause in the last tenth
        ([(1.0, SpeechEnded)], 2.7),  # nobody speaks when it begins
        ([(1.0, SpeechEnded), (1.5, SpeechStarted)], 2.97),  # a pause that is over
        ([(1.0, SpeechStarted), (2.8, Cut)], 2.8),  # where speech_chunks cuts there is a pause
        ([(2.6, SpeechEnded), (2.65, SpeechStarted), (2.75, SpeechEnded), (2.8, SpeechStarted)], 2.76),
    ],
)
@pytest.mark.parametrize("nowait", [True, False])
async def test_the_seam_is_in_a_pause(
    events: list[tuple[float, type[Cut | SpeechEnded | SpeechStarted]]], seam: float, nowait: bool
) -> None:
    """From nine tenths on, as soon as nobody speaks; frames are not cut for it."""
    sizes = await Line(nowait).write(told(4, *events))
    assert sizes == [round(seam * 8000), 32000 - round(seam * 8000)]


async def test_a_service_that_says_nothing_has_one_session() -> None:
    """However long the call is."""
    assert await Line().write(told(9), longest_s=None) == [72000]


@pytest.mark.parametrize(
    ("trouble", "code"), [({"refused": [2, 3]}, "session-refused"), ({"hangs": [2, 3]}, "unreachable")]
)
async def test_where_no_other_session_can_be_had_the_call_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: dict[str, list[int]], code: str
) -> None:
    """It is tried once; the log and the outcome say that the session is longer than it may be."""
    monkeypatch.setattr(_eka_relay, "OPEN_S", 0.05)
    line = Line(refused=trouble.get("refused", ()), hangs=trouble.get("hangs", ()))
    async with line.relay() as relay:
        for item in told(9):
            if not relay.write_nowait(item):
                await relay.write(item)
    assert [len(writer.audio) // 2 for writer in line.writers] == [72000]
    assert relay.outcome == {"session_id": "s1", "status": "completed", "longer_than_s": 3.0}
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert code in caplog.text


async def test_what_is_in_doubt_ends_what_is_delivered() -> None:
    """A later session does not count while one before it has not confirmed all."""
    line = Line()
    async with line.relay() as relay:
        for item in told(4):
            if not relay.write_nowait(item):
                await relay.write(item)
        first, second = line.writers
        first.confirmed = 100
        assert (relay.delivered, second.delivered) == (100, 32000 - LAST)
        first.confirmed = LAST
        assert relay.delivered == 32000


async def test_a_session_is_asked_once() -> None:
    """A stream that is asked twice sends its question by itself, instead of with the next audio."""
    line = Line()
    async with line.relay() as relay:
        for item in told(4):
            if not relay.write_nowait(item):
                await relay.write(item)
        before = [writer.asked for writer in line.writers]
        assert relay.delivered
        assert [writer.asked for writer in line.writers] == [each + 1 for each in before]


class Sessions(Sink, frozen=True, kw_only=True):
    """Writes a call to the sessions of a ``Line``."""

    line: Line
    resident = False

    def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AbstractAsyncContextManager[Relay]:
        return self.line.relay()


@pytest.mark.parametrize("fails", [[1], [1, 2, 3]])
async def test_the_first_failure_is_told_when_all_are_over(tmp_path: Path, fails: list[int]) -> None:
    """The call is carried to its end all the same."""
    line = Line(fails=fails)

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", PCM)) as session:
            for _ in range(7):
                await session.send(SECOND)
            await line.until(lambda: line.ended == [1, 2])

    account = await run(make_runner(tmp_path, act, Sessions(line=line)))
    assert line.ended == [1, 2, 3]
    assert account["sinks"][0]["failure"] == {"code": "end-refused", "text": "session 1"}
    assert account["sinks"][0]["delivered"] == 56000


@pytest.mark.parametrize("fails", [False, True])
async def test_an_early_session_ends_beside_the_call(tmp_path: Path, fails: bool) -> None:
    """What is said meanwhile goes to the next ones, and the call is not over before the first session is.

    Where the last one has failed that is so too: what was said in the first is no worse for it.
    """
    line = Line(note=anyio.Event(), fails=[3] if fails else [])

    async def act(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry, engine)
            await line.until(lambda: sorted(line.ended) == [2, 3])  # they end at once, so in any order
            await anyio.wait_all_tasks_blocked()
            assert list(runner.sessions) == ["c1"]
            assert line.note is not None
            line.note.set()

    async def carry(engine: Engine) -> None:
        with suppress(SessionError):
            await call(*[SECOND] * 7)(engine)

    runner = make_runner(tmp_path, act, Sessions(line=line))
    account = await run(runner)
    assert (sorted(line.ended[:2]), line.ended[2:], line.aborted) == ([2, 3], [1], [])
    failure = {"code": "end-refused", "text": "session 3"}
    assert account["sinks"][0]["failure"] == (failure if fails else None)
    assert account["sinks"][0]["delivered"] == 56000
    assert b"".join(writer.audio for writer in line.writers) == SECOND * 7


@pytest.mark.parametrize(("cut", "streaming"), [("stop", True), ("limit", True), ("limit", False)])
async def test_what_ends_beside_the_call_is_cut_off_with_it(tmp_path: Path, cut: str, streaming: bool) -> None:
    """Whether the call streams or has nothing to wait for but the early session."""
    line = Line(note=anyio.Event())

    async def act(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry, engine)
            await line.until(lambda: line.ended == ([] if streaming else [2]) and len(line.writers) == 2)
            [edge] = runner.sessions["c1"].edges
            await anyio.wait_all_tasks_blocked()
            if cut == "stop":
                edge.stop(SinkError("enough", "no more of it"))
            else:
                edge.limit(anyio.current_time())
            await line.until(lambda: edge.over)
            left.set()

    async def carry(engine: Engine) -> None:
        with suppress(SessionError):
            async with engine.open(Stream("c1", PCM)) as session:
                for _ in range(4):
                    await session.send(SECOND)
                if streaming:
                    await left.wait()

    left = anyio.Event()
    runner = make_runner(tmp_path, act, Sessions(line=line))
    account = await run(runner)
    assert account["sinks"][0]["failure"]["code"] == ("enough" if cut == "stop" else "deadline")
    assert account["sinks"][0]["delivered"] == 32000
    assert sorted(line.aborted) == ([1, 2] if streaming else [1])


async def test_an_early_session_of_a_call_that_was_cut_off_just_now(tmp_path: Path) -> None:
    """A cut that comes when the next session is open already, and nothing was waited for since."""
    line = Line(note=anyio.Event())

    async def act(engine: Engine) -> None:
        with suppress(SessionError):
            async with engine.open(Stream("c1", PCM)) as session:
                [edge] = runner.sessions["c1"].edges
                line.opened = lambda: edge.stop(SinkError("enough", "no more of it")) if line.writers[1:] else None
                for _ in range(4):
                    await session.send(SECOND)

    runner = make_runner(tmp_path, act, Sessions(line=line))
    account = await run(runner)
    assert sorted(line.aborted) == [1, 2]
    assert account["sinks"][0]["failure"]["code"] == "enough"


async def test_a_first_session_that_cannot_be_had_is_the_failure() -> None:
    """There is nothing to stay in."""
    with pytest.raises(SinkError, match="no more"):
        await Line(refused=[1]).write(told(1))


async def test_leaving_by_an_exception_ends_every_session() -> None:
    """It comes out as it is; what was written to is given up, and what has finished its audio may have finished."""
    line = Line()
    with pytest.raises(ZeroDivisionError):
        async with line.relay() as relay:
            await relay.write(frames(SECOND * 4, PCM)[0])
            raise ZeroDivisionError
    assert line.aborted == [2]
    assert line.ended in ([], [1])


# A stream that breaks.


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no session."""
    monkeypatch.setattr(_eka_relay, "VAIN_S", 0.0)


async def carried(folder: Path, line: Line, seconds: int = 7) -> tuple[dict[str, Any], dict[str, Any]]:
    """Carry some seconds, 20 ms after the other, or as many as are wanted; return the account, and the sink's."""
    pushes = [(SECOND * seconds)[start : start + 320] for start in range(0, 16000 * seconds, 320)]

    async def act(engine: Engine) -> None:
        with suppress(SessionError):
            await call(*pushes)(engine)

    account = await run(make_runner(folder, act, Sessions(line=line)))
    [ledger] = account["sinks"]
    assert ledger["received"] == ledger["delivered"] + sum(ledger["dropped"].values())
    assert ledger["received"] == 8000 * seconds or account["error"]
    return account, ledger


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_call_goes_on_where_a_stream_breaks(
    tmp_path: Path, nowait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What had not left is in the next session; what had left and was not confirmed is on record; the rest is there."""
    line = Line(nowait, breaks={1: (10000, 8000)})
    account, ledger = await carried(tmp_path, line)
    taken = 10000 // 160 * 160
    assert [len(writer.audio) // 2 for writer in line.writers] == [taken, LAST, 56000 - taken - LAST]
    assert b"".join(writer.audio for writer in line.writers) == SECOND * 7
    assert (account["status"], ledger["failure"]) == ("complete", None)
    assert ledger["dropped"] == {"stream-lost": taken - 8000}
    assert (line.salvaged, line.aborted, sorted(line.ended)) == ([1], [], [2, 3])
    assert ledger["outcome"]["sessions"][0] == {
        "session_id": "s1",
        "status": "completed",
        "lost_samples": taken - 8000,
    }
    [event] = account["events"]
    assert event.pop("at") > 1
    assert event == {"event": "StreamLost", "session_id": "s1", "samples": taken - 8000}
    assert "session s1 goes on as session s2, for the stream was closed early" in caplog.text


async def test_where_all_had_arrived_nothing_is_lost(tmp_path: Path) -> None:
    """A stream that breaks when all that had left was confirmed."""
    account, ledger = await carried(tmp_path, Line(breaks={1: (8000, 8000), 2: (16000, 16000)}), 4)
    assert (account["status"], ledger["delivered"], ledger["dropped"]) == ("complete", 32000, {})


@pytest.mark.parametrize(
    ("confirmed", "fails", "status", "failure"),
    [
        (20000, [], "completed", None),
        (LAST, [], "completed", None),
        (0, [], "broken", None),
        (20000, [1], "broken", {"code": "stream-lost", "text": "session 1 was cut off"}),
    ],
)
async def test_an_early_session_that_breaks_at_its_end(
    tmp_path: Path,
    confirmed: int,
    fails: list[int],
    status: str,
    failure: dict[str, str] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it had not confirmed is on record as lost, what the next ones have as delivered; a note may be missing."""
    account, ledger = await carried(tmp_path, Line(fails=fails, cuts={1: confirmed}))
    lost = LAST - confirmed
    assert (account["status"], ledger["failure"]) == ("failed" if failure else "complete", failure)
    assert (ledger["delivered"], ledger["dropped"]) == (56000 - lost, {"stream-lost": lost} if lost else {})
    sessions = ledger["outcome"]["sessions"]
    assert sessions[0] == {"session_id": "s1", "status": status, "lost_samples": lost}
    assert [session["status"] for session in sessions[1:]] == ["completed"] * 2
    assert [(event["event"], event["samples"]) for event in account["events"]] == [("StreamLost", lost)]
    assert f"session s1, which was handed over, has not ended well: session 1 was cut off; {lost} s" in caplog.text


async def test_what_is_lost_is_booked_behind_what_is_in_doubt(tmp_path: Path) -> None:
    """While the session before has not confirmed all, it is not known where the loss begins."""
    note = anyio.Event()
    line = Line(note=note, breaks={2: (10000, 8000)})
    lost = 10000 - 8000

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", PCM)) as session:
            try:
                await session.send(SECOND)
                await line.until(lambda: len(line.writers) == 1)
                line.writers[0].confirmed = 100
                for start in range(16000, 16000 * 7, 160):
                    await session.send((SECOND * 7)[start : start + 160])
                await line.until(lambda: sum(len(writer.audio) for writer in line.writers) == 16000 * 7)
                [live] = runner.sessions.values()
                [ledger] = live.account()["sinks"]
                assert (ledger["delivered"], ledger["dropped"]) == (100, {})
            finally:
                line.writers[0].confirmed = None
                note.set()
            await line.until(lambda: 1 in line.ended)
            await anyio.wait_all_tasks_blocked()
            [ledger] = live.account()["sinks"]
            assert (ledger["delivered"], ledger["dropped"]) == (56000 - lost, {"stream-lost": lost})

    runner = make_runner(tmp_path, act, Sessions(line=line))
    account = await run(runner)
    assert len(line.writers) == 3
    assert (account["status"], account["sinks"][0]["delivered"]) == ("complete", 56000 - lost)
    assert account["sinks"][0]["dropped"] == {"stream-lost": lost}


async def test_what_is_lost_is_told_where_it_is() -> None:
    """When it is booked, what is delivered ends where the loss begins, whatever later sessions have."""
    line = Line(breaks={2: (10000, 8000)})
    asides: list[Callable[[], Awaitable[None]]] = []
    booked = []

    async def aside(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asides.append(work)

    async with line.relay() as relay:
        relay.aside, relay.lose = aside, lambda samples, reason: booked.append((relay.delivered, samples, reason))
        for item in told(7):
            if not relay.write_nowait(item):
                await relay.write(item)
            if len(line.writers) == 2:
                line.writers[0].confirmed = 100
        assert (len(line.writers), relay.delivered, booked) == (3, 100, [])
        line.writers[0].confirmed = None
        for work in asides:
            await work()
        lost = len(line.writers[1].audio) // 2 - 8000
        assert booked == [(LAST + 8000, lost, "stream-lost")]
        assert relay.delivered == 56000 - lost


async def test_who_answers_is_not_waited_for() -> None:
    """Nor asked for every frame: half of what may be in doubt goes without a question."""
    line = Line()

    def opened() -> None:
        line.writers[0].in_doubt_s = 4.0

    line.opened = opened
    async with line.relay(None) as relay:
        for frame in frames(SECOND * 40, PCM, range(160, 320_000, 160)):
            assert relay.write_nowait(frame)
        assert line.writers[0].asked == 19
        line.writers[0].confirmed = 300_000
        assert relay.delivered == 300_000  # to be asked before the next frame; no event waits for it
        assert relay.write_nowait(SpeechStarted("inbound", 40.0))


@pytest.mark.parametrize("breaks", [False, True])
async def test_little_is_in_doubt(tmp_path: Path, breaks: bool) -> None:
    """What exceeds it waits: for the answer, or for the next session."""
    line, answer = Line(), anyio.Event()

    def opened() -> None:
        if len(line.writers) == 1:
            line.writers[0].in_doubt_s, line.writers[0].confirmed, line.writers[0].answer = 1.0, 80, answer

    line.opened = opened

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", PCM)) as session:
            for start in range(0, 16000 * 2, 320):
                await session.send((SECOND * 2)[start : start + 320])
                if start == 3200:
                    await line.until(lambda: len(line.writers) == 1)
                    [live] = runner.sessions.values()
                    assert live.account()["sinks"][0]["delivered"] == 80
            await anyio.wait_all_tasks_blocked()
            assert len(line.writers[0].audio) == 16000 + 320
            assert live.account()["sinks"][0]["delivered"] == 80
            if breaks:
                line.writers[0].most = 0
            answer.set()

    runner = make_runner(tmp_path, act, Sessions(line=line))
    account = await run(runner)
    [ledger] = account["sinks"]
    assert b"".join(writer.audio for writer in line.writers) == SECOND * 2
    assert account["status"] == "complete"
    assert ledger["dropped"] == ({"stream-lost": 8160 - 80} if breaks else {})
    assert ledger["delivered"] == 16000 - sum(ledger["dropped"].values())
    assert len(line.writers) == 1 + breaks


@pytest.mark.usefixtures("no_wait")
async def test_a_service_that_breaks_every_stream_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Three sessions in a row that confirm nothing are borne; those that confirm something are not counted."""
    vain = (1600, 0)
    line = Line(breaks={1: vain, 2: vain, 3: vain, 4: (1600, 160), 5: vain, 6: vain, 7: vain, 8: vain})
    account, ledger = await carried(tmp_path, line)
    assert len(line.writers) == 8
    assert account["status"] == "failed"
    assert ledger["failure"] == {"code": "stream-lost", "text": "the stream was closed early"}
    assert (ledger["delivered"], ledger["dropped"]) == (160, {"stream-lost": ledger["received"] - 160})
    assert (line.salvaged, line.aborted) == ([4], [1, 2, 3, 5, 6, 7, 8])
    assert [each["status"] for each in ledger["outcome"]["sessions"][:4]] == ["broken"] * 3 + ["completed"]


@pytest.mark.parametrize(("refusal", "times"), [("session-refused", 1), ("unreachable", 3), ("stream-refused", 3)])
async def test_a_stream_that_breaks_for_good(tmp_path: Path, refusal: str, times: int) -> None:
    """Another session is asked for again unless the answer was no; then the sink fails for both reasons."""
    line = Line(refused=[2], breaks={1: (8000, 4000)})
    line.refusal = refusal
    with stamina.set_testing(True, attempts=3):
        account, ledger = await carried(tmp_path, line)
    assert line.refusals == times
    assert account["status"] == "failed"
    assert ledger["failure"]["code"] == "stream-lost"
    assert ledger["failure"]["text"].endswith("another session could not be had: no more of them")
    assert (ledger["delivered"], line.aborted, line.salvaged) == (4000, [1], [])


async def test_what_came_through_and_has_no_note_is_told_at_the_end(tmp_path: Path) -> None:
    """The call is carried to its end all the same."""
    line = Line(fails=[1], breaks={1: (8000, 8000)})
    account, ledger = await carried(tmp_path, line)
    assert [each["status"] for each in ledger["outcome"]["sessions"]] == ["broken"] + ["completed"] * 3
    assert (account["status"], ledger["failure"]["code"], ledger["delivered"]) == ("failed", "result-failed", 56000)


@pytest.mark.parametrize("kind", ["raw", "json", "portable"])
async def test_a_service_that_drops_a_stream(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parts are stored, byte by byte, and have their notes; between them is what the account says."""
    if kind == "portable":
        monkeypatch.setattr(websocket, "driver", stream)
        kind = "raw"
    rate = 16000 if kind == "raw" else 8000
    data = random.Random(1).randbytes(320 * 10_000)
    frames = iter([data[start : start + 320] for start in range(0, len(data), 320)])
    said = 0

    async def act(engine: Engine) -> None:
        nonlocal said
        async with engine.open(Stream("c1", PCM)) as session:

            async def say(until: Callable[[], bool]) -> None:
                nonlocal said
                while not until():
                    await session.send(next(frames))
                    said += 320

            [live] = runner.sessions.values()
            await say(lambda: said == 16000)
            while not live.account()["sinks"][0]["delivered"]:  # so that the first session has not been in vain
                await anyio.lowlevel.checkpoint()
            await say(lambda: len(service.sessions) == 2)
            end = said + 16000
            await say(lambda: said == end)

    async with ingest("drops_stream") as (service, url):
        sink = make_sink(kind, url, tmp_path / "notes")
        runner = make_runner(tmp_path, act, sink, transforms=[Mix(), Resample(rate=rate)])
        account = await run(runner)
        first, second = (bytes(session.audio["inbound"]) for session in await service.ended(2))
    [ledger] = account["sinks"]
    assert (account["status"], ledger["failure"]) == ("complete", None)
    assert ledger["received"] == ledger["delivered"] + ledger["dropped"]["stream-lost"] == said // 2 * rate // 8000
    # The service has at least what it confirmed: the rest of what it has was in doubt when the stream broke.
    assert ledger["delivered"] <= (len(first) + len(second)) // 2 <= ledger["received"]
    if rate == 8000:
        assert first == data[: len(first)]
        assert second == data[said - len(second) : said]
    sessions = ledger["outcome"]["sessions"]
    assert [session["status"] for session in sessions] == ["completed"] * 2
    assert sessions[0]["lost_samples"] == ledger["dropped"]["stream-lost"]
    notes = [json.loads(await anyio.Path(session["result"]).read_bytes()) for session in sessions]
    assert notes[1]["additional_data"] == {"call_id": "c1", "part": 2, "continues": sessions[0]["session_id"]}
