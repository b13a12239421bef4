"""``run --workers``: the supervisor's side of it, and a worker's."""

from __future__ import annotations

import socket
import sys
from collections import Counter

import anyio
import click

from .. import fellows
from .._channel import Channel, Report
from ..errors import ConfigError
from ..fellows import Fellows
from ..runner import Runner
from ..supervisor import Supervisor
from ._pipeline import load
from ._show import SHOWN, carry, on_signal

REPORT_S = 1.0
"""How often a worker says what is to be shown."""


async def supervise(file: str, number: int) -> int:
    """Run the pipeline in ``number`` processes and return the exit code."""
    pipeline, _, _ = load(file)
    if not pipeline.source.divisible:
        text = "what it brings cannot be divided among workers"
        raise ConfigError([pipeline.problem(("source",), "workers", text, "run it without --workers")])
    if not hasattr(socket, "send_fds"):
        raise click.UsageError("--workers needs a system on which a process can hand sockets to another")

    def command(place: int, line: int, instance: str) -> list[str]:
        # -P: with -m the working directory would come before what is installed.
        command = [sys.executable, "-P", "-m", "mediaflow", "run", file]
        return [*command, "--as-worker", str(place), str(line), instance]

    supervisor = Supervisor(pipeline.name, number, command)
    await carry(supervisor.run, supervisor.stop, [supervisor])
    return supervisor.code


async def work(file: str, line: int, instance: str) -> bool:
    """Run the pipeline as one of several workers; return True if a call failed."""
    pipeline, _, plugins = load(file)
    runner = Runner(pipeline, plugins)
    own = socket.socket(fileno=line)
    own.set_inheritable(False)
    here = Fellows(Channel(own), instance)
    stopper = _Stopper(runner)
    here.stop = stopper.stop
    fellows.join(here)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(on_signal, stopper.signalled)
        tasks.start_soon(here.run)
        tasks.start_soon(_announce, runner, here)
        reporter = _Reporter(runner, here)
        tasks.start_soon(reporter.run)
        try:
            await runner.run()
        except Exception as error:  # raised below, where the task group does not wrap it
            failure = error
        reporter.report()
        await here.flushed()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return runner.failed > 0


async def _announce(runner: Runner, here: Fellows) -> None:
    await runner.up.wait()
    here.up(runner.url)


class _Stopper:
    """Stops a runner as often as it was asked to, by a signal or by the supervisor.

    A service manager may send SIGTERM to every process it knows of, and the supervisor passes its own on: that is one
    wish, told twice, and not the second one that cuts calls off.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._signals = self._level = 0

    def signalled(self) -> None:
        self._signals += 1
        self.stop(self._signals)

    def stop(self, level: int) -> None:
        while self._level < level:
            self._level += 1
            self._runner.stop()


class _Reporter:
    """Says what has become of the calls since it said so before."""

    def __init__(self, runner: Runner, here: Fellows) -> None:
        self._runner, self._here = runner, here
        self._ended = self._failed = 0
        self._counts: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            await anyio.sleep(REPORT_S)
            if not self._here.busy:
                self.report()

    def report(self) -> None:
        runner = self._runner
        ended, failed = runner.ended - self._ended, runner.failed - self._failed
        counts = Counter(runner.counts)
        over = runner.accounts[-min(ended, SHOWN) :] if ended else []
        self._here.report(Report(ended, failed, counts - self._counts, runner.live(SHOWN), over))
        self._ended, self._failed, self._counts = runner.ended, runner.failed, counts
