"""Both ends of both wires on one machine: the vendors' places taken by pipelines of our own.

The lab has no mocks.  The simulated carrier is ``file → vobiz_call`` and the EkaScribe service is ``eka_ingest →
energy_vad → speech_chunks → disk``, run by the same engine over real sockets on loopback::

    lab_call.yaml          the pipeline under rehearsal          eka_ingest.yaml
    file → vobiz_call ═══▶ vobiz → … → eka_raw ════════════════▶ eka_ingest → … → disk

A pipeline with a reply is called by ``lab_talk.yaml``, with the caller's side only, as carriers do.

`Lab` does that for one call and one pipeline, in one process.  The other files serve whoever comes: `vobiz` is the
carrier with all that belongs to a call, `eka` the service, and `caller` calls any media server.

A pipeline is rehearsed through its environment alone: where it reads ``VOBIZ_LISTEN`` (or ``MEDIA_STREAMS_LISTEN``, by
the name of its source), ``EKA_BASE_URL`` and ``EKA_TOKEN`` the lab puts its own addresses.  One that has an address
written out is refused: it would call a vendor.

A ``media_streams`` source gets a call of every carrier that it takes, all at once; Exotel has a pipeline of its own
(``lab_exotel.yaml``), for its calls are of one track and linear.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

import anyio

from .. import config
from ..config import Pipeline
from ..dialects import DIALECTS
from ..errors import ConfigError, Problem
from ..plugins import Plugins
from ..runner import Runner

CLIP = Path(__file__).with_name("consultation.wav")
"""A short consultation; `consultation.md` beside it says how it was made."""

NOTICE = Path(str(files("mediaflow_pipelines"))) / "consent_notice.wav"
"""What the shipped pipeline with a reply plays; `consent_notice.md` beside it says how it was made."""

_TOKEN = "lab"

_CARRIERS = {"vobiz": "VOBIZ", "media_streams": "MEDIA_STREAMS"}
"""Sources that carriers call, and how the variables of their pipelines begin."""


class Lab:
    """One pipeline, rehearsed between a simulated carrier and an Eka-compatible service."""

    def __init__(self, file: str, plugins: Plugins, speed: float | Literal["max"] = 1.0) -> None:
        self._file, self._plugins, self._speed = file, plugins, speed
        self.runners: list[Runner] = []
        """The pipelines that run, each from when it is started."""
        self._eka: Runner | None = None
        self._fronts: list[Runner] = []
        self._stopped = False
        pipeline = self._load_target("http://127.0.0.1:1")
        self._needs_eka = any(_is_eka(pipeline, index) for index in range(len(pipeline.sinks)))
        self._callers = _callers(pipeline)
        if not self._needs_eka and not self._callers:
            text = "nothing here for the lab to stand in for: neither a carrier's source nor an Eka sink"
            raise ConfigError([pipeline.problem(("source",), "lab", text, "run it without --lab")])

    async def run(self) -> None:
        """Carry a call of each carrier (or what the pipeline's own source brings), and return when all has finished."""
        async with anyio.create_task_group() as services:
            base_url = ""
            if self._needs_eka:
                self._eka = self._runner("eka_ingest.yaml", {"EKA_LISTEN": "http://127.0.0.1:0", "EKA_TOKEN": _TOKEN})
                services.start_soon(self._eka.run)
                await self._eka.up.wait()
                base_url = self._eka.url
            target = Runner(self._load_target(base_url), self._plugins)
            self.runners.insert(0, target)
            if self._callers:
                await self._call(target)
            else:
                await self._run_fronts(target)
            if self._eka is not None:
                self._eka.stop()

    async def _call(self, target: Runner) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.run)
            await target.up.wait()
            env = {"LAB_URL": target.url, "LAB_AUDIO": str(CLIP), "LAB_SPEED": str(self._speed)}
            fronts = []
            for dialect in self._callers:
                # Of a call that is spoken into, the carrier sends the caller's side alone.
                name = "lab_call.yaml" if target.pipeline.reply is None else "lab_talk.yaml"
                file = "lab_exotel.yaml" if dialect == "exotel" else name
                call = CLIP.stem if len(self._callers) == 1 else dialect
                fronts.append(self._runner(file, env | {"LAB_DIALECT": dialect, "LAB_CALL": call}))
            await self._run_fronts(*fronts)
            while target.sessions:
                await target.over(target.ended + 1)
            target.stop()

    async def _run_fronts(self, *runners: Runner) -> None:
        self._fronts += runners
        if not self._stopped:
            async with anyio.create_task_group() as tasks:
                for runner in runners:
                    tasks.start_soon(runner.run)

    def stop(self) -> None:
        """End the call where it begins, so that what was said still arrives; a second time, cut everything off."""
        again, self._stopped = self._stopped, True
        if again:
            for runner in self.runners:
                runner.stop()
        else:
            for runner in self._fronts:
                runner.stop()

    def stored(self) -> list[tuple[str, float]]:
        """Return path and seconds of every chunk that the Eka-compatible service has stored."""
        accounts = self._eka.accounts if self._eka is not None else []
        stored = [
            file for account in accounts for sink in account["sinks"] for file in sink["outcome"].get("files", ())
        ]
        return [(file["path"], file["seconds"]) for file in stored]

    def _runner(self, name: str, env: Mapping[str, str]) -> Runner:
        path = files("mediaflow_pipelines") / name
        runner = Runner(config.load(str(path), self._plugins, {**os.environ, **env}), self._plugins)
        self.runners.append(runner)
        return runner

    def _load_target(self, base_url: str) -> Pipeline:
        listen = "ws://127.0.0.1:0/call"
        env = {
            "CONSENT_NOTICE": str(NOTICE),
            **os.environ,
            **{f"{name}_LISTEN": listen for name in _CARRIERS.values()},
            **{f"{name}_SECRET": "" for name in _CARRIERS.values()},
            "EKA_BASE_URL": base_url,
            "EKA_TOKEN": _TOKEN,
            "EKA_CLIENT_ID": "",
            "EKA_CLIENT_SECRET": "",
            "EKA_SHARING_KEY": "",
            "EKA_API_KEY": "",
            "EKA_JWT_PAYLOAD": "",
        }
        pipeline = config.load(self._file, self._plugins, env)
        problems = []
        if _callers(pipeline) and getattr(pipeline.source, "listen", "") != listen:
            variable = f"{_CARRIERS[pipeline.names[('source',)]]}_LISTEN"
            problems.append(_written_out(pipeline, ("source",), "listen", variable))
        for index, sink in enumerate(pipeline.sinks):
            if _is_eka(pipeline, index) and getattr(sink, "base_url", "") != base_url:
                problems.append(_written_out(pipeline, ("sinks", index), "base_url", "EKA_BASE_URL"))
        if problems:
            raise ConfigError(problems)
        return pipeline


def _callers(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the dialects of the carriers that the source takes calls from; none if it takes no calls."""
    name = pipeline.names[("source",)]
    if name not in _CARRIERS:
        return ()
    chosen = getattr(pipeline.source, "dialect", name)
    return tuple(DIALECTS) if chosen == "auto" else (chosen,)


def _is_eka(pipeline: Pipeline, index: int) -> bool:
    return pipeline.names[("sinks", index)].startswith("eka_")


def _written_out(pipeline: Pipeline, place: config.Place, option: str, variable: str) -> Problem:
    text = f"{option} does not come from ${{{variable}}}, so the lab cannot take the vendor's place"
    return pipeline.problem(place, "lab", text, f"write `{option}: ${{{variable}:-…}}`")
