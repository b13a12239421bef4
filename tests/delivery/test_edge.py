"""The queue before a sink: order, bounds, policies, and a sink's failure that stays its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal

import anyio
import numpy as np
import pytest
from engine_kit import S16_8K, TONE, Kept, Light, Memory, call, make_runner, run

from mediaflow import AudioFormat, Engine, Item, SessionError, Sink, SinkError, Stream, Writer, envelope, websocket
from mediaflow.delivery import ledger
from mediaflow.delivery.edge import Edge
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[Memory, Light])
def kind(request: pytest.FixtureRequest) -> type[Memory]:
    """Return a sink that keeps a task while it streams, or one that does not."""
    kind: type[Memory] = request.param
    return kind


class Liar(Sink, frozen=True, kw_only=True):
    """Its writer breaks when it is asked ``about`` what became of the audio."""

    about: Literal["delivered", "outcome"]

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        yield _Broken(self.about)


class _Broken(Writer):
    def __init__(self, about: str) -> None:
        self._about = about

    @property
    def delivered(self) -> int:
        return 1 // (self._about != "delivered")

    @property
    def outcome(self) -> dict[str, int]:  # type: ignore[override]
        return {"a": 1 // (self._about != "outcome")}

    def write_nowait(self, item: Item) -> bool:
        return True

    async def write(self, item: Item) -> None:
        pass


@pytest.mark.parametrize("about", ["delivered", "outcome"])
async def test_a_writer_that_cannot_say_what_became_of_the_audio(
    tmp_path: Path, about: Literal["delivered", "outcome"]
) -> None:
    """It fails, whoever asks; the ledger goes on being kept, and the other sinks with it."""
    good = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.push(TONE)
            await good.reached["streaming"].wait()
            account = session.account()  # type: ignore[attr-defined]
            assert account["sinks"][0]["outcome"] == ({} if about == "outcome" else {"a": 1})
            session.push(TONE)

    account = await run(make_runner(tmp_path, act, Liar(about=about), Memory(kept=good)))
    assert good.audio == TONE * 2
    bad, well = account["sinks"]
    assert bad["failure"]["code"] == "broken" and "ZeroDivisionError" in bad["failure"]["text"]
    assert bad["delivered"] + sum(bad["dropped"].values()) == bad["received"] == 1280
    assert (well["delivered"], well["failure"]) == (1280, None)


async def test_an_outcome_that_json_has_no_word_for(tmp_path: Path) -> None:
    """It is told as text, so that it can be kept, and harms nobody."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await kept.reached["streaming"].wait()
            kept.writer.outcome = {"path": tmp_path, "size": np.int64(3), "day": date(2026, 11, 1), "more": [1, {2: 3}]}
            session.push(TONE)

    account = await run(make_runner(tmp_path, act, Memory(kept=kept)))
    (sink,) = account["sinks"]
    assert sink["failure"] is None
    assert sink["outcome"] == {"path": str(tmp_path), "size": "3", "day": "2026-11-01", "more": [1, {"2": 3}]}
    assert ledger.read(tmp_path)[0]["sinks"] == account["sinks"]


async def test_what_a_writer_gives_up(tmp_path: Path, kind: type[Memory]) -> None:
    """It is booked behind what is delivered, the call goes on, and more than there is breaks the sink."""
    kept = Kept(hold=2 * 640)

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await kept.reached["streaming"].wait()
            session.conceal(60, "gap")
            await session.send(TONE)
            await session.send(TONE)
            kept.writer.confirmed = 100  # type: ignore[attr-defined]
            session.changed = False  # type: ignore[attr-defined]
            kept.writer.lose(50, "torn")
            assert session.changed  # type: ignore[attr-defined]
            account = session.account()["sinks"][0]  # type: ignore[attr-defined]
            assert (account["delivered"], account["dropped"]) == (40, {"torn": 50})  # the other 60 were the gap
            with pytest.raises(ValueError, match="1191 samples cannot be lost: 1190 are written"):
                kept.writer.lose(1191, "torn")
            kept.writer.confirmed = 1290  # type: ignore[attr-defined]

    account = await run(make_runner(tmp_path, act, kind(kept=kept)))
    assert account["status"] == "complete"
    assert (account["sinks"][0]["delivered"], account["sinks"][0]["dropped"]) == (1230, {"torn": 50})


@pytest.mark.parametrize("nowait", [True, False])
async def test_order_is_kept_between_the_inline_way_and_the_queue(
    tmp_path: Path, kind: type[Memory], nowait: bool
) -> None:
    """Frames pushed before the sink is open, while it waits and after arrive in the order they were pushed."""
    kept = Kept(nowait=nowait)
    frames = [bytes([number, 0]) * 10 for number in range(200)]

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for number, frame in enumerate(frames):
                session.push(frame)
                if number % 7 == 0:
                    await session.send(b"")

    await run(make_runner(tmp_path, act, kind(kept=kept)))
    assert kept.audio == b"".join(frames)


