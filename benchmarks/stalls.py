"""How much of the time a core stands still, for others run on it or the hypervisor is at work.

What a hypervisor takes away is not all told as stolen time. Where it moves a machine's memory about, or watches which
pages are in use, the next touch of a page takes it 100 to 200 µs, and the machine sees nothing of that. A program that
touches much memory feels it most, and most of all what it touches seldom.

Measured at 100 calls on a shared Xeon, of whose time this told 1 % in one hour and 15 % in another, while by the
counters nothing else had run: the C bridge's p99 was 0.10 and then 0.4 ms, mediaflow's 0.12 and then 4.6 ms.
"""

from __future__ import annotations

import subprocess

from .generator import FOLDER, build

SECONDS = 0.5


def share(core: int) -> float:
    """Return for what share of half a second something that touches 20 MB stood still, 50 µs or more at a time."""
    command = ["taskset", "-c", str(core), str(build(FOLDER / "stalls.c")), str(SECONDS)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
