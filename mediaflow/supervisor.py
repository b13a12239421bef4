"""One pipeline in several processes: who starts them, repairs them and stops them.

Each worker is ``mediaflow run`` anew, with one end of a Unix socket; the other end is here, on the switchboard::

    supervisor ─┬─ line ── worker 1     binds the addresses, once; knows which worker has which call
                ├─ line ── worker 2     each accepts from the same listening sockets
                └─ line ── worker N     a line that ends is a death, on either side

    a worker ends                           what follows
    before any was ready                    nothing runs: its error has been said, its exit code is ours
    killed, or by a fault                   its calls are lost, and another takes its place
    well, without being told                (somebody sent it SIGTERM) another takes its place
    within ``STEADY_S``, again and again    the next one waits, twice as long each time, up to ``LONGEST_S``
    told to stop                            that is all of it once all have

The first worker is started alone, so that what is wrong with all of them is said once.  Workers are in sessions of
their own: Ctrl-C in a terminal reaches the supervisor only, which passes it on, once.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio

from . import _channel as wire
from .switchboard import Member, Switchboard

logger = logging.getLogger(__name__)

STEADY_S, FIRST_S, LONGEST_S = 2.0, 0.5, 30.0
"""A worker that has lived for so long is replaced at once.  One that has not may be the first of many to die so: that
one is replaced at once too, the next after ``FIRST_S``, and so on, doubled up to ``LONGEST_S``."""

KEPT = 100
"""How many accounts of calls that are over are kept to be shown; the ledger has all."""

Command = Callable[[int, int, str], list[str]]
"""The command of a worker, from its number, the number of its end of the line, and what all of them say they are."""


class Supervisor:
    """Runs ``number`` workers; what it shows of itself is what a runner shows, of all of them together."""

    def __init__(self, name: str, number: int, command: Command) -> None:
        self.name, self.url = name, ""
        """``url`` is known once all workers take calls."""
        self.code = 0
        """The exit code: the worst of all workers'."""
        self.ended = self.failed = 0
        self.counts: Counter[str] = Counter()
        self.accounts: list[dict[str, Any]] = []
        self._number, self._command = number, command
        self._instance = secrets.token_hex(8)
        self._switchboard = Switchboard()
        self._live: dict[int, list[dict[str, Any]]] = {}
        self._up: set[int] = set()
        """Those in whose place a worker took calls, at some time."""
        self._stops = 0
        self._stopping = anyio.Event()
        self._begun = anyio.Event()
        """The first worker takes calls, or never will."""

    async def run(self) -> None:
        """Run until ``stop`` is called and every worker has ended, or the first has ended before it took calls."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep, 1)
                await self._begun.wait()
                for place in range(2, self._number + 1) if self._up else ():
                    tasks.start_soon(self._keep, place)
        finally:
            self._switchboard.close()

    def stop(self) -> None:
        """Take no more calls and let those under way finish; a second time, cut off what has not finished."""
        self._stops += 1
        self._stopping.set()
        for member in self._switchboard.members:
            member.channel.post(wire.Stop(self._stops))
        self._switchboard.close()

    def live(self, number: int) -> list[dict[str, Any]]:
        """Return the accounts of some of the calls that are live."""
        return [account for accounts in self._live.values() for account in accounts][:number]

    async def _keep(self, place: int) -> None:
        """Have a worker in this place until all are stopped."""
        wait_s = 0.0
        try:
            while not self._stops:
                born = anyio.current_time()
                code = await self._run_one(place)
                if self._stops:
                    self.code = max(self.code, 0 if _is_well(code) else 1)
                    logger.info("worker %d is done", place)
                    return
                if not self._up:
                    self._fail(code)
                    return
                self.code = max(self.code, 0 if _is_well(code) else 1)
                if anyio.current_time() - born >= STEADY_S:
                    wait_s = 0.0
                level = logging.INFO if _is_well(code) else logging.ERROR
                soon = f"in {wait_s:g} s" if wait_s else "at once"
                logger.log(level, "worker %d %s, and another takes its place %s", place, _fate(code), soon)
                with anyio.move_on_after(wait_s):
                    await self._stopping.wait()
                wait_s = min(LONGEST_S, wait_s * 2 or FIRST_S)
        finally:
            self._begun.set()

    def _fail(self, code: int) -> None:
        """The first worker ended before it took calls; where it has said why (1 and 2) there is no more to say."""
        self.code = code if code > 0 else 1
        if code not in (1, 2):
            logger.error("the first worker %s before it took calls: nothing runs", _fate(code))

    async def _run_one(self, place: int) -> int:
        """Run a worker to its end and return its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await anyio.open_process(
                    self._command(place, theirs.fileno(), self._instance),
                    stdin=subprocess.DEVNULL,
                    stdout=None,
                    stderr=None,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:  # no memory, say: the workers that live are not to suffer from it
                ours.close()
                logger.error("worker %d cannot be started: %s", place, error)
                return 1
        logger.info("worker %d is process %d", place, process.pid)
        member = Member(ours, lambda message: self._reported(place, message))
        if self._stops:
            member.channel.post(wire.Stop(self._stops))
        async with process:
            await self._switchboard.serve(member)
            self._live.pop(place, None)
            return await process.wait()

    def _reported(self, place: int, message: wire.Up | wire.Report) -> None:
        if isinstance(message, wire.Up):
            self._up.add(place)
            self._begun.set()
            if len(self._up) == self._number:
                self.url = message.url
        else:
            self.ended += message.ended
            self.failed += message.failed
            self.counts.update(message.counts)
            self._live[place] = message.live
            self.accounts = [*self.accounts, *message.over][-KEPT:]


def _is_well(code: int) -> bool:
    """SIGTERM ends a worker only where it has not begun; later it is an exit like others."""
    return code in (0, -signal.SIGTERM)


def _fate(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"was ended by {name}"
