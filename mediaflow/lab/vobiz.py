"""Vobiz as a local server: its REST API over simulated calls.  Any client of Vobiz can be pointed at it.

    what                request, below /api/v1/Account/{auth_id}              answer
    make a call         POST   /Call/                                         201 with ``request_uuid``
    live calls          GET    /Call/?limit=&offset=                          200, in pages
    one call            GET    /Call/{call}/                                  200   404
    hang up             DELETE /Call/{call}/                                  204   404 it is over
    start a stream      POST   /Call/{call}/Stream/                           202 with ``stream_id``   400   404
    list streams        GET    /Call/{call}/Stream/?limit=&offset=            200, running and ended ones, in pages
    one stream          GET    /Call/{call}/Stream/{stream}/                  200   404
    stop a stream       DELETE /Call/{call}/Stream/{stream}/                  204   404
    stop all streams    DELETE /Call/{call}/Stream/                           204

As at Vobiz, whatever is not exactly one of these paths, capitals and last slash included, is 401, like a wrong token.
``X-Auth-ID`` with ``X-Auth-Token`` says who asks, or HTTP Basic, as the clients of its relative Plivo do.  More than
``concurrency`` calls at a time are refused with 429.  Refusals have the shapes that are known of Vobiz::

    401, 404    {"api_id": …, "error": …}
    400         {"error": …, "details": …}
    429         {"status": "error", "requestId": …,
                 "error": {"code": …, "message": …, "details": {limitType, limit, current, retryAfter}}}

It is served by ``mediaflow.httpd``: no extra is needed, and it runs on asyncio and trio.

Documentation: https://vobiz.ai/docs, Audio Streams API and Calls.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import anyio.abc
import msgspec

from .. import httpd
from ..component import Secret
from ..httpd import Request, Response
from ..vobiz import PAGE, Credentials
from ..websocket import Address
from .courier import Courier
from .fork import Fork, Rig
from .order import FROM_REST, RATES, OrderError, read
from .telephone import Call, Dialled, Hook, stamp

PREFIX = "/api/v1"

CREDENTIALS = Credentials("MALABLABLABLABLABLAB", Secret("lab"))
"""The lab's own account: Vobiz's ids begin with MA_, but Plivo's SDK takes only MA and 18 letters."""

KEPT = 1000
"""Calls that are over and still known."""

TIME_LIMIT_S = 14_400

_CALLS = re.compile(r"/Call/(?:([^/]+)/(?:(Stream)/(?:([^/]+)/)?)?)?")


logger = logging.getLogger(__name__)


