"""``mediaflow run`` carries audio to its end, or as far as it is let, and accounts for every sample."""

from __future__ import annotations

import signal
import wave
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Running, run, running
from pipeline_kit import RATE, make_audio

from mediaflow.delivery import ledger

GROWING = '''
"""A sink that comes to hold as much as six hundred calls, and says how often the collector looked at all there is."""

import gc
from contextlib import asynccontextmanager

from mediaflow import Sink, Writer, hookimpl


class Growing(Sink, frozen=True):
    """Hold much."""

    @asynccontextmanager
    async def open(self, stream, format, tracks):
        before, held = gc.get_stats()[2]["collections"], []
        for _ in range(120_000):
            held.append([])
        print("full collections:", gc.get_stats()[2]["collections"] - before, flush=True)
        yield _Writer()


class _Writer(Writer):
    delivered = 0

    def write_nowait(self, item):
        return True

    async def write(self, item): ...


@hookimpl
def register_components(register):
    register("growing", Growing)
'''

STUCK = '''
"""A sink that takes everything and never finishes."""

from contextlib import asynccontextmanager

import anyio

from mediaflow import Sink, Writer, hookimpl


class Stuck(Sink, frozen=True):
    """Take everything and never finish."""

    @asynccontextmanager
    async def open(self, stream, format, tracks):
        yield _Writer()
        print("the sink was asked to finish", flush=True)
        await anyio.sleep_forever()


class _Writer(Writer):
    delivered = 0

    def write_nowait(self, item):
        return True

    async def write(self, item): ...


@hookimpl
def register_components(register):
    register("stuck", Stuck)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with audio, an hour of it too, and two sinks."""
    make_audio(tmp_path)
    with (tmp_path / "hour.raw").open("wb") as file:
        file.truncate(3600 * RATE * 2)
    for name, text in {"stuck": STUCK, "growing": GROWING}.items():
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mediaflow]\n{name} = {name}\n")
    return tmp_path


def write(folder: Path, source: str, sink: str = "use: disk, path: 'out/{call_id}.wav'", more: str = "") -> None:
    (folder / "p.yaml").write_text(f"source: {{{source}}}\nsinks: [{{{sink}}}]\nstate: state\n{more}")


def samples(path: Path) -> int:
    with wave.open(str(path)) as file:
        return int(file.getnframes())


def account(folder: Path) -> dict[str, Any]:
    (only,) = ledger.read(folder / "state")
    return only


def test_a_file_to_disk(folder: Path) -> None:
    """Every sample arrives, the ledger says so at the end, and the exit code is 0."""
    write(folder, "use: file, path: stereo.wav", more="transforms: [{use: stereo}]\n")
    done = run(folder, "run", "p.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "out" / "stereo.wav").read_bytes()[-RATE * 2 :] == bytes(RATE * 2)
    assert samples(folder / "out" / "stereo.wav") == RATE // 2
    assert "ledger, in samples" in done.stdout and "4,000" in done.stdout
    assert "stereo sinks[0] disk file: out/stereo.wav  0.50 s" in done.stdout
    figures = account(folder)
    assert figures["status"] == "complete"
    assert {track: each["received"] for track, each in figures["tracks"].items()} == {"inbound": 4000, "outbound": 4000}
    assert (figures["sinks"][0]["received"], figures["sinks"][0]["delivered"]) == (4000, 4000)


def test_speed(folder: Path) -> None:
    """The pace that is given outdoes the one in the file."""
    write(folder, "use: file, path: hour.raw, sample_rate: 8000, speed: 0.001")
    assert run(folder, "run", "p.yaml", "--speed", "max").returncode == 0
    assert samples(folder / "out" / "hour.wav") == 3600 * RATE


def test_calls_that_begin_bring_no_full_collection(folder: Path) -> None:
    """For it looks at all calls that are live, and no audio moves meanwhile."""
    write(folder, "use: file, path: stereo.wav", "use: growing", "transforms: [{use: mix}]\n")
    done = run(folder, "run", "p.yaml", PYTHONPATH=str(folder))
    assert "full collections: 0\n" in done.stdout, done


def stopped_midway(folder: Path, process: Running, signal: signal.Signals) -> None:
    """Wait until a second of audio was carried, send the signal, and see that the call is complete."""
    process.wait_for("s live; ")
    process.process.send_signal(signal)
    assert process.end() == 0, process.output
    assert "Traceback" not in process.output
    figures = account(folder)
    (sink,) = figures["sinks"]
    assert figures["status"] == "complete"
    assert 0 < sink["received"] == sink["delivered"] < 3600 * RATE
    assert sink["dropped"] == sink["concealed"] == {} and sink["spooled"] == 0
    assert samples(folder / "out" / "hour.wav") == sink["delivered"] == figures["tracks"]["inbound"]["received"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_midway(folder: Path, number: signal.Signals) -> None:
    """What was taken until then flows through; it is all on disk, and it ends well."""
    write(folder, "use: file, path: hour.raw, sample_rate: 8000, speed: 1")
    with running(folder, "run", "p.yaml") as process:
        stopped_midway(folder, process, number)


def test_a_signal_while_a_server_waits(folder: Path) -> None:
    """A server without a call ends at once, and well."""
    write(folder, "use: vobiz, listen: 'ws://127.0.0.1:0/vobiz'", "use: disk, path: 'out/{call_id}-{track}.wav'")
    with running(folder, "run", "p.yaml") as process:
        line = process.wait_for("p listens at ws://127.0.0.1:")
        assert not line.rstrip().endswith(":0/vobiz")
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0
    assert ledger.read(folder / "state") == []


def test_a_second_signal_cuts_off(folder: Path) -> None:
    """A sink that never finishes is waited for; the second time it is not, and what it had is booked as lost."""
    write(folder, "use: file, path: hour.raw, sample_rate: 8000, speed: 1", "use: stuck", "drain_s: 3600\n")
    with running(folder, "run", "p.yaml", PYTHONPATH=str(folder)) as process:
        process.wait_for("s live; ")
        process.process.send_signal(signal.SIGINT)
        process.wait_for("the sink was asked to finish")
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 1, process.output
        assert "Traceback" not in process.output
    figures = account(folder)
    (sink,) = figures["sinks"]
    assert figures["status"] == "failed"
    assert sink["failure"]["code"] == "deadline"
    assert sink["dropped"] == {"deadline": sink["received"]} and sink["received"] > 0


def test_the_deadline_cuts_off(folder: Path) -> None:
    """After ``drain_s`` a stop does not wait any longer, without a second signal."""
    write(folder, "use: file, path: hour.raw, sample_rate: 8000, speed: 1", "use: stuck", "drain_s: 0.05\n")
    with running(folder, "run", "p.yaml", PYTHONPATH=str(folder)) as process:
        process.wait_for("s live; ")
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 1, process.output
    (sink,) = account(folder)["sinks"]
    assert sink["dropped"] == {"deadline": sink["received"]} and sink["received"] > 0


def test_a_call_that_fails(folder: Path) -> None:
    """When a sink fails the reason is shown and booked, and the exit code is 1."""
    (folder / "out").write_text("in the way")
    write(folder, "use: file, path: call.wav")
    done = run(folder, "run", "p.yaml")
    assert done.returncode == 1
    assert "disk-error: cannot write out/{call_id}.wav" in done.stdout
    assert "Traceback" not in done.stderr
    figures = account(folder)
    assert figures["status"] == "failed"
    assert figures["sinks"][0]["dropped"] == {"disk-error": 4000}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.yaml",), "missing.yaml:1:1: unreadable: cannot be read: No such file or directory"),
        ((".",), "is a directory"),
        (("p.yaml", "--speed", "0"), "'0' is neither a positive number nor max"),
        (("p.yaml", "--speed", "fast"), "'fast' is neither a positive number nor max"),
        (("p.yaml", "--speed", "inf"), "'inf' is neither a positive number nor max"),
        (("p.yaml", "--speed", "nan"), "'nan' is neither a positive number nor max"),
        (("server.yaml", "--speed", "2"), "--speed is for a source that plays, and vobiz does not"),
        (("wrong.yaml",), "wrong.yaml:2:15: unknown-component: there is no sink 'disc' (did you mean disk?)"),
        (
            ("misfit.yaml",),
            "misfit.yaml:2:9: format: sinks[0] disk: 2 tracks (inbound, outbound) do not fit in one file",
        ),
        (("p.yaml", "--lab"), "p.yaml:1:9: lab: source file: nothing here for the lab to stand in for"),
    ],
)
def test_what_cannot_be_run(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """A wrong file and wrong usage end with 2 before anything is opened or written."""
    write(folder, "use: file, path: call.wav")
    (folder / "server.yaml").write_text("source: {use: vobiz}\nsinks: [{use: disk, path: '{track}.wav'}]\n")
    (folder / "wrong.yaml").write_text("source: {use: file, path: call.wav}\nsinks: [{use: disc}]\n")
    (folder / "misfit.yaml").write_text("source: {use: file, path: stereo.wav}\nsinks: [{use: disk}]\n")
    done = run(folder, "run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert not (folder / "state").exists() and not (folder / "out").exists()


@pytest.mark.parametrize("state", ["p.yaml", "call.wav/state"])
def test_a_state_folder_that_cannot_be(folder: Path, state: str) -> None:
    """A ledger that cannot be opened is an error in one line."""
    write(folder, "use: file, path: call.wav")
    (folder / "p.yaml").write_text((folder / "p.yaml").read_text().replace("state: state", f"state: {state}"))
    done = run(folder, "run", "p.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("mediaflow: ") and done.stderr.count("\n") == 1


def test_a_ledger_that_is_none(folder: Path) -> None:
    """A file in the ledger's place that is no ledger is left alone, and told."""
    write(folder, "use: file, path: call.wav")
    (folder / "state").mkdir()
    (folder / "state" / ledger.FILE).write_text("this is a note, not a ledger; it is as long as a header has to be" * 9)
    done = run(folder, "run", "p.yaml")
    assert (done.returncode, done.stderr) == (1, "mediaflow: file is not a database\n")


def test_an_address_that_is_taken(folder: Path) -> None:
    """A server that cannot listen says where and why, in one line."""
    write(folder, "use: vobiz, listen: 'ws://127.0.0.1:0/vobiz'", "use: disk, path: 'out/{call_id}-{track}.wav'")
    with running(folder, "run", "p.yaml") as process:
        url = process.wait_for("p listens at ").split()[-1]
        write(folder, f"use: vobiz, listen: '{url}'", "use: disk, path: 'out/{call_id}-{track}.wav'")
        done = run(folder, "run", "p.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("mediaflow: cannot listen at 127.0.0.1:") and done.stderr.count("\n") == 1
