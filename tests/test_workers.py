"""Several processes serve one pipeline: each call belongs to one, and a death costs its calls alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskStatus
from cli_kit import run
from kill_storm import storm
from pipeline_kit import make_audio
from workers_kit import FRAME_BYTES, Call, Crew, audio, crew, secure, stored, write

from mediaflow.delivery import ledger

PUBLIC, TOKEN = "https://calls.example.org", "auth-token"
CONTROL = f"  control: http://127.0.0.1:0\n  public_url: {PUBLIC}\n  auth_token: {TOKEN}\n"

DIES = '''
"""While there is a file `die`, a worker ends as soon as it takes calls, before anybody knows; then it is as others."""

import os
import pathlib

import mediaflow


@mediaflow.hookimpl
def source_listening(pipeline, url):
    if pathlib.Path("die").exists():
        os._exit(3)
'''

SLOW = '''
"""A sink that has finished when there is a file `finish`."""

import pathlib
from contextlib import asynccontextmanager

import anyio

from mediaflow import AudioFrame, Sink, Writer, hookimpl


class Slow(Sink, frozen=True):
    """Take everything, and finish when told to."""

    @asynccontextmanager
    async def open(self, stream, format, tracks):
        writer = _Writer()
        yield writer
        print("the sink was asked to finish", flush=True)
        while not pathlib.Path("finish").exists():
            await anyio.sleep(0.01)
        writer.delivered = writer.taken


class _Writer(Writer):
    delivered = taken = 0

    def write_nowait(self, item):
        self.taken += item.sample_count if isinstance(item, AudioFrame) else 0
        return True

    async def write(self, item): ...


@hookimpl
def register_components(register):
    register("slow", Slow)
'''

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """A worker is `mediaflow run`, which runs on asyncio; what stands between workers is tested on both backends."""
    return "asyncio"


def plugin(folder: Path, name: str, text: str) -> str:
    """Install a plugin, and return the PYTHONPATH that finds it."""
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mediaflow]\n{name} = {name}\n")
    return str(folder)


async def get(url: str) -> dict[str, object]:
    """Ask for JSON, over a connection of its own."""

    def ask() -> dict[str, object]:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return dict(json.loads(reply.read()))

    return await anyio.to_thread.run_sync(ask)


def sign(path: str, nonce: str) -> dict[str, str]:
    """Return the headers by which Vobiz signs a request."""
    signature = hmac.new(TOKEN.encode(), f"{PUBLIC}{path}.{nonce}".encode(), hashlib.sha256).digest()
    return {"X-Vobiz-Signature-V3": base64.b64encode(signature).decode(), "X-Vobiz-Signature-V3-Nonce": nonce}


async def tell(team: Crew, nonce: str, path: str = "/status", **fields: str) -> int:
    """Send a signed callback and return the status of its answer."""

    def ask() -> int:
        headers = sign(path, nonce) | {"Connection": "close"}
        request = urllib.request.Request(f"{team.control}{path}", urlencode(fields).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await anyio.to_thread.run_sync(ask)


async def carry(team: Crew, call: Call, frames: int, hold: anyio.Event | None = None) -> None:
    """Make a call: half of its audio, a wait, the rest."""
    async with call.connected() as ws:
        await call.speak(ws, frames // 2)
        if hold is not None:
            await hold.wait()
        await call.speak(ws, frames - frames // 2)
        await call.stop(ws)


async def test_calls_spread_and_arrive(tmp_path: Path) -> None:
    """Of forty calls at once every worker has some, and each arrives whole; the supervisor shows them all."""
    write(tmp_path)
    with crew(tmp_path) as team:
        calls = [Call(team.url, seed) for seed in range(40)]
        go_on = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(carry, team, call, 20, go_on)
            await team.began(*(call.name for call in calls))
            health = urlsplit(team.url)._replace(scheme="http", path="/healthz").geturl()
            await _all_say(health, 40)
            go_on.set()
        assert all(list(team.calls.values()).count(place) >= 10 for place in (1, 2))
        assert team.stop() == 0, team.running.output
    assert [stored(tmp_path, call.name) for call in calls] == [audio(seed, 20) for seed in range(40)]
    accounts = ledger.read(tmp_path / "state")
    assert {each["status"] for each in accounts} == {"complete"} and len(accounts) == 40
    assert "ledger, in samples" in team.running.output


async def _says(team: Crew, place: int, url: str, calls: int) -> None:
    """Ask one worker, alone, until it has heard of all calls; then all of them, so that the others can tell theirs."""
    with anyio.fail_after(10):
        while True:
            with team.only(place):
                if (await get(url))["calls"] == calls:
                    return
            await get(url)


async def _all_say(url: str, calls: int) -> None:
    """Wait until whoever answers has heard of all calls: what the others have is news, which takes a moment."""
    with anyio.fail_after(10):
        while {(await get(url))["calls"] for _ in range(8)} != {calls}:
            pass


async def test_a_death_costs_the_calls_of_one(tmp_path: Path) -> None:
    """The others arrive whole, nobody is refused, and a new worker takes calls at the same port."""
    write(tmp_path)
    with crew(tmp_path) as team:
        calls = [Call(team.url, seed) for seed in range(6)]
        die, ended = anyio.Event(), anyio.Event()
        broken: list[str] = []

        async def carry_on(call: Call) -> None:
            async with call.connected() as ws:
                await call.speak(ws, 50)
                await die.wait()
                if team.calls[call.name] == 1:
                    assert (await ws.wait_closed()).code == 1006
                    broken.append(call.name)
                    return
                await call.speak(ws, 50)
                await ended.wait()
                await call.speak(ws, 50)
                await call.stop(ws)

        async with anyio.create_task_group() as tasks:
            for place in (1, 2):
                with team.only(place):
                    for call in calls[place - 1 :: 2]:
                        tasks.start_soon(carry_on, call)
                    await team.began(*(call.name for call in calls[place - 1 :: 2]))
            while len(await anyio.to_thread.run_sync(ledger.read, tmp_path / "state")) < len(calls):
                pass  # until the ledger knows of all of them
            dead = team.pids[1]
            os.kill(dead, signal.SIGKILL)
            die.set()
            # The carrier comes back with what was cut off, at once: whoever is there takes it.
            again = [Call(team.url, 100 + call.seed, call.name) for call in calls[::2]]
            for call in again:
                tasks.start_soon(carry, team, call, 20)
            line = await team.said("worker 1 was ended by SIGKILL")
            assert "another takes its place" in line
            number = 200
            while team.calls.get(f"call-{number}") != 1:  # new calls, one after the other, until the new worker has one
                number += 1
                new = Call(team.url, number % 256, f"call-{number}")
                await carry(team, new, 2)
                await team.began(new.name)
            assert team.pids[1] != dead
            ended.set()
        assert team.stop() == 1, team.running.output  # calls were lost
    assert sorted(broken) == [call.name for call in calls[::2]]
    for call in calls[1::2]:
        assert stored(tmp_path, call.name) == audio(call.seed, 150)
    for call in again:
        files = [file.stem for file in (tmp_path / "out").glob(f"{call.name}*")]  # the first time may have had one too
        assert audio(call.seed, 20) in [stored(tmp_path, file) for file in files]
    accounts = [each for each in ledger.read(tmp_path / "state") if each["call"] in broken]
    assert sorted(each["status"] for each in accounts) == ["complete"] * 3 + ["interrupted"] * 3


async def test_a_storm(tmp_path: Path) -> None:
    """Death upon death, while calls are made without end (`make storm` has more of it)."""
    await storm(tmp_path, kills=2, workers=2, carriers=6)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_call_that_comes_back_to_another_worker(tmp_path: Path, scheme: str) -> None:
    """It goes on where it was: its audio is one file, whole, whichever worker takes the socket."""
    options, trust = secure(tmp_path)
    write(tmp_path, options if scheme == "wss" else "", scheme=scheme)
    with crew(tmp_path) as team:
        call = Call(team.url, 7, tls=trust if scheme == "wss" else None)
        with team.only(1):
            async with call.connected() as ws:
                await call.speak(ws, 30)
                await ws.ping()
                await team.began(call.name)
                await ws.abort()
                await team.said("socket closed with code")
        for place in (2, 1, 2):
            with team.only(place):
                connected = call.connected()
                ws = await connected.__aenter__()
            await call.speak(ws, 300)
            await ws.ping()
            if place == 2:
                await team.said("another worker has it")
            if len(call.sent) < 930 * FRAME_BYTES:
                await ws.abort()
                # The worker that has the call says so behind all audio, which the newest socket would cut off: a pong
                # tells only that the worker that took the socket has it, and that is stopped next.
                await team.said("socket closed with code")
            else:
                await call.stop(ws)
            await connected.__aexit__(None, None, None)
        assert team.stop() == 0, team.running.output
    assert call.sent == audio(7, 930)
    assert stored(tmp_path, call.name) == call.sent
    (account,) = ledger.read(tmp_path / "state")
    assert account["status"] == "complete"
    assert "p counted passed-on: 2" in team.running.output and "p counted reconnected: 3" in team.running.output


async def test_what_the_carrier_tells_reaches_the_worker_that_has_the_call(tmp_path: Path) -> None:
    """Before the call, during it, and its end; and whoever is asked says the same."""
    write(tmp_path, CONTROL)
    told = {"CallUUID": "call-1", "StreamID": "call-1-stream-1"}
    with crew(tmp_path) as team:
        call = Call(team.url, 1)
        with team.only(2):
            assert await tell(team, "1", Event="Ring", **told) == 200
        with team.only(1):
            connected = call.connected()
            ws = await connected.__aenter__()
            await call.speak(ws, 10)
            await team.began(call.name)
        with team.only(2):
            assert await tell(team, "2", Event="DegradedStream", **told) == 200
            assert await tell(team, "3", "/hangup", HangupCauseName="Normal Hangup", **told) == 200
        assert (await ws.wait_closed()).code == 1000
        await connected.__aexit__(None, None, None)
        await team.said(f"call {call.name}: ended")
        with team.only(1):  # late news; and when it has answered, it has let go of the call
            assert await tell(team, "4", Event="StopStream", **told) == 200
        with team.only(2):
            async with call.connected() as ws:
                assert (await ws.wait_closed()).code == 1000
        who = set()
        for place in (1, 2):
            with team.only(place):
                who.add(str((await get(f"{team.control}/healthz"))["instance"]))
                assert (await get(f"{team.control}/readyz")) == {"status": "ready"}
        assert len(who) == 1
        assert team.stop() == 0, team.running.output
    (account,) = ledger.read(tmp_path / "state")
    assert [each["event"] for each in account["events"]] == ["Ring", "DegradedStream", "Hangup", "StopStream"]
    assert stored(tmp_path, call.name) == audio(1, 10)
    assert "p counted degraded-stream: 1" in team.running.output
    assert "p counted start-after-hangup: 1" in team.running.output


async def test_a_copy_of_a_request_is_refused_by_the_other_worker(tmp_path: Path) -> None:
    """The nonce was spent at the first."""
    write(tmp_path, CONTROL)
    with crew(tmp_path) as team:
        with team.only(1):
            assert await tell(team, "77", Event="Ring", CallUUID="c") == 200
        with team.only(2):
            assert await tell(team, "77", Event="Ring", CallUUID="c") == 403
            assert await tell(team, "78", Event="Ring", CallUUID="c") == 200
        with team.only(1):
            assert await tell(team, "78", Event="Ring", CallUUID="c") == 403
        assert team.stop() == 0, team.running.output
    assert "p counted replayed-nonce: 2" in team.running.output


async def test_the_calls_of_all_are_counted_by_each(tmp_path: Path) -> None:
    """Also when one of the workers is gone."""
    write(tmp_path)
    with crew(tmp_path) as team:
        health = urlsplit(team.url)._replace(scheme="http", path="/healthz").geturl()
        async with Call(team.url, 1).connected(), anyio.create_task_group() as tasks:
            await team.began("call-1")
            mine = team.calls["call-1"]
            other = 3 - mine
            with team.only(other):
                tasks.start_soon(_hold, Call(team.url, 2))
                await team.began("call-2")
                assert team.calls["call-2"] == other
            for place in (1, 2):
                await _says(team, place, health, 2)
            os.kill(team.pids[mine], signal.SIGKILL)
            await team.said("another takes its place")
            await team.said(f"worker {mine} is process")
            await _says(team, other, health, 1)
            tasks.cancel_scope.cancel()


async def _hold(call: Call) -> None:
    async with call.connected():
        await anyio.sleep_forever()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_lets_all_calls_finish(tmp_path: Path, number: signal.Signals) -> None:
    """What was taken until then is stored, at every worker; the port is free, and it ends well."""
    write(tmp_path)
    with crew(tmp_path) as team:
        calls = [Call(team.url, seed) for seed in (1, 2)]
        async with anyio.create_task_group() as tasks:
            for place, call in enumerate(calls, 1):
                with team.only(place):
                    await tasks.start(_until_closed, call)
            team.running.process.send_signal(number)
        assert await anyio.to_thread.run_sync(team.running.end) == 0, team.running.output
        port = urlsplit(team.url).port
        with socket.create_server(("127.0.0.1", port or 0)):
            pass
    for call in calls:
        assert stored(tmp_path, call.name) == audio(call.seed, 50)
    assert {each["status"] for each in ledger.read(tmp_path / "state")} == {"complete"}


async def _until_closed(call: Call, *, task_status: TaskStatus[None]) -> None:
    """Speak for a second, which has arrived once this has started."""
    async with call.connected() as ws:
        await call.speak(ws, 50)
        await ws.ping()
        task_status.started()
        assert (await ws.wait_closed()).code == 1001


async def test_a_worker_that_is_sent_away_is_replaced(tmp_path: Path) -> None:
    """SIGTERM to one of them: its calls are stored, and that is no failure."""
    write(tmp_path)
    with crew(tmp_path) as team:
        call = Call(team.url, 5)
        async with anyio.create_task_group() as tasks:
            with team.only(2):
                await tasks.start(_until_closed, call)
            os.kill(team.pids[2], signal.SIGTERM)
            await team.said("worker 2 ended with 0, and another takes its place")
            await team.said("worker 2 is process")
        assert team.stop() == 0, team.running.output
    assert stored(tmp_path, call.name) == audio(5, 50)


async def test_workers_finish_when_the_supervisor_is_gone(tmp_path: Path) -> None:
    """As on SIGTERM: nobody is left behind, and what was taken is stored."""
    write(tmp_path)
    with crew(tmp_path) as team:
        call = Call(team.url, 9)
        async with anyio.create_task_group() as tasks:
            await tasks.start(_until_closed, call)
            team.running.process.kill()
        await anyio.to_thread.run_sync(team.running.end)  # until nobody holds its output any more
    assert stored(tmp_path, call.name) == audio(9, 50)
    assert "Traceback" not in team.running.output


async def test_a_worker_that_dies_at_once(tmp_path: Path) -> None:
    """It is tried again and again, less and less often; the others carry calls meanwhile."""
    write(tmp_path)
    with crew(tmp_path, PYTHONPATH=plugin(tmp_path, "dies", DIES)) as team:
        (tmp_path / "die").touch()
        os.kill(team.pids[2], signal.SIGKILL)
        await team.said("worker 2 was ended by SIGKILL, and another takes its place at once")
        await team.said("worker 2 ended with 3, and another takes its place in 0.5 s")
        await team.said("worker 2 ended with 3, and another takes its place in 1 s")
        call = Call(team.url, 3)
        await carry(team, call, 10)
        (tmp_path / "die").unlink()
        await team.said("worker 2 is process")
        number = 10
        while team.calls.get(f"call-{number}") != 2:
            number += 1
            await carry(team, Call(team.url, number), 2)
            await team.began(f"call-{number}")
        assert team.stop() == 1, team.running.output
    assert stored(tmp_path, call.name) == audio(3, 10)


def test_a_first_worker_that_dies_at_once(tmp_path: Path) -> None:
    """Then nothing runs, and that is said."""
    write(tmp_path)
    (tmp_path / "die").touch()
    done = run(tmp_path, "run", "p.yaml", "--workers", "2", PYTHONPATH=plugin(tmp_path, "dies", DIES))
    assert done.returncode == 3
    assert "the first worker ended with 3 before it took calls: nothing runs" in done.stderr
    assert "worker 2" not in done.stderr


def _wrong(folder: Path) -> None:
    write(folder, sink="{use: disc}")


def _undivided(folder: Path) -> None:
    make_audio(folder)
    (folder / "p.yaml").write_text("source: {use: file, path: call.wav, speed: max}\nsinks: [{use: disk}]\n")


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (_wrong, (), "p.yaml:9:15: unknown-component: there is no sink 'disc' (did you mean disk?)"),
        (_undivided, (), "p.yaml:1:9: workers: source file: what it brings cannot be divided among workers (run it"),
        (write, ("--lab",), "--workers is for calls from outside; --lab and --speed are for one process"),
        (write, ("--speed", "max"), "--workers is for calls from outside; --lab and --speed are for one process"),
    ],
)
def test_what_cannot_be_run(tmp_path: Path, make: Callable[[Path], None], options: tuple[str, ...], said: str) -> None:
    """It ends with 2 before anything is started or written."""
    make(tmp_path)
    done = run(tmp_path, "run", "p.yaml", "--workers", "2", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert "worker 1" not in done.stderr and not (tmp_path / "state").exists()


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    """It is said as with one process: once, in one line besides the log, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(tmp_path)
        file = tmp_path / "p.yaml"
        file.write_text(file.read_text().replace(":0/", f":{taken.getsockname()[1]}/"))
        alone = run(tmp_path, "run", "p.yaml")
        done = run(tmp_path, "run", "p.yaml", "--workers", "2")
    assert done.returncode == alone.returncode == 1
    assert alone.stderr.startswith("mediaflow: cannot listen at 127.0.0.1:")
    assert [line for line in done.stderr.splitlines() if "is process" not in line] == alone.stderr.splitlines()


