"""What the load measured, as tables: in a terminal, and in docs/capacity.md."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from .modes import DISTURBED, Record, passed
from .rows import BY_HAND, C_EPOLL, JSON_ROW, LIMIT_MS, MEDIAFLOW, PIPECAT, ROWS, WORKERS_ROW

Figure = Callable[[Record], float | None]

SHARES: tuple[Figure, ...] = (lambda r: r.core, lambda r: r.others, lambda r: r.generator)
SHARE_HEADS = ("its core", "others on it", "load's core")

_WORKERS_HEAD = ("bridge", "CPU µs/frame", "÷ one process", "its core", "blocks")

PEER_NAMES = (BY_HAND, "picows", "Node ws", C_EPOLL)


class Document(msgspec.Struct):
    """Everything of one run of the benchmark."""

    machine: str
    system: str
    versions: dict[str, str]
    missing: dict[str, str]
    """Rows that were left out, and what they lack."""
    records: list[Record] = []
    stages: dict[str, float] = {}
    stage_rounds: int = 0
    loopback_us: float = 0.0
    """What a message takes from one socket to the other (`machine.loopback_us`)."""

    def of(self, mode: str, row: str | None = None, *, tls: bool = False, calls: int | None = None) -> list[Record]:
        """Return the records of one row, or all, in one mode, in the order of the rounds."""
        return [
            record
            for record in self.records
            if (record.mode, record.tls) == (mode, tls) and row in (None, record.row) and calls in (None, record.calls)
        ]


class Table(NamedTuple):
    """A table and what to know of it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    rounds: str = ""
    """How often each row was measured."""


def line(record: Record) -> str:
    """Say in a line what a run showed."""
    parts = [f"{record.mode + (' wss' if record.tls else ''):14} {record.row:34} {record.calls:5} calls"]
    if record.us_per_frame is not None:
        parts.append(f"{record.us_per_frame:7.1f} µs/frame, core {record.core:4.0%}, ")
        parts[-1] += f"others {_percent(record.others)}, load {record.generator:4.0%}"
    if record.p99_ms is not None:
        parts.append(f"p50 {record.p50_ms:.2f} p99 {record.p99_ms:.2f} p99.9 {record.p999_ms:.2f} ms")
    if record.message_ms:
        parts.append(f"{record.message_ms} ms a message, with filling p50 {record.delay_p50_ms:.1f}")
        parts[-1] += f" p99 {record.delay_p99_ms:.1f} ms"
    if record.kib_per_call is not None:
        parts.append(f"{record.kib_per_call:.1f} KiB a call")
    parts.append(_faults([record]))
    return ", ".join(parts)


def median(records: Iterable[Record], figure: Figure) -> float | None:
    """Return the median of a figure, None if there is none."""
    values = [value for record in records if (value := figure(record)) is not None]
    return statistics.median(values) if values else None


def ratio(ours: Sequence[Record], theirs: Sequence[Record], figure: Figure) -> float | None:
    """Return the median of the ratios within each round."""
    pairs = [(figure(a), figure(b)) for a, b in zip(ours, theirs, strict=False)]
    ratios = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(ratios) if ratios else None


def us_per_frame(record: Record) -> float | None:
    return record.us_per_frame


def p99(record: Record) -> float | None:
    return record.p99_ms


def quiet_p99(record: Record) -> float | None:
    """Return p99 where the bridge had its core to itself: elsewhere it says more of the others."""
    return None if disturbed(record) else record.p99_ms


def disturbed(record: Record) -> bool:
    return (record.others or 0) >= DISTURBED


def carried(document: Document, row: str) -> int | None:
    """Return the largest number of calls of a ramp that was carried in time; None where others ended the ramp."""
    records = document.of("ramp", row)
    if records and not passed(records[-1]) and disturbed(records[-1]):
        return None
    return max((record.calls for record in records if passed(record)), default=None)


def rounds(records: Iterable[Record]) -> str:
    """Say how often each bridge had its turn, which may differ where some were measured by themselves."""
    numbers = sorted(set(Counter((r.row, r.calls, r.message_ms) for r in records).values()))
    return " to ".join(map(str, numbers[:1] + numbers[1:][-1:]))


def tables(document: Document) -> list[Table]:
    """Return all tables for which something was measured."""
    found = [
        _cost(document, "saturated", "Saturated: 64 calls, one message in flight in each", tls=False),
        _cost(document, "saturated", "Saturated, wss on both sides", tls=True),
        _workers(document),
        *(_latency(document, calls) for calls in sorted({r.calls for r in document.records if r.mode == "paced"})),
        _coalescing(document),
        _ramp(document),
        _memory(document),
        _pause(document),
        _stages(document),
        goals(document),
    ]
    return [table for table in found if table.rows]


