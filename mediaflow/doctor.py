"""What is wrong with this machine and this pipeline, and what to do about it.

Every component can examine what it depends on (``Component.diagnose``): a source its port and certificate, a sink its
service and credentials, a device its driver.  Nothing is changed and no audio moves; the services named in the pipeline
are asked the least that tells whether they would take a call.
"""

from __future__ import annotations

import platform
import ssl
import sys
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import anyio

from .component import Component, Finding
from .config import Pipeline
from .plugins import Plugins

TIMEOUT_S = 15.0
"""How long a component may take to examine itself."""

_LIBRARIES = ("anyio", "websockets", "httpx", "msgspec", "uvloop", "numpy", "soundfile", "sounddevice")


async def examine(pipeline: Pipeline | None, plugins: Plugins) -> AsyncIterator[tuple[str, Finding]]:
    """Yield what is found, with the part that it concerns."""
    for finding in _machine():
        yield "machine", finding
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
        for finding in await _diagnose(component):
            yield label, finding


async def _diagnose(component: Component) -> list[Finding]:
    findings: list[Finding] = []
    try:
        with anyio.fail_after(TIMEOUT_S):
            async for finding in component.diagnose():
                findings.append(finding)  # noqa: PERF401 (what was found before it fails is worth telling)
    except TimeoutError:
        findings.append(Finding(False, f"did not answer within {TIMEOUT_S:g} s", "look at the network and at the peer"))
    except Exception as error:  # whatever a stranger's component raises is a finding like any other
        findings.append(Finding(False, f"could not be examined: {type(error).__name__}: {error}", ""))
    return findings


def _machine() -> list[Finding]:
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {ssl.OPENSSL_VERSION}"
    libraries = ", ".join(f"{name} {found}" for name in _LIBRARIES if (found := _version(name)))
    findings = [Finding(True, f"mediaflow {_version('mediaflow')}, {system}"), Finding(True, libraries)]
    if sys.platform != "win32" and not _version("uvloop"):
        findings.append(Finding(None, "uvloop is not installed: each frame costs more", "pip install uvloop"))
    return findings


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
