"""One call through the transforms: what comes out, what is booked, and what the source is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_kit import S16_8K, TONE, Each, Kept, Memory, call, make_runner, run

from mediaflow import Engine, Lost, SessionError, SpeechStarted, Stream, session
from mediaflow.session import LiveSession
from mediaflow_plugins.transform_mix import Mix
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_resample import Resample

pytestmark = pytest.mark.anyio


async def test_audio_passes_and_is_booked(tmp_path: Path) -> None:
    """What a source pushes reaches the sink byte for byte, and the ledger says that it was delivered."""
    kept = Kept()
    account = await run(make_runner(tmp_path, call(TONE, TONE), Memory(kept=kept)))

    assert kept.audio == TONE + TONE
    assert kept.left == "finished"
    assert account["status"] == "complete"
    assert account["tracks"]["inbound"]["received"] == 1280
    assert account["sinks"][0]["delivered"] == 1280


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


async def test_what_a_resampler_held_back_is_booked_under_the_failure(tmp_path: Path) -> None:
    """When every sink has failed, the tail that was still in the transforms is lost for the same reason."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            while True:
                await session.send(TONE)

    account = await run(make_runner(tmp_path, act, Memory(kept=Kept(fail_at=2000)), transforms=[Resample(rate=16_000)]))
    assert list(account["sinks"][0]["dropped"]) == ["lost"]


async def test_a_gap_that_nobody_takes_is_booked_as_far_as_it_went(tmp_path: Path) -> None:
    """A long silence during which the last sink fails counts only what of it entered the stream."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await session.send(TONE)
            await kept.wrote.wait()
            session.conceal(80_000, "gap")

    kept = Kept(fail_at=20_000)
    account = await run(make_runner(tmp_path, act, Memory(kept=kept)))
    figures = account["sinks"][0]
    assert figures["concealed"] == account["tracks"]["inbound"]["concealed"] == {"gap": 24_000}
    assert (figures["received"], figures["delivered"]) == (24_640, 640)


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
    assert account["events_left_out"] == 2


async def test_what_happens_to_a_call_is_to_be_told(tmp_path: Path) -> None:
    """Whatever is more than that its audio goes on marks the call, for the ledger to tell within a second."""
    gate = anyio.Event()
    slow, good = Kept(nowait=False, gate=gate), Kept(fail_at=5000)
    marked: list[str] = []

    async def act(engine: Engine) -> None:
        def look(what: str) -> None:
            marked.extend([what] * live.changed)
            live.changed = False

        async with engine.open(Stream("c1", S16_8K)) as session:
            assert isinstance(session, LiveSession)
            live = session
            look("begun")
            for kept in (slow, good):
                await kept.reached["streaming"].wait()
            await anyio.wait_all_tasks_blocked()
            look("opened")
            session.push(TONE)
            session.emit(SpeechStarted("inbound", 0.0))
            look("audio")
            session.conceal(80, "loss")
            look("concealed")
            session.drop(80, "late")
            look("dropped")
            session.emit(Lost("inbound", 0.0, 0.01, "too long"))
            look("lost")
            session.note("Hello")
            look("noted")
            session.push(TONE)
            look("fits")
            session.push(TONE)
            look("queue-full")
            gate.set()
            await anyio.wait_all_tasks_blocked()
            look("written")
            session.push(TONE * 15)
            look("failed")
        look("ended")

    sinks = Memory(kept=slow, queue_ms=200, when_full="drop_oldest"), Memory(kept=good)
    await run(make_runner(tmp_path, act, *sinks))
    assert marked == ["begun", "opened", "concealed", "dropped", "lost", "noted", "queue-full", "failed", "ended"]
