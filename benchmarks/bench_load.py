"""How many calls one core carries, beside the peers that are installed: ``mediaflow bench load``.

Bridges run on one core, the load on another.  In each round every bridge has its turn, so that what the machine does
meanwhile meets all of them; figures are medians over the rounds, ratios those within a round.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec

from . import load_report, machine, modes, stages
from .load_report import Document
from .modes import Record
from .rows import C_EPOLL, JSON_ROW, MEDIAFLOW, NODE_MODULES, NULL, PIPECAT_PYTHON, ROWS, SHIPPED_ROW, WORKERS_ROW, Row

ROUNDS = 3
PACKAGES = ("mediaflow", "websockets", "uvloop", "msgspec", "anyio", "trio", "picows", "aiofastnet", "audioop-lts")
PROGRAMS = {
    "gcc": ("gcc", "-dumpfullversion"),
    "node": ("node", "--version"),
    "ws": ("node", "-p", f"require('{NODE_MODULES}/ws/package.json').version"),
    "pipecat": (str(PIPECAT_PYTHON), "-c", "from importlib.metadata import version; print(version('pipecat-ai'))"),
}
"""What is not of this Python, and what says its version."""

STEPS = (0.1, 0.25, 0.4, 0.5, 0.6, *(n / 20 for n in range(14, 31)))
"""The numbers of calls of a ramp, as parts of what the processor time of a saturated bridge would allow."""

FRAMES_S = 50
LATENCY_CALLS, MANY_CALLS = 100, 1000

say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731


def present(wanted: Sequence[str] = ()) -> tuple[list[Row], dict[str, str]]:
    """Return the rows that can run, and what the others lack; exit with a message for a name that none has."""
    unknown = set(wanted) - set(ROWS)
    if unknown:
        sys.exit(f"no bridge is named {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    chosen = [row for row in ROWS.values() if not wanted or row.name in wanted]
    lacking = {row.name: row.missing() for row in chosen if row.missing()}
    return [row for row in chosen if row.name not in lacking], lacking


def _saturated(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    for _ in range(rounds):
        yield from (modes.saturated(row) for row in chosen if row.exact and row.name != SHIPPED_ROW)


def _wss(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    named = [row for row in chosen if row.tls and row.name not in (SHIPPED_ROW, JSON_ROW)]
    for _ in range(rounds):
        yield from (modes.saturated(row, tls=True) for row in named)


def _paced(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    for _ in range(rounds):
        yield from (modes.paced(row, calls=LATENCY_CALLS) for row in chosen)
        yield from (modes.paced(row, calls=MANY_CALLS) for row in chosen if row.name in (MEDIAFLOW, C_EPOLL))


def _ramp(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    for row in chosen:
        if row.name in (SHIPPED_ROW, JSON_ROW):
            continue
        cost = (modes.saturated(row, 1.0) if row.exact else modes.paced(row, 2.0, calls=50)).us_per_frame
        assert cost is not None
        most = 1e6 / (FRAMES_S * cost)
        yield from modes.ramp(row, [max(10, round(most * step / 10) * 10) for step in STEPS])


def _memory(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    yield from (modes.memory(row) for row in chosen if row.name != NULL)


def _pause(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    yield from (modes.pause(row) for row in chosen)


def _workers(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    for _ in range(rounds):
        yield from (modes.workers(row) for row in chosen if row.name in (MEDIAFLOW, WORKERS_ROW))


MODES = {
    "saturated": _saturated,
    "wss": _wss,
    "memory": _memory,
    "pause": _pause,
    "paced": _paced,
    "ramp": _ramp,
    "workers": _workers,
}


def measure(rounds: int, mode_names: Sequence[str], row_names: Sequence[str]) -> Document:
    """Run what is wanted, or everything; say on standard error how it goes.  Ctrl-C ends it with what there is."""
    chosen, lacking = present(row_names)
    programs = {name: said for name, command in PROGRAMS.items() if (said := machine.program(*command))}
    document = Document(
        machine.processor(),
        f"{platform.system()} {platform.release()}",
        machine.versions(PACKAGES) | programs,
        lacking,
        rounds,
    )
    try:
        if not mode_names or "stages" in mode_names:
            document.stages = stages.measure(5 * rounds)
        for name, run in MODES.items():
            if mode_names and name not in mode_names:
                continue
            rows = chosen if name == "workers" else [row for row in chosen if row.name != WORKERS_ROW]
            for record in run(rows, rounds):
                document.records.append(record)
                say(load_report.line(record))
    except KeyboardInterrupt:
        say("interrupted: what follows is what there is")
    return document


def dump(document: Document) -> str:
    """Write JSON with a record in each line, so that two runs can be compared."""
    records = ",\n".join(msgspec.json.encode(record).decode() for record in document.records)
    whole = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(document, records=[])), indent=1).decode()
    return whole.replace('"records": []', f'"records": [\n{records}\n ]')


def main(
    rounds: int = ROUNDS, as_json: bool = False, mode_names: Sequence[str] = (), row_names: Sequence[str] = ()
) -> int:
    """Print the tables, or one JSON document; return 1 if a block of ours went wrong."""
    if (os.cpu_count() or 1) < 2 or not shutil.which("gcc") or not shutil.which("taskset"):
        say("this needs two cores, gcc with OpenSSL's headers (libssl-dev), and taskset")
        return 1
    document = measure(rounds, mode_names, row_names)
    if as_json:
        print(dump(document))
    else:
        print(load_report.text(document))
    return int(any(record.faults for record in document.records if ROWS[record.row].ours))


if __name__ == "__main__":
    sys.exit(main(as_json="--json" in sys.argv))
