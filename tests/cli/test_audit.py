"""``mediaflow audit`` tells what became of every sample, also of calls that failed or were interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from cli_kit import run, running
from pipeline_kit import RATE, make_audio

from mediaflow.delivery import ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with audio and a pipeline for each fate of a call."""
    make_audio(tmp_path)
    with (tmp_path / "hour.raw").open("wb") as file:
        file.truncate(3600 * RATE * 2)
    (tmp_path / "complete.yaml").write_text("source: {use: file, path: call.wav}\nsinks: [{use: disk}]\n")
    (tmp_path / "failed.yaml").write_text(
        "source: {use: file, path: stereo.wav}\nsinks: [{use: disk, path: 'call.wav/{track}.wav'}]\n"
    )
    (tmp_path / "interrupted.yaml").write_text(
        "source: {use: file, path: hour.raw, sample_rate: 8000, speed: 1}\nsinks: [{use: disk}]\n"
    )
    return tmp_path


def test_a_complete_call(folder: Path) -> None:
    """Its account is shown as a table and as JSON, and the exit code is 0."""
    run(folder, "run", "complete.yaml")
    table = run(folder, "audit")
    assert (table.returncode, table.stderr) == (0, "")
    heading, columns, track, sink = table.stdout.splitlines()
    assert heading.strip() == "ledger, in samples"
    assert columns.split() == [
        "pipeline",
        "call",
        "what",
        "Hz",
        "received",
        "delivered",
        "spooled",
        "dropped",
        "concealed",
        "status",
    ]
    assert track.split() == ["complete", "call", "track", "inbound", "8000", "4,000", "0", "0", "complete"]
    assert sink.split() == ["sinks[0]", "disk", "8000", "4,000", "4,000", "0", "0", "0"]
    (line,) = run(folder, "audit", "--json").stdout.splitlines()
    assert [json.loads(line)] == ledger.read(folder / "mediaflow-data")


def test_a_failed_call(folder: Path) -> None:
    """The reason stands beside the samples that it cost, and the exit code is 1."""
    run(folder, "run", "complete.yaml")
    run(folder, "run", "failed.yaml")
    done = run(folder, "audit")
    assert done.returncode == 1
    assert "8,000 disk-error" in done.stdout
    assert "disk-error: cannot write call.wav/{track}.wav: " in done.stdout
    assert run(folder, "audit", "call").returncode == 0
    assert run(folder, "audit", "stereo").returncode == 1
    assert [json.loads(line)["call"] for line in run(folder, "audit", "--json").stdout.splitlines()] == [
        "call",
        "stereo",
    ]


def test_an_interrupted_call(folder: Path) -> None:
    """A process that was killed leaves what was known a second before; the call is live until then."""
    with running(folder, "run", "interrupted.yaml") as process:
        process.wait_for("s live; ")
        process.wait_for("s live; ")  # the second line comes five seconds later, and the ledger every second
        alive = run(folder, "audit", "--json")
        assert alive.returncode == 0
        assert json.loads(alive.stdout)["status"] == "live"
    done = run(folder, "audit", "--json")
    assert done.returncode == 1
    account = json.loads(done.stdout)
    assert account["status"] == "interrupted"
    assert account["tracks"]["inbound"]["received"] >= RATE
    assert "interrupted" in run(folder, "audit").stdout


def test_a_reply(tmp_path: Path) -> None:
    """What was played into a call is a row of the call; one that failed ends ``audit`` with 1."""
    track = {"received": 800, "concealed": {}, "dropped": {}, "lost": {}}
    sink = {
        "sink": "reply", "sample_rate": 16000, "received": 900, "delivered": 700, "spooled": 0,
        "dropped": {"barge-in": 200}, "concealed": {}, "failure": None, "outcome": {},
    }  # fmt: skip
    replies = [
        {"status": "barge-in", "error": "", "sinks": [sink]},
        {"status": "failed", "error": "notice.wav: No such file or directory", "sinks": []},
    ]

    async def write() -> None:
        book = ledger.Ledger(tmp_path, "p")
        for number, reply in enumerate(replies):
            account = {"call": f"c{number}", "started": number, "status": "complete", "error": "", "sample_rate": 8000}
            await book.write([account | {"tracks": {"inbound": track}, "sinks": [], "reply": reply}])
        book.close()

    anyio.run(write)
    done = run(tmp_path, "audit", "--state", ".")
    first, second = (line.split() for line in done.stdout.splitlines() if "reply" in line)
    assert first == ["reply", "16000", "900", "700", "0", "200", "barge-in", "0", "barge-in"]
    assert second == ["reply", "failed:", "notice.wav:", "No", "such", "file", "or", "directory"]
    assert done.returncode == 1
    assert run(tmp_path, "audit", "c0", "--state", ".").returncode == 0


def test_what_is_not_there(folder: Path) -> None:
    """No ledger, no such call and a file that is no ledger are three different things."""
    none = run(folder, "audit")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr.startswith("there is no ledger at mediaflow-data/ledger.db; --state names the folder")
    run(folder, "run", "complete.yaml")
    typo = run(folder, "audit", "cal")
    assert (typo.returncode, typo.stdout, typo.stderr) == (1, "", "the ledger knows no call 'cal'\n")
    assert run(folder, "audit", "--state", "elsewhere").returncode == 2
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / ledger.FILE).write_text("this is a note, not a ledger; it is as long as a header is" * 9)
    wrong = run(folder, "audit", "--state", "elsewhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "the ledger in elsewhere cannot be read: file is not a database\n"
