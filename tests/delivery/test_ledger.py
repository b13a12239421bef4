"""The ledger on disk: what is written is read, by others and after a crash."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediaflow.delivery.ledger import Ledger, read, text

pytestmark = pytest.mark.anyio


def account(call: str, status: str = "complete", started: float = 1.0) -> dict[str, object]:
    """Return the least that the ledger wants to know."""
    return {"call": call, "started": started, "status": status}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of a pipeline that runs."""
    ledger = Ledger(tmp_path, "p")
    yield ledger
    ledger.close()


def texts(*accounts: dict[str, object]) -> list[bytes]:
    """Return accounts as a snapshot takes them."""
    return [text(each) for each in accounts]


def states(folder: Path) -> list[tuple[object, object]]:
    """Return what is read, in order."""
    return [(each["call"], each["status"]) for each in read(folder)]


async def test_accounts_are_read_in_order_and_by_call(tmp_path: Path, ledger: Ledger) -> None:
    """Every call is found, oldest first, and one by its id; a later state replaces an earlier one."""
    await ledger.write([account("b", started=2.0), account("a", "complete", started=1.0)])
    await ledger.write([account("a", "failed", started=1.0)])
    await ledger.snapshot(1, texts(account("d", "live", started=4.0), account("c", "ending", started=3.0)), 0)
    assert states(tmp_path) == [("a", "failed"), ("b", "complete"), ("c", "ending"), ("d", "live")]
    assert [each["pipeline"] for each in read(tmp_path, "b") + read(tmp_path, "c")] == ["p", "p"]
    assert read(tmp_path, "e") == []


async def test_the_newest_snapshot_of_a_call_counts(tmp_path: Path, ledger: Ledger) -> None:
    """Those of rounds that are superseded are dropped, and calls that are in no later one with them."""
    await ledger.snapshot(1, texts(account("a", "live", 1.0), account("b", "live", 2.0)), 0)
    await ledger.snapshot(1, texts(account("c", "live", 3.0)), 0)
    assert states(tmp_path) == [("a", "live"), ("b", "live"), ("c", "live")]
    await ledger.snapshot(2, texts(account("b", "ending", 2.0)), 0)
    assert states(tmp_path) == [("a", "live"), ("b", "ending"), ("c", "live")]
    await ledger.snapshot(3, texts(account("c", "ending", 3.0)), 1)
    assert states(tmp_path) == [("b", "ending"), ("c", "ending")]
    await ledger.snapshot(4, [], 4)
    assert read(tmp_path) == []


async def test_a_call_that_is_over_is_so_whatever_a_snapshot_says(tmp_path: Path, ledger: Ledger) -> None:
    """A snapshot that was drawn up before may be written after it."""
    await ledger.snapshot(1, texts(account("a", "live")), 0)
    await ledger.write([account("a")])
    await ledger.snapshot(2, texts(account("a", "live")), 0)
    assert states(tmp_path) == [("a", "complete")]


async def test_a_call_that_begins_anew_is_two(tmp_path: Path, ledger: Ledger) -> None:
    """The same id at another time is another call."""
    await ledger.write([account("a", "failed", 1.0)])
    await ledger.snapshot(1, texts(account("a", "live", 2.0)), 0)
    assert states(tmp_path) == [("a", "failed"), ("a", "live")]


async def test_two_runs_share_a_folder(tmp_path: Path, ledger: Ledger) -> None:
    """Two open ledgers of one folder write beside each other, whatever their pipelines; none replaces the other's."""
    others = [Ledger(tmp_path, "q"), Ledger(tmp_path, "p")]
    for started, each in enumerate([ledger, *others]):
        await each.write([account("a", started=started)])
        await each.snapshot(1, texts(account("b", "live", started)), 0)
    await ledger.snapshot(2, [], 2)
    found = sorted((each["call"], each["pipeline"], each["started"]) for each in read(tmp_path))
    assert found == [("a", "p", 0.0), ("a", "p", 2.0), ("a", "q", 1.0), ("b", "p", 2.0), ("b", "q", 1.0)]
    for each in others:
        each.close()


def test_no_ledger_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Reading where nothing was written says which file is not there, and makes none."""
    with pytest.raises(FileNotFoundError, match=r"ledger\.db"):
        read(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_leaves_interrupted_calls(tmp_path: Path) -> None:
    """A call whose process was killed reads as interrupted, with the last that was known, and its reply as well."""
    program = (
        "import anyio, os, signal, sys\n"
        "from mediaflow.delivery.ledger import Ledger, text\n"
        "a = {'call': 'a', 'started': 1.0, 'status': 'live', 'seen': 640, 'reply': {'status': 'live'}}\n"
        "b = {'call': 'b', 'started': 2.0, 'status': 'ending', 'seen': 320, 'reply': {'status': 'complete'}}\n"
        "async def main():\n"
        "    await Ledger(sys.argv[1], 'p').snapshot(1, [text(a), text(b)], 0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(main)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    found = [(each["status"], each["reply"]["status"], each["seen"]) for each in read(tmp_path)]
    assert found == [("interrupted", "interrupted", 640), ("interrupted", "complete", 320)]


async def test_a_snapshot_that_was_left_behind_is_interrupted(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever process has the number now: in a container, the next one has that of the one before."""
    await ledger.snapshot(1, texts(account("a", "live")), 0)
    assert states(tmp_path) == [("a", "live")]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31)
    assert states(tmp_path) == [("a", "interrupted")]
    await ledger.snapshot(1, texts(account("a", "live")), 0)
    assert states(tmp_path) == [("a", "live")]
