"""What reading and writing one WebSocket frame costs, beside the ``websockets`` library's protocol without I/O.

    python -m benchmarks wire [--json]

The frames are those of a call: a masked text frame of 380 bytes in, as the carrier sends 20 ms of µ-law, and a masked
binary frame of 640 bytes out, as EkaScribe gets them.  Rounds alternate, so that what else the machine does meets both,
and the median counts.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from websockets.protocol import Protocol, Side

from mediaflow._wire.frames import Decoder, encode

ROUNDS, FRAMES = 200, 200
TEXT = encode(1, b"x" * 380, True)
PCM = bytes(range(256)) * 2 + bytes(128)


def _read_by_us() -> Callable[[], object]:
    decoder = Decoder(True, 1 << 20)

    def read() -> None:
        decoder.feed(TEXT)
        decoder.deliver(bool)

    return read


def _read_by_library() -> Callable[[], object]:
    protocol = Protocol(Side.SERVER)

    def read() -> None:
        protocol.receive_data(TEXT)
        protocol.data_to_send()
        protocol.events_received()

    return read


def _write_by_library() -> Callable[[], object]:
    protocol = Protocol(Side.CLIENT)

    def write() -> None:
        protocol.send_binary(PCM)
        protocol.data_to_send()

    return write


WORK: dict[str, dict[str, Callable[[], object]]] = {
    "read": {"mediaflow": _read_by_us(), "websockets": _read_by_library()},
    "write": {"mediaflow": lambda: encode(2, PCM, True), "websockets": _write_by_library()},
}


def measure() -> dict[str, dict[str, float]]:
    """Return the median nanoseconds per frame, by work and library."""
    times: dict[str, dict[str, list[float]]] = {work: {name: [] for name in by} for work, by in WORK.items()}
    for _ in range(ROUNDS):
        for work, by in WORK.items():
            for name, call in by.items():
                start = time.perf_counter_ns()
                for _ in range(FRAMES):
                    call()
                times[work][name].append((time.perf_counter_ns() - start) / FRAMES)
    return {work: {name: statistics.median(took) for name, took in by.items()} for work, by in times.items()}


def main(as_json: bool = False) -> None:
    """Print the table, or the same as JSON."""
    found = measure()
    if as_json:
        print(json.dumps(found))
        return
    print("one frame   mediaflow ns  websockets ns  ratio")
    for work, by in found.items():
        print(
            f"{work:10}  {by['mediaflow']:12.0f}  {by['websockets']:13.0f}  {by['mediaflow'] / by['websockets']:5.3f}"
        )
