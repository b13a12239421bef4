"""The bridge of ``benchmarks/peers/by_hand.py``, doing one thing wrong: what the judge must see.

python faulty_bridge.py lost|doubled|swapped|damaged|foreign|cut EKA_URL
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect

from benchmarks.peers import by_hand

AT = 20
"""The message at which it goes wrong."""

newest: dict[int, bytes] = {}
"""The last message of every call."""


class Faulty:
    """A socket to EkaScribe."""

    def __init__(self, eka: Any, fault: str) -> None:
        self._eka, self._fault = eka, fault
        self._number = 0
        self._held = b""
        self.wait_closed = eka.wait_closed

    async def send(self, data: bytes | str) -> None:
        """Send, or not."""
        if isinstance(data, str):
            await self._eka.send(data)  # what is held back by now is cut off
            return
        self._number += 1
        for message in self._instead(data):
            await self._eka.send(message)

    def _instead(self, data: bytes) -> list[bytes]:
        others = [message for key, message in newest.items() if key != id(self)]
        newest[id(self)] = data
        if self._fault == "cut":
            self._held, sent = data, self._held
            return [sent] if sent else []
        if self._fault == "swapped" and self._number == AT + 1:
            return [data, self._held]
        if self._number != AT:
            return [data]
        self._held = data
        return {
            "lost": [],
            "swapped": [],
            "doubled": [data, data],
            "damaged": [data[:320] + bytes([data[320] ^ 1]) + data[321:]],
            "foreign": others[:1],
        }[self._fault]


def main(fault: str, eka_url: str) -> None:
    """Serve until killed."""

    @asynccontextmanager
    async def faulty_connect(*args: Any, **options: Any) -> AsyncIterator[Faulty]:
        async with connect(*args, **options) as eka:
            yield Faulty(eka, fault)

    by_hand.__dict__["connect"] = faulty_connect
    asyncio.run(by_hand.main(eka_url))


if __name__ == "__main__":
    main(*sys.argv[1:])
