"""Every asynchronous test runs on both backends, on asyncio with the event loop that `mediaflow run` uses.

A test that needs something of the system says so by `needs`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import mediaflow
from mediaflow import websocket

Needs = Callable[..., None]

# How long an example takes says more about the machine than about us.
settings.register_profile("timeless", deadline=None)
settings.load_profile("timeless")

for types in Path(mediaflow.__file__).parent.rglob("*.pxd"):
    module = types.with_suffix(".py")
    for binary in types.parent.glob(f"{types.stem}.*.so"):
        if module.exists() and binary.stat().st_mtime < max(module.stat().st_mtime, types.stat().st_mtime):
            raise pytest.UsageError(f"{module.name} is newer than what is compiled of it: `make check` builds it anew")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name the backend that the test runs on, and its options."""
    return request.param, websocket.LOOP if request.param == "asyncio" else {}


@pytest.fixture(scope="session")
def needs() -> Needs:
    """Skip where programs are missing; where CI=true a missing one is a failure, for CI must bring it."""

    def check(*programs: str) -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        if not missing:
            return
        reason = f"needs {', '.join(missing)}, which `make test` installs where it is root and has apt"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return check
