"""Whether what a carrier asks at ``public_url`` reaches us, as far as that can be told from inside.

The name has to be known, somebody has to listen behind it, with a certificate that others trust, and that somebody has
to be us: ``/healthz`` of the control server says which process answers, and the same has to come back from the public
address.  Where the pipeline does not run yet, a control server that knows nothing else takes its place for the moment.

It is asked from this machine: a firewall that lets only us in, and a name that is known only here, look well from here.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.streams.tls import TLSAttribute

from mediaflow import Finding, SourceError, control, fellows, http
from mediaflow.websocket import Address

from ._health import ask, unchecked

PATIENCE_S = 4.0
"""How long each answer may take."""

RENEWED_DAYS = 20
"""Certificates of 90 days are renewed when 30 are left; one with fewer than this is not being renewed."""


async def examine(public_url: str, address: Address, certificate: control.Certificate | None) -> list[Finding]:
    """Ask ``public_url`` for what answers at ``address``."""
    parts = urlsplit(public_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [Finding(False, f"{host} is not a known name: {error}", "mend its DNS record, or public_url")]
    findings = [Finding(True, f"{host} is {', '.join(sorted({str(each[4][0]) for each in found}))}")]
    if not secure:
        findings.append(Finding(None, "public_url is not https://, which Vobiz wants", "end TLS in a proxy"))
    # Before anybody is asked: where no proxy stands between, the public port is this one.
    try:
        async with _answering(address, certificate) as ours:
            findings.append(await _connect(host, port, secure))
            if findings[-1].ok is not False:
                findings.append(await _identify(public_url.rstrip("/"), address, ours))
    except SourceError as error:
        findings.append(
            Finding(None, f"who answers at {host} was not asked: {error}", "start the pipeline, and ask again")
        )
    return findings


async def _connect(host: str, port: int, secure: bool) -> Finding:
    """Look at who listens, and at the certificate."""
    place = f"{host}:{port}"
    try:
        with anyio.fail_after(PATIENCE_S):
            if not secure:
                await (await anyio.connect_tcp(host, port)).aclose()
                return Finding(True, f"somebody listens at {place}")
            stream = await anyio.connect_tcp(host, port, ssl_context=http.default_tls(), tls_standard_compatible=False)
            async with stream:
                shown = stream.extra(TLSAttribute.peer_certificate)
            ends = ssl.cert_time_to_seconds(str(shown["notAfter"])) if shown else 0.0
    except ssl.SSLCertVerificationError as error:
        return Finding(False, f"the certificate of {place} is not trusted: {error.verify_message}", "renew or mend it")
    except TimeoutError:
        return Finding(False, f"nobody answers at {place}", "look at the firewall and at the proxy")
    except (OSError, anyio.BrokenResourceError) as error:
        return Finding(False, f"nobody speaks {'TLS' if secure else 'TCP'} at {place}: {error}", "look at the proxy")
    days = int((ends - time.time()) // 86_400)
    fine = days >= RENEWED_DAYS
    return Finding(
        fine or None, f"the certificate of {place} is good for {days} days", "" if fine else "see why it is not renewed"
    )


async def _identify(public_url: str, address: Address, ours: str) -> Finding:
    """Compare who answers at the public address with who answers here."""
    at = f"{public_url}/healthz"
    health = await ask(public_url, http.default_tls(), PATIENCE_S)
    if health.instance == ours:
        return Finding(True, f"{at} leads to us")
    if health.instance:
        return Finding(False, f"{at} leads to another mediaflow", "see where the proxy leads it")
    said = f"HTTP {health.status}" if health.status else "nothing"
    return Finding(False, f"{at} does not lead to us: it says {said}", f"lead it to {address.host}:{address.port}")


@asynccontextmanager
async def _answering(address: Address, certificate: control.Certificate | None) -> AsyncIterator[str]:
    """Give the instance that answers at ``address``; if nobody does, answer there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    health = await ask(address._replace(host=host).url(address.port), unchecked(), PATIENCE_S)
    if health.instance:
        yield health.instance
        return
    failure: SourceError | None = None
    async with anyio.create_task_group() as tasks:
        up = anyio.Event()

        async def serve() -> None:
            nonlocal failure
            try:
                await control.serve(
                    {}, address, ready=lambda: False, listening=lambda port: up.set(), certificate=certificate
                )
            except SourceError as error:
                failure = error
                up.set()

        tasks.start_soon(serve)
        await up.wait()
        if failure is None:
            yield fellows.here().instance
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
