"""Calls from Vobiz Media Streams: 20 ms of base64 per message and track, over a WebSocket that the carrier opens."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mediaflow import Register, dialects, hookimpl
from mediaflow.dialects import Dialect

from ._carrier_server import CarrierSource


class Vobiz(CarrierSource, frozen=True):
    """Take calls from Vobiz Media Streams, one session per call.

    Give the carrier the address of this machine, the path of ``listen`` and the secret, as in
    ``wss://calls.example.org/vobiz/SECRET``.  A call that loses its socket goes on in the same session when the carrier
    connects again within ``reconnect_s``; what is missing in between is silence, and booked.
    """

    listen: Annotated[str, Meta(description="ws:// or wss:// address to take calls at")] = "ws://127.0.0.1:8080/vobiz"

    def dialects(self) -> tuple[Dialect, ...]:
        return (dialects.VOBIZ,)


@hookimpl
def register_components(register: Register) -> None:
    register("vobiz", Vobiz)
