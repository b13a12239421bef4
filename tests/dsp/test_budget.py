"""Speed as a number that does not depend on the day: instructions per call, by valgrind, against a committed budget.

Counted is what runs in the compiled core, not in Python, and only while callgrind is told to (``counter.c``), so that
starting up does not count. valgrind has no AVX-512: this is the AVX2 level.
``PYTHONPATH=tests python tests/dsp/test_budget.py`` writes the budget anew, which is right after a change that is meant
to cost or to save; compilers differ, so the budget names its.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dsp.budget_driver import WORK

HERE = Path(__file__).parent
BUDGET = HERE / "budget.json"
TOLERANCE = 0.05
CALLS = 400
DRIVERS = ("budget_driver.py", "carry_driver.py")
CARRY = "carry_frame"
"""What the second does: a frame on its whole way."""


def compiler() -> str:
    """Name the compiler that builds here."""
    version = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()
    return f"gcc {version.split('.')[0]} {platform.machine()}"


def counted(driver: str) -> dict[str, int]:
    """Count the instructions inside what is compiled of mediaflow for one call of each thing that a driver does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter, out = folder / "counter.so", folder / "count"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", counter, HERE / "counter.c"], check=True)
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--compress-strings=no"]
        command += [sys.executable, str(HERE / driver), str(counter), str(CALLS)]
        subprocess.run(command, check=True, capture_output=True)
        dumps = [file.read_text() for file in sorted(folder.glob("count.*"), key=lambda file: int(file.suffix[1:]))]
    return {
        said[1]: round(instructions(dump) / CALLS)
        for dump in dumps
        if (said := re.search(r"^desc: Trigger: Client Request: (\w+)$", dump, re.MULTILINE))
    }


def instructions(dump: str) -> int:
    """Add up what a dump of callgrind has for our compiled modules."""
    # Lines are "ob=" for the object that follows, "<line> <cost>" for costs of its own, and after "calls=" one line
    # with the cost of what was called, which is counted where it belongs.
    ours, called, total = False, False, 0
    for line in dump.splitlines():
        if line.startswith("ob="):
            ours = re.search(r"mediaflow/[\w/]+\.cpython-", line) is not None
        elif line.startswith("calls="):
            called = True
        elif cost := re.fullmatch(r"[+*\-\d]+ (\d+)", line):
            total += int(cost[1]) if ours and not called else 0
            called = False
    return total


def all_counted() -> dict[str, int]:
    """Count for both drivers."""
    with ThreadPoolExecutor() as both:
        return {name: count for counts in both.map(counted, DRIVERS) for name, count in counts.items()}


def over_budget(work: str, count: int, budget: int) -> str | None:
    """Say what is wrong, if anything is."""
    if count > budget * (1 + TOLERANCE):
        return f"{work} takes {count} instructions a call, {count / budget - 1:+.1%} of its budget of {budget}"
    return None


@pytest.fixture(scope="module")
def budget(needs: Callable[..., None]) -> dict[str, int]:
    needs("valgrind", "gcc")
    committed = json.loads(BUDGET.read_text())
    if committed["compiler"] != compiler():
        pytest.skip(f"the budget is for {committed['compiler']}, and here is {compiler()}")
    counts: dict[str, int] = committed["instructions"]
    return counts


@pytest.fixture(scope="module")
def counts(budget: dict[str, int]) -> dict[str, int]:
    return all_counted()


@pytest.mark.slow
@pytest.mark.parametrize("work", [*(name for name in WORK if name != "planted"), CARRY])
def test_within_budget(work: str, budget: dict[str, int], counts: dict[str, int]) -> None:
    """No kernel takes over 5 % more instructions than when its budget was written."""
    problem = over_budget(work, counts[work], budget[work])

    assert problem is None, problem


@pytest.mark.slow
def test_a_planted_slow_down_is_noticed(budget: dict[str, int], counts: dict[str, int]) -> None:
    """A call that does its work twice is far over the budget."""
    problem = over_budget("mulaw_decode", counts["planted"], budget["mulaw_decode"])

    assert problem is not None
    assert "of its budget" in problem


if __name__ == "__main__":
    found = all_counted()
    del found["planted"]
    BUDGET.write_text(json.dumps({"compiler": compiler(), "instructions": found}, indent=1) + "\n")
