"""As much of EkaScribe's REST API as a pipeline asks for, in a thread: the audio goes to the load.

GET  …/medscribealliance     what the service can do: nothing is said
POST …/sessions              201, with an ``upload_url`` that ends in the name of the call
POST …/sessions/{id}/end     202
GET  …/sessions/{id}         200, completed
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def served(upload_url: str) -> Iterator[str]:
    """Serve until left; give the base address.  ``upload_url`` is where the load takes audio."""
    ready: queue.SimpleQueue[tuple[int, Callable[[], object]]] = queue.SimpleQueue()

    async def main() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(lambda r, w: _serve(r, w, upload_url), "127.0.0.1", 0)
        ready.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(over.set)))
        await over.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    port, stop = ready.get()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
        thread.join()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upload_url: str) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.lower().split("\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            method, path, _ = head.split(" ", 2)
            status, answer = _answer(method, path, body, upload_url)
            text = json.dumps(answer)
            fields = f"Content-Type: application/json\r\nContent-Length: {len(text)}"
            writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{text}".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _answer(method: str, path: str, body: bytes, upload_url: str) -> tuple[str, dict[str, str]]:
    if path.endswith("/sessions"):
        call = json.loads(body)["additional_data"]["call_id"]
        return "201 Created", {"session_id": f"session-{call}", "upload_url": f"{upload_url}/{call}"}
    if path.endswith("/end"):
        return "202 Accepted", {"session_id": "", "status": "processing"}
    if method == "GET" and "/sessions/" in path:
        return "200 OK", {"session_id": path.rpartition("/")[2], "status": "completed"}
    return "200 OK", {}
