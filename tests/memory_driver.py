"""Runs a pipeline as ``mediaflow run`` does, and says how much memory it holds whenever a line comes.

    python memory_driver.py PIPELINE       prints the port, and then for each line how many bytes are in use

Counted is what is in use: the blocks of Python's allocator, and those of the C library, which the compiled core asks.
What the two keep for later is not, so the figure does not depend on what happened before.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import tempfile

import anyio
import anyio.lowlevel

from mediaflow import config, plugins, websocket
from mediaflow.runner import Runner

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def in_use() -> int:
    """Return the bytes that are in use."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = MallInfo
    info = libc.mallinfo2()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        sys._debugmallocstats()
        os.dup2(stderr, 2)
        os.close(stderr)
        file.seek(0)
        match = re.search(rb"# bytes in allocated blocks +=\s+([\d,]+)", file.read())
    assert match is not None
    return int(info.uordblks) + int(info.hblkhd) + int(match[1].replace(b",", b""))


async def answer() -> None:
    """Answer every line of standard input; the end of it ends the process."""
    while True:
        await anyio.wait_readable(sys.stdin)
        if not os.read(0, 1):
            os._exit(0)
        print(in_use(), flush=True)


async def main(path: str) -> None:
    """Run until standard input ends."""
    known = plugins.load()
    runner = Runner(config.load(path, known), known)
    gc.freeze()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await runner.up.wait()
        print(runner.url, flush=True)
        tasks.start_soon(answer)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend_options=websocket.LOOP)
