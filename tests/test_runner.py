"""Calls through a running pipeline: how they flow, fail, block and end, and that every sample is booked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_kit import S16_8K, Each, Kept, Memory, call, make_runner

from mediaflow import (
    AudioFormat,
    Engine,
    FormatError,
    SessionError,
    SinkError,
    SourceError,
    Stream,
    hookimpl,
    session,
)
from mediaflow.delivery import ledger
from mediaflow.runner import Runner
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_resample import Resample

pytestmark = pytest.mark.anyio

TONE = bytes(range(256)) * 5  # 640 samples of 8 kHz: 80 ms


def booked(figures: Mapping[str, Any]) -> int:
    """Add up what became of the samples that a sink's account says were received."""
    return int(
        figures["delivered"]
        + figures["spooled"]
        + sum(figures["dropped"].values())
        + sum(figures["concealed"].values())
    )


async def run(runner: Runner) -> dict[str, Any]:
    """Run a pipeline with one call and return its account."""
    with anyio.fail_after(10):
        await runner.run()
    (account,) = runner.accounts
    for figures in account["sinks"]:
        assert figures["received"] == booked(figures)
        assert figures["spooled"] == 0
    return account


async def test_audio_passes_and_is_booked(tmp_path: Path) -> None:
    """What a source pushes reaches the sink byte for byte, and the ledger says that it was delivered."""
    kept = Kept()
    account = await run(make_runner(tmp_path, call(TONE, TONE), Memory(kept=kept)))

    assert kept.audio == TONE + TONE
    assert kept.left == "finished"
    assert account["status"] == "complete"
    assert account["tracks"]["inbound"]["received"] == 1280
    assert account["sinks"][0]["delivered"] == 1280


@pytest.mark.parametrize("nowait", [True, False])
async def test_order_is_kept_between_the_inline_way_and_the_queue(tmp_path: Path, nowait: bool) -> None:
    """Frames pushed before the sink is open, while it waits and after arrive in the order they were pushed."""
    kept = Kept(nowait=nowait)
    frames = [bytes([number, 0]) * 10 for number in range(200)]

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for number, frame in enumerate(frames):
                session.push(frame)
                if number % 7 == 0:
                    await session.send(b"")

    await run(make_runner(tmp_path, act, Memory(kept=kept)))
    assert kept.audio == b"".join(frames)


async def test_one_failing_sink_harms_no_other(tmp_path: Path) -> None:
    """A sink that fails at the door books everything under its code; the other gets everything."""
    good, bad = Kept(), Kept(fail_open=SinkError("login-refused", "wrong token"))
    account = await run(make_runner(tmp_path, call(TONE, TONE), Memory(kept=bad), Memory(kept=good)))

    assert good.audio == TONE + TONE
    assert account["sinks"][0]["dropped"] == {"login-refused": 1280}
    assert account["sinks"][0]["failure"] == {"code": "login-refused", "text": "wrong token"}
    assert account["sinks"][1]["dropped"] == {}
    assert account["status"] == "failed"


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_sink_failing_midway_books_what_it_did_not_take(tmp_path: Path, nowait: bool) -> None:
    """What a sink confirmed before it failed is delivered; the rest is dropped under its code, to the sample."""
    good, bad = Kept(), Kept(nowait=nowait, fail_at=1600)
    account = await run(make_runner(tmp_path, call(*[TONE] * 5), Memory(kept=bad), Memory(kept=good)))

    assert account["sinks"][0]["delivered"] == 1280
    assert account["sinks"][0]["dropped"] == {"lost": 1920}
    assert account["sinks"][1]["delivered"] == 3200


async def test_a_sink_failing_at_the_end_keeps_what_it_confirmed(tmp_path: Path) -> None:
    """A delivery that fails in its last step books the unconfirmed samples and no others."""
    kept = Kept(hold=300, fail_finish=SinkError("not-closed", "the server did not close"))
    account = await run(make_runner(tmp_path, call(TONE), Memory(kept=kept)))

    assert account["sinks"][0]["delivered"] == 340
    assert account["sinks"][0]["dropped"] == {"not-closed": 300}


