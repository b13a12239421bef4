"""A pipeline at work: how it stops, what it refuses, what it keeps on disk and what it tells."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_kit import S16_8K, TONE, Kept, Memory, make_runner, run

from mediaflow import (
    AudioFormat,
    Engine,
    FormatError,
    SessionError,
    SinkError,
    SourceError,
    Stream,
    hookimpl,
)
from mediaflow.delivery import ledger
from mediaflow.runner import Runner
from mediaflow_plugins.transform_resample import Resample
from mediaflow_plugins.transform_select import Select

pytestmark = pytest.mark.anyio


async def test_the_source_is_told_at_the_end_that_nothing_is_stored(tmp_path: Path) -> None:
    """A sink that fails while it finishes makes leaving the call raise; while another holds the audio, nothing does."""
    told: list[str] = []

    async def act(engine: Engine) -> None:
        try:
            async with engine.open(Stream("c1", S16_8K)) as session:
                await session.send(TONE)
        except SessionError as error:
            told.append(str(error))

    late = SinkError("not-closed", "the server did not close")
    await run(make_runner(tmp_path, act, Memory(kept=Kept(fail_finish=late)), Memory(kept=Kept())))
    assert told == []
    await run(make_runner(tmp_path, act, Memory(kept=Kept(fail_finish=late))))
    assert told == ["every sink has failed"]


async def test_stop_lets_the_end_flow_through(tmp_path: Path) -> None:
    """A stop cancels the source alone: what was pushed is delivered and the sink finishes."""
    pushed = anyio.Event()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            pushed.set()
            await anyio.sleep_forever()

    kept = Kept(nowait=False)
    runner = make_runner(tmp_path, act, Memory(kept=kept), transforms=[Resample(rate=16_000)])
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await pushed.wait()
            runner.stop()
    assert len(kept.audio) == 4 * 640
    assert kept.left == "finished"
    assert runner.accounts[0]["status"] == "complete"


@pytest.mark.parametrize("twice", [True, False])
async def test_what_has_not_finished_is_cut_off_and_booked(tmp_path: Path, twice: bool) -> None:
    """A sink that does not finish is cut off at the deadline, or at once when told to stop a second time."""
    pushed, never = anyio.Event(), anyio.Event()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            pushed.set()
            await anyio.sleep_forever()

    kept = Kept(nowait=False, gate=never)
    runner = make_runner(tmp_path, act, Memory(kept=kept), drain_s=1000 if twice else 0)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await pushed.wait()
            runner.stop()
            if twice:
                await anyio.wait_all_tasks_blocked()
                runner.stop()
    assert kept.left == "aborted"
    assert runner.accounts[0]["sinks"][0]["dropped"] == {"deadline": 640}
    assert runner.accounts[0]["status"] == "failed"


async def test_a_cancelled_runner_still_settles_its_calls(tmp_path: Path) -> None:
    """Whoever cancels the whole thing gets the same end: sinks finish, the ledger is written."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            scope.cancel()
            await anyio.sleep_forever()

    runner = make_runner(tmp_path, act, Memory(kept=kept))
    with anyio.CancelScope() as scope:
        await runner.run()
    assert kept.left == "finished"
    assert ledger.read(tmp_path)[0]["status"] == "complete"


async def test_a_source_that_fails_loses_nothing_it_pushed(tmp_path: Path) -> None:
    """An error in the source ends its call like any other end, and then it is raised."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.push(TONE)
            raise SourceError("the device is gone")

    runner = make_runner(tmp_path, act, Memory(kept=kept), transforms=[Resample(rate=16_000)])
    with anyio.fail_after(10), pytest.raises(SourceError, match="the device is gone"):
        await runner.run()
    assert len(kept.audio) == 4 * 640
    assert kept.left == "finished"
    assert runner.accounts[0]["error"] == "the source failed: the device is gone"


async def test_a_stream_that_does_not_fit_is_refused_with_its_place(tmp_path: Path) -> None:
    """A format that the pipeline cannot take is refused before anything is opened, and counted."""
    refused: list[str] = []

    async def act(engine: Engine) -> None:
        try:
            async with engine.open(Stream("c1", AudioFormat("mulaw", 8000))):
                pass
        except FormatError as error:
            refused.append(str(error))

    runner = make_runner(tmp_path, act, Memory(kept=Kept()), transforms=[Resample(rate=16_000)])
    await runner.run()
    (text,) = refused
    assert text.startswith("test.yaml:2:1: format: transforms[0] transforms: takes s16le, not mulaw; ")
    assert text.endswith("mulaw 8000 Hz mono, track inbound (add `- use: mulaw_decode` before it)")
    assert runner.counts == {"refused-format": 1}
    assert runner.accounts == []


async def test_a_stream_without_the_wanted_track_is_refused(tmp_path: Path) -> None:
    """What a joiner refuses when it is opened is refused like any other misfit, and leaves nothing behind."""

    async def act(engine: Engine) -> None:
        with pytest.raises(FormatError, match="no track 'outbound'"):
            async with engine.open(Stream("c1", S16_8K)):
                pass

    runner = make_runner(tmp_path, act, Memory(kept=Kept()), transforms=[Select(track="outbound")])
    await runner.run()
    assert (runner.counts, runner.accounts, runner.sessions) == ({"refused-format": 1}, [], {})


async def test_a_call_is_open_only_once(tmp_path: Path) -> None:
    """A second call with an id that is live is refused and the first is unharmed."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            with pytest.raises(SourceError, match="c1 is already open"):
                async with engine.open(Stream("c1", S16_8K)):
                    pass
            await session.send(TONE)

    assert (await run(make_runner(tmp_path, act, Memory(kept=Kept()))))["sinks"][0]["delivered"] == 640


