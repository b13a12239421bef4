"""The garbage collector of a process that carries calls.

A full collection looks at everything that is alive, and no audio moves meanwhile: 80 to 230 ms at a thousand calls.
Python has one whenever what was made since the last is a quarter of what there is, so calls that begin bring it about.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, FULL = 700, 10, 100
"""The thresholds of ``gc.set_threshold``; the last one, Python's is 10, brings a full collection for every 2,300 calls
that begin in the place of 230.  Until then what calls that are over leave behind waits: 17 KB each."""


def calm() -> None:
    """Have it look at what is loaded so far no more, and rarely at live calls; to be called before there are any."""
    # What is loaded stays: looking through it, whenever calls begin, was a tenth of the time at 64 calls.
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, FULL)