async def test_one_failing_sink_harms_no_other(tmp_path: Path, kind: type[Memory]) -> None:
    """A sink that fails at the door books everything under its code; the other gets everything."""
    good, bad = Kept(), Kept(fail_open=SinkError("login-refused", "wrong token"))
    account = await run(make_runner(tmp_path, call(TONE, TONE), kind(kept=bad), kind(kept=good)))

    assert good.audio == TONE + TONE
    assert account["sinks"][0]["dropped"] == {"login-refused": 1280}
    assert account["sinks"][0]["failure"] == {"code": "login-refused", "text": "wrong token"}
    assert account["sinks"][1]["dropped"] == {}
    assert account["status"] == "failed"


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_sink_failing_midway_books_what_it_did_not_take(
    tmp_path: Path, kind: type[Memory], nowait: bool
) -> None:
    """What a sink confirmed before it failed is delivered; the rest is dropped under its code, to the sample."""
    good, bad = Kept(), Kept(nowait=nowait, fail_at=1600)
    account = await run(make_runner(tmp_path, call(*[TONE] * 5), kind(kept=bad), kind(kept=good)))

    assert account["sinks"][0]["delivered"] == 1280
    assert account["sinks"][0]["dropped"] == {"lost": 1920}
    assert account["sinks"][1]["delivered"] == 3200


async def test_a_sink_failing_at_the_end_keeps_what_it_confirmed(tmp_path: Path, kind: type[Memory]) -> None:
    """A delivery that fails in its last step books the unconfirmed samples and no others."""
    kept = Kept(hold=300, fail_finish=SinkError("not-closed", "the server did not close"))
    account = await run(make_runner(tmp_path, call(TONE), kind(kept=kept)))

    assert account["sinks"][0]["delivered"] == 340
    assert account["sinks"][0]["dropped"] == {"not-closed": 300}


async def test_a_sink_that_is_cut_off_before_it_opens(tmp_path: Path, kind: type[Memory]) -> None:
    """It is not opened at all, and everything is booked under the word that it was cut off with."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.push(TONE)
            session.edges[0].stop(SinkError("enough", "no more of it"))  # type: ignore[attr-defined]

    account = await run(make_runner(tmp_path, act, kind(kept=kept)))
    assert (kept.left, kept.items) == ("", [])
    assert account["sinks"][0]["dropped"] == {"enough": 640}
    assert account["sinks"][0]["failure"] == {"code": "enough", "text": "no more of it"}


async def test_a_sink_that_breaks_is_reported_as_broken(
    tmp_path: Path, kind: type[Memory], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that is no SinkError is a fault of the sink: it is logged with its traceback and booked."""
    account = await run(make_runner(tmp_path, call(TONE), kind(kept=Kept(fail_open=ZeroDivisionError("oh")))))

    assert account["sinks"][0]["dropped"] == {"broken": 640}
    assert account["sinks"][0]["failure"]["text"] == "ZeroDivisionError: oh"
    assert any(record.exc_info for record in caplog.records)


async def test_a_full_queue_holds_the_source_up(tmp_path: Path, kind: type[Memory]) -> None:
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

    account = await run(make_runner(tmp_path, act, kind(kept=kept, queue_ms=200)))
    assert seen == [True, True, False, False, True]
    assert account["sinks"][0]["delivered"] == 5 * 640


async def test_a_source_that_cannot_wait_loses_beyond_twice_the_bound(tmp_path: Path, kind: type[Memory]) -> None:
    """`block` with a source that pushes on regardless: memory stays bounded and what does not fit is booked."""
    gate = anyio.Event()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for _ in range(100):
                session.push(TONE)
            gate.set()

    account = await run(make_runner(tmp_path, act, kind(kept=Kept(nowait=False, gate=gate), queue_ms=200)))
    figures = account["sinks"][0]
    assert figures["received"] == 64_000
    assert figures["dropped"] == {"queue-full": 64_000 - figures["delivered"]}
    # Twice 200 ms, and the frame that reached over it.
    assert figures["delivered"] == 6 * 640


async def test_drop_oldest_keeps_the_newest(tmp_path: Path, kind: type[Memory]) -> None:
    """`drop_oldest`: what has waited longest goes, booked, and the last samples always arrive."""
    gate = anyio.Event()
    kept = Kept(nowait=False, gate=gate)
    frames = [bytes([number, 1]) * 160 for number in range(50)]

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            for frame in frames:
                assert session.push(frame)
            gate.set()

    account = await run(make_runner(tmp_path, act, kind(kept=kept, queue_ms=100, when_full="drop_oldest")))
    assert kept.audio == b"".join(frames[-5:])
    assert account["sinks"][0]["dropped"] == {"queue-full": 45 * 160}


