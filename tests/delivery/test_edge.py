"""The queue before a sink: order, bounds, policies, and a sink's failure that stays its own."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from engine_kit import S16_8K, TONE, Kept, Memory, call, make_runner, run

from mediaflow import Engine, SinkError, Stream

pytestmark = pytest.mark.anyio


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


async def test_a_sink_that_is_cut_off_before_it_opens(tmp_path: Path) -> None:
    """It is not opened at all, and everything is booked under the word that it was cut off with."""
    kept = Kept()

    async def act(engine: Engine) -> None:
        async with engine.open(Stream("c1", S16_8K)) as session:
            session.push(TONE)
            session.edges[0].stop(SinkError("enough", "no more of it"))  # type: ignore[attr-defined]

    account = await run(make_runner(tmp_path, act, Memory(kept=kept)))
    assert (kept.left, kept.items) == ("", [])
    assert account["sinks"][0]["dropped"] == {"enough": 640}
    assert account["sinks"][0]["failure"] == {"code": "enough", "text": "no more of it"}


async def test_a_sink_that_breaks_is_reported_as_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that is no SinkError is a fault of the sink: it is logged with its traceback and booked."""
    account = await run(make_runner(tmp_path, call(TONE), Memory(kept=Kept(fail_open=ZeroDivisionError("oh")))))

    assert account["sinks"][0]["dropped"] == {"broken": 640}
    assert account["sinks"][0]["failure"]["text"] == "ZeroDivisionError: oh"
    assert any(record.exc_info for record in caplog.records)


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
