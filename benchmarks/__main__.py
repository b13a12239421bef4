"""Run every benchmark, one after the other."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if module.name.startswith("bench_"):
        subprocess.run([sys.executable, "-m", f"benchmarks.{module.name}"], check=True)
