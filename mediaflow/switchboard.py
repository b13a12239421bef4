"""What stands between workers: the listening sockets, the names that they hold, and what they tell each other.

It carries no audio and reads no pipeline.  A line that ends is a worker that is gone: its names are free, its numbers
no longer count, and the sockets stay as they are.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable

import anyio

from . import _channel as wire, listening
from ._channel import Channel


class Member:
    """One worker's line."""

    def __init__(self, line: socket.socket, reported: Callable[[wire.Up | wire.Report], None]) -> None:
        self.channel = Channel(line)
        self.numbers: dict[str, int] = {}
        self.reported = reported
        self.names: Counter[str] = Counter()
        """What it holds, and how often."""
        self.bound: Counter[tuple[str, int]] = Counter()
        """How often it asked for an address: port 0 may be wanted for two things, and is then two ports."""


class Switchboard:
    """Joins any number of workers."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._sockets: dict[tuple[str, int, int], list[socket.socket]] = {}
        self._binding = anyio.Lock()
        self._closed = False

    async def serve(self, member: Member) -> None:
        """Serve a worker until its line ends."""
        self.members.append(member)
        self._share_numbers()
        try:
            await member.channel.serve(lambda message, sockets: self._take(member, message, sockets))
        finally:
            self.members.remove(member)
            self._share_numbers()

    def close(self) -> None:
        """Close the listening sockets; workers have theirs still."""
        self._closed = True
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()

    async def _take(self, member: Member, message: wire.Said, sockets: list[socket.socket]) -> None:
        match message:
            case wire.Listen():
                await self._listen(member, message)
            case wire.Claim():
                self._claim(member, message, sockets)
            case wire.Release():
                member.names -= Counter([message.name])
            case wire.Tell():
                for other in self._but(member):
                    other.channel.post(message)
            case wire.Publish():
                member.numbers = message.numbers
                self._share_numbers()
            case wire.Up() | wire.Report():
                member.reported(message)

    async def _listen(self, member: Member, asked: wire.Listen) -> None:
        key = (asked.host, asked.port, member.bound[asked.host, asked.port])
        member.bound[asked.host, asked.port] += 1
        try:
            async with self._binding:
                if self._closed:
                    raise OSError(errno.ECANCELED, "the workers are being stopped")
                if key not in self._sockets:
                    self._sockets[key] = await listening.bind(asked.host, asked.port)
                member.channel.post(wire.Bound(asked.ask), *(each.dup() for each in self._sockets[key]))
        except OSError as error:
            member.channel.post(wire.Bound(asked.ask, error.errno or 0, error.strerror or str(error)))

    def _claim(self, member: Member, asked: wire.Claim, sockets: list[socket.socket]) -> None:
        owner = next((other for other in self._but(member) if other.names[asked.name]), None)
        if owner is None:
            member.names[asked.name] += 1
            for each in sockets:
                each.close()
        else:
            owner.channel.post(wire.Handed(), *sockets)
        member.channel.post(wire.Granted(asked.ask, owner is None))

    def _share_numbers(self) -> None:
        for member in self.members:
            others: Counter[str] = Counter()
            for other in self._but(member):
                others.update(other.numbers)
            member.channel.post(wire.Others(dict(others)))

    def _but(self, member: Member) -> list[Member]:
        return [other for other in self.members if other is not member]
