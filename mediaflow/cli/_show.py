"""What ``run`` shows: the ledger as it grows, the listening addresses, and the ledger at the end."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import anyio
import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ._tables import console, ledger_table

LIVE_S, PLAIN_S = 0.5, 5.0
"""How often a terminal is repainted, and how often a line is written where there is none."""

SHOWN = 10
"""How many calls are shown at once; the ledger on disk has all."""


class Shown(Protocol):
    """What is shown: a runner, or all workers together."""

    ended: int
    failed: int

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def accounts(self) -> Sequence[dict[str, Any]]: ...
    def live(self, number: int) -> list[dict[str, Any]]: ...


async def carry(run: Callable[[], Awaitable[None]], stop: Callable[[], None], runners: Sequence[Shown]) -> None:
    """Run ``run`` with progress on standard error's side; a signal calls ``stop``, a second one again."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(on_signal, stop)
            tasks.start_soon(_progress, runners)
            await run()
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group
        raise
    finally:
        _print_end(runners)


async def on_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` at every SIGINT and SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop()


async def _progress(runners: Sequence[Shown]) -> None:
    screen = console()
    if screen.is_terminal:
        with Live(console=screen, transient=True, auto_refresh=False) as live:
            while True:
                live.update(_picture(runners), refresh=True)
                await anyio.sleep(LIVE_S)
    told: set[str] = set()
    while True:
        for runner in runners:
            if runner.url and runner.url not in told:
                told.add(runner.url)
                click.echo(f"{runner.name} listens at {runner.url}")
        for account in _live_accounts(runners):
            click.echo(_line(account))
        await anyio.sleep(PLAIN_S if told or any(runner.live(1) for runner in runners) else LIVE_S)


def _picture(runners: Iterable[Shown]) -> Group:
    lines = [Text(f"{runner.name} listens at {runner.url}") for runner in runners if runner.url]
    over = sum(runner.ended for runner in runners)
    failed = sum(runner.failed for runner in runners)
    lines.append(Text(f"{over} calls over, {failed} of them failed", style="dim"))
    return Group(*lines, ledger_table(_live_accounts(runners)))


def _live_accounts(runners: Iterable[Shown]) -> list[dict[str, Any]]:
    return [account for runner in runners for account in runner.live(SHOWN)][:SHOWN]


def _line(account: dict[str, Any]) -> str:
    seconds = max(figures["timeline"] for figures in account["tracks"].values()) / account["sample_rate"]
    sinks = ", ".join(
        f"{sink['sink']} {sink['delivered']:,} of {sink['received']:,} samples delivered" for sink in account["sinks"]
    )
    return f"call {account['call']}: {seconds:.1f} s {account['status']}; {sinks}"


def _print_end(runners: Sequence[Shown]) -> None:
    accounts = [account for runner in runners for account in runner.accounts]
    if accounts:
        console().print(ledger_table(accounts[-SHOWN:]))
    for account in runners[0].accounts[-SHOWN:] if runners else ():
        for sink in account["sinks"]:
            for line in _outcome(sink["outcome"]):
                click.echo(f"{account['call']} {sink['sink']} {line}")
    for runner in runners:
        for name, number in sorted(runner.counts.items()):
            click.echo(f"{runner.name} counted {name}: {number}")


def _outcome(outcome: Mapping[str, Any]) -> Iterator[str]:
    """Say what became of the audio, a line each."""
    for name, value in outcome.items():
        if name == "files":
            yield from (f"file: {file['path']}  {file['seconds']:.2f} s" for file in value)
        elif name == "sessions":
            for session in value:
                yield "session " + ", ".join(f"{name}: {value}" for name, value in session.items())
        else:
            yield f"{name}: {value}"
