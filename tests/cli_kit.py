"""Run the command line in processes of their own, and talk to them while they run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-P", "-m", "mediaflow"]
"""-P: what is installed is meant, also where the working directory holds the sources."""

LIMIT_S = 60
"""A process that has not ended by then has hung: it is killed, and the test fails."""

RECORDS_IMPORTS = """
import atexit, sys
atexit.register(lambda: print("IMPORTED", *sorted(sys.modules), file=sys.stderr))
from mediaflow.cli import main
main()
"""

REFUSES_SOCKETS = """
import sys
def refuse(event, arguments):
    if event in ("socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        raise AssertionError(event)
sys.addaudithook(refuse)
from mediaflow.cli import main
main()
"""


def run(folder: Path, *arguments: str, code: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``mediaflow`` with ``arguments`` to its end, in ``folder``; or ``code``, which is to do the same."""
    command = [sys.executable, "-P", "-c", code] if code else COMMAND
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the modules that a process with ``RECORDS_IMPORTS`` had imported at its end."""
    return set(done.stderr.rpartition("IMPORTED ")[2].split())


class Running:
    """A process, what it has said so far, and a way to wait for more."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read lines until one holds ``text``, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}:\n{''.join(self.said)}")

    def end(self) -> int:
        """Wait until it ends and return its exit code."""
        assert self.process.stdout is not None
        self.said += self.process.stdout
        return self.process.wait()

    @property
    def output(self) -> str:
        return "".join(self.said)


@contextmanager
def running(folder: Path, *arguments: str, **env: str) -> Iterator[Running]:
    """Run ``mediaflow`` with ``arguments`` while the block lasts; what it says on either stream can be read."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    guard = threading.Timer(LIMIT_S, process.kill)
    guard.start()
    try:
        with process:
            yield Running(process)
            process.kill()
    finally:
        process.kill()
        guard.cancel()
