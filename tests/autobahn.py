"""Autobahn|Testsuite against our WebSockets: ``python tests/autobahn.py WSTEST``, which `make autobahn` runs.

The suite plays a client and then a server that break every rule of RFC 6455 in turn, and judges what comes back.  Here
it meets both our roles over every line that we have.  Left out are the cases on speed (9) and compression (12, 13).
Judgements other than ``OK`` are printed; one that is not in ``KNOWN`` fails.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import anyio
from event_loops import LOOPS

from mediaflow import httpd
from mediaflow.websocket import Address, Closed, WebSocket, connect, serve

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]

KNOWN = {"INFORMATIONAL", "NON-STRICT"}
"""Judgements that the suite does not count as failures.

INFORMATIONAL: 7.1.6 and 7.13 ask what a peer does where the RFC leaves it open.  NON-STRICT: 3.2 to 3.4, 4.1.3 to 4.2.5
and 5.15 send a message and what breaks the protocol together; the connection is failed before the echo has left.
"""

Role = Callable[[str, Path], Awaitable[None]]


async def echo(websocket: WebSocket) -> None:
    """Send back what comes."""
    try:
        while True:
            await websocket.send(await websocket.recv())
    except Closed:
        pass


async def not_found(request: httpd.Request) -> httpd.Response:
    return httpd.Response(404)


def specification(folder: Path, **rest: object) -> str:
    file = folder / "spec.json"
    file.write_text(json.dumps({"outdir": str(folder), "cases": CASES, "exclude-cases": [], **rest}))
    return str(file)


def as_server(behind_http: bool) -> Role:
    """Return the role of a server, with a port of its own or behind the HTTP listener."""

    async def run(wstest: str, folder: Path) -> None:
        address = Address("ws", "127.0.0.1", 0, "")

        async def listen(*, task_status: anyio.abc.TaskStatus[int]) -> None:
            if behind_http:
                await httpd.serve(not_found, address, websocket=echo, listening=task_status.started)
            else:
                await serve(echo, address, admit=lambda path: None, listening=task_status.started)

        async with anyio.create_task_group() as tasks:
            port = await tasks.start(listen)
            servers = [{"agent": "mediaflow", "url": f"ws://127.0.0.1:{port}"}]
            spec = specification(folder, servers=servers)
            await anyio.run_process([wstest, "-m", "fuzzingclient", "-s", spec], cwd=folder)
            tasks.cancel_scope.cancel()

    return run


async def as_client(wstest: str, folder: Path) -> None:
    """Play the client."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"ws://127.0.0.1:{port}"
    spec = specification(folder, url=url)
    command = [wstest, "-m", "fuzzingserver", "-s", spec, "-u", "0"]
    async with await anyio.open_process(command, cwd=folder, stdout=subprocess.DEVNULL) as suite:
        try:
            while True:  # the suite does not say when it listens
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await anyio.sleep(0.1)
            async with connect(f"{url}/getCaseCount") as websocket:
                count = int(await websocket.recv())
            for case in range(1, count + 1):
                async with connect(f"{url}/runCase?case={case}&agent=mediaflow") as websocket:
                    await echo(websocket)
            async with connect(f"{url}/updateReports?agent=mediaflow") as websocket:
                await websocket.wait_closed()
        finally:
            suite.terminate()


ROLES: dict[str, Role] = {
    "server": as_server(behind_http=False),
    "server behind HTTP": as_server(behind_http=True),
    "client": as_client,
}


def play(wstest: str, loop: str, role: str) -> tuple[str, bool]:
    """Play one role on one loop; return a line that says how it went, and whether it went well."""
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(ROLES[role], wstest, Path(folder), **LOOPS[loop])
        results = json.loads((Path(folder) / "index.json").read_text())["mediaflow"]
    said = {case: {one["behavior"], one["behaviorClose"]} - {"OK"} for case, one in results.items()}
    odd = " ".join(f"{case}:{'/'.join(sorted(words))}" for case, words in said.items() if words)
    well = all(words <= KNOWN for words in said.values())
    return f"{loop:8} {role:19} {len(results)} cases {'' if well else 'FAILED '}{odd}", well


def main() -> int:
    """Play all roles on all loops, some at a time, since the suite mostly waits; return how many did not go well."""
    wstest = str(Path(sys.argv[1]).absolute())
    wrong = 0
    with ProcessPoolExecutor(max_workers=4) as pool:
        for told, well in pool.map(play, *zip(*product([wstest], LOOPS, ROLES), strict=True)):
            print(told, flush=True)
            wrong += not well
    return wrong


if __name__ == "__main__":
    sys.exit(main())
