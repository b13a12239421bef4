"""How many simultaneous calls one core carries, every block checked, beside a bridge written by hand.

    python -m benchmarks.bench_calls [--calls 100 200 …] [--seconds 10] [--json]

A server runs on one core: ``mediaflow run`` with the pipeline of ``vobiz_to_eka.yaml`` (decode, mix, resample, VAD,
ledger), and ``reference_bridge``.  The harness plays calls in real time from the other core and compares every
message that arrives with the same audio sent through the kernels in one piece.  Latency is from a frame's
sending to the arrival of its last sample, resampler and all.  The row ``mediaflow`` sends EkaScribe 20 ms a message,
like the bridge, so that the two do the same work; ``shipped`` sends 100 ms a message, as the pipeline does by default:
a frame then waits up to 80 ms for its message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from .load import Harness

SERVER_CORE, HARNESS_CORE = 0, 1

BY_HAND = "by hand"
HEADING = "server     calls  frames  wrong  calls cut  p50 ms  p99 ms   max ms  core  µs/frame  harness"
MESSAGE_MS = {"mediaflow": 20, "shipped": 100}

PIPELINE = """
source:
  use: vobiz
  listen: ws://127.0.0.1:0/vobiz
transforms:
  - use: mulaw_decode
  - use: mix
  - use: resample
    rate: 16000
  - use: energy_vad
sinks:
  - use: eka_raw
    base_url: http://127.0.0.1:{eka_port}
    token: bench
    message_ms: {message_ms}
    results: {folder}/results/{{call_id}}.json
state: {folder}
"""


class Row(NamedTuple):
    """One run of one server."""

    server: str
    calls: int
    frames: int
    wrong: int
    missing: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu: float
    us_per_frame: float
    harness: float


class Server(NamedTuple):
    """A server under test."""

    process: subprocess.Popen[str]
    port: int
    path: str

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def started(name: str, eka_port: int, verbose: bool) -> AsyncIterator[Server]:
    """Run a server on its core; stop it at the end and check that it says all is well."""
    with tempfile.TemporaryDirectory() as folder:
        if name != BY_HAND:
            file = Path(folder) / "bench.yaml"
            file.write_text(PIPELINE.format(eka_port=eka_port, folder=folder, message_ms=MESSAGE_MS[name]))
            command, pattern, path = ["mediaflow", "run", str(file)], r"listens at ws://[^:]+:(\d+)", "/vobiz"
        else:
            command, pattern, path = ["benchmarks.reference_bridge", str(eka_port)], r"(\d+)", "/"
        process = subprocess.Popen(  # noqa: ASYNC220 (only starting it; what follows is waited for elsewhere)
            ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            found = re.search(pattern, process.stdout.readline())
            assert found is not None, f"{name} did not start"
            yield Server(process, int(found[1]), path)
        finally:
            process.send_signal(signal.SIGTERM)
            # In a thread, because what the server still asks EkaScribe is answered on this loop.
            await asyncio.to_thread(process.wait, 60)
        assert name == BY_HAND or process.returncode == 0, f"{name} ended with {process.returncode}"


async def measure(name: str, calls: int, seconds: float, verbose: bool) -> Row:
    """Play calls to a server and return what was seen."""
    harness = Harness(seconds, exact=name != BY_HAND)
    eka_port = await harness.serve()
    async with started(name, eka_port, verbose) as server:
        before = server.cpu()
        await harness.play(server.port, server.path, calls)
        cpu = server.cpu() - before
    latencies = sorted(latency for call in harness.calls.values() for latency in call.latencies)
    done = harness.calls.values()
    sent = sum(call.sent for call in done)
    wanted = len(harness.expected[0]) if name != BY_HAND else None
    return Row(
        name,
        calls,
        sent,
        sum(call.wrong for call in done),
        sum(call.received != wanted for call in done) if wanted else 0,
        1000 * statistics.median(latencies),
        1000 * latencies[len(latencies) * 99 // 100],
        1000 * latencies[-1],
        cpu / seconds,
        1e6 * cpu / sent,
        harness.busy,
    )


def main(
    calls: Sequence[int] = (100, 300, 500), seconds: float = 10.0, as_json: bool = False, verbose: bool = False
) -> None:
    """Measure every server with every number of calls; exit with a message if audio was wrong or missing."""
    os.sched_setaffinity(0, {HARNESS_CORE})
    rows = []
    for number in calls:
        for name in (*MESSAGE_MS, BY_HAND):
            row = asyncio.run(measure(name, number, seconds, verbose))
            rows.append(row)
            if as_json:
                print(json.dumps(row._asdict()))
                continue
            if len(rows) == 1:
                print(HEADING)
            print(
                f"{row.server:10} {row.calls:5} {row.frames:7} {row.wrong:6} {row.missing:10} {row.p50_ms:7.2f} "
                f"{row.p99_ms:7.2f} {row.max_ms:8.2f} {row.cpu:4.0%} {row.us_per_frame:9.1f} {row.harness:7.0%}"
            )
    if any(row.wrong or row.missing for row in rows):
        sys.exit("audio was wrong or missing")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[100, 300, 500])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", dest="as_json", action="store_true")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the servers' logs")
    return parser.parse_args()


if __name__ == "__main__":
    main(**vars(_parse()))
