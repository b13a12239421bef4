"""Listening sockets, in a process of its own; with fellows they are in ``test_fellows`` and ``test_workers``."""

from __future__ import annotations

import socket
import sys

import anyio
import pytest

from mediaflow import listening

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is only chosen")
async def test_a_port_that_is_reserved_is_given_to_nobody() -> None:
    """It is bound, though nobody listens; and still it can be listened at, as often as is wanted."""
    with listening.reserved("127.0.0.1") as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for _ in range(2):
            (listener,) = await listening.bind("127.0.0.1", port)
            with listener, socket.create_connection(("127.0.0.1", port)) as connection:
                assert connection.getpeername() == ("127.0.0.1", port)


async def test_a_connection_that_breaks_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the one before it, nor the listener; it is logged with its place and without its text."""
    port: list[int] = []
    ready = anyio.Event()

    async def handle(connection: socket.socket) -> None:
        with connection:
            await anyio.wait_readable(connection)
            word = connection.recv(10)
            if word == b"break":
                raise ZeroDivisionError("secret")
            connection.send(word)

    def up(number: int) -> None:
        port.append(number)
        ready.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listening.serve, handle, "127.0.0.1", 0, up)
            await ready.wait()
            async with await anyio.connect_tcp("127.0.0.1", port[0]) as before:
                async with await anyio.connect_tcp("127.0.0.1", port[0]) as broken:
                    await broken.send(b"break")
                    with pytest.raises(anyio.EndOfStream):
                        await broken.receive()
                async with await anyio.connect_tcp("127.0.0.1", port[0]) as behind:
                    for each in (before, behind):
                        await each.send(b"hello")
                        assert await each.receive() == b"hello"
            tasks.cancel_scope.cancel()
    (record,) = caplog.records
    assert "a connection failed: ZeroDivisionError at " in record.message
    assert "test_listening.py" in record.message
    assert "secret" not in caplog.text
