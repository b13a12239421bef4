"""The ledger as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def ledger_table(accounts: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table with a row for every track and every sink of every call, counted in samples."""
    table = Table(title="ledger, in samples", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("pipeline", "call", "what", "Hz"):
        table.add_column(name, justify="right" if name == "Hz" else "left", overflow="fold")
    for name in ("received", "delivered", "spooled"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("dropped", "concealed"):
        table.add_column(name, overflow="fold")
    table.add_column("status", overflow="fold")
    for account in accounts:
        names, rate = (account["pipeline"], account["call"]), str(account["sample_rate"])
        for track, figures in account["tracks"].items():
            lost = {**figures["dropped"], **{f"{why} (in transforms)": n for why, n in figures["lost"].items()}}
            table.add_row(
                *names, f"track {track}", rate, f"{figures['received']:,}", "", "",
                _reasons(lost), _reasons(figures["concealed"]), Text(account["error"] or account["status"]),
            )  # fmt: skip
            names = ("", "")
        for sink in account["sinks"]:
            failure = sink["failure"]
            status = f"{failure['code']}: {failure['text']}" if failure else str(sink["outcome"].get("status", ""))
            table.add_row(
                *names, sink["sink"], str(sink["sample_rate"]), f"{sink['received']:,}", f"{sink['delivered']:,}",
                f"{sink['spooled']:,}", _reasons(sink["dropped"]), _reasons(sink["concealed"]), Text(status),
            )  # fmt: skip
        if "reply" in account:
            _reply_row(table, account["reply"])
    return table


def _reply_row(table: Table, reply: Mapping[str, Any]) -> None:
    status = f"{reply['status']}: {reply['error']}" if reply["error"] else reply["status"]
    sink = next(iter(reply["sinks"]), None)
    if sink is None:
        table.add_row("", "", "reply", "", "", "", "", "", "", Text(status))
    else:
        table.add_row(
            "", "", "reply", str(sink["sample_rate"]), f"{sink['received']:,}", f"{sink['delivered']:,}",
            f"{sink['spooled']:,}", _reasons(sink["dropped"]), _reasons(sink["concealed"]), Text(status),
        )  # fmt: skip


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{samples:,} {reason}" for reason, samples in counts.items()) or "0"


def print_accounts(accounts: Iterable[Mapping[str, Any]]) -> None:
    """Print the ledger of ``accounts``, wide where the output is not a terminal."""
    console().print(ledger_table(accounts))


def console() -> Console:
    """Return the console that tables are printed on."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=200, soft_wrap=True)
