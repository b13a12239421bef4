"""A client of the EkaScribe API, usable by itself.

::

    async with eka.connect("https://api.eka.care", eka.Credentials(token=Secret("…"))) as client:
        session = await client.create(eka.SessionRequest(additional_data={"call_id": "c1"}))
        async with eka.stream.connect(session) as stream:
            await stream.send(pcm)     # leaving the block waits until the server has stored everything
        await client.end(session.id)   # only now: it lists what is stored at this moment
        result = await client.result(session.id)

    client.py     requests: sessions, chunks, results, templates, webhook subscriptions
    stream.py     the audio of a session over a WebSocket
    packer.py     frames joined to messages
    quota.py      frames counted, up to what a session takes
    auth.py       the token that all clients of an account share
    model.py      what is sent and what comes back, and what goes wrong
    webhook.py    the other direction: the service tells us that a session is done

Documentation: https://developer.eka.care, EkaScribe, protocol.  Where its revisions disagree about a default, the field
is always sent; where a field changed its type, both types are read.
"""

from __future__ import annotations

from . import stream
from .auth import Credentials
from .client import BASE_URL, EkaClient, connect
from .model import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_S,
    Discovery,
    Document,
    EkaError,
    Ended,
    Model,
    Session,
    SessionRequest,
    SessionState,
    Template,
)
from .packer import Packer
from .quota import Quota

__all__ = [
    "BASE_URL",
    "MAX_CHUNK_BYTES",
    "MAX_CHUNK_S",
    "Credentials",
    "Discovery",
    "Document",
    "EkaClient",
    "EkaError",
    "Ended",
    "Model",
    "Packer",
    "Quota",
    "Session",
    "SessionRequest",
    "SessionState",
    "Template",
    "connect",
    "stream",
]
