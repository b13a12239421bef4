"""EkaScribe's webhooks: what proves that one comes from the service, and a route that takes them.

    POST {endpoint}
    Eka-Webhook-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256(signing key, "<t>.<body>")>

    {"business_id", "client_id", "service_id", "event_id", "payload": {"event", "event_time", "transaction_id", "data"}}

Some services of the vendor send the inner object alone; both are read.  ``event_id`` names the kind of the event, so
what makes a delivery one of a kind is the event with its session and time: a delivery that is repeated, by the service
because our answer was lost or by somebody who recorded it, is answered alike and not handled again.  One older than
three minutes is refused.

``sign`` and ``check`` are plain functions; ``route`` gives a route for an application of Starlette, which is needed for
nothing else here.  Reference: Eka Care, "Webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..component import Secret
from ..errors import WireError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

logger = logging.getLogger(__name__)

HEADER = "Eka-Webhook-Signature"

TOLERANCE_S = 180.0
"""How far the time of a signature may be from ours."""

MAX_BODY = 256 * 1024
"""Bytes of a delivery; it holds identifiers, no documents."""

MAX_REMEMBERED = 10_000
"""Deliveries that are remembered so as not to be handled again."""


class Delivery(msgspec.Struct, frozen=True):
    """One event: what happened, to which session, when (in seconds since 1970), and what else is said of it."""

    event: str
    session_id: str
    time: float
    data: Mapping[str, Any]


Handler = Callable[[Delivery], Awaitable[None]]


def sign(key: Secret, body: bytes, moment: int) -> str:
    """Return the header that proves that ``body`` was sent at ``moment`` by someone who knows ``key``."""
    return f"t={moment},v1={_digest(key, body, str(moment))}"


def check(key: Secret, header: str, body: bytes, now: float) -> None:
    """Raise ``WireError`` unless ``header`` is a signature of ``body`` made about ``now``."""
    parts = [part.partition("=") for part in header.split(",")]
    moments = [value.strip() for name, _, value in parts if name.strip() == "t"]
    digests = [value.strip() for name, _, value in parts if name.strip() == "v1"]
    if len(moments) != 1 or not moments[0].isascii() or not moments[0].isdecimal() or not digests:
        raise WireError("bad-signature", f"{HEADER} is not t=<seconds>,v1=<hex>")
    expected = _digest(key, body, moments[0]).encode()
    # All are compared, each in constant time: how long it takes tells nothing about the right one.
    if not sum([hmac.compare_digest(digest.encode(), expected) for digest in digests]):
        raise WireError("bad-signature", f"{HEADER} does not fit the body; is the signing key the same on both sides?")
    if len(moments[0]) > 12 or abs(now - int(moments[0])) > TOLERANCE_S:
        raise WireError("old-signature", f"{HEADER} is more than {TOLERANCE_S:g} s off; is the clock right?")


def parse(body: bytes) -> Delivery:
    """Read a delivery; raise ``WireError`` if it is none."""
    try:
        outer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise WireError("bad-json", f"{len(body)} bytes that are not a JSON object") from None
    inner = outer.get("payload", outer)
    inner = inner if isinstance(inner, dict) else outer
    event = inner.get("event") or outer.get("event_id")
    session_id = inner.get("transaction_id")
    moment = inner.get("event_time", 0)
    data = inner.get("data", {})
    if not isinstance(event, str) or not isinstance(session_id, str):
        raise WireError("bad-event", "a delivery without event and transaction_id")
    return Delivery(
        event, session_id, moment if isinstance(moment, int | float) else 0.0, data if isinstance(data, dict) else {}
    )


class Receiver:
    """Takes deliveries, each once."""

    def __init__(self, key: Secret, handler: Handler, clock: Callable[[], float] = time.time) -> None:
        if not key:
            raise ValueError("a webhook needs a signing key: without one anybody could send it")
        self._key, self._handler, self._clock = key, handler, clock
        self._seen: dict[tuple[str, str, float], None] = {}

    async def receive(self, header: str, body: bytes) -> int:
        """Take a delivery and return the HTTP status to answer: 200, 400, 401 or, if the handler failed, 500.

        A delivery whose handler failed is not remembered: the service sends it again.
        """
        try:
            check(self._key, header, body, self._clock())
            delivery = parse(body)
        except WireError as error:
            logger.warning("a webhook was refused: %s: %s", error.code, error)
            return 401 if error.code in ("bad-signature", "old-signature") else 400
        key = delivery.event, delivery.session_id, delivery.time
        if key in self._seen:
            return 200
        self._seen[key] = None
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        try:
            await self._handler(delivery)
        except BaseException as error:
            self._seen.pop(key, None)
            if not isinstance(error, Exception):
                raise
            # Not the text: it may hold what a log must not.
            logger.error("the handler of a webhook failed: %s", type(error).__name__)
            return 500
        return 200


def route(path: str, key: Secret, handler: Handler) -> Route:
    """Return a route of Starlette that takes deliveries at ``path``; needs the extra ``server``."""
    from starlette.responses import Response
    from starlette.routing import Route

    receiver = Receiver(key, handler)

    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return Response(status_code=413)
        return Response(status_code=await receiver.receive(request.headers.get(HEADER, ""), bytes(body)))

    return Route(path, endpoint, methods=["POST"])


def _digest(key: Secret, body: bytes, moment: str) -> str:
    return hmac.new(key.reveal().encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
