"""Who answers at a public address: through a proxy that ends TLS, as there is one before us for real."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import anyio.abc
import pytest
import trustme
from anyio.streams.tls import TLSListener

from mediaflow import Finding, Secret, fellows, http, httpd
from mediaflow.testing import RecordingEngine
from mediaflow.websocket import Address
from mediaflow_plugins._public_url import examine
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio

CA = trustme.CA()


@pytest.fixture
def anyio_backend() -> str:
    """The control server runs on asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority of these tests as the system trusts its own."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    monkeypatch.setattr(http, "default_tls", lambda: context)


def free() -> Address:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Address("http", "127.0.0.1", server.getsockname()[1], "")


class _Listener(TLSListener):
    """Bears a handshake that the client breaks off, which is what some of these tests are about."""

    @staticmethod
    async def handle_handshake_error(exc: BaseException, stream: anyio.abc.AnyByteStream) -> None:
        await anyio.aclose_forcefully(stream)


@asynccontextmanager
async def proxy(target: Address, days: float = 90, ca: trustme.CA = CA) -> AsyncIterator[str]:
    """Lead TLS at localhost to ``target``; yield the address to ask."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=days, hours=1)).configure_cert(context)

    async def lead(client: anyio.abc.ByteStream) -> None:
        async def pour(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
            try:
                async for data in source:
                    await sink.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

        try:
            target_host = anyio.connect_tcp(target.host, target.port)
            async with client, await target_host as server, anyio.create_task_group() as tasks:
                tasks.start_soon(pour, client, server)
                await pour(server, client)
                tasks.cancel_scope.cancel()
        except OSError:
            pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    with anyio.fail_after(20):
        async with listener, anyio.create_task_group() as tasks:
            tls = _Listener(listener, context, standard_compatible=False)
            tasks.start_soon(tls.serve, lead)
            yield f"https://localhost:{port}"
            tasks.cancel_scope.cancel()


def told(findings: list[Finding]) -> list[tuple[bool | None, str]]:
    """Return what is found, without the port."""
    return [(finding.ok, finding.text) for finding in findings]


async def test_it_leads_to_us_before_the_pipeline_runs() -> None:
    """A server takes the pipeline's place for the moment, and the port is free again behind it."""
    address = free()
    async with proxy(address) as url:
        for _ in range(2):
            name, certificate, who = await examine(url, address, None)
            assert name.ok and name.text.startswith("localhost is ")
            assert certificate == Finding(True, f"the certificate of {url[8:]} is good for 90 days")
            assert who == Finding(True, f"{url}/healthz leads to us")


async def test_without_a_proxy_it_is_ours() -> None:
    """A public address that is the control address itself is answered while it is asked."""
    address = free()
    found = await examine(address.url(address.port), address, None)
    assert [finding.ok for finding in found] == [True, None, True, True]
    assert found[-1].text.endswith("leads to us")


async def test_it_leads_to_the_pipeline_that_runs() -> None:
    """Who answers at the control address is asked, and is the one that answers outside."""
    address, engine = free(), RecordingEngine()
    async with proxy(address) as url, anyio.create_task_group() as tasks:
        source = Vobiz(
            listen="ws://127.0.0.1:0/vobiz", control=address.url(address.port), public_url=url, secret=Secret("s3cret")
        )
        tasks.start_soon(source.serve, engine)
        await engine.url()
        found = [finding async for finding in source.diagnose()]
        tasks.cancel_scope.cancel()
    assert told(found)[-1] == (True, f"{url}/healthz leads to us")
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"status":"ok","instance":"0123456789abcdef"}', 200, "leads to another mediaflow"),
        (b"<html>Welcome</html>", 200, "does not lead to us: it says HTTP 200"),
        (b"", 502, "does not lead to us: it says HTTP 502"),
    ],
)
async def test_it_leads_to_somebody_else(body: bytes, status: int, text: str) -> None:
    """Another mediaflow is told apart from whatever else a proxy may lead to."""
    ports: list[int] = []
    up = anyio.Event()

    async def answer(request: httpd.Request) -> httpd.Response:
        return httpd.Response(status, body)

    def listening(port: int) -> None:
        ports.append(port)
        up.set()

    async with anyio.create_task_group() as tasks:
        elsewhere = Address("http", "127.0.0.1", 0, "")
        tasks.start_soon(lambda: httpd.serve(answer, elsewhere, listening=listening))
        await up.wait()
        async with proxy(elsewhere._replace(port=ports[0])) as url:
            address = free()
            who = (await examine(url, address, None))[-1]
        tasks.cancel_scope.cancel()
    assert (who.ok, who.text) == (False, f"{url}/healthz {text}")
    assert str(address.port) in who.fix or "proxy" in who.fix


async def test_a_certificate_that_is_not_renewed() -> None:
    """It is good, and should have been renewed by now."""
    address = free()
    async with proxy(address, days=10) as url:
        _, certificate, who = await examine(url, address, None)
    assert (certificate.ok, certificate.text) == (None, f"the certificate of {url[8:]} is good for 10 days")
    assert who.ok


@pytest.mark.parametrize(("days", "ca", "why"), [(-2, CA, "expired"), (90, trustme.CA(), "self-signed|unable to get")])
async def test_a_certificate_that_is_not_trusted(days: float, ca: trustme.CA, why: str) -> None:
    """The reason is told, and nobody is asked who it is."""
    async with proxy(free(), days, ca) as url:
        *_, last = await examine(url, free(), None)
    assert last.ok is False
    assert "is not trusted" in last.text
    assert any(each in last.text for each in why.split("|"))


async def test_nobody_there() -> None:
    """Nor a name, nor a listener, nor TLS."""
    address = free()
    (unknown,) = await examine(f"https://{'x' * 64}.example", address, None)
    assert unknown.ok is False and "is not a known name" in unknown.text
    *_, silent = await examine(f"https://localhost:{free().port}", address, None)
    assert silent.ok is False and "nobody speaks TLS" in silent.text
    found = await examine(f"http://localhost:{free().port}", address, None)
    assert [finding.ok for finding in found] == [True, None, False]


async def test_a_port_that_somebody_else_has() -> None:
    """Where the pipeline could not listen either, nobody can be asked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("http", "127.0.0.1", taken.getsockname()[1], "")
        async with proxy(free()) as url:
            who = (await examine(url, address, None))[-1]
    assert (who.ok, "was not asked" in who.text) == (None, True)


def test_the_instance_is_of_this_process() -> None:
    """It says nothing else."""
    assert len(fellows.here().instance) == 16