def _cost(document: Document, mode: str, title: str, tls: bool) -> Table:
    by_hand = document.of(mode, BY_HAND, tls=tls)
    found = []
    for name in ROWS:
        records = document.of(mode, name, tls=tls)
        if records:
            cost = median(records, us_per_frame)
            found.append(
                [
                    name,
                    _number(cost, 1),
                    _number(cost and 1e6 / cost, 0),
                    _number(ratio(records, by_hand, us_per_frame), 2),
                    *(_percent(median(records, figure)) for figure in SHARES),
                    _faults(records),
                ]
            )
    head = ("bridge", "CPU µs/frame", "frames/s/core", "÷ by hand", *SHARE_HEADS, "blocks")
    return Table(title, head, found, rounds(document.of(mode, tls=tls)))


def _workers(document: Document) -> Table:
    one, two = document.of("workers", MEDIAFLOW), document.of("workers", WORKERS_ROW)
    found = [
        [
            name,
            _number(median(records, us_per_frame), 1),
            _number(ratio(records, one, us_per_frame), 2),
            _percent(median(records, lambda r: r.core)),
            _faults(records),
        ]
        for name, records in ((MEDIAFLOW, one), (WORKERS_ROW, two))
        if records
    ]
    return Table("Saturated: 64 calls, several workers on one core", _WORKERS_HEAD, found)


def _latency(document: Document, calls: int) -> Table:
    found = []
    for name in ROWS:
        records = document.of("paced", name, calls=calls)
        if records:
            figures: list[Figure] = [us_per_frame, lambda r: r.p50_ms, p99, lambda r: r.p999_ms, lambda r: r.late_ms]
            found.append(
                [name, *(_number(median(records, figure), 2) for figure in figures), _faults(records)],
            )
    head = ("bridge", "CPU µs/frame", "p50 ms", "p99 ms", "p99.9 ms", "load late, p99 ms", "blocks")
    return Table(f"Paced: {calls} calls in real time", head, found, rounds(document.of("paced", calls=calls)))


def _coalescing(document: Document) -> Table:
    every = document.of("coalescing")
    figures: list[Figure] = [us_per_frame, lambda r: r.delay_p50_ms, lambda r: r.delay_p99_ms]
    found = []
    for message_ms in sorted({record.message_ms for record in every}):
        records = [record for record in every if record.message_ms == message_ms]
        found.append([str(message_ms), *(_number(median(records, each), 1) for each in figures), _faults(records)])
    title = f"Larger messages to EkaScribe: {every[0].calls if every else 0} calls in real time"
    head = ("message_ms", "CPU µs/frame", "p50 ms with filling", "p99 ms with filling", "blocks")
    return Table(title, head, found, rounds(every))


def _ramp(document: Document) -> Table:
    found = []
    by_hand = carried(document, BY_HAND)
    for name in ROWS:
        records = document.of("ramp", name)
        if not records:
            continue
        most, last = carried(document, name), records[-1]
        found.append(
            [
                name,
                str(most or "-"),
                _number(most / by_hand if most and by_hand else None, 2),
                _limit(last),
                *(_percent(figure(last)) for figure in SHARES),
                _faults(records),
            ]
        )
    head = ("bridge", "calls", "÷ by hand", "limit", *SHARE_HEADS, "blocks")
    return Table(f"Ramp: calls in real time with p99 ≤ {LIMIT_MS:g} ms", head, found, rounds(document.of("ramp")))


def _limit(last: Record) -> str:
    if passed(last):
        return "not reached"
    return f"{last.calls} calls: " + ("others" if disturbed(last) else f"p99 {_number(last.p99_ms, 1)} ms")


def _memory(document: Document) -> Table:
    found = [
        [record.row, _number(record.kib_per_call, 1), _number(record.rss_kib_per_call, 1), _faults([record])]
        for name in ROWS
        for record in document.of("memory", name)
    ]
    head = ("bridge", "PSS KiB", "RSS KiB", "blocks")
    return Table("Memory per call that speaks", head, found, rounds(document.of("memory")))


def _pause(document: Document) -> Table:
    found = [
        [record.row, str(record.frames), _number(record.max_ms, 0), str(record.waiting), _faults([record])]
        for name in ROWS
        for record in document.of("pause", name)
    ]
    head = ("bridge", "frames", "longest latency ms", "without message", "blocks")
    return Table("Process stopped for a second, 100 calls", head, found, rounds(document.of("pause")))


def _stages(document: Document) -> Table:
    return Table(
        "What a stage costs by itself, no network",
        ("pipeline", "ns/frame"),
        [[name, f"{cost:.0f}"] for name, cost in document.stages.items()],
        str(document.stage_rounds),
    )


