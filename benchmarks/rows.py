"""The bridges that are measured: how each is started, and what comes out of it.

Every bridge is a process of its own on one core.  It takes Media Streams on a port that it prints, and sends what it
makes of a call to a WebSocket whose path ends in the name of the call.  A peer is one file in ``peers/``; what it needs
and is not installed is said, and the row left out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mediaflow import Secret
from mediaflow_plugins.sink_eka_raw import EkaRaw

from . import blocks
from .generator import build

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
NODE_MODULES = ROOT / "tests" / "peers" / "node_modules"
SHIPPED = ROOT / "pipelines" / "vobiz_to_eka.yaml"
CORE = 0
"""The core of the bridge."""

FRAME_MS = 20

LIMIT_MS = 20.0
"""A bridge carries as many calls as it carries with a p99 of at most this."""

PIPECAT_PYTHON = ROOT / "build" / "pipecat" / "bin" / "python"
"""It has 50 packages of its own, so it lives in an environment of its own: `make pipecat`."""

PIPECAT_BURST_MS = 150.0
"""Its resampler hands audio on about every 100 ms."""


class Tls(NamedTuple):
    """Files for wss on both sides."""

    certificate: Path
    key: Path
    authority: Path


class Place(NamedTuple):
    """Where a bridge runs: a folder of its own, and the two sides of EkaScribe."""

    folder: Path
    eka_port: int
    rest_url: str
    tls: Tls | None = None

    @property
    def eka_url(self) -> str:
        return f"wss://localhost:{self.eka_port}" if self.tls else f"ws://127.0.0.1:{self.eka_port}"

    @property
    def tls_words(self) -> list[str]:
        return [str(file) for file in self.tls] if self.tls else []


class Row(NamedTuple):
    """A bridge."""

    name: str
    command: Callable[[Place], list[str]]
    convert: blocks.Convert
    modules: tuple[str, ...] = ()
    """What must be installed."""
    programs: tuple[Path, ...] = ()
    path: str = "/"
    held: int = 0
    slack: int = 0
    message_ms: int = FRAME_MS
    tls: bool = False
    """Whether it knows TLS."""
    exact: bool = True
    """Whether every byte is known.  If not, blocks have to be alike, and it is measured in real time only."""
    limit_ms: float = LIMIT_MS
    port: str = r"^(\d+)$"
    """What its first line says."""

    @property
    def ours(self) -> bool:
        return self.name.startswith("mediaflow")

    def missing(self) -> str:
        """Say what is not installed, or nothing."""
        lacking = [module for module in self.modules if find_spec(module) is None]
        lacking += [str(file.relative_to(ROOT)) for file in self.programs if not file.exists()]
        return ", ".join(lacking)


def pipeline(place: Place, *changes: tuple[str, str]) -> str:
    """Return a copy of the shipped pipeline: with TLS where that is wanted, and with some of its lines changed."""
    text = SHIPPED.read_text()
    if place.tls:
        line = "  secret: ${VOBIZ_SECRET:-}\n"
        changes += ((line, f"{line}  certificate: {place.tls.certificate}\n  key: {place.tls.key}\n"),)
    for old, new in changes:
        assert old in text, f"{SHIPPED} has no {old!r}"
        text = text.replace(old, new)
    file = place.folder / "vobiz_to_eka.yaml"
    file.write_text(text)
    return str(file)


TOKEN_LINE = "    token: ${EKA_TOKEN:-}\n"


def _filled(message_ms: int) -> tuple[str, str]:
    return TOKEN_LINE, f"{TOKEN_LINE}    message_ms: {message_ms}\n"


PER_FRAME = _filled(FRAME_MS)
"""One message per frame, as every peer does it."""

LITTLE_ENDIAN = ("  secret: ${VOBIZ_SECRET:-}\n", "  secret: ${VOBIZ_SECRET:-}\n  byte_order: little\n")
"""For L16: else it is listened to first, and nothing goes on before enough has come."""

IN_JSON = ("use: eka_raw", "use: eka_json")

RUN = [sys.executable, "-m", "mediaflow", "run"]


def _on(backend: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, str(PEERS / "mediaflow_on.py"), backend, pipeline(place, PER_FRAME)]


def _python(name: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, str(PEERS / name), place.eka_url, *place.tls_words]


def _c(place: Place) -> list[str]:
    return [str(build(PEERS / "epoll_bridge.c")), str(place.eka_port)]


def _mediaflow(name: str, command: Callable[[Place], list[str]], message_ms: int = FRAME_MS, module: str = "") -> Row:
    return Row(
        name,
        command,
        "filtered",
        (module,) if module else (),
        path="/vobiz",
        held=blocks.HELD,
        message_ms=message_ms,
        tls=True,
        port=r"listens at wss?://[^:]+:(\d+)",
    )


def _by_hand(name: str, file: str, *modules: str, tls: bool = True) -> Row:
    return Row(name, _python(file), "linear", (*modules, "audioop"), slack=1, tls=tls)


MEDIAFLOW = "mediaflow"
SHIPPED_ROW = "mediaflow as shipped"
JSON_ROW = "mediaflow json, two tracks of L16"
BY_HAND = "by hand"
WORKERS_ROW = "mediaflow, two workers"
PIPECAT = "Pipecat"
C_EPOLL = "C epoll"
NULL = "null"

ROWS = {
    row.name: row
    for row in (
        _mediaflow(MEDIAFLOW, lambda place: [*RUN, pipeline(place, PER_FRAME)]),
        _mediaflow("mediaflow asyncio", _on("asyncio")),
        _mediaflow("mediaflow trio", _on("trio"), module="trio"),
        _mediaflow(SHIPPED_ROW, lambda place: [*RUN, pipeline(place)], EkaRaw(token=Secret("bench")).message_ms),
        _mediaflow(JSON_ROW, lambda place: [*RUN, pipeline(place, PER_FRAME, IN_JSON, LITTLE_ENDIAN)]),
        _mediaflow(WORKERS_ROW, lambda place: [*RUN, pipeline(place, PER_FRAME), "--workers", "2"]),
        _mediaflow("mediaflow's parts", _python("parts.py")),
        _by_hand(BY_HAND, "by_hand.py", "uvloop"),
        _by_hand("by hand, trio", "by_hand_trio.py", "trio", tls=False),
        _by_hand("picows", "picows_bridge.py", "uvloop", "picows"),
        Row(
            "Node ws",
            lambda place: ["node", str(PEERS / "node_bridge.js"), place.eka_url, *place.tls_words],
            "linear",
            programs=(NODE_MODULES / "ws",),
            slack=1,
            tls=True,
        ),
        Row(
            PIPECAT,
            lambda place: [str(PIPECAT_PYTHON), str(PEERS / "pipecat_bridge.py"), place.eka_url],
            "filtered",
            programs=(PIPECAT_PYTHON,),
            message_ms=160,
            slack=blocks.RATE_OUT * 150 // 1000,
            exact=False,
            limit_ms=PIPECAT_BURST_MS,
        ),
        Row(C_EPOLL, _c, "linear", slack=1),
        Row(NULL, lambda place: [*_c(place), "null"], "nothing"),
    )
}


def coalescing(message_ms: int) -> Row:
    """Return ours with so much audio in a message."""
    return _mediaflow(MEDIAFLOW, lambda place: [*RUN, pipeline(place, _filled(message_ms))], message_ms)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, user and system, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A bridge that runs."""

    process: subprocess.Popen[str]
    port: int

    def processes(self) -> list[int]:
        """Return the numbers of its processes: its own, and those of its workers."""
        own = self.process.pid
        return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]

    def cpu_s(self) -> float:
        """Return the processor time it has used, user and system, in seconds."""
        return sum(map(cpu_s, self.processes()))

    def of_others_s(self) -> float:
        """Return for how long others have had its core, in seconds: other processes, and the hypervisor."""
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{CORE} "))
        user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(int, line.split()[1:])
        return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK") - self.cpu_s()

    def memory_kib(self) -> dict[str, int]:
        """Return its memory: ``Pss`` (what it shares counted in part) and ``Rss``."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return {name: int(size) for name, size in re.findall(r"^(Pss|Rss): +(\d+) kB", text, re.MULTILINE)}


@contextmanager
def started(row: Row, place: Place) -> Iterator[Server]:
    """Run a bridge on its core until left; raise RuntimeError if it does not start, or if ours does not end well."""
    variables = {
        "VOBIZ_LISTEN": f"{'wss' if place.tls else 'ws'}://127.0.0.1:0{row.path}",
        "EKA_BASE_URL": place.rest_url,
        "EKA_TOKEN": "bench",
        "NODE_PATH": str(NODE_MODULES),
        "PYTHONUNBUFFERED": "1",
    }
    if place.tls:
        variables["SSL_CERT_FILE"] = str(place.tls.authority)
    log = place.folder / "stderr"
    with log.open("w") as errors:
        process = subprocess.Popen(
            ["taskset", "-c", str(CORE), *row.command(place)],
            cwd=place.folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        found = re.search(row.port, process.stdout.readline().strip())
        if found is None:
            raise RuntimeError(f"{row.name} did not start:\n{log.read_text()[-2000:]}")
        yield Server(process, int(found[1]))
    except Exception as error:
        if process.poll() is not None:  # which is why
            raise RuntimeError(f"{row.name} ended with {process.returncode}:\n{log.read_text()[-2000:]}") from error
        raise
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM if row.ours else signal.SIGKILL)  # of the peers nothing is wanted any more
        process.communicate(timeout=60)
    if row.ours and process.returncode != 0 and "parts" not in row.name:
        raise RuntimeError(f"{row.name} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