def test_one_worker(tmp_path: Path) -> None:
    """One is repaired as several are; and Ctrl-C in a terminal, which goes to a group, reaches the supervisor alone."""
    write(tmp_path)
    with crew(tmp_path, 1) as team:
        assert os.getpgid(team.pids[1]) == os.getsid(team.pids[1]) == team.pids[1]
        os.kill(team.pids[1], signal.SIGKILL)
        team.read("worker 1 was ended by SIGKILL")
        team.read("worker 1 is process")
        assert team.stop() == 1, team.running.output


async def test_a_wish_that_is_told_twice_is_one(tmp_path: Path) -> None:
    """A service manager that sends SIGTERM to everybody cuts nothing off; a second wish does."""
    write(tmp_path, sink="{use: slow}", more="drain_s: 3600")
    for code, status in ((0, "complete"), (1, "failed")):
        with crew(tmp_path, PYTHONPATH=plugin(tmp_path, "slow", SLOW)) as team:
            async with anyio.create_task_group() as tasks:
                with team.only(1):
                    await tasks.start(_until_closed, Call(team.url, 1, f"call-{status}"))
                os.kill(team.pids[1], signal.SIGTERM)
                await team.said("the sink was asked to finish")
                team.running.process.send_signal(signal.SIGTERM)
                await team.said("worker 2 is done")  # it has heard the supervisor, and so has the other
            if code:
                team.running.process.send_signal(signal.SIGTERM)
            else:
                (tmp_path / "finish").touch()
            assert await anyio.to_thread.run_sync(team.running.end) == code, team.running.output
        (tmp_path / "finish").unlink(missing_ok=True)
    found = {each["call"]: each["status"] for each in ledger.read(tmp_path / "state")}
    assert found == {"call-complete": "complete", "call-failed": "failed"}
