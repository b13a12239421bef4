"""Run every ``bench_*.py`` of this folder: ``python -m benchmarks [name ...] [--json]``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

names = [name for name in sys.argv[1:] if not name.startswith("-")]
for path in sorted(Path(__file__).parent.glob("bench_*.py")):
    if not names or path.stem.removeprefix("bench_") in names:
        import_module(f"benchmarks.{path.stem}").main(as_json="--json" in sys.argv)
