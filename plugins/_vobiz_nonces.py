"""The nonces of signed callbacks, kept so that a copy of one is refused by the next process as well.

A signature of Vobiz holds no time, so a request that somebody has copied stays good for as long as nobody remembers its
nonce.  Here it is remembered in the process and in one SQLite file of the pipeline's ``state`` folder, for ``KEPT_S``,
the last ``callback.REMEMBERED`` of them.  It is on disk before the request is answered; writing happens in a worker
thread, for the loop that carries audio waits for no disk.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from mediaflow import SourceError
from mediaflow.callback import REMEMBERED, Memory

FILE = "nonces.db"

KEPT_S = 30 * 86_400.0
"""How long a nonce is kept; with the bound in number it is what keeps the file small."""

_SCHEMA = "CREATE TABLE IF NOT EXISTS nonces (nonce TEXT PRIMARY KEY, taken REAL NOT NULL) WITHOUT ROWID"


class Nonces(Memory):
    """A memory that outlives the process; get one from ``kept``."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._db, self._clock = db, clock
        self._turn = anyio.Lock()
        self._new: list[tuple[str, float]] = []
        self._prune()
        for (nonce,) in db.execute("SELECT nonce FROM nonces ORDER BY taken"):
            super().add(nonce)

    def add(self, thing: Hashable) -> None:
        super().add(thing)
        self._new.append((str(thing), self._clock()))

    async def write(self) -> None:
        """Return when what was added is on disk; raise sqlite3.Error where that cannot be."""
        async with self._turn:
            new, self._new = self._new, []
            if new:
                await anyio.to_thread.run_sync(self._write, new)

    def _write(self, new: list[tuple[str, float]]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO nonces VALUES (?, ?)", new)
        self._prune()

    def _prune(self) -> None:
        self._db.execute("DELETE FROM nonces WHERE taken < ?", (self._clock() - KEPT_S,))
        oldest = "SELECT taken FROM nonces ORDER BY taken DESC LIMIT 1 OFFSET ?"
        self._db.execute(f"DELETE FROM nonces WHERE taken <= ({oldest})", (REMEMBERED,))


@contextmanager
def kept(state: Path | None) -> Iterator[Nonces]:
    """Give the nonces of the folder ``state``, which is made if it is not there; with None they are not kept."""
    with ExitStack() as stack:
        try:
            if state is not None:
                state.mkdir(parents=True, exist_ok=True)
            path = ":memory:" if state is None else state / FILE
            db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            stack.callback(db.close)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_SCHEMA)
            nonces = Nonces(db)
        except (OSError, sqlite3.Error) as error:
            raise SourceError(f"the nonces of callbacks cannot be kept in {state}: {error}") from None
        yield nonces
