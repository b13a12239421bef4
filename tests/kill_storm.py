"""Workers are killed, one after the other, while carriers make calls without end; every call is then accounted for.

A carrier whose line breaks comes back with the same call, as Vobiz does, and begins to speak anew.  What must be true:

* nobody is ever refused or turned away: only the lines of a worker that was killed break, and no more than it had;
* what was said on a carrier's last socket of a call is on disk, byte for byte, as one file;
* the ledger has each call ``complete``, once; what was cut off before is ``interrupted``.  Where a line broke behind
  its ``stop``, the carrier cannot know, and the call may be there twice.

python tests/kill_storm.py KILLS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import anyio
from workers_kit import Call, Crew, crew, stored, write

from mediaflow import websocket
from mediaflow.delivery import ledger

ROUND = 5
"""Deaths of one supervisor's workers, which fit in the time that the kit gives a process."""


class Storm:
    """Carriers, and what became of their calls."""

    def __init__(self, team: Crew) -> None:
        self.team = team
        self.calls: list[Call] = []
        self.said_stop: set[str] = set()
        """Those whose line broke behind their ``stop``, so that they may have been stored twice."""
        self.broken = 0
        self.over = False

    async def carry_on(self, seed: int) -> None:
        """Make one call after the other."""
        number = 0
        while not self.over:
            number += 1
            call = Call(self.team.url, seed, f"call-{seed}-{number}")
            while not await self.spoken(call):
                self.broken += 1
                call.sent = b""
            self.calls.append(call)

    async def spoken(self, call: Call) -> bool:
        """Make a call of a few seconds of audio; False if its line broke."""
        try:
            async with call.connected() as ws:
                for _ in range(random.randint(2, 40)):
                    await call.speak(ws, 10)
                    await ws.ping()
                await call.stop(ws)
                end = await ws.wait_closed()
                if end.code == 1006:
                    self.said_stop.add(call.name)
        except websocket.Closed as closed:
            end = closed
        except websocket.Unreachable as error:  # it had been taken, and was not answered yet
            assert "refused" not in str(error)
            return False
        assert end.code in (1000, 1006), end
        return end.code == 1000

    async def kill(self, kills: int) -> None:
        """Kill a worker whenever the one killed before was replaced and has calls."""
        for _ in range(kills):
            place = random.choice(list(self.team.pids))
            os.kill(self.team.pids[place], signal.SIGKILL)
            await self.team.said(f"worker {place} was ended by SIGKILL")
            await self.team.said(f"worker {place} is process")
            while f"worker {place} " not in await self.team.said(": started"):
                pass
        self.over = True


async def storm(folder: Path, kills: int, workers: int, carriers: int) -> str:
    """Let it rage, and return what it came to; raises AssertionError for what must not be."""
    write(folder)
    with crew(folder, workers) as team:
        raging = Storm(team)
        async with anyio.create_task_group() as tasks:
            for seed in range(carriers):
                tasks.start_soon(raging.carry_on, seed)
            tasks.start_soon(raging.kill, kills)
        assert team.stop() == 1, team.running.output
    assert raging.broken <= kills * carriers
    files = {call.name: [file.stem for file in (folder / "out").glob(f"{call.name}*.wav")] for call in raging.calls}
    for call in raging.calls:
        own = [name for name in files[call.name] if name in (call.name, f"{call.name}-{name.rpartition('-')[2]}")]
        assert call.sent in [stored(folder, name) for name in own], call.name
    statuses: dict[str, list[str]] = {call.name: [] for call in raging.calls}
    for account in ledger.read(folder / "state"):
        statuses[account["call"]].append(account["status"])
    for name, each in statuses.items():
        whole = each.count("complete")
        assert whole >= 1 and each.count("interrupted") == len(each) - whole, (name, each)
        assert whole == 1 or name in raging.said_stop, (name, each)
    assert "Traceback" not in team.running.output, team.running.output
    return f"{len(raging.calls)} calls, {raging.broken} lines broken by {kills} deaths, nothing else lost"


def main(kills: int) -> None:
    """Have several storms, one after the other."""
    for first in range(0, kills, ROUND):
        with tempfile.TemporaryDirectory(prefix="mediaflow-storm-") as name:
            print(anyio.run(storm, Path(name), min(ROUND, kills - first), 3, 12), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
