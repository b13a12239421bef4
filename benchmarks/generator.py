"""The load, ``load.c``: built when it is wanted, and told what to do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

FOLDER = Path(__file__).parent
BUILD = FOLDER.parent / "build" / "benchmarks"
FLAGS = ["-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE"]
CORE = 1
"""The core of all that is not measured."""


def build(source: Path) -> Path:
    """Compile a C file of this folder; return the program."""
    program = BUILD / source.stem
    newest = max(file.stat().st_mtime for file in (source, *FOLDER.glob("*.h")))
    if not program.exists() or program.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        half = program.with_name(f"{program.name}.{os.getpid()}")
        subprocess.run(["gcc", *FLAGS, f"-I{FOLDER}", "-o", half, source, "-lssl", "-lcrypto"], check=True)
        half.replace(program)
    return program


class Window(msgspec.Struct):
    """What was seen in some seconds of calls."""

    frames: int
    """Sent by the carrier."""
    seconds: float
    drain_s: float
    """How long the bridge still sent after the last frame."""
    messages: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    delay_p50_ms: float
    """Of a frame, with the time for which its message was filled."""
    delay_p99_ms: float
    generator: float
    """The load's share of its core."""
    late_p99_ms: float
    """By how much the load itself was late."""
    waiting: int
    """Frames that no message has come for."""
    closed: int
    wrong: int


class Verdict(msgspec.Struct):
    """What was wrong with the blocks of all calls, from their first frame to the end of EkaScribe's sockets."""

    frames: int
    lost: int
    doubled: int
    foreign: int
    damaged: int
    broken: int
    """Sockets and frames that are not as RFC 6455 wants them."""
    cut: int
    """Calls whose end is missing, or that have too much."""
    early: int
    """Calls whose socket to EkaScribe was closed before their end."""
    unended: int

    @property
    def faults(self) -> dict[str, int]:
        """Return what is not as it must be."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name != "frames" and value}


class Options(NamedTuple):
    """What ``load.c`` wants to know of a bridge."""

    media: Path
    blocks: Path
    media_length: int
    held: int
    window: int
    tracks: int
    encoding: str
    slack: int = 0
    exact: bool = True
    certificate: Path | None = None
    key: Path | None = None


class Generator:
    """A running load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._answer()["port"])
        """Where it takes EkaScribe's sockets."""

    def open(self, port: int, path: str, calls: int) -> None:
        """Connect until ``calls`` are through to EkaScribe; raise RuntimeError if they do not get there."""
        answer = self._ask(f"open {port} {path} {calls}")
        if answer["calls"] < calls or answer["broken"]:
            raise RuntimeError(f"{answer['calls']} of {calls} calls came through, {answer['broken']} broke")

    def paced(self, seconds: float) -> Window:
        """Play in real time."""
        return msgspec.convert(self._ask(f"paced {seconds}"), Window)

    def saturated(self, seconds: float) -> Window:
        """Play as fast as the bridge goes, with one message in flight per call."""
        return msgspec.convert(self._ask(f"saturated {seconds}"), Window)

    def stop(self) -> Verdict:
        """End all calls."""
        return msgspec.convert(self._ask("stop"), Verdict)

    def _ask(self, command: str) -> dict[str, int | float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, int | float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended with {self._process.wait()}")
        answer: dict[str, int | float] = json.loads(line)
        return answer


@contextmanager
def running(options: Options) -> Iterator[Generator]:
    """Run a load until left."""
    words = {
        "media_length": options.media_length,
        "held": options.held,
        "window": options.window,
        "tracks": options.tracks,
        "encoding": options.encoding,
        "slack": options.slack,
        "exact": int(options.exact),
    }
    if options.certificate is not None:
        words |= {"cert": str(options.certificate), "key": str(options.key)}
    command = [build(FOLDER / "load.c"), options.media, options.blocks, *(f"{k}={v}" for k, v in words.items())]
    process = subprocess.Popen(
        ["taskset", "-c", str(CORE), *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Generator(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()
