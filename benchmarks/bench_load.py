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
from pathlib import Path

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

STEPS = (0.1, 0.25, *(n / 40 for n in range(16, 61)))
"""The numbers of calls of a ramp, as parts of what the processor time of a saturated bridge would allow."""

FRAMES_S = 50
LATENCY_CALLS, MANY_CALLS = 100, 1000
MESSAGES_MS = (20, 40, 60, 100, 200)

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
        if row.name == JSON_ROW:
            continue
        cost = (modes.saturated(row, 1.0) if row.exact else modes.paced(row, 2.0, calls=50)).us_per_frame
        assert cost is not None
        most = 1e6 / (FRAMES_S * cost)
        yield from modes.ramp(row, sorted({max(10, round(most * step / 10) * 10) for step in STEPS}))


def _memory(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    yield from (modes.memory(row) for row in chosen if row.name != NULL)


def _coalescing(chosen: Sequence[Row], rounds: int) -> Iterator[Record]:
    for _ in range(rounds if MEDIAFLOW in (row.name for row in chosen) else 0):
        yield from (modes.coalescing(message_ms) for message_ms in MESSAGES_MS)


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
    "coalescing": _coalescing,
    "ramp": _ramp,
    "workers": _workers,
}


def measure(rounds: int, mode_names: Sequence[str], row_names: Sequence[str], into: Document | None = None) -> Document:
    """Run what is wanted, or everything; say on standard error how it goes.  Ctrl-C ends it with what there is.

    Exits with a message if it is to go ``into`` a document of another machine or of other versions.
    """
    chosen, lacking = present(row_names)
    programs = {name: said for name, command in PROGRAMS.items() if (said := machine.program(*command))}
    document = Document(
        machine.processor(),
        f"{platform.system()} {platform.release()}",
        machine.versions(PACKAGES) | programs,
        lacking,
        loopback_us=machine.loopback_us(),
    )
    if into is not None and (others := differing(into, document)):
        sys.exit(f"what is there was measured with {'; '.join(others)}: measure everything, with --json")
    try:
        if not mode_names or "stages" in mode_names:
            document.stage_rounds = 5 * rounds
            document.stages = stages.measure(document.stage_rounds)
        for name, run in MODES.items():
            if mode_names and name not in mode_names:
                continue
            rows = chosen if name == "workers" else [row for row in chosen if row.name != WORKERS_ROW]
            for record in run(rows, rounds):
                document.records.append(record)
                say(load_report.line(record))
    except KeyboardInterrupt:
        say("interrupted: what follows is what there is")
    return document if into is None else join(into, document)


def differing(old: Document, new: Document) -> list[str]:
    """Return what was another one when ``old`` was measured: figures with different ones are not to be compared."""
    then, now = ({"machine": each.machine, "system": each.system} | each.versions for each in (old, new))
    return [f"{name} {then[name]}, here {now[name]}" for name in then if now.get(name, then[name]) != then[name]]


def join(old: Document, new: Document) -> Document:
    """Return ``old`` with what ``new`` has measured in the place of the same modes of the same bridges."""
    modes_of_rows = {(record.mode, record.tls, record.row) for record in new.records}
    rows = {record.row for record in new.records}
    return msgspec.structs.replace(
        old,
        versions=old.versions | new.versions,
        missing={name: lack for name, lack in old.missing.items() if name not in rows} | new.missing,
        records=[r for r in old.records if (r.mode, r.tls, r.row) not in modes_of_rows] + new.records,
        stage_rounds=new.stage_rounds or old.stage_rounds,
        stages=new.stages or old.stages,
    )


def dump(document: Document) -> str:
    """Write JSON with a record in each line, so that two runs can be compared."""
    records = ",\n".join(msgspec.json.encode(record).decode() for record in document.records)
    whole = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(document, records=[])), indent=1).decode()
    return whole.replace('"records": []', f'"records": [\n{records}\n ]')


def main(
    rounds: int = ROUNDS,
    as_json: bool = False,
    mode_names: Sequence[str] = (),
    row_names: Sequence[str] = (),
    file: Path | None = None,
) -> int:
    """Print the tables, or one JSON document; return 1 if a block of ours went wrong.

    Where there is a ``file``, what was measured goes into that, in the place of the same modes of the same bridges.
    """
    if (os.cpu_count() or 1) < 2 or not shutil.which("gcc") or not shutil.which("taskset"):
        say("this needs two cores, gcc with OpenSSL's headers (libssl-dev), and taskset")
        return 1
    into = msgspec.json.decode(file.read_bytes(), type=Document) if file else None
    document = measure(rounds, mode_names, row_names, into)
    if file:
        file.write_text(dump(document) + "\n")
    if as_json:
        print(dump(document))
    else:
        print(load_report.text(document))
    return int(any(record.faults for record in document.records if ROWS[record.row].ours))


if __name__ == "__main__":
    sys.exit(main(as_json="--json" in sys.argv))
