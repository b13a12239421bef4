"""The ledger on disk: what is written is read, by others and after a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mediaflow.delivery.ledger import Ledger, read

pytestmark = pytest.mark.anyio


def account(call: str, status: str = "complete", started: float = 1.0) -> dict[str, object]:
    """Return the least that the ledger wants to know."""
    return {"call": call, "started": started, "status": status}


async def test_accounts_are_read_in_order_and_by_call(tmp_path: Path) -> None:
    """Every call is found, oldest first, and one by its id; a later state replaces an earlier one."""
    ledger = Ledger(tmp_path)
    await ledger.write("p", [account("b", started=2.0), account("a", "live", started=1.0)])
    await ledger.write("p", [account("a", "failed", started=1.0)])
    assert [(each["call"], each["status"]) for each in read(tmp_path)] == [("a", "failed"), ("b", "complete")]
    assert [each["pipeline"] for each in read(tmp_path, "b")] == ["p"]
    assert read(tmp_path, "c") == []
    ledger.close()


async def test_two_pipelines_share_a_folder(tmp_path: Path) -> None:
    """Two open ledgers of one folder write beside each other; the same call id in both stays two calls."""
    one, two = Ledger(tmp_path), Ledger(tmp_path)
    await one.write("one", [account("a")])
    await two.write("two", [account("a")])
    assert sorted(each["pipeline"] for each in read(tmp_path)) == ["one", "two"]
    one.close()
    two.close()


def test_no_ledger_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Reading where nothing was written says which file is not there, and makes none."""
    with pytest.raises(FileNotFoundError, match=r"ledger\.db"):
        read(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_leaves_interrupted_calls(tmp_path: Path) -> None:
    """A call whose process was killed reads as interrupted, with the last that was known."""
    program = (
        "import anyio, os, signal, sys\n"
        "from mediaflow.delivery.ledger import Ledger\n"
        "async def main():\n"
        "    await Ledger(sys.argv[1]).write('p', [{'call': 'a', 'started': 1.0, 'status': 'live', 'seen': 640}])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(main)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    (found,) = read(tmp_path)
    assert (found["status"], found["seen"]) == ("interrupted", 640)
