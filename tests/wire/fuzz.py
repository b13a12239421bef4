"""Look for bytes that the compiled readers misread: ``python fuzz.py TARGET [FOLDER …] [-runs=…]``.

`make fuzz` runs this with atheris, which is libFuzzer for Python.  It learns from the branches that the compiled
readers take and from what they compare (``coverage.c``), and from those of the Python readers that they are held
against.  The compiled ones have the sanitizers in them, so what they read or write out of place ends the run as well.

The targets are in ``test_fuzz.py``.  What took a new branch goes into the first folder.
"""

from __future__ import annotations

import os
import random
import sys

import atheris

with atheris.instrument_imports(include=["websockets", "mediaflow.envelope", "mediaflow.dialects"]):
    import websockets.protocol  # noqa: F401

    import mediaflow.envelope  # noqa: F401

from wire.test_fuzz import TARGETS

if __name__ == "__main__":
    program, name, *options = sys.argv
    os.urandom = random.Random(0).randbytes  # where masks come from: the same run with the same -seed
    atheris.Setup([program, *options], TARGETS[name])
    atheris.Fuzz()
