"""The control server: what a service on the other end of a wire asks of us by HTTP, on a port of its own.

Answer URLs, status callbacks and webhooks are plain requests with bodies and come from the public side, so they are
served by servers made for that, Starlette and uvicorn, which the extra ``server`` brings::

    routes["/answer"]   POST /answer, GET /answer/more       the handler decides
    any other path      404
    any other method    405
    /healthz            200 as long as the process lives, and which one it is: workers of one pipeline are one
    /readyz             200 if ``ready()``, else 503

A body over ``MAX_BODY`` is 413, one that does not come within ``BODY_S`` 408, and a handler that breaks 500; a log
tells the kind of its error and not the text, which may hold what a log must not.

uvicorn knows asyncio only, so this does too.  Handlers are those of ``mediaflow.httpd``.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import anyio

from .errors import SourceError
from .fellows import here
from .httpd import Handler, Request, Response
from .listening import listen
from .websocket import Address

if TYPE_CHECKING:
    import starlette.requests
    import starlette.responses
    import uvicorn

MAX_BODY = 64 * 1024
"""Bytes of a body; a callback has about one thousand."""

MAX_HEAD = 16 * 1024
"""Bytes of a request line with its headers."""

BODY_S = 10.0
"""Seconds for a body to come; Vobiz itself gives up after ten."""

CLOSE_S = 5
"""Seconds that answers under way have to be sent when the server stops."""

CONNECTIONS = 200
"""Connections and requests at a time; what is more is answered 503."""

logger = logging.getLogger(__name__)


class Certificate(NamedTuple):
    """Files (PEM) of a certificate chain and its private key."""

    chain: str
    key: str


async def serve(
    routes: Mapping[str, Handler],
    address: Address,
    *,
    ready: Callable[[], bool],
    listening: Callable[[int], None] = lambda port: None,
    certificate: Certificate | None = None,
) -> None:
    """Answer requests at ``address`` until cancelled; then what is being answered is still answered.

    A handler gets the requests for its path and for all paths below it.  ``listening`` is called with the port once
    connections are taken.  Raises ``SourceError`` if the extra ``server`` is missing, on another backend than asyncio,
    and if the address cannot be had.
    """
    server = _server(routes, ready, certificate)
    try:
        listeners = await listen(address.host, address.port)
    except OSError as error:
        raise SourceError(f"cannot listen at {address.host}:{address.port}: {error.strerror or error}") from None

    async def run() -> None:
        with anyio.CancelScope(shield=True):
            await server.serve(listeners)

    with contextlib.ExitStack() as stack:
        for each in listeners:
            stack.enter_context(each)
        listening(listeners[0].getsockname()[1])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            try:
                await anyio.sleep_forever()
            finally:
                server.should_exit = True


def _server(
    routes: Mapping[str, Handler], ready: Callable[[], bool], certificate: Certificate | None
) -> uvicorn.Server:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        raise SourceError("the control server runs on asyncio only: run the pipeline on asyncio, or without control")
    try:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise SourceError(
            f"the control server needs {error.name}, which is not installed: pip install 'mediaflow[server]'"
        ) from None

    class Server(uvicorn.Server):
        """A server that leaves signals to who runs the pipeline."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    instance = here().instance

    async def health(request: Request) -> Response:
        return Response(200, f'{{"status":"ok","instance":"{instance}"}}'.encode())

    async def readiness(request: Request) -> Response:
        return Response(200, b'{"status":"ready"}') if ready() else Response(503, b'{"status":"not ready"}')

    methods = ["GET", "POST"]
    app = Starlette(
        routes=[
            Route("/healthz", _endpoint(health), methods=["GET"]),
            Route("/readyz", _endpoint(readiness), methods=["GET"]),
            *(Route(path, _endpoint(handler), methods=methods) for path, handler in routes.items()),
            *(Route(f"{path}/{{below:path}}", _endpoint(handler), methods=methods) for path, handler in routes.items()),
        ]
    )
    app.router.redirect_slashes = False
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # it would show paths, which may end in a secret
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=CLOSE_S,
        ssl_certfile=certificate.chain if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    try:
        config.load()
    except OSError as error:  # an ssl.SSLError is one
        raise SourceError(f"the certificate and key of the control server cannot be used: {error}") from None
    return Server(config)


def _endpoint(
    handler: Handler,
) -> Callable[[starlette.requests.Request], Awaitable[starlette.responses.Response]]:
    import starlette.requests
    import starlette.responses

    async def answer(theirs: starlette.requests.Request) -> starlette.responses.Response:
        response = await _handle(handler, theirs)
        headers = {"Content-Type": response.content_type, **dict(response.headers)}
        return starlette.responses.Response(response.body, response.status, headers)

    return answer


async def _handle(handler: Handler, theirs: starlette.requests.Request) -> Response:
    from starlette.requests import ClientDisconnect

    body = bytearray()
    try:
        with anyio.fail_after(BODY_S):
            async for part in theirs.stream():
                body += part
                if len(body) > MAX_BODY:
                    return Response(413, headers=(("Connection", "close"),))
    except TimeoutError:
        return Response(408, headers=(("Connection", "close"),))
    except ClientDisconnect:
        return Response(400)  # nobody reads it
    headers: dict[str, str] = {}
    for name, value in theirs.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    try:
        path, query = (theirs.scope[part].decode("latin-1") for part in ("raw_path", "query_string"))
        return await handler(Request(theirs.method, path, query, headers, bytes(body)))
    except Exception as error:
        logger.error("a %s request failed: %s", theirs.method, type(error).__name__)
        return Response(500)
