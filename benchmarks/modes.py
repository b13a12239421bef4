"""What is measured of a bridge.  Each function is one run of one bridge, in a process of its own, and returns a record.

    saturated   64 calls, in each the next frame as soon as the last has come through: processor time per frame
    paced       real time: processor time per frame (waking up included), latency
    ramp        more and more calls in real time, until the latency or a block is lost
    memory      per call that speaks, from two numbers of calls
    pause       the bridge is stopped (SIGSTOP) for a second under load
    coalescing  real time, with more or less audio in each message: processor time per frame, delay of a frame
    workers     saturated, of one process and of two workers on the one core: what it costs to be several

The blocks of every run are checked to the end of every call; what is wrong with them is ``faults``. Both cores are kept
awake meanwhile (``awake``).
"""

from __future__ import annotations

import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from . import blocks, eka_rest, generator, rows, stalls
from .awake import kept_awake
from .generator import Generator, Options
from .rows import FRAME_MS, JSON_ROW, ROWS, Place, Row, Server, Tls, started

DISTURBED, TRIES = 0.02, 3
"""A step of a ramp that failed is tried again if others had more than this share of the bridge's core."""

WARM_S, SETTLE_S = 0.5, 2.0
"""For how long is played before: that processes are warm, and, for latency, that calls have begun some time ago."""

SATURATED_CALLS = 64


class Record(msgspec.Struct, omit_defaults=True):
    """One run."""

    mode: str
    row: str
    calls: int
    tls: bool = False
    us_per_frame: float | None = None
    """Processor time of the bridge, user and system."""
    core: float | None = None
    """Its share of its core."""
    frames: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    delay_p50_ms: float | None = None
    """Of a frame, with the time for which its message was filled."""
    delay_p99_ms: float | None = None
    message_ms: int = 0
    """How much audio is in a message, where that is what is varied."""
    max_ms: float | None = None
    generator: float | None = None
    """The load's share of its core."""
    others: float | None = None
    """The share of the time for which something else had its core: other processes, or the hypervisor (``stalls``)."""
    late_ms: float | None = None
    """p99 of how late the load was itself."""
    waiting: int = 0
    """Frames that no message came for in 10 s."""
    kib_per_call: float | None = None
    rss_kib_per_call: float | None = None
    faults: dict[str, int] = {}


class Run(NamedTuple):
    """A bridge and its load."""

    row: Row
    server: Server
    load: Generator
    filler: int
    """What keeps the bridge's core awake."""

    def of_others_s(self) -> float:
        """Return for how long something else has had the bridge's core, in seconds."""
        return self.server.of_others_s() - rows.cpu_s(self.filler)

    def open(self, calls: int) -> None:
        self.load.open(self.server.port, self.row.path, calls)


@cache
def _files(convert: blocks.Convert, encoding: str, tracks: int) -> blocks.Files:
    folder = generator.BUILD / f"{encoding.rpartition('/')[2]}-{tracks}"
    folder.mkdir(parents=True, exist_ok=True)
    return blocks.write(folder, convert, encoding, tracks)


def certificates(folder: Path) -> Tls:
    """Make an authority and a certificate for this machine."""
    import trustme

    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1")
    files = Tls(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    for number, pem in enumerate(own.cert_chain_pems):
        pem.write_to_path(str(files.certificate), append=number > 0)
    own.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(files.authority))
    ssl.create_default_context(cafile=str(files.authority))
    return files


@contextmanager
def running(row: Row, tls: bool = False) -> Iterator[Run]:
    """Start a bridge and its load."""
    two = row.name == JSON_ROW
    encoding, tracks = ("audio/x-l16", 2) if two else ("audio/x-mulaw", 1)
    files = _files(row.convert, encoding, tracks)
    with tempfile.TemporaryDirectory(prefix="mediaflow-bench-") as name:
        folder = Path(name)
        made = certificates(folder) if tls else None
        options = Options(
            files.media,
            files.blocks,
            files.media_length,
            row.held,
            row.message_ms // FRAME_MS,
            tracks,
            encoding,
            slack=row.slack,
            exact=row.exact,
            certificate=made and made.certificate,
            key=made and made.key,
        )
        with generator.running(options) as load:
            upload = f"{'wss://localhost' if tls else 'ws://127.0.0.1'}:{load.port}"
            with (
                eka_rest.served(upload) as rest_url,
                started(row, Place(folder, load.port, rest_url, made)) as server,
                kept_awake(generator.CORE),
                kept_awake(rows.CORE) as filler,
            ):
                yield Run(row, server, load, filler)


