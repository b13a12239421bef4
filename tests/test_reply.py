"""What is played into a call while it is carried: how it ends, what it costs the call (nothing), and what is booked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_kit import S16_8K, TONE, Each, Kept, Memory, booked, call, make_reply, make_runner, run

from mediaflow import (
    AudioFrame,
    Engine,
    Event,
    Sink,
    SinkError,
    SourceError,
    SpeechStarted,
    Stream,
    Transform,
    hookimpl,
)
from mediaflow.config import Reply
from mediaflow.reply import LiveReply
from mediaflow.runner import Runner

pytestmark = pytest.mark.anyio

NOTICE = bytes(range(255, -1, -1)) * 5


def calling(
    speaker: Sink | None, until: Callable[[LiveReply], Awaitable[None]] | None = None
) -> Callable[[Engine], Awaitable[None]]:
    """Return a script of one call that offers ``speaker`` and lasts until the reply has done ``until``."""

    async def act(engine: Engine) -> None:
        assert engine.replies
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.offer(speaker)
            await session.send(TONE)
            if until is not None:
                await until(session.reply)  # type: ignore[attr-defined]
            await session.send(TONE)

    return act


async def over(reply: LiveReply) -> None:
    await reply.over.wait()


async def carry(folder: Path, reply: Reply, act: Callable[[Engine], Awaitable[None]], **options: Any) -> Any:
    """Run a call with a reply; return the account of the reply.  The call itself is always complete and exact."""
    kept = Kept()
    account = await run(make_runner(folder, act, Memory(kept=kept), reply=reply, **options))
    assert (account["status"], account["error"]) == ("complete", "")
    assert kept.audio == 2 * TONE
    assert account["events"][-1]["event"] == "ReplyEnded"
    assert account["events"][-1]["status"] == account["reply"]["status"]
    for figures in account["reply"]["sinks"]:
        assert figures["received"] == booked(figures)
        assert figures["spooled"] == 0
    return account["reply"]


async def test_a_reply_is_given_to_the_speaker(tmp_path: Path) -> None:
    """What its source brings goes through its transforms into the sink that the call offers."""
    kept = Kept()
    reply = make_reply(call(NOTICE, NOTICE, id="notice"), Each(work=lambda frame: [frame.replace(frame.data[::-1])]))
    account = await carry(tmp_path, reply, calling(Memory(kept=kept), over))
    assert kept.audio == 2 * NOTICE[::-1]
    assert kept.left == "finished"
    assert (account["status"], account["error"]) == ("complete", "")
    assert account["sinks"][0]["sink"] == "reply"
    assert account["sinks"][0]["delivered"] == len(NOTICE)


async def test_the_end_of_the_call_cuts_it_off(tmp_path: Path) -> None:
    """What had not been played by then is booked under ``call-ended``, and the speaker gives up at once."""
    kept = Kept(hold=10**9)

    async def wrote(reply: LiveReply) -> None:
        await kept.wrote.wait()

    async def endless(engine: Engine) -> None:
        async with engine.open(Stream("n", S16_8K)) as session:
            await session.send(NOTICE)
            await anyio.sleep_forever()

    account = await carry(tmp_path, make_reply(endless), calling(Memory(kept=kept), wrote))
    assert kept.left == "aborted"
    assert (account["status"], account["error"]) == ("call-ended", "")
    assert account["sinks"][0]["dropped"] == {"call-ended": len(NOTICE) // 2}


async def _opened(reply: LiveReply) -> None:
    while not reply.account()["sinks"] or not reply.account()["sinks"][0]["received"]:
        await anyio.lowlevel.checkpoint()


async def test_a_call_that_ends_before_it_begins(tmp_path: Path) -> None:
    """Nothing is played, nothing is booked, and nothing has failed."""

    async def late(engine: Engine) -> None:
        await anyio.sleep_forever()

    account = await carry(tmp_path, make_reply(late), calling(Memory(kept=Kept())))
    assert account == {"status": "call-ended", "error": "", "sample_rate": 0, "tracks": {}, "sinks": []}


async def test_all_that_was_delivered_is_complete(tmp_path: Path) -> None:
    """A call that ends between the last sample's delivery and the sink's leave does not cut anything off."""
    finish = anyio.Event()

    async def delivered(reply: LiveReply) -> None:
        await _opened(reply)
        while reply.account()["sinks"][0]["delivered"] < len(NOTICE) // 2:
            await anyio.lowlevel.checkpoint()
        finish.set()

    account = await carry(tmp_path, make_reply(call(NOTICE)), calling(Memory(kept=Kept(finish=finish)), delivered))
    assert account["status"] == "complete"


@pytest.mark.parametrize("offered", [True, False])
async def test_a_call_that_cannot_be_spoken_to(offered: bool, tmp_path: Path) -> None:
    """Where None is offered, or nothing at all, the reply has failed and the account says why."""
    act = calling(None) if offered else call(TONE, TONE)
    account = await carry(tmp_path, make_reply(call(NOTICE)), act)
    assert (account["status"], account["error"]) == ("failed", "this call cannot be spoken to")


# --- Barge-in


class Speech(Transform, frozen=True):
    """Says that speech begins with the second frame."""

    emits = (SpeechStarted,)
    track: str = "inbound"

    def open(self, format: Any) -> Any:
        return _Speech(self.track)


class _Speech:
    latency = 0.0

    def __init__(self, track: str) -> None:
        self._track = track

    def process(self, frame: AudioFrame) -> Any:
        return (SpeechStarted(self._track, 0.0), frame) if frame.position else (frame,)

    def event(self, event: Event) -> Any:
        return (event,)

    def flush(self) -> Any:
        return ()


@pytest.mark.parametrize(
    ("barge_in", "track", "status"),
    [
        (True, "inbound", "barge-in"),
        (True, "mix", "barge-in"),
        (True, "outbound", "complete"),
        (False, "inbound", "complete"),
    ],
)
async def test_barge_in(barge_in: bool, track: str, status: str, tmp_path: Path) -> None:
    """The caller's speech, and no other, stops a reply that minds; what was not delivered is booked so."""
    gate = anyio.Event()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.offer(Memory(kept=Kept(nowait=False, gate=gate)))
            await session.send(TONE)
            reply: LiveReply = session.reply  # type: ignore[attr-defined]
            await _opened(reply)
            await session.send(TONE)
            gate.set()
            await reply.over.wait()

    reply = make_reply(call(NOTICE), barge_in=barge_in)
    account = await carry(tmp_path, reply, act, transforms=[Speech(track=track)])
    assert (account["status"], account["error"]) == (status, "")
    samples = len(NOTICE) // 2
    assert account["sinks"][0]["dropped"] == ({"barge-in": samples} if status == "barge-in" else {})


