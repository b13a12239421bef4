"""Who answers at an address: what ``/healthz`` of a control server, or of a carrier's source, says of itself."""

from __future__ import annotations

import ssl
from functools import cache

import anyio
import msgspec

from mediaflow import WireError, http


class Health(msgspec.Struct, frozen=True):
    """An answer: its HTTP status, 0 where nobody answers; then what it says, as far as it is a mediaflow."""

    status: int = 0
    instance: str = ""
    """Of a control server: the process."""
    calls: int | None = None
    """Of a carrier's source: how many are open."""


class _Body(msgspec.Struct):
    instance: str = ""
    calls: int | None = None


@cache
def unchecked() -> ssl.SSLContext:
    """Return the context for asking our own addresses, where a certificate is in the public name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def ask(base_url: str, context: ssl.SSLContext, patience_s: float) -> Health:
    """Ask once, for at most ``patience_s``."""
    with anyio.move_on_after(patience_s):
        async with http.connect(base_url, timeout_s=patience_s, tls=context, attempts=1) as client:
            try:
                reply = await client.request("GET", "/healthz")
            except http.Unreachable:
                return Health()
            try:
                body = reply.json(_Body)
            except WireError:
                return Health(reply.status)
            return Health(reply.status, body.instance, body.calls)
    return Health()
