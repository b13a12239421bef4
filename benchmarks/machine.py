"""On what something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor() -> str:
    """Name the processor and its widest level."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    level = "x86-64-v4" if "avx512bw" in flags else "x86-64-v3" if "avx2" in flags else "baseline"
    return f"{model}, {os.cpu_count()} processors, {level}"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Name what is installed of ``packages``, and the Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def program(*command: str) -> str:
    """Return the first line that a program says of its version; nothing if it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""