async def test_a_sink_that_breaks_is_reported_as_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that is no SinkError is a fault of the sink: it is logged with its traceback and booked."""
    account = await run(make_runner(tmp_path, call(TONE), Memory(kept=Kept(fail_open=ZeroDivisionError("oh")))))

    assert account["sinks"][0]["dropped"] == {"broken": 640}
    assert account["sinks"][0]["failure"]["text"] == "ZeroDivisionError: oh"
    assert any(record.exc_info for record in caplog.records)


async def test_the_source_is_told_when_every_sink_has_failed(tmp_path: Path) -> None:
    """With nobody left to take the audio, a push raises, and the call ends as failed."""
    told: list[str] = []

    async def act(engine: Engine) -> None:
        try:
            async with engine.open(Stream("c1", S16_8K)) as session:
                for _ in range(100):
                    await session.send(TONE)
        except SessionError as error:
            told.append(str(error))

    account = await run(make_runner(tmp_path, act, Memory(kept=Kept(fail_at=640)), Memory(kept=Kept(fail_at=1280))))
    assert told == ["every sink has failed"]
    assert account["error"] == "every sink has failed"
    assert [figures["delivered"] for figures in account["sinks"]] == [640, 1280]


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


async def test_a_broken_transform_ends_its_call_and_no_other(tmp_path: Path) -> None:
    """A transform that raises ends that call with its place and reason; a call beside it goes on."""

    def work(frame: Any) -> Any:
        if frame.data == b"xx":
            raise RuntimeError("cannot")
        return [frame]

    told: list[str] = []

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("good", S16_8K)) as good:
            await good.send(TONE)
            try:
                async with engine.open(Stream("bad", S16_8K)) as bad:
                    await bad.send(TONE)
                    await bad.send(b"xx")
            except SessionError as error:
                told.append(str(error))
            await good.send(TONE)

    runner = make_runner(tmp_path, act, Memory(kept=Kept()), transforms=[Each(work=work)])
    with anyio.fail_after(10):
        await runner.run()
    bad, good = runner.accounts
    assert told == ["transforms[0] transforms broke: RuntimeError: cannot"]
    assert (bad["call"], bad["status"], bad["error"]) == ("bad", "failed", told[0])
    assert (bad["sinks"][0]["delivered"], bad["sinks"][0]["dropped"]) == (640, {"transforms": 1})
    assert (good["status"], good["sinks"][0]["delivered"]) == ("complete", 1280)


async def test_a_full_queue_holds_the_source_up(tmp_path: Path) -> None:
    """`block`: a push says when the queue is full, `ready` waits until there is room, and nothing is dropped."""
    gate = anyio.Event()
    kept = Kept(nowait=False, gate=gate)
    seen: list[bool] = []

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            seen.extend(session.push(TONE) for _ in range(4))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.ready)
                await anyio.wait_all_tasks_blocked()
                gate.set()
            seen.append(session.push(TONE))

    account = await run(make_runner(tmp_path, act, Memory(kept=kept, queue_ms=200)))
    assert seen == [True, True, False, False, True]
    assert account["sinks"][0]["delivered"] == 5 * 640


async def test_a_source_that_cannot_wait_loses_beyond_twice_the_bound(tmp_path: Path) -> None:
    """`block` with a source that pushes on regardless: memory stays bounded and what does not fit is booked."""
    gate = anyio.Event()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for _ in range(100):
                session.push(TONE)
            gate.set()

    account = await run(make_runner(tmp_path, act, Memory(kept=Kept(nowait=False, gate=gate), queue_ms=200)))
    figures = account["sinks"][0]
    assert figures["received"] == 64_000
    assert figures["dropped"] == {"queue-full": 64_000 - figures["delivered"]}
    # Twice 200 ms, and the frame that reached over it.
    assert figures["delivered"] == 6 * 640


async def test_drop_oldest_keeps_the_newest(tmp_path: Path) -> None:
    """`drop_oldest`: what has waited longest goes, booked, and the last samples always arrive."""
    gate = anyio.Event()
    kept = Kept(nowait=False, gate=gate)
    frames = [bytes([number, 1]) * 160 for number in range(50)]

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for frame in frames:
                assert session.push(frame)
            gate.set()

    account = await run(make_runner(tmp_path, act, Memory(kept=kept, queue_ms=100, when_full="drop_oldest")))
    assert kept.audio == b"".join(frames[-5:])
    assert account["sinks"][0]["dropped"] == {"queue-full": 45 * 160}


async def test_concealed_silence_is_booked_at_the_sink_rate(tmp_path: Path) -> None:
    """A gap becomes silence of its length, and through resample and mix the ledger still knows it, to the sample."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K, ("inbound", "outbound"))) as session:
            await session.send(TONE, "inbound")
            await session.send(TONE, "outbound")
            session.conceal(101, "gap", "inbound")
            session.conceal(60, "reconnect", "outbound")
            await session.send(TONE, "inbound")
            await session.send(TONE, "outbound")

    account = await run(
        make_runner(tmp_path, act, Memory(kept=kept), transforms=[Resample(rate=11_025), Mix()]),
    )

    def at(position: int) -> int:
        return math.ceil(position * 11_025 / 8000)

    figures = account["sinks"][0]
    assert figures["received"] == at(640 + 101 + 640) == len(kept.audio) // 2
    # The two silences begin together; the longer hides the shorter.
    assert figures["concealed"] == {"gap": at(741) - at(640)}
    assert figures["delivered"] == figures["received"] - figures["concealed"]["gap"]
    assert account["tracks"]["outbound"]["concealed"] == {"reconnect": 60}


