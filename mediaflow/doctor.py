"""What is wrong with this machine and this pipeline, and what to do about it.

Every component can examine what it depends on (``Component.diagnose``): a source its port and certificate, a sink its
service and credentials, a device its driver.  The account at Vobiz belongs to no component; it is asked where the
environment names it.  Nothing is changed and no audio moves; the services named in the pipeline
are asked the least that tells whether they would take a call.
"""

from __future__ import annotations

import os
import platform
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import PackageNotFoundError, version

import anyio

from . import vobiz
from .component import Component, Finding, Secret
from .config import Pipeline
from .errors import MediaflowError
from .plugins import Plugins

TIMEOUT_S = 15.0
"""How long one examination may take."""

_LIBRARIES = ("anyio", "websockets", "httpx", "msgspec", "numpy", "soundfile", "sounddevice")


async def examine(
    pipeline: Pipeline | None, plugins: Plugins, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[tuple[str, Finding]]:
    """Yield what is found, with the part that it concerns."""
    for finding in _machine():
        yield "machine", finding
    for finding in await _within_time(_vobiz(environment)):
        yield "account at Vobiz", finding
    for name, reason in plugins.broken.items():
        yield "plugins", Finding(False, f"{name} did not load: {reason}", "reinstall or remove it")
    if pipeline is None:
        return
    parts: list[tuple[str, Component]] = []
    for each in (pipeline, pipeline.reply):
        if each is not None:
            parts.append((each.label(("source",)), each.source))
            parts += [(each.label(("transforms", index)), part) for index, part in enumerate(each.transforms)]
            parts += [(each.label(("sinks", index)), part) for index, part in enumerate(each.sinks)]
    for label, component in parts:
        for finding in await _within_time(component.diagnose()):
            yield label, finding


async def _within_time(examination: AsyncIterator[Finding]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        with anyio.fail_after(TIMEOUT_S):
            async for finding in examination:
                findings.append(finding)  # noqa: PERF401 (what was found before it fails is worth telling)
    except TimeoutError:
        findings.append(Finding(False, f"did not answer within {TIMEOUT_S:g} s", "look at the network and at the peer"))
    except Exception as error:  # whatever a stranger's component raises is a finding like any other
        findings.append(Finding(False, f"could not be examined: {type(error).__name__}: {error}", ""))
    return findings


async def _vobiz(environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Ask Vobiz for the streams of a call that there is not: who may ask is told so, and nobody else."""
    names = ("VOBIZ_AUTH_ID", "VOBIZ_AUTH_TOKEN")
    given = [name for name in names if environment.get(name)]
    if not given:
        return
    if len(given) == 1:
        (missing,) = set(names) - set(given)
        yield Finding(False, f"{given[0]} is set and {missing} is not", "set both, or none")
        return
    credentials = vobiz.Credentials(environment[names[0]], Secret(environment[names[1]]))
    url = environment.get("VOBIZ_BASE_URL") or vobiz.BASE_URL
    try:
        async with vobiz.connect(credentials, url) as client:
            async for _ in client.streams(str(uuid.uuid4())):
                break
    except vobiz.VobizError as error:
        if error.status in (401, 403):
            hint = f"look at {names[0]} and {names[1]}: the console of Vobiz shows both"
            yield Finding(False, f"Vobiz does not take the credentials (HTTP {error.status})", hint)
            return
        if error.status != 404:
            yield Finding(None, str(error), "ask again later")
            return
    except MediaflowError as error:
        yield Finding(
            False, f"Vobiz does not answer: {error}", "look at the network, and at VOBIZ_BASE_URL if it is set"
        )
        return
    yield Finding(True, "Vobiz takes the credentials")


def _machine() -> list[Finding]:
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {ssl.OPENSSL_VERSION}"
    libraries = ", ".join(f"{name} {found}" for name in _LIBRARIES if (found := _version(name)))
    return [Finding(True, f"mediaflow {_version('mediaflow')}, {system}"), Finding(True, libraries)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