def _window(run: Run, record: Record, seconds: float, *, saturated: bool = False, warm_s: float = WARM_S) -> Record:
    """Play for some seconds, and for a moment before; put down what was seen."""
    stood_still = stalls.share(rows.CORE)
    play = run.load.saturated if saturated else run.load.paced
    play(warm_s)
    before, theirs = run.server.cpu_s(), run.of_others_s()
    window = play(seconds)
    used = run.server.cpu_s() - before
    others = max(run.of_others_s() - theirs, 0.0)  # both are counted in hundredths of a second
    record.others = round(others / (window.seconds + window.drain_s) + stood_still, 4)
    record.frames = window.frames
    record.us_per_frame = round(1e6 * used / window.frames, 3)
    record.core = round(used / (window.seconds + window.drain_s), 4)
    record.p50_ms, record.p99_ms, record.p999_ms = window.p50_ms, window.p99_ms, window.p999_ms
    record.delay_p50_ms, record.delay_p99_ms = window.delay_p50_ms, window.delay_p99_ms
    record.generator, record.late_ms, record.waiting = window.generator, window.late_p99_ms, window.waiting
    so_far = {"wrong": window.wrong, "closed": window.closed}
    record.faults = {name: number for name, number in so_far.items() if number}
    return record


def saturated(row: Row, seconds: float = 2.0, calls: int = SATURATED_CALLS, tls: bool = False) -> Record:
    """Measure the processor time per frame of a bridge that never waits."""
    with running(row, tls) as run:
        run.open(calls)
        record = _window(run, Record("saturated", row.name, calls, tls), seconds, saturated=True)
        record.faults = run.load.stop().faults
    return record


def workers(row: Row) -> Record:
    """Measure the same, to be compared between one process and several."""
    record = saturated(row)
    record.mode = "workers"
    return record


def paced(row: Row, seconds: float = 4.0, calls: int = 100) -> Record:
    """Measure latency, and processor time with its wake-ups."""
    with running(row) as run:
        run.open(calls)
        record = _window(run, Record("paced", row.name, calls), seconds, warm_s=SETTLE_S)
        record.faults = run.load.stop().faults
    return record


def coalescing(message_ms: int, seconds: float = 4.0, calls: int = 300) -> Record:
    """Measure what larger messages spare in processor time and cost in delay."""
    record = paced(rows.coalescing(message_ms), seconds, calls)
    return msgspec.structs.replace(record, mode="coalescing", message_ms=message_ms)


def ramp(row: Row, numbers: Sequence[int], seconds: float = 3.0) -> list[Record]:
    """Open more and more calls in one process; return a record for each number, the first failing one last.

    A number that fails while something else had the core is tried again. Nobody speaks while further calls are opened,
    and a bridge that forgets its filter in a pause (``exact`` is False) has a new process for each number.
    """
    records: list[Record] = []
    with ExitStack() as stack:
        run = stack.enter_context(running(row))
        for number in numbers:
            if records and not row.exact:
                stack.close()
                run = stack.enter_context(running(row))
            run.open(number)
            for _ in range(TRIES):
                record = _window(run, Record("ramp", row.name, number), seconds)
                if passed(record) or (record.others or 0) < DISTURBED:
                    break
            records.append(record)
            if not passed(record):
                break
        records[-1].faults = run.load.stop().faults
    return records


def passed(record: Record) -> bool:
    """Say whether a step of a ramp was carried in time and without loss."""
    return not record.faults and not record.waiting and (record.p99_ms or 0) <= ROWS[record.row].limit_ms


def memory(row: Row, few: int = 100, many: int = 400, seconds: float = 2.0) -> Record:
    """Measure what a call that speaks adds to the memory of the process."""
    sizes = []
    with running(row) as run:
        for number in (few, many):
            run.open(number)
            run.load.paced(seconds)
            sizes.append(run.server.memory_kib())
        verdict = run.load.stop()
    pss, rss = ((sizes[1][kind] - sizes[0][kind]) / (many - few) for kind in ("Pss", "Rss"))
    return Record("memory", row.name, many, kib_per_call=pss, rss_kib_per_call=rss, faults=verdict.faults)


def pause(row: Row, calls: int = 100, seconds: float = 1.0, around_s: float = 1.0) -> Record:
    """Stop the process under load and let it go on; nothing may be missing."""
    with running(row) as run:
        run.open(calls)
        with _stopped(run, around_s, seconds):
            window = run.load.paced(around_s + seconds + around_s)
        verdict = run.load.stop()
    seen = Record("pause", row.name, calls, frames=window.frames, max_ms=window.max_ms, waiting=window.waiting)
    seen.faults = verdict.faults
    return seen


@contextmanager
def _stopped(run: Run, after_s: float, seconds: float) -> Iterator[None]:
    def act() -> None:
        time.sleep(after_s)
        run.server.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        run.server.process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
