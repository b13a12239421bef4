"""What the ledger is told of live calls: what happens at once, the rest now and then, and nothing goes too early."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from mediaflow.delivery.ledger import FILE, Ledger, read
from mediaflow.delivery.snapshots import BATCH, EASY, STEADY, Snapshots

pytestmark = pytest.mark.anyio


class Call:
    """A call whose account says how often it was drawn up, and how often the sinks had been asked by then."""

    def __init__(self, name: str) -> None:
        self.name, self.changed, self.due = name, True, 0
        self.times = self.asked = 0

    def account(self) -> dict[str, object]:
        self.times += 1
        return {"call": self.name, "started": 1.0, "status": "live", "times": self.times, "asked": self.asked}

    def confirm(self) -> None:
        self.asked += 1


@pytest.fixture
def calls() -> dict[str, Call]:
    """What lives."""
    return {}


@pytest.fixture
def snapshots(tmp_path: Path, calls: dict[str, Call]) -> Iterator[Snapshots]:
    """Snapshots of ``calls``."""
    ledger = Ledger(tmp_path, "p")
    yield Snapshots(ledger, calls)
    ledger.close()


def add(calls: dict[str, Call], number: int) -> list[Call]:
    """Begin so many calls."""
    begun = [Call(f"c{len(calls) + count}") for count in range(number)]
    calls |= {call.name: call for call in begun}
    return begun


def times(folder: Path) -> dict[str, int]:
    """Return which account of each call is on the disk."""
    return {account["call"]: account["times"] for account in read(folder)}


def kept(folder: Path) -> int:
    """Return how many snapshots are on the disk."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        return int(db.execute("SELECT count(*) FROM snapshots").fetchone()[0])


MANY = EASY * STEADY
"""Calls, of which each is told in every ``STEADY``-th round."""


async def test_what_has_begun_or_changed_is_told_at_once(
    tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots
) -> None:
    """In the next round, once; and in its own rounds as ever."""
    begun = add(calls, MANY)
    await snapshots.update()
    assert set(times(tmp_path).values()) == {1} and len(times(tmp_path)) == len(begun)
    for change in range(2, 2 + STEADY):
        begun[0].changed = True
        await snapshots.update()
        assert times(tmp_path)["c0"] == change
        assert not begun[0].changed
    assert set(times(tmp_path).values()) == {1 + STEADY, 2}


async def test_how_far_many_calls_have_come_is_told_now_and_then(
    tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots
) -> None:
    """Each once in so many rounds, as many in each, its sinks having been asked the round before."""
    begun = add(calls, MANY)
    await snapshots.update()
    drawn, asked = [], []
    for _ in range(2 * STEADY):
        before = {call: (call.times, call.asked) for call in begun}
        await snapshots.update()
        drawn.append({call.name for call in begun if call.times > before[call][0]})
        asked.append({call.name for call in begun if call.asked > before[call][1]})
    assert [len(names) for names in drawn] == [EASY] * 2 * STEADY
    assert {call.times for call in begun} == {3}
    assert asked[:-1] == drawn[1:]


async def test_the_loop_is_at_work_between_two_calls(
    calls: dict[str, Call], snapshots: Snapshots, anyio_backend_name: str
) -> None:
    """Neither the accounts nor the questions of a round are one block in which no audio moves."""
    begun = add(calls, MANY)
    steps = []

    async def watch() -> None:
        before = 0
        while True:
            done = sum(call.times + call.asked for call in begun)
            steps.append(done - before)
            before = done
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for _ in range(1 + STEADY):
            await snapshots.update()
        tasks.cancel_scope.cancel()
    assert sum(steps) == MANY * 3
    assert max(steps) == (2 if anyio_backend_name == "trio" else 1)  # it goes last in one round and first in the next


@pytest.mark.parametrize(
    ("number", "rounds"), [(1, 1), (EASY - 1, 1), (EASY, 2), (3 * EASY - 1, 3), (MANY, STEADY), (2 * MANY, STEADY)]
)
async def test_few_calls_are_told_more_often(
    tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots, number: int, rounds: int
) -> None:
    """Every round while they are few."""
    begun = add(calls, number)
    for _ in range(1 + 60):
        await snapshots.update()
    assert {call.times for call in begun} == {1 + 60 // rounds}
    assert times(tmp_path) == {call.name: call.times for call in begun}


async def test_a_number_of_calls_that_changes(tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots) -> None:
    """However that makes rounds more or less frequent, no call is gone from the disk while it lives."""
    chance = random.Random(5)
    for _ in range(300):
        if chance.random() < 0.5:
            calls.update(
                {f"x{n}": Call(f"x{n}") for n in [chance.randrange(10**9) for _ in range(chance.choice([1, 40]))]}
            )
        for name in list(calls):
            if chance.random() < 0.15:
                del calls[name]
        await snapshots.update()
        assert calls.keys() <= times(tmp_path).keys()


async def test_calls_that_are_over_are_dropped(tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots) -> None:
    """When what they are in is superseded; the last of them at once."""
    add(calls, 2)
    await snapshots.update()
    del calls["c0"]
    for _ in range(STEADY):
        await snapshots.update()
    assert times(tmp_path).keys() == {"c1"}
    assert kept(tmp_path) == STEADY
    calls.clear()
    await snapshots.update()
    assert kept(tmp_path) == 0


async def test_many_calls_are_written_in_batches(tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots) -> None:
    """All of them, and of none the rounds before go while it has not been drawn up anew."""
    begun = add(calls, 2 * BATCH + 50)
    await snapshots.update()
    assert (len(times(tmp_path)), kept(tmp_path)) == (len(begun), 3)
    for _ in range(3 * STEADY):
        await snapshots.update()
        assert times(tmp_path) == {call.name: call.times for call in begun}
    assert kept(tmp_path) == STEADY
    assert {call.times for call in begun} == {4}


async def test_nothing_is_dropped_before_it_is_replaced(
    tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots
) -> None:
    """While the disk fails, what was known before stays; then all of it is told at once."""
    begun = add(calls, BATCH + 1)
    await snapshots.update()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("ALTER TABLE snapshots RENAME TO elsewhere")
        for _ in range(2 * STEADY):
            with pytest.raises(sqlite3.Error, match="no such table"):
                await snapshots.update()
        db.execute("ALTER TABLE elsewhere RENAME TO snapshots")
    assert set(times(tmp_path).values()) == {1} and len(times(tmp_path)) == len(begun)
    await snapshots.update()
    assert times(tmp_path) == {call.name: call.times for call in begun}
    assert kept(tmp_path) == 2


async def test_without_calls_nothing_is_written(tmp_path: Path, calls: dict[str, Call], snapshots: Snapshots) -> None:
    """A pipeline that waits leaves the disk alone."""

    def version() -> int:
        return int(db.execute("PRAGMA data_version").fetchone()[0])  # another one once somebody else has written

    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        before = version()
        await snapshots.update()
        assert version() == before
        add(calls, 1)
        await snapshots.update()
        calls.clear()
        await snapshots.update()
        after = version()
        assert after != before
        await snapshots.update()
        assert version() == after