def goals(document: Document) -> Table:
    """Return the goals beside what was measured."""
    ours, plain = document.of("saturated", MEDIAFLOW), document.of("saturated", BY_HAND)
    calls = carried(document, MEDIAFLOW)
    found: list[list[str]] = []

    def add(figure: str, goal: str, measured: float | None, met: Callable[[float], bool], unit: str = "×") -> None:
        said = "not measured" if measured is None else f"{measured:.2f} {unit}" if unit else f"{measured:g}"
        found.append([figure, goal, said, "" if measured is None else "yes" if met(measured) else "no"])

    for peer, most in zip(PEER_NAMES, (0.40, 0.80, 0.70, 1.6), strict=True):
        cost = ratio(ours, document.of("saturated", peer), us_per_frame)
        add(f"CPU per frame, saturated, to {peer}", f"≤ {most:.2f} ×", cost, lambda x, most=most: x <= most)  # type: ignore[misc]
    for peer, least in zip((*PEER_NAMES[:3], PIPECAT), (2.3, 1.0, 1.3, 7.0), strict=True):
        theirs = carried(document, peer)
        more = calls / theirs if calls and theirs else None
        add(f"calls with p99 ≤ {LIMIT_MS:g} ms, to {peer}", f"≥ {least:.1f} ×", more, lambda x, least=least: x >= least)  # type: ignore[misc]
    add(f"calls with p99 ≤ {LIMIT_MS:g} ms", "≥ 1300", calls, lambda x: x >= 1300, "")
    hundred = ratio(document.of("paced", MEDIAFLOW, calls=100), document.of("paced", C_EPOLL, calls=100), quiet_p99)
    add("p99 at 100 calls, to C epoll", "≤ 1.20 ×", hundred, lambda x: x <= 1.2)
    thousand = median(document.of("paced", MEDIAFLOW, calls=1000), quiet_p99)
    add("p99 at 1000 calls", "≤ 5 ms", thousand, lambda x: x <= 5, "ms")
    secure = document.of("saturated", MEDIAFLOW, tls=True)
    add(
        "wss on both sides, to by hand",
        "≤ 0.50 ×",
        ratio(secure, document.of("saturated", BY_HAND, tls=True), us_per_frame),
        lambda x: x <= 0.5,
    )
    memory = median(document.of("memory", MEDIAFLOW), lambda record: record.kib_per_call)
    add("memory per active call", "≤ 20 KiB", memory, lambda x: x <= 20, "KiB")
    parts = ratio(ours, document.of("saturated", "mediaflow's parts"), us_per_frame)
    add("the YAML pipeline to its parts wired by hand", "≤ 1.05 ×", parts, lambda x: x <= 1.05)
    add("a built-in stage", "≤ 20 ns", document.stages.get("built-in stage"), lambda x: x <= 20, "ns")
    add("a Python plugin stage", "≤ 150 ns", document.stages.get("python plugin stage"), lambda x: x <= 150, "ns")
    add(
        "JSON sink, two tracks of L16, to raw µ-law, per frame received",
        "≤ 1.50 ×",
        ratio(document.of("saturated", JSON_ROW), ours, us_per_frame),
        lambda x: x <= 1.5,
    )
    add(
        "on Trio: CPU per frame to by hand, trio",
        "≤ 0.35 ×",
        ratio(document.of("saturated", "mediaflow trio"), document.of("saturated", "by hand, trio"), us_per_frame),
        lambda x: x <= 0.35,
    )
    several = ratio(document.of("workers", WORKERS_ROW), document.of("workers", MEDIAFLOW), us_per_frame)
    add("two workers on one core: CPU per frame to one process", "≤ 1.05 ×", several, lambda x: x <= 1.05)
    judged = [record for record in document.records if ROWS[record.row].ours]
    wrong = sum(sum(record.faults.values()) for record in judged) if judged else None
    add("blocks lost, doubled, swapped, or cut off, at every load and after SIGSTOP", "0", wrong, lambda x: x == 0, "")
    return Table("Goals", ("figure", "goal", "measured", "met"), found) if plain or ours else Table("", (), ())


def text(document: Document) -> str:
    """Return all tables for a terminal."""
    parts = [document.machine, document.system, ", ".join(f"{k} {v}" for k, v in document.versions.items())]
    parts.append("not installed: " + (", ".join(f"{k} ({v})" for k, v in document.missing.items()) or "none"))
    for table in tables(document):
        grid = [list(table.head), *map(list, table.rows)]
        widths = [max(len(row[column]) for row in grid) for column in range(len(table.head))]
        lines = [
            "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
            for row in grid
        ]  # fmt: skip
        parts += ["", table.title, *([f"rounds: {table.rounds}"] if table.rounds else []), *lines]
    return "\n".join(parts)


def markdown(table: Table) -> str:
    """Return a table for a page."""
    aligned = "|".join(["---", *["---:"] * (len(table.head) - 1)])
    lines = [" | ".join(row) for row in table.rows]
    said = [f"Rounds: {table.rounds}.", ""] if table.rounds else []
    return "\n".join([*said, "| " + " | ".join(table.head) + " |", f"|{aligned}|", *(f"| {line} |" for line in lines)])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _faults(records: Iterable[Record]) -> str:
    total: dict[str, int] = {}
    for record in records:
        for name, number in record.faults.items():
            total[name] = total.get(name, 0) + number
    return ", ".join(f"{number} {name}" for name, number in total.items()) or "all right"