async def test_a_track_that_begins_later_is_aligned(tmp_path: Path) -> None:
    """Two tracks with an offset are mixed in their places and the result is as long as both together."""
    kept = Kept()
    one, two = b"\x01\x00" * 640, b"\x02\x00" * 640

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K, ("inbound", "outbound"))) as session:
            session.begin("outbound", 100)
            await session.send(one, "inbound")
            await session.send(two, "outbound")

    account = await run(make_runner(tmp_path, act, Memory(kept=kept), transforms=[Mix()]))
    assert kept.audio == b"\x01\x00" * 100 + b"\x03\x00" * 540 + b"\x02\x00" * 100
    assert account["sinks"][0]["received"] == 740


async def test_a_transform_that_keeps_audio_back_is_found_out(tmp_path: Path) -> None:
    """What a transform throws away without a word is booked, because `received` is worked out from the source."""
    account = await run(
        make_runner(
            tmp_path,
            call(TONE, TONE, TONE),
            Memory(kept=Kept()),
            transforms=[Each(work=lambda frame: [frame] if frame.position else [])],
        )
    )
    assert account["sinks"][0]["received"] == 1920
    assert account["sinks"][0]["dropped"] == {"transforms": 640}


async def test_a_sink_gets_the_tail_of_the_resampler(tmp_path: Path) -> None:
    """The end of a call flows through: n samples become exactly ceil(n·L/M)."""
    kept = Kept()
    account = await run(
        make_runner(tmp_path, call(TONE, b"\x00\x00"), Memory(kept=kept), transforms=[Resample(rate=44_100)])
    )
    assert len(kept.audio) // 2 == math.ceil(641 * 441 / 80) == account["sinks"][0]["delivered"]


async def test_a_step_with_nothing_to_do_is_left_out(tmp_path: Path) -> None:
    """Decoding PCM and resampling to the rate it has are no steps: the frame that arrives is the one pushed."""
    kept = Kept()
    await run(
        make_runner(tmp_path, call(TONE), Memory(kept=kept), transforms=[MulawDecode(), Mix(), Resample(rate=8000)])
    )
    assert [getattr(item, "data", None) is TONE for item in kept.items] == [True]


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


async def test_a_call_is_open_only_once(tmp_path: Path) -> None:
    """A second call with an id that is live is refused and the first is unharmed."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            with pytest.raises(SourceError, match="c1 is already open"):
                async with engine.open(Stream("c1", S16_8K)):
                    pass
            await session.send(TONE)

    assert (await run(make_runner(tmp_path, act, Memory(kept=Kept()))))["sinks"][0]["delivered"] == 640


async def test_what_a_source_may_not_do_is_refused(tmp_path: Path) -> None:
    """A push that ends inside a sample, to a track that is not there, or after the end raises and books nothing."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            with pytest.raises(ValueError, match="end inside a sample"):
                session.push(b"abc")
            with pytest.raises(ValueError, match="no track 'left', only inbound"):
                session.push(b"ab", "left")
            session.push(TONE)
            with pytest.raises(ValueError, match="has begun"):
                session.begin("inbound", 7)
        with pytest.raises(SessionError, match="has ended"):
            session.push(TONE)

    assert (await run(make_runner(tmp_path, act, Memory(kept=Kept()))))["sinks"][0]["received"] == 640


async def test_what_had_no_place_in_the_stream_is_booked_at_the_source(tmp_path: Path) -> None:
    """Doubled and late audio is no part of the timeline; the track's account names it."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            session.drop(160, "duplicate")
            session.drop(160, "duplicate")

    account = await run(make_runner(tmp_path, act, Memory(kept=Kept())))
    assert account["tracks"]["inbound"]["dropped"] == {"duplicate": 320}
    assert account["sinks"][0]["received"] == 640


async def test_notes_are_in_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note stands there with its facts and the stream time; there is room for so many, and the rest is counted."""
    monkeypatch.setattr(session, "NOTES", 2)

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K, ("inbound", "outbound"))) as call:
            call.note("first", cause="x", at=99)
            call.push(bytes(1600), "inbound")
            call.note("second")
            call.note("third")
        call.note("fourth")

    account = await run(make_runner(tmp_path, act, Memory(kept=Kept())))
    assert account["events"] == [{"event": "first", "cause": "x", "at": 0.0}, {"event": "second", "at": 0.1}]
    assert account["events_left_out"] == 1


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
        def counted(self, name: str, number: int) -> None:
            self.heard.append(f"counted {name} {number}")

        @hookimpl
        def source_listening(self, url: str) -> None:
            self.heard.append(f"listening {url}")

    async def act(engine: Engine) -> None:
        engine.listening("ws://127.0.0.1:1/")
        engine.count("refused-token")
        await call(TONE)(engine)

    listener = Listener()
    await run(
        make_runner(
            tmp_path, act, Memory(kept=Kept()), Memory(kept=Kept(fail_open=SinkError("no", ""))), plugin=listener
        )
    )
    assert listener.heard == [
        "listening ws://127.0.0.1:1/",
        "counted refused-token 1",
        "started c1",
        "failed sinks[1] sinks no",
        "ended c1 failed",
    ]
    assert "a plugin broke in the hook session_ended" in caplog.text
