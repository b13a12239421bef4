"""What a socket of a carrier says before it is known whose it is: up to ``start``, which names the call."""

from __future__ import annotations

import logging
from collections import Counter

import anyio

from mediaflow import Engine, WireError, envelope
from mediaflow.dialects import Dialect
from mediaflow.envelope import Media, MediaError, Start
from mediaflow.websocket import Closed, WebSocket

from ._carrier_call import NORMAL, UNSUPPORTED, Link

logger = logging.getLogger(__name__)

EARLY_MESSAGES = 200
"""Media messages kept while ``start`` has not come: two seconds of two tracks."""

_MALFORMED = {"not-json", "not-an-object", "no-event"}


async def greet(
    socket: WebSocket, dialect: Dialect | None, patience_s: float, engine: Engine, said: list[str | bytes]
) -> Link | None:
    """Read up to ``start``; close the socket if none comes that can be used.

    What the call is to hear of it stands in ``said`` as well.  Without a ``dialect`` the start shows it.
    """
    early: list[Media | MediaError] = []
    overflow: Counter[str] = Counter()
    with anyio.move_on_after(patience_s):
        try:
            while True:
                text = await socket.recv()
                try:
                    message = envelope.parse(text, dialect)
                except MediaError as error:
                    engine.count(error.code)
                    early.append(error)
                    said.append(text)
                    continue
                except WireError as error:
                    engine.count(error.code)
                    if error.code in _MALFORMED:
                        continue
                    logger.error("a call was refused: %s: %s", error.code, error)
                    await socket.close(UNSUPPORTED, error.code)
                    return None
                if isinstance(message, Start):
                    said.append(text)
                    return Link(socket, message, early, overflow)
                if isinstance(message, Media):
                    early.append(message)
                    said.append(text)
                    if len(early) > EARLY_MESSAGES:
                        engine.count("early-media-dropped")
                        oldest = early.pop(0)
                        del said[0]
                        if isinstance(oldest, Media):
                            overflow[oldest.track or ""] += len(oldest.payload)
                elif isinstance(message, envelope.Unknown):
                    engine.count("unknown-event")
        except Closed:
            pass
    engine.count("no-start")
    await socket.close(NORMAL, "no start")
    return None
