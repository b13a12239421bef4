"""The accounts of all calls, kept on disk so that ``mediaflow audit`` can answer later.

One SQLite file in the pipeline's state folder.  A call that is over has a row of its own.  Of calls that are live there
are snapshots of many calls each; the newest one that a call is in counts.  A row for each live call would say the same
but costs three times as much: 1.0 ms for a hundred, and 0.3 ms in one text, of which 0.2 are the JSON.

After a crash the snapshots say what was known before, and ``read`` calls the calls in them ``interrupted``.
Several pipelines and processes may share a file.  Writing happens in a worker thread: the loop that carries audio never
waits for a disk, but shares its processor and Python's lock with that thread, so what is written has to be little.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    pipeline TEXT NOT NULL,
    call     TEXT NOT NULL,
    started  REAL NOT NULL,
    updated  REAL NOT NULL,
    process  INTEGER NOT NULL,
    status   TEXT NOT NULL,
    account  TEXT NOT NULL,
    PRIMARY KEY (pipeline, call, started)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots (
    number   INTEGER PRIMARY KEY,
    run      TEXT NOT NULL,
    round    INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    updated  REAL NOT NULL,
    process  INTEGER NOT NULL,
    accounts TEXT NOT NULL
)
"""

FILE = "ledger.db"

STALE_S = 30.0
"""A snapshot that is older was left behind, even if there is a process of that number: in a container the next one
has the number of the one before."""


class Ledger:
    """The ledger of one run of ``pipeline`` in the folder ``state``, which is made if it is not there."""

    def __init__(self, state: str | Path, pipeline: str) -> None:
        folder = Path(state)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._pipeline, self._run = pipeline, uuid.uuid4().hex
        self._turn = anyio.Lock()  # first come, first written: an older state must never replace a newer one
        self._db = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    async def write(self, accounts: Sequence[Mapping[str, Any]]) -> None:
        """Write the accounts of calls that are over; raise sqlite3.Error if they are not on the disk."""
        if accounts:
            await self._in_turn(self._write, accounts)

    async def snapshot(self, round: int, accounts: Sequence[bytes], superseded: int) -> None:
        """Write accounts of live calls, each as ``text`` gives it, and drop those of rounds up to ``superseded``."""
        await self._in_turn(self._snapshot, round, accounts, superseded)

    async def _in_turn(self, work: Callable[..., None], *args: object) -> None:
        async with self._turn:
            await anyio.to_thread.run_sync(work, *args)

    def _write(self, accounts: Sequence[Mapping[str, Any]]) -> None:
        now, process = time.time(), os.getpid()
        rows = [
            (self._pipeline, each["call"], each["started"], now, process, each["status"], text(each).decode())
            for each in accounts
        ]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _snapshot(self, round: int, accounts: Sequence[bytes], superseded: int) -> None:
        row = (self._run, round, self._pipeline, time.time(), os.getpid(), f"[{b','.join(accounts).decode()}]")
        with self._transaction():
            if accounts:
                self._db.execute("INSERT INTO snapshots VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute("DELETE FROM snapshots WHERE run = ? AND round <= ?", (self._run, superseded))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db:  # commits, or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def text(account: Mapping[str, Any]) -> bytes:
    """Return an account as it is kept."""
    return msgspec.json.encode(account)


def read(state: str | Path, call: str | None = None) -> list[dict[str, Any]]:
    """Return the accounts in the folder ``state``, oldest first; raise FileNotFoundError if there is no ledger."""
    path = Path(state) / FILE
    if not path.exists():
        raise FileNotFoundError(path)
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        # In this order, so that a call that ends meanwhile is found: in both, or in the second.
        snapshots = db.execute("SELECT pipeline, updated, process, accounts FROM snapshots ORDER BY number").fetchall()
        rows = db.execute(
            "SELECT pipeline, updated, process, account FROM calls WHERE :call IS NULL OR call = :call", {"call": call}
        ).fetchall()
    finally:
        db.close()
    found = {}
    for pipeline, updated, process, accounts in snapshots:
        left = time.time() - updated > STALE_S or not _is_running(process)
        for account in json.loads(accounts):
            if call is None or account["call"] == call:
                found[pipeline, account["call"], account["started"]] = _seen(account, pipeline, updated, left)
    for pipeline, updated, _process, row in rows:
        account = json.loads(row)
        found[pipeline, account["call"], account["started"]] = _seen(account, pipeline, updated, True)
    return sorted(found.values(), key=lambda account: account["started"])


def _seen(account: dict[str, Any], pipeline: str, updated: float, left: bool) -> dict[str, Any]:
    """Return an account as it is to be read; what has been ``left`` behind does not live any more."""
    for life in (account, account.get("reply", account)):
        if left and life["status"] in ("live", "ending"):
            life["status"] = "interrupted"
    return {**account, "pipeline": pipeline, "updated": updated}


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
