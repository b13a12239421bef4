"""The queue that plays what an app sends into a call, by a clock that the tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from mediaflow import AudioFormat, SinkError
from mediaflow_plugins import _playout
from mediaflow_plugins._playout import PlayOut

pytestmark = pytest.mark.anyio

MULAW = AudioFormat("mulaw", 8000)
SECOND = bytes(range(200)) * 40


class Clock:
    """Time, as the queue sees it: it passes by ``go`` alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self._moved = anyio.Event()

    async def sleep_until(self, moment: float) -> None:
        while self.now < moment - 1e-9:
            await self._moved.wait()

    async def go(self, seconds: float) -> None:
        """Let time pass, in steps shorter than a piece, and everybody do what is due."""
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            self._moved.set()
            self._moved = anyio.Event()
            await wait_all_tasks_blocked()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock of ours in the place of the loop's."""
    clock = Clock()
    monkeypatch.setattr(_playout, "clock", lambda: clock.now)
    monkeypatch.setattr(_playout, "sleep_until", clock.sleep_until)
    return clock


class Queue:
    """A queue, and the checkpoints that it told of."""

    def __init__(self, speed: float | Literal["max"] = 1.0, file: Path | None = None) -> None:
        self.told: list[str] = []
        self.playout = PlayOut(speed, file, self._tell)

    async def _tell(self, name: str) -> None:
        self.told.append(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PlayOut]:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.playout.run)
                await wait_all_tasks_blocked()
                yield self.playout
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize("speed", [1.0, 2.0])
async def test_a_checkpoint_is_told_when_it_is_played(clock: Clock, speed: float) -> None:
    """Audio takes as long as it is, and not before its end is the checkpoint behind it told."""
    queue = Queue(speed)
    async with queue.running() as playout:
        playout.mark("first")
        await wait_all_tasks_blocked()
        assert queue.told == ["first"]
        playout.play(SECOND, MULAW)
        playout.mark("second")
        await clock.go(0.5 / speed)
        assert playout.waiting_s == pytest.approx(0.5, abs=0.04)
        await clock.go(0.48 / speed)
        assert queue.told == ["first"]
        await clock.go(0.04 / speed)
        assert queue.told == ["first", "second"]
        assert playout.played_s == pytest.approx(1.0)
        assert playout.waiting_s == pytest.approx(0.0)


async def test_what_is_cleared_is_never_played(clock: Clock, tmp_path: Path) -> None:
    """Cleared audio is not heard and its checkpoints are never told; what comes behind it is played at once."""
    file = tmp_path / "a" / "played.wav"
    queue = Queue(file=file)
    async with queue.running() as playout:
        playout.play(SECOND, MULAW)
        playout.mark("never")
        while playout.played_s < 0.1:
            await clock.go(0.02)
            await anyio.lowlevel.checkpoint()
        playout.clear()
        playout.play(SECOND[:320], MULAW)
        playout.mark("told")
        while not queue.told:
            await clock.go(0.02)
            await anyio.lowlevel.checkpoint()
        assert queue.told == ["told"]
    played = file.read_bytes()[80:]
    heard = len(played) - 320
    assert 800 <= heard <= 1120
    assert played == SECOND[:heard] + SECOND[:320]
    assert queue.playout.files == [str(file)]


async def test_too_much_is_thrown_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds the bound is refused as a whole, and what is played or cleared makes room."""
    monkeypatch.setattr(_playout, "LONGEST_S", 1.5)
    async with Queue().running() as playout:
        assert playout.play(SECOND, MULAW)
        assert not playout.play(SECOND, MULAW)
        await clock.go(0.6)
        assert playout.play(SECOND, MULAW)
        playout.clear()
        assert playout.play(SECOND, MULAW)


async def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """What another call has left is not touched: the next free name is taken."""
    file = tmp_path / "played.wav"
    file.write_bytes(b"precious")
    queue = Queue("max", file)
    async with queue.running() as playout:
        playout.play(SECOND, MULAW)
        playout.mark("end")
        while not queue.told:
            await anyio.lowlevel.checkpoint()
    assert file.read_bytes() == b"precious"
    assert queue.playout.files == [str(tmp_path / "played-2.wav")]
    assert (tmp_path / "played-2.wav").read_bytes()[80:] == SECOND


async def test_a_disk_that_does_not_take_it(tmp_path: Path) -> None:
    """It is an error of the stream, with its reason: nothing is lost without a word."""
    (tmp_path / "file").write_bytes(b"")
    playout = Queue("max", tmp_path / "file" / "played.wav").playout
    playout.play(SECOND, MULAW)
    with pytest.raises(SinkError, match=r"cannot be written: .*[Nn]ot a directory|File exists") as caught:
        await playout.run()
    assert caught.value.code == "unwritten"
