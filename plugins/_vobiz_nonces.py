"""The nonces of signed callbacks, kept so that a copy of one is refused by the next process as well.

A signature of Vobiz holds no time, so a request that somebody has copied stays good for as long as nobody remembers its
nonce.  Here it is remembered in the process and in one SQLite file of the pipeline's ``state`` folder, for ``KEPT_S``,
the last ``callback.REMEMBERED`` of them.  It is on disk before the request is answered, and the file decides who was
first where several processes are sent copies at once; writing happens in a worker thread, for the loop that carries
audio waits for no disk.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
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
        self._prune()
        for (nonce,) in db.execute("SELECT nonce FROM nonces ORDER BY taken"):
            self.add(nonce)

    async def take(self, nonces: frozenset[str]) -> bool:
        """Remember ``nonces``; return False if one of them was taken before, here or by another process.

        Raises sqlite3.Error where the file cannot be written: then this process alone remembers them.
        """
        if any(nonce in self for nonce in nonces):
            return False
        for nonce in nonces:
            self.add(nonce)
        first = await self._in_thread(self._take, nonces)
        if not first:
            self._forget(nonces)  # of a request that is refused nothing stays, and the file knows who has been here
        return first

    async def give_back(self, nonces: frozenset[str]) -> None:
        """Forget ``nonces``, which were taken; raises sqlite3.Error where the file cannot be written."""
        self._forget(nonces)
        await self._in_thread(self._give_back, nonces)

    def _forget(self, nonces: frozenset[str]) -> None:
        for nonce in nonces:
            self.discard(nonce)

    async def _in_thread(self, work: Callable[[frozenset[str]], bool], nonces: frozenset[str]) -> bool:
        async with self._turn:
            return await anyio.to_thread.run_sync(work, nonces)

    def _take(self, nonces: frozenset[str]) -> bool:
        now = self._clock()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO nonces VALUES (?, ?)", [(nonce, now) for nonce in nonces])
            self._prune()
        except BaseException as error:
            self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                return False
            raise
        self._db.execute("COMMIT")
        return True

    def _give_back(self, nonces: frozenset[str]) -> bool:
        self._db.executemany("DELETE FROM nonces WHERE nonce = ?", [(nonce,) for nonce in nonces])
        return True

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
