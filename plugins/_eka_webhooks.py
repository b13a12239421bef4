"""The webhooks that ``eka_ingest`` sends: who wants which, and the sending."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import anyio.abc
import msgspec
from msgspec import Meta

from mediaflow import Secret, http
from mediaflow.eka import webhook
from mediaflow.websocket import Address

logger = logging.getLogger(__name__)

MAX_SUBSCRIPTIONS = 100


class Subscription(msgspec.Struct):
    """The body of a subscription."""

    event_names: list[str]
    endpoint: str
    signing_key: Annotated[str, Meta(min_length=1)]
    protocol: Literal["http", "https"]

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        loopback = Address(parts.scheme, parts.hostname or "", 0, "").is_loopback
        _ = parts.port  # raises ValueError if it is none
        if parts.scheme != self.protocol or not parts.hostname or (parts.scheme == "http" and not loopback):
            raise ValueError("endpoint has to be an https:// address that fits protocol")


class Webhooks:
    """Sends events to those who have subscribed to them."""

    def __init__(self, client_id: str, count: Callable[[str], None]) -> None:
        self._client_id, self._count = client_id, count
        self._subscriptions: dict[str, Subscription] = {}
        self.tasks: anyio.abc.TaskGroup | None = None
        """Where events are sent from, while the source serves."""

    def subscribe(self, subscription: Subscription) -> bool:
        """Take a subscription, in the place of an older one of the same endpoint; False if there are too many."""
        if subscription.endpoint not in self._subscriptions and len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            return False
        self._subscriptions[subscription.endpoint] = subscription
        return True

    def emit(self, event: str, session_id: str) -> None:
        """Send ``event`` of a session to all who want it, without waiting."""
        body = msgspec.json.encode(self._envelope(event, session_id))
        for subscription in self._subscriptions.values():
            if event in subscription.event_names and self.tasks is not None:
                self.tasks.start_soon(self._send, subscription, body)

    def _envelope(self, event: str, session_id: str) -> dict[str, Any]:
        return {
            "business_id": "",
            "client_id": self._client_id,
            "service_id": "v2rx",
            "event_id": event,
            "payload": {
                "service": "v2rx",
                "event": event,
                "event_time": int(time.time()),
                "transaction_id": session_id,
                "data": {},
            },
        }

    async def _send(self, subscription: Subscription, body: bytes) -> None:
        signature = webhook.sign(Secret(subscription.signing_key), body, int(time.time()))
        headers = {webhook.HEADER: signature, "Content-Type": "application/json"}
        parts = urlsplit(subscription.endpoint)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        status = 0
        try:
            async with http.connect(f"{parts.scheme}://{parts.netloc}") as client:
                status = (await client.request("POST", target, body, headers=headers)).status
        except http.Unreachable:
            pass
        except Exception as error:  # an address that only looked like one must not stop the source
            logger.error("a webhook could not be sent: %s", type(error).__name__)
        if not 200 <= status < 300:
            self._count("webhook-failed")
            logger.warning("a webhook was not taken: %s", f"HTTP {status}" if status else "nobody answers")
