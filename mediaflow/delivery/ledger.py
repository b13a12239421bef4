"""The accounts of all calls, kept on disk so that ``mediaflow audit`` can answer later.

One SQLite file in the pipeline's state folder, one row a call.  A live call's row is brought up to date once a second,
so after a crash it says what was known a second before; ``read`` calls such a row ``interrupted``, for the process that
carried it is gone.  Several pipelines and processes may share a file.  Writing happens in a worker thread: the loop
that carries audio never waits for a disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
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
) WITHOUT ROWID
"""

FILE = "ledger.db"


class Ledger:
    """The ledger in the folder ``state``, which is made if it is not there."""

    def __init__(self, state: str | Path) -> None:
        folder = Path(state)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        # First come, first written: an older state of a call must never replace a newer one.
        self._turn = anyio.Lock()
        self._db = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_SCHEMA)

    async def write(self, pipeline: str, accounts: Sequence[Mapping[str, Any]]) -> None:
        """Write accounts of ``pipeline`` in one transaction."""
        if accounts:
            async with self._turn:
                await anyio.to_thread.run_sync(self._write, pipeline, accounts)

    def _write(self, pipeline: str, accounts: Sequence[Mapping[str, Any]]) -> None:
        rows = [
            (pipeline, each["call"], each["started"], time.time(), os.getpid(), each["status"], _text(each))
            for each in accounts
        ]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _text(account: Mapping[str, Any]) -> str:
    return msgspec.json.encode(account).decode()  # in a thread, whose Python holds up the loop's: so the quickest


def read(state: str | Path, call: str | None = None) -> list[dict[str, Any]]:
    """Return the accounts in the folder ``state``, oldest first; raise FileNotFoundError if there is no ledger."""
    path = Path(state) / FILE
    if not path.exists():
        raise FileNotFoundError(path)
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        rows = db.execute(
            "SELECT pipeline, updated, process, account FROM calls"
            " WHERE :call IS NULL OR call = :call ORDER BY started",
            {"call": call},
        ).fetchall()
    finally:
        db.close()
    accounts = []
    for pipeline, updated, process, text in rows:
        account = json.loads(text)
        if account["status"] in ("live", "ending") and not _is_running(process):
            account["status"] = "interrupted"
            if account.get("reply", account)["status"] == "live":
                account["reply"]["status"] = "interrupted"
        accounts.append({**account, "pipeline": pipeline, "updated": updated})
    return accounts


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