# What is cut off, in each of its phases.

GATES = {"opening": "opening", "writing": "gate", "finishing": "finish"}


def held(phase: str) -> Kept:
    """Return a sink that stays in ``phase``, and has confirmed 340 of 640 samples once it has taken them."""
    options: dict[str, Any] = {GATES[phase]: anyio.Event()} if phase in GATES else {}
    return Kept(hold=300, nowait=phase != "writing", **options)


def meddle(phase: str, kept: Kept, then: Callable[[Edge], None]) -> Callable[[Engine], Awaitable[None]]:
    """Return a script of one call that does ``then`` when its sink is in ``phase``, and waits until the sink has left.

    The source goes on meanwhile, unless the sink is finishing.  Its frame comes after the sink had nothing to do.
    """
    over = anyio.Event()

    async def act(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            edges: list[Edge] = []
            tasks.start_soon(carry, engine, edges)
            await (kept.wrote if phase == "streaming" else kept.reached[phase]).wait()
            await anyio.wait_all_tasks_blocked()
            then(edges[0])
            while not edges[0].over:
                await anyio.lowlevel.checkpoint()
            over.set()

    async def carry(engine: Engine, edges: list[Edge]) -> None:
        with suppress(SessionError):
            async with engine.open(Stream("c1", S16_8K)) as session:
                edges.extend(session.edges)  # type: ignore[attr-defined]
                if phase != "opening":
                    await kept.reached["streaming"].wait()
                    await anyio.wait_all_tasks_blocked()
                session.push(TONE)
                if phase != "finishing":
                    await over.wait()

    return act


@pytest.mark.parametrize("cut", ["stop", "now", "soon"])
@pytest.mark.parametrize("phase", ["opening", "streaming", "writing", "finishing"])
async def test_a_cut_holds_in_every_phase(tmp_path: Path, kind: type[Memory], phase: str, cut: str) -> None:
    """The block is left by an exception, and what is not confirmed is booked under the word of the cut."""
    kept = held(phase)

    def cut_off(edge: Edge) -> None:
        if cut == "stop":
            edge.stop(SinkError("enough", "no more of it"))
        else:
            edge.limit(anyio.current_time() + (0.01 if cut == "soon" else 0))

    account = await run(make_runner(tmp_path, meddle(phase, kept, cut_off), kind(kept=kept)))
    code = "enough" if cut == "stop" else "deadline"
    delivered = 340 if phase in ("streaming", "finishing") else 0
    assert kept.left == ("" if phase == "opening" else "aborted")
    assert account["status"] == "failed"
    assert account["sinks"][0]["failure"]["code"] == code
    assert account["sinks"][0]["delivered"] == delivered
    assert account["sinks"][0]["dropped"] == {code: 640 - delivered}


async def test_a_limit_from_before_the_sink_was_open(tmp_path: Path, kind: type[Memory]) -> None:
    """It holds while the sink streams."""
    kept = Kept(opening=anyio.Event(), hold=300)

    def limit(edge: Edge) -> None:
        edge.limit(anyio.current_time() + 0.5)
        assert kept.opening is not None
        kept.opening.set()

    account = await run(make_runner(tmp_path, meddle("opening", kept, limit), kind(kept=kept)))
    assert kept.left == "aborted"
    assert account["sinks"][0]["dropped"] == {"deadline": 300}


@pytest.mark.parametrize("closed", ["before", "after", "not"])
@pytest.mark.parametrize("phase", ["streaming", "writing"])
async def test_what_is_cut_off_is_not_finished(tmp_path: Path, kind: type[Memory], phase: str, closed: str) -> None:
    """Whatever else is asked of it in the same moment."""
    kept = held(phase)

    def cut_off(edge: Edge) -> None:
        if closed == "before":
            edge.close()
        edge.stop(SinkError("enough", "no more of it"))
        if closed == "after":
            edge.close()

    account = await run(make_runner(tmp_path, meddle(phase, kept, cut_off), kind(kept=kept)))
    assert kept.left == "aborted"
    assert account["sinks"][0]["failure"]["code"] == "enough"


async def test_a_sink_that_is_cut_off_as_something_has_to_wait(tmp_path: Path, kind: type[Memory]) -> None:
    """It is left, and what it had no time to take is booked."""
    kept = Kept(nowait=False)

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            await kept.reached["streaming"].wait()
            await anyio.wait_all_tasks_blocked()
            session.push(TONE)
            session.edges[0].stop(SinkError("enough", "no more of it"))  # type: ignore[attr-defined]

    account = await run(make_runner(tmp_path, act, kind(kept=kept)))
    assert (kept.left, kept.items) == ("aborted", [])
    assert account["sinks"][0]["dropped"] == {"enough": 640}


# What a sink takes while nothing has to wait.


def tasks() -> set[int]:
    """Return which tasks there are."""
    return {task.id for task in anyio.get_running_tasks()}


async def test_a_sink_that_need_not_be_one_takes_no_task_while_it_streams(tmp_path: Path, kind: type[Memory]) -> None:
    """Not even where frames came before it was open; and each is finished all the same."""
    kept = Kept(opening=anyio.Event())

    async def act(engine: Engine) -> None:
        before = tasks()
        async with AsyncExitStack() as stack:
            calls = [await stack.enter_async_context(engine.open(Stream(f"c{number}", S16_8K))) for number in range(5)]
            for session in calls:
                session.push(TONE)
            assert kept.opening is not None
            kept.opening.set()
            await anyio.wait_all_tasks_blocked()
            for session in calls:
                session.push(TONE)
            assert kept.audio == 10 * TONE
            assert len(tasks() - before) == (0 if kind is Light else 5)

    runner = make_runner(tmp_path, act, kind(kept=kept))
    with anyio.fail_after(10):
        await runner.run()
    assert kept.left == "finished"
    assert [account["sinks"][0]["delivered"] for account in runner.accounts] == [1280] * 5


async def test_one_task_writes_all_that_has_to_wait(tmp_path: Path) -> None:
    """It is begun for the first frame and stays until the sink has finished."""
    kept = Kept(nowait=False)

    async def act(engine: Engine) -> None:
        before = tasks()
        async with engine.open(Stream("c1", S16_8K)) as session:
            await kept.reached["streaming"].wait()
            await anyio.wait_all_tasks_blocked()
            assert tasks() == before
            session.push(TONE)
            began = tasks() - before
            for number in range(2, 5):
                session.push(TONE)
                while len(kept.items) < number:
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                assert len(began) == 1
                assert tasks() - before == began

    account = await run(make_runner(tmp_path, act, Light(kept=kept)))
    assert kept.audio == TONE * 4
    assert account["sinks"][0]["delivered"] == 4 * 640


async def test_a_sink_that_was_held_up_takes_no_task_any_more(tmp_path: Path, kind: type[Memory]) -> None:
    """As soon as a frame need not wait; and it does with the next one that has to."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        before = tasks()
        async with engine.open(Stream("c1", S16_8K)) as session:
            await kept.reached["streaming"].wait()
            for number, (nowait, alive) in enumerate([(True, 0), (False, 1), (True, 0), (False, 1), (True, 0)], 1):
                kept.nowait = nowait
                session.push(TONE)
                await anyio.wait_all_tasks_blocked()
                assert kept.audio == number * TONE
                assert len(tasks() - before) == (alive if kind is Light else 1)

    account = await run(make_runner(tmp_path, act, kind(kept=kept)))
    assert kept.left == "finished"
    assert account["sinks"][0]["delivered"] == 5 * 640


async def test_what_has_to_wait_may_come_from_anywhere(tmp_path: Path) -> None:
    """The task that writes is begun by what reads a socket, which need not be a task itself."""
    await read_and_wait(tmp_path)


def test_the_same_where_anyio_did_not_start_the_loop(tmp_path: Path) -> None:
    """A callback is then not told what runs, as those under ``anyio.run`` are."""
    asyncio.run(read_and_wait(tmp_path))


async def read_and_wait(tmp_path: Path) -> None:
    """Have frames that were read from a socket wait for a sink that streams."""
    kept, mulaw = Kept(nowait=False), AudioFormat("mulaw", 8000)
    source = Vobiz(listen="ws://127.0.0.1:0/vobiz", reconnect_s=0.0)

    async def act(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            await runner.up.wait()
            async with websocket.connect(runner.url) as carrier:
                await carrier.send(envelope.build_start("c1", "s1", "account", mulaw, ("inbound",)))
                await kept.reached["streaming"].wait()
                await anyio.wait_all_tasks_blocked()
                for number in range(5):
                    await carrier.send(envelope.build_media("s1", number, "inbound", number, 20 * number, TONE[:160]))
                await kept.reached["writing"].wait()
            await runner.over(1)
            tasks.cancel_scope.cancel()

    runner = make_runner(tmp_path, act, Light(kept=kept))
    account = await run(runner)
    assert kept.audio == 5 * TONE[:160]
    assert account["sinks"][0]["delivered"] == 800
