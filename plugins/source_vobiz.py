"""Calls from Vobiz Media Streams: 20 ms of base64 per message and track, over a WebSocket that the carrier opens.

Beside the sockets, on a port of its own, ``control`` answers the carrier's requests about calls (``_vobiz_control``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from msgspec import Meta

from mediaflow import Engine, Finding, Register, Secret, control, dialects, hookimpl
from mediaflow.dialects import Dialect
from mediaflow.websocket import Address

from ._carrier_call import Call
from ._carrier_server import CarrierSource, Desk
from ._public_url import examine
from ._vobiz_control import ControlDesk, check_control


class Vobiz(CarrierSource, frozen=True):
    """Take calls from Vobiz Media Streams, one session per call.

    Give the carrier the address of this machine, the path of ``listen`` and the secret, as in
    ``wss://calls.example.org/vobiz/SECRET``.  A call that loses its socket goes on in the same session when the carrier
    connects again within ``reconnect_s``; what is missing in between is silence, and booked.

    With ``control`` the carrier's other requests are taken too, on a port of their own (``mediaflow[server]``, asyncio
    only): ``/answer`` tells it to stream calls here, ``/status`` and ``/hangup`` take what becomes of them, which moves
    the calls and stands in their accounts.  ``/healthz`` and ``/readyz`` are for a load balancer.

    A pipeline with a ``reply`` speaks into calls whose stream goes both ways, and ``/answer`` asks for such a stream.
    """

    listen: Annotated[str, Meta(description="ws:// or wss:// address to take calls at")] = "ws://127.0.0.1:8080/vobiz"
    control: Annotated[str, Meta(description="http:// or https:// address for /answer, /status and /hangup")] = ""
    public_url: Annotated[str, Meta(description="https:// address that Vobiz reaches listen and control at")] = ""
    auth_token: Annotated[
        Secret | None, Meta(description="of the Vobiz account; control then takes signed requests only")
    ] = None
    dial: Annotated[str, Meta(description="number that /answer connects the caller to; else the call waits")] = ""
    caller_id: Annotated[str, Meta(description="number of yours that dial shows; needed in India")] = ""

    def check_reply(self) -> None:
        if self.dial:
            raise ValueError(
                "dial connects the caller while a copy of the call comes here, but a stream that is spoken into holds "
                "the call itself, and the caller would wait alone; leave dial out"
            )

    def schemes(self, address: Address) -> set[str]:
        control = check_control(self, address)
        return {address.scheme, control.scheme} if control else {address.scheme}

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Besides, say whether what Vobiz asks at ``public_url`` gets here."""
        async for finding in super().diagnose():
            yield finding
        if self.control:
            address = Address.parse(self.control, ("http", "https"))
            certificate = control.Certificate(self.certificate, self.key) if address.scheme == "https" else None
            for finding in await examine(self.public_url, address, certificate):
                yield finding

    def desk(self, path: str, engine: Engine, find: Callable[[str], Call | None]) -> Desk | None:
        return ControlDesk(self, path, engine, find) if self.control else None

    def dialects(self) -> tuple[Dialect, ...]:
        return (dialects.VOBIZ,)


@hookimpl
def register_components(register: Register) -> None:
    register("vobiz", Vobiz)