# --- What fails, and harms nothing


async def _breaks(engine: Engine) -> None:
    async with engine.open(Stream("n", S16_8K)) as session:
        await session.send(NOTICE)
        raise SourceError("the tape is torn")


async def _comes_twice(engine: Engine) -> None:
    await call(NOTICE)(engine)
    await call(NOTICE)(engine)


async def _listens(engine: Engine) -> None:
    engine.listening("ws://127.0.0.1:1")


async def _crashes(engine: Engine) -> None:
    raise ZeroDivisionError


async def _nothing(engine: Engine) -> None:
    assert not engine.replies


def _break(frame: AudioFrame) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (make_reply(_breaks), "the tape is torn"),
        (make_reply(_comes_twice), "its source brings a second stream, and a reply is one"),
        (make_reply(_listens), "its source takes connections, and a reply is one stream"),
        (make_reply(_crashes), "ZeroDivisionError: "),
        (make_reply(_nothing), "its source brought no stream"),
        (make_reply(call(NOTICE), Each(work=_break)), "reply.transforms[0] transforms broke: ZeroDivisionError: "),
    ],
    ids=["breaks", "comes twice", "listens", "crashes", "nothing", "transform"],
)
async def test_a_reply_that_cannot_be_read(reply: Reply, error: str, tmp_path: Path) -> None:
    """Whatever is the matter with its source or its transforms, the call is complete, and the account says it."""
    account = await carry(tmp_path, reply, calling(Memory(kept=Kept()), over))
    assert (account["status"], account["error"]) == ("failed", error)


async def test_a_speaker_that_fails(tmp_path: Path) -> None:
    """Its samples are booked under its code, its text is the reply's error, and the news is told."""
    told: list[tuple[str, str]] = []

    class Listener:
        @hookimpl
        def sink_failed(self, sink: str, code: str) -> None:
            told.append((sink, code))

    broken = Memory(kept=Kept(fail_open=SinkError("gone", "the line is dead")))
    runner_options = {"plugin": Listener()}
    account = await carry(tmp_path, make_reply(call(NOTICE)), calling(broken, over), **runner_options)
    assert (account["status"], account["error"]) == ("failed", "the line is dead")
    assert account["sinks"][0]["dropped"] == {"gone": len(NOTICE) // 2}
    assert told == [("reply", "gone")]


async def test_a_failed_reply_is_a_failure_of_the_run(tmp_path: Path) -> None:
    """``run`` and ``audit`` have to end with 1: it is counted with the calls that failed."""
    runner = make_runner(tmp_path, calling(None), Memory(kept=Kept()), reply=make_reply(call(NOTICE)))
    await run(runner)
    assert (runner.failed, runner.counts) == (1, {"reply-failed": 1})


# --- While it lasts


async def test_a_live_reply_is_in_the_ledger(tmp_path: Path) -> None:
    """Its account is brought up to date with the call's."""
    gate = anyio.Event()
    accounts: list[dict[str, Any]] = []
    runner: Runner

    async def look(reply: LiveReply) -> None:
        await _opened(reply)
        (session,) = runner.sessions.values()
        accounts.append(session.account())
        gate.set()
        await reply.over.wait()

    speaker = Memory(kept=Kept(nowait=False, gate=gate))
    runner = make_runner(tmp_path, calling(speaker, look), Memory(kept=Kept()), reply=make_reply(call(NOTICE)))
    await run(runner)
    assert accounts[0]["reply"]["status"] == "live"
    assert accounts[0]["reply"]["sinks"][0]["spooled"] == len(NOTICE) // 2
    assert json.loads(json.dumps(accounts)) == accounts
