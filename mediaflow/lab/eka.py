"""EkaScribe as a local server: the pipeline ``eka_ingest.yaml`` with a login of the lab's, told of as it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import anyio
import msgspec

from .. import config, hookspecs
from ..component import Secret
from ..frame import Stream
from ..plugins import Plugins
from ..runner import Runner

LOGIN = "lab"
"""The lab's client id, its secret, and a token for who does not log in."""

LOOK_S = 0.25
"""How often it is looked whether more chunks are stored."""


class Scribe:
    """The service; ``quirks`` are what it does wrong, ``say`` is told what happens, a line at a time."""

    def __init__(
        self, plugins: Plugins, listen: str, quirks: Sequence[str] = (), say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._say = say
        self._told: dict[str, int] = {}
        pipeline = config.load(str(files("mediaflow_pipelines") / "eka_ingest.yaml"), plugins, {"EKA_LISTEN": listen})
        source = msgspec.structs.replace(
            pipeline.source, token=Secret(LOGIN), client_id=LOGIN, client_secret=Secret(LOGIN), quirks=tuple(quirks)
        )
        plugins.add(self, "lab")
        self.runner = Runner(msgspec.structs.replace(pipeline, source=source), plugins)

    async def run(self) -> None:
        """Serve until ``stop``, and until every session is stored."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look)
            await self.runner.run()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Take no more sessions and let those that are there be stored; a second time, cut them off."""
        self.runner.stop()

    async def _look(self) -> None:
        while True:
            for session in list(self.runner.sessions.values()):
                self._tell_stored(session.account())
            await anyio.sleep(LOOK_S)

    def _tell_stored(self, account: Mapping[str, Any]) -> None:
        stored = [file for sink in account["sinks"] for file in sink["outcome"].get("files", ())]
        for file in stored[self._told.get(account["call"], 0) :]:
            self._say(f"session {account['call']}: stored {file['path']}, {file['seconds']:.2f} s")
        self._told[account["call"]] = len(stored)

    @hookspecs.hookimpl
    def session_started(self, stream: Stream) -> None:
        """Tell that audio comes."""
        self._say(f"session {stream.id}: streaming, {stream.format}")

    @hookspecs.hookimpl
    def session_ended(self, account: Mapping[str, Any]) -> None:
        """Tell what is stored."""
        self._tell_stored(account)
        del self._told[account["call"]]
        (figures,) = account["tracks"].values()
        self._say(
            f"session {account['call']}: {account['status']}, {figures['timeline'] / account['sample_rate']:.2f} s"
        )

    @hookspecs.hookimpl
    def counted(self, name: str) -> None:
        """Tell what belongs to no session."""
        self._say(f"counted {name}")