class _Fault(Exception):
    """A refusal."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.status, self.body, self.headers = status, body, headers
        super().__init__(str(status))


class Carrier:
    """The carrier: its API, and the calls that it carries."""

    def __init__(
        self, rig: Rig, courier: Courier, credentials: Credentials = CREDENTIALS, concurrency: int = 100
    ) -> None:
        self.calls: dict[str, Call] = {}
        """Calls by their id, those that are over too."""
        self._rig, self._courier, self._credentials = rig, courier, credentials
        self._concurrency = concurrency
        self._account = f"{PREFIX}/Account/{credentials.auth_id}"
        self._tasks: anyio.abc.TaskGroup
        self._server = anyio.CancelScope()

    async def serve(self, address: Address, listening: Callable[[str], None]) -> None:
        """Serve until ``stop``, and until every call is over; raises OSError if it cannot listen at ``address``.

        ``listening`` is told the address of the API.
        """
        failure: OSError | None = None
        async with anyio.create_task_group() as self._tasks:
            with self._server:
                try:
                    await httpd.serve(
                        self.answer, address, listening=lambda port: listening(f"{address.url(port)}{PREFIX}")
                    )
                except OSError as error:
                    failure = error  # raised where the task group does not wrap it
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Take no more requests and hang up all calls; a second time, without waiting for anybody."""
        if self._server.cancel_called:
            self._tasks.cancel_scope.cancel()
        self._server.cancel()
        for call in self.live:
            call.hang_up(source="Vobiz")

    @property
    def live(self) -> list[Call]:
        """The calls that are not over."""
        return [call for call in self.calls.values() if call.status != "completed"]

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        try:
            status, body = self._route(request)
        except _Fault as fault:
            return Response(fault.status, msgspec.json.encode(fault.body), headers=fault.headers)
        return Response(status) if body is None else Response(status, msgspec.json.encode(body))

    def _route(self, request: Request) -> tuple[int, object]:
        match = _CALLS.fullmatch(request.path.removeprefix(self._account))
        if match is None or not request.path.startswith(self._account) or not self._knows(request.headers):
            self._rig.say(
                f"{request.method} refused: 401, a wrong token, or a path in wrong case or without last slash"
            )
            raise _Fault(401, _error("authentication failed"))
        call_id, streams, stream_id = (part and unquote(part) for part in match.groups())
        if call_id is None:
            handlers = {"POST": self._make, "GET": self._list_calls}
            if request.method in handlers:
                return handlers[request.method](request)
            raise _Fault(405, _error("method not allowed"))
        call = self.calls.get(call_id)
        if call is None or (request.method != "GET" and call.status == "completed"):
            raise _Fault(404, _error("Call not found"))
        if not streams:
            return self._one_call(request, call)
        return self._one_stream(request, call, stream_id) if stream_id else self._streams(request, call)

    def _knows(self, headers: Mapping[str, str]) -> bool:
        auth_id, token = self._credentials.auth_id, self._credentials.auth_token.reveal()
        given = headers.get("x-auth-id", ""), headers.get("x-auth-token", "")
        basic = "Basic " + base64.b64encode(f"{auth_id}:{token}".encode()).decode()
        own = hmac.compare_digest(given[1].encode(), token.encode()) and given[0] == auth_id
        return own or hmac.compare_digest(headers.get("authorization", "").encode(), basic.encode())

    # Calls.

    def _make(self, request: Request) -> tuple[int, object]:
        body = _body(request)
        if len(self.live) >= self._concurrency:
            raise _too_many(self._concurrency, len(self.live))
        for name in ("from", "to"):
            if not body.get(name):
                raise _wrong(f"{name} is missing")
        dialled = Dialled(
            str(body["from"]),
            str(body["to"]),
            _hook(body, "answer", needed=True),
            _hook(body, "ring"),
            _hook(body, "hangup"),
            _whole(body.get("time_limit", TIME_LIMIT_S), "time_limit"),
        )
        call = Call(dialled, self._credentials.auth_id, self._rig, self._courier)
        self.calls[call.id] = call
        self._forget()
        self._tasks.start_soon(self._carry, call)
        return 201, {"api_id": _id(), "message": "Call fired", "request_uuid": call.id}

    async def _carry(self, call: Call) -> None:
        try:
            await call.run()
        except Exception:  # the border of the call: the fault of one must not end the others
            logger.exception("call %s broke", call.id)
            call.status = "completed"

    def _forget(self) -> None:
        over = [call for call in self.calls.values() if call.status == "completed"]
        for call in over[: max(0, len(over) - KEPT)]:
            del self.calls[call.id]

    def _list_calls(self, request: Request) -> tuple[int, object]:
        return 200, self._page(request, [self._describe_call(call) for call in self.live])

    def _one_call(self, request: Request, call: Call) -> tuple[int, object]:
        if request.method == "GET":
            return 200, self._describe_call(call)
        if request.method == "DELETE":
            call.hang_up()
            return 204, None
        raise _Fault(405, _error("method not allowed"))

    def _describe_call(self, call: Call) -> dict[str, Any]:
        cause = call.cause if call.status == "completed" else None
        return {
            "api_id": _id(),
            "call_uuid": call.id,
            "call_status": call.status,
            "call_direction": "outbound",
            "from_number": call.dialled.caller,
            "to_number": call.dialled.callee,
            "answer_time": _time(call.answered_at),
            "end_time": _time(call.ended_at),
            "hangup_cause_name": cause.name if cause else None,
            "hangup_cause_code": cause.code if cause else None,
            "hangup_source": call.source or None,
            "resource_uri": f"{self._account}/Call/{call.id}/",
        }

    # Streams.

    def _streams(self, request: Request, call: Call) -> tuple[int, object]:
        if request.method == "POST":
            return self._start(request, call)
        if request.method == "GET":
            return 200, self._page(request, [self._describe(call, fork) for fork in call.forks])
        if request.method == "DELETE":
            for fork in call.forks:
                _stop(call, fork)
            return 204, None
        raise _Fault(405, _error("method not allowed"))

    def _start(self, request: Request, call: Call) -> tuple[int, object]:
        body = _body(request)
        if call.status != "in-progress" or call.cause is not None:  # it is being hung up
            raise _Fault(404, _error("Call not found"))
        given = {FROM_REST.get(name, name): value for name, value in body.items() if name != "service_url"}
        try:
            order, remarks = read(body.get("service_url"), given, "both")
        except OrderError as error:
            raise _wrong(str(error)) from None
        if order.bidirectional and order.track != "inbound":
            raise _wrong(f"a bidirectional stream carries the track inbound, not {order.track}")
        fork = call.fork(order, remarks)
        return 202, {"api_id": _id(), "message": "audio streaming started", "stream_id": fork.id}

    def _one_stream(self, request: Request, call: Call, stream_id: str) -> tuple[int, object]:
        fork = next((fork for fork in call.forks if stream_id in fork.ids), None)
        if fork is None:
            raise _Fault(404, _error("Stream not found"))
        if request.method == "GET":
            return 200, self._describe(call, fork)
        if request.method == "DELETE":
            _stop(call, fork)
            return 204, None
        raise _Fault(405, _error("method not allowed"))

    def _describe(self, call: Call, fork: Fork) -> dict[str, Any]:
        order = fork.order
        return {
            "api_id": _id(),
            "stream_id": fork.id,
            "call_uuid": call.id,
            "service_url": order.url,
            "audio_track": order.track,
            "bidirectional": order.bidirectional,
            "content_type": order.content_type,
            "sampling_rate": RATES.get(order.content_type, 24_000),
            "stream_timeout": order.timeout_s,
            "status_callback_url": order.status_url or None,
            "status_callback_method": order.status_method,
            "status": fork.status,
            "start_time": _time(fork.started_at),
            "end_time": _time(fork.ended_at),
            "resource_uri": f"{self._account}/Call/{call.id}/Stream/{fork.id}/",
        }

    def _page(self, request: Request, found: Sequence[object]) -> dict[str, Any]:
        query = parse_qs(request.query)
        limit = _whole(query.get("limit", [str(PAGE)])[0], "limit")
        offset = _whole(query.get("offset", ["0"])[0], "offset")

        def place(start: int) -> str | None:
            return f"{request.path}?limit={limit}&offset={start}" if 0 <= start < len(found) and limit else None

        meta = {
            "limit": limit,
            "offset": offset,
            "next": place(offset + limit),
            "previous": place(max(0, offset - limit)) if offset else None,
            "total_count": len(found),
        }
        return {"api_id": _id(), "meta": meta, "objects": found[offset : offset + limit]}