async def test_a_live_call_is_in_the_ledger_on_disk(tmp_path: Path) -> None:
    """The ledger on disk follows a call while it lives, so that a crash leaves what was known a second before."""
    runner: Runner

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            while not ledger.read(tmp_path):  # noqa: ASYNC110 (a file tells nobody that it has changed)
                await anyio.sleep(0.01)
            (account,) = ledger.read(tmp_path, "c1")
            assert account["status"] == "live"
            assert account["sinks"][0]["delivered"] == 640

    runner = make_runner(tmp_path, act, Memory(kept=Kept()))
    await run(runner)
    (account,) = ledger.read(tmp_path)
    assert account["status"] == "complete"
    with closing(sqlite3.connect(tmp_path / ledger.FILE)) as db:
        assert db.execute("SELECT count(*) FROM snapshots").fetchone() == (0,), "a run that ended leaves snapshots"


async def test_a_call_that_ends_while_the_ledger_fails_is_written_later(tmp_path: Path) -> None:
    """The call goes on and ends as ever; that is counted, and on the disk once the disk takes it."""
    runner: Runner

    async def act(engine: Engine) -> None:
        with closing(sqlite3.connect(tmp_path / ledger.FILE, isolation_level=None)) as db:
            async with engine.open(Stream("c1", S16_8K)) as session:
                db.execute("ALTER TABLE calls RENAME TO elsewhere")
                await session.send(TONE)
            assert [account["status"] for account in runner.accounts] == ["complete"]
            assert runner.counts["ledger-unwritten"] >= 1
            db.execute("ALTER TABLE elsewhere RENAME TO calls")
        while [account["status"] for account in ledger.read(tmp_path)] != ["complete"]:  # noqa: ASYNC110 (as above)
            await anyio.sleep(0.01)

    runner = make_runner(tmp_path, act, Memory(kept=Kept()))
    await run(runner)
    assert [account["sinks"][0]["delivered"] for account in ledger.read(tmp_path)] == [640]


async def test_what_is_noted_of_a_call_that_is_over_is_in_the_ledger(tmp_path: Path) -> None:
    """In memory at once, on disk a second later, or when the pipeline ends."""
    runner: Runner

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
        assert runner.accounts[0]["events"] == []
        session.note("Hangup", cause="Normal Hangup")
        assert [event["event"] for event in runner.accounts[0]["events"]] == ["Hangup"]
        while not ledger.read(tmp_path)[0]["events"]:  # noqa: ASYNC110 (a file tells nobody that it has changed)
            await anyio.sleep(0.01)
        session.note("late")

    runner = make_runner(tmp_path, act, Memory(kept=Kept()))
    await run(runner)
    (account,) = ledger.read(tmp_path)
    assert account["status"] == "complete"
    assert account["events"] == [
        {"event": "Hangup", "cause": "Normal Hangup", "at": 0.08},
        {"event": "late", "at": 0.08},
    ]


async def test_plugins_hear_the_news_and_cannot_hurt_a_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hooks tell of calls, failures and counts; a listener that raises is logged and nothing else happens."""

    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        @hookimpl
        def session_started(self, stream: Stream) -> None:
            self.heard.append(f"started {stream.id}")

        @hookimpl
        def session_ended(self, account: Mapping[str, Any]) -> None:
            self.heard.append(f"ended {account['call']} {account['status']}")
            raise ValueError("a listener's fault")

        @hookimpl
        def sink_failed(self, sink: str, code: str) -> None:
            self.heard.append(f"failed {sink} {code}")

        @hookimpl
        def noted(self, stream: Stream, name: str, facts: Mapping[str, object]) -> None:
            self.heard.append(f"noted {stream.id} {name} {dict(facts)}")

        @hookimpl
        def counted(self, name: str, number: int) -> None:
            self.heard.append(f"counted {name} {number}")

        @hookimpl
        def source_listening(self, url: str) -> None:
            self.heard.append(f"listening {url}")

    async def act(engine: Engine) -> None:
        engine.listening("ws://127.0.0.1:1/")
        engine.count("refused-token")
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.note("Ring", cause="x")
            await session.send(TONE)
            await kept.wrote.wait()
            kept.writer.note("Played", name="y")

    listener, kept = Listener(), Kept()
    await run(
        make_runner(tmp_path, act, Memory(kept=kept), Memory(kept=Kept(fail_open=SinkError("no", ""))), plugin=listener)
    )
    assert listener.heard == [
        "listening ws://127.0.0.1:1/",
        "counted refused-token 1",
        "started c1",
        "noted c1 Ring {'cause': 'x'}",
        "failed sinks[1] sinks no",
        "noted c1 Played {'name': 'y'}",
        "ended c1 failed",
    ]
    assert "a plugin broke in the hook session_ended" in caplog.text
