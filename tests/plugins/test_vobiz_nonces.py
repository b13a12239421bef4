"""Nonces on disk: known to the next process, and not for ever."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import anyio
import pytest

from mediaflow import SourceError
from mediaflow_plugins import _vobiz_nonces
from mediaflow_plugins._vobiz_nonces import FILE, KEPT_S, Nonces, kept

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


async def test_the_next_process_knows_them(tmp_path: Path) -> None:
    """What was written, and only that."""
    with kept(tmp_path / "state") as nonces:
        assert await nonces.take(frozenset({"1", "2"}))
        assert await nonces.take(frozenset({"3"}))
        await nonces.give_back(frozenset({"3"}))
        assert "3" not in nonces
    with kept(tmp_path / "state") as nonces:
        assert [each in nonces for each in ("1", "2", "3")] == [True, True, False]


async def test_a_process_beside_it_knows_them(tmp_path: Path) -> None:
    """Whoever takes one first has it, though the other was there already and has not heard of it."""
    with kept(tmp_path) as one, kept(tmp_path) as other:
        assert await one.take(frozenset({"1", "2"}))
        assert not await other.take(frozenset({"2", "3"}))
        assert not await other.take(frozenset({"2"}))
        assert await other.take(frozenset({"3"}))  # of what was refused nothing stays
        await one.give_back(frozenset({"1", "2"}))
        with kept(tmp_path) as third:
            assert await third.take(frozenset({"1"}))
        assert not await other.take(frozenset({"1"}))


async def test_copies_at_the_same_time(tmp_path: Path) -> None:
    """Of many that come at once to two processes one is taken."""
    taken: list[bool] = []

    async def take(nonces: Nonces) -> None:
        taken.append(await nonces.take(frozenset({"1"})))

    with kept(tmp_path) as one, kept(tmp_path) as other:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(take, (one, other)[number % 2])
    assert sorted(taken) == [False] * 19 + [True]


async def test_they_are_forgotten_with_age(tmp_path: Path) -> None:
    """In the next process and in the file."""
    clock = Clock()
    with kept(tmp_path):
        pass
    with closing(connect(tmp_path / FILE, check_same_thread=False, isolation_level=None)) as db:
        nonces = Nonces(db, clock)
        assert await nonces.take(frozenset({"1"}))
        clock.now += KEPT_S / 2
        assert await nonces.take(frozenset({"2"}))
        clock.now += KEPT_S / 2 + 1
        assert ["1" in Nonces(db, clock), "2" in Nonces(db, clock)] == [False, True]
        assert db.execute("SELECT nonce FROM nonces").fetchall() == [("2",)]


async def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room."""
    monkeypatch.setattr(_vobiz_nonces, "REMEMBERED", 3)
    clock = Clock()
    with kept(tmp_path):
        pass
    with closing(connect(tmp_path / FILE, check_same_thread=False, isolation_level=None)) as db:
        nonces = Nonces(db, clock)
        for number in range(10):
            clock.now += 1
            assert await nonces.take(frozenset({str(number)}))
        assert db.execute("SELECT nonce FROM nonces ORDER BY taken").fetchall() == [("7",), ("8",), ("9",)]


async def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are remembered all the same, as long as the process lives."""
    monkeypatch.chdir(tmp_path)
    with kept(None) as nonces:
        assert await nonces.take(frozenset({"1"}))
        assert "1" in nonces
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    """Before any call is taken, with the place; so is a file that is something else."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="file/state"), kept(tmp_path / "file" / "state"):
        pass
    (tmp_path / FILE).write_text("no database, but longer than the header of one: " * 10)
    with pytest.raises(SourceError, match="not a database"), kept(tmp_path):
        pass