def _stop(call: Call, fork: Fork) -> None:
    if not fork.over.is_set():
        call.tell_of_stream(fork, "StopStream", {})
        fork.stop()


def _body(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise _wrong("the body is not a JSON object") from None


def _hook(body: Mapping[str, Any], name: str, needed: bool = False) -> Hook:
    url = str(body.get(f"{name}_url") or "")
    if (url or needed) and urlsplit(url).scheme not in ("http", "https"):
        raise _wrong(f"{name}_url is not an http:// or https:// address")
    return Hook(url, "GET" if str(body.get(f"{name}_method")).upper() == "GET" else "POST")


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not str(value).isdecimal():
        raise _wrong(f"{name} is not a whole number")
    return int(str(value))


def _id() -> str:
    return str(uuid.uuid4())


def _time(moment: float | None) -> str | None:
    return f"{stamp(moment)}+00:00" if moment else None


def _error(text: str) -> dict[str, Any]:
    return {"api_id": _id(), "error": text}


def _wrong(details: str) -> _Fault:
    return _Fault(400, {"error": "invalid request", "details": details})


def _too_many(limit: int, current: int) -> _Fault:
    details = {"limitType": "concurrency", "limit": limit, "current": current, "retryAfter": 1}
    error = {"code": "RATE_LIMIT_EXCEEDED", "message": "too many calls at a time", "details": details}
    return _Fault(429, {"status": "error", "error": error, "requestId": _id()}, (("Retry-After", "1"),))
