"""Look for bytes that the core and the library read differently: ``python fuzz_frames.py [FOLDER] [-runs=…]``.

`make fuzz` runs this with atheris, libFuzzer for Python.  What it learns from is the library, which is instrumented,
and reads the same bytes: a path through its parser that was not taken before is one through ours too.  What it found
worth keeping is in the folder, and goes on from there the next time.

    byte 0       bit 0: we are the server; the rest: into how many pieces the bytes are cut
    the rest     what the peer sends
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["websockets"]):
    import websockets.frames
    import websockets.protocol  # noqa: F401

from wire.test_frames import compare


def one(data: bytes) -> None:
    """Read one input both ways."""
    if data:
        sent, pieces = data[1:], 1 + (data[0] >> 1)
        step = max(1, -(-len(sent) // pieces))
        compare([sent[i : i + step] for i in range(0, len(sent), step)], bool(data[0] & 1))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
