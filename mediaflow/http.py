"""JSON over HTTP, as a client: the one module that knows ``httpx``, so that changing it for another is one edit.

    answer            meaning                        what ``request`` does
    2xx, 3xx, 4xx     the server has decided         returns it; the caller looks at ``status``
    429, 5xx          it may decide otherwise later  asks again, after ``Retry-After`` where it says so
    none              nobody there, or line cut      asks again

When all attempts are used up, the last answer is returned or ``Unreachable`` raised.  A request may thus be made twice
where its answer was lost; it has to bear that.  One that must not happen twice (to ring somebody up) says ``once``: it
is asked again only where the server surely did nothing, which is after 429 and where no connection came about.

No proxy and no credentials are taken from the environment: where calls go is said in the pipeline and nowhere else.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from .errors import MediaflowError, WireError

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
RETRIES_S = 45.0
"""A request is made at most so often, within so many seconds; the pauses between grow from 0.25 s to 8 s."""

LONGEST_PAUSE_S = 60.0
"""The longest ``Retry-After`` that is honoured; what asks for more is returned to the caller."""

IDLE, IDLE_S = 20, 5.0
"""So many connections are kept for the next request, so many seconds; how many are made is not bounded, for an answer
may be long in coming, and a call must not wait for another's."""

T = TypeVar("T")


class HttpError(MediaflowError):
    """What can go wrong with a request."""


class Unreachable(HttpError):
    """There was no answer; ``sent`` says whether the request may have reached the server all the same."""

    def __init__(self, text: str, sent: bool = True) -> None:
        self.sent = sent
        super().__init__(text)


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, type: type[T]) -> T:
        """Return the body as ``type``; raise ``WireError`` if it is something else, without quoting it."""
        try:
            return msgspec.json.decode(self.body, type=type)
        except msgspec.MsgspecError:
            raise WireError(
                "bad-json", f"HTTP {self.status} with {len(self.body)} bytes that are not the JSON expected here"
            ) from None


class Client:
    """Requests to one server; get one from ``connect``."""

    def __init__(
        self, client: httpx.AsyncClient, wait: Callable[[Reply], float | None], attempts: int = ATTEMPTS
    ) -> None:
        self._client, self._wait, self._attempts = client, wait, attempts

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Reply:
        """Send a request and return the answer; ``body`` goes as JSON, but bytes as they are and None not at all."""
        import stamina

        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        sent = {} if content is body else {"Content-Type": "application/json"}
        sent.update(headers or {})
        try:
            async for attempt in stamina.retry_context(
                on=_pause_if_not_sent if once else _pause,
                attempts=self._attempts,
                timeout=RETRIES_S,
                wait_initial=0.25,
                wait_max=8.0,
            ):
                with attempt:
                    reply = await self._once(method, path, content, sent)
                    if reply.status == 429 or (reply.status >= 500 and not once):
                        raise _Later(reply, self._wait(reply))
                    return reply
        except _Later as later:
            return later.reply
        raise AssertionError("stamina ends by returning or raising")

    async def _once(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Reply:
        import httpx

        try:
            response = await self._client.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            why = type(error).__name__ if isinstance(error, httpx.TimeoutException) else _why(error)
            place = f"{self._client.base_url.scheme}://{self._client.base_url.netloc.decode()}"
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise Unreachable(f"{place}: {why}", sent) from None
        return Reply(response.status_code, response.headers, response.content)


def clock_ahead(reply: Reply) -> float | None:
    """Return by how many seconds the server's clock is ahead of ours, to within one; None where it does not say."""
    try:
        # The header has whole seconds, so that the clock is half a second further on average.
        return parsedate_to_datetime(reply.headers.get("date", "")).timestamp() + 0.5 - time.time()
    except ValueError:
        return None


def retry_after(reply: Reply) -> float | None:
    """Return for how many seconds the answer asks to be left alone, by its header; None where it says nothing."""
    return _seconds(reply.headers.get("retry-after", ""))


@asynccontextmanager
async def connect(
    base_url: str,
    *,
    timeout_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
    wait: Callable[[Reply], float | None] = retry_after,
    attempts: int = ATTEMPTS,
) -> AsyncIterator[Client]:
    """Give a client for the server at ``base_url``; each step of a request may take ``timeout_s``.

    ``wait`` reads from a 429 or 5xx how long to wait, where the service says it elsewhere than in its header.
    """
    import httpx

    verify = tls if tls is not None else default_tls() if urlsplit(base_url).scheme == "https" else _no_tls()
    async with httpx.AsyncClient(
        base_url=base_url,
        timeout=timeout_s,
        verify=verify,
        trust_env=False,
        headers={"User-Agent": "mediaflow"},
        limits=httpx.Limits(max_keepalive_connections=IDLE, keepalive_expiry=IDLE_S),
    ) as client:
        yield Client(client, wait, attempts)


@cache
def default_tls() -> ssl.SSLContext:
    """Return the context that trusts what the system trusts; reading its certificates takes 20 ms, so only once."""
    return ssl.create_default_context()


@cache
def _no_tls() -> ssl.SSLContext:
    """Return what clients without TLS are given: left to itself httpx makes each one a context, of 12 KiB."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Later(Exception):
    def __init__(self, reply: Reply, seconds: float | None) -> None:
        self.reply, self.seconds = reply, seconds
        super().__init__(f"HTTP {reply.status}")


def _why(error: BaseException) -> str:
    """Return the first text among an error and its causes: Trio's errors have none of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if text := str(cause):
            return text
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _pause(error: Exception) -> bool | float:
    """Say whether to ask again: not at all, after the usual pause, or after so many seconds."""
    if isinstance(error, Unreachable):
        return True
    if not isinstance(error, _Later):
        return False
    if error.seconds is None:
        return True
    return error.seconds if error.seconds <= LONGEST_PAUSE_S else False


def _pause_if_not_sent(error: Exception) -> bool | float:
    return not error.sent if isinstance(error, Unreachable) else _pause(error)


def _seconds(value: str) -> float | None:
    """Read a ``Retry-After`` header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
