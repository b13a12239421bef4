"""Simulated calls to a media server, without a carrier's API in front: as many as wanted, at the same time."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import anyio

from ..errors import MediaflowError
from ..runner import Runner
from ..vobiz import public
from .fork import Rig, describe, pipeline


class Caller:
    """So many calls to one address; ``options`` are those of the sink ``vobiz_call``."""

    def __init__(self, rig: Rig, url: str, calls: int, *, content_type: str, track: str, **options: Any) -> None:
        self._rig, self._url = rig, url
        self._runners: dict[str, Runner] = {}
        for _ in range(calls):
            call_id, stream_id = str(uuid.uuid4()), str(uuid.uuid4())
            line = pipeline(rig, url, call_id, content_type=content_type, track=track, stream_id=stream_id, **options)
            self._runners[call_id] = Runner(line, rig.plugins)
            rig.hearers[stream_id] = self._hear(call_id)

    async def run(self) -> bool:
        """Make the calls; return True if the server took every one of them to its end."""
        self._rig.say(f"calling {public(self._url)}, {len(self._runners)} at a time")
        async with anyio.create_task_group() as tasks:
            for call_id, runner in self._runners.items():
                tasks.start_soon(self._carry, call_id, runner)
        return all(runner.ended and not runner.failed for runner in self._runners.values())

    def stop(self) -> None:
        """Hang up; a second time, without waiting for the server."""
        for runner in self._runners.values():
            runner.stop()

    async def _carry(self, call_id: str, runner: Runner) -> None:
        try:
            await runner.run()
        except MediaflowError as error:
            self._rig.say(f"call {call_id}: {error}")
        for account in runner.accounts:
            self._rig.say(f"call {call_id}: {account['status']}: {describe(account)}")

    def _hear(self, call_id: str) -> Any:
        def hear(name: str, facts: Mapping[str, Any]) -> None:
            self._rig.say(f"call {call_id}: {name} {facts.get('name', '')}".rstrip())

        return hear
