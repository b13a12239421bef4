"""A fork of a simulated call's audio: the pipeline ``file → vobiz_call``, a socket after the other until it is over.

    ordered ──▶ connected ──▶ the conversation is over: completed
       ▲            ├──────▶ the app says stop, or the REST API does, or the time is up: completed
       │            └──────▶ the socket is lost ──▶ no more retries: failed
       └──────── after ``RETRY_S``, with a new stream id and the same call id

What was said while nobody was connected is not sent later: a carrier keeps nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import anyio
import msgspec

from .. import config, hookspecs
from ..component import Secret
from ..config import Pipeline
from ..errors import MediaflowError, SourceError
from ..frame import Stream
from ..path_template import PathTemplate
from ..plugins import Plugins
from ..runner import Runner
from ..vobiz import public
from ..wav import WavReader
from .courier import Routes
from .order import MUTE, RATES, Order

Speed = float | Literal["max"]

RETRY_S = 1.0
"""Pause before the carrier connects again; Vobiz does not say how long its own is."""

PLAYED = "mediaflow-data/lab/{call_id}.wav"
"""Where what an app plays into a call is kept."""


class Rig:
    """What all calls of a lab share: the conversation that people have, at what pace, and where news go.

    Raises ``SourceError`` where the conversation is not a WAV file.
    """

    def __init__(
        self,
        plugins: Plugins,
        audio: Path,
        speed: Speed = 1.0,
        say: Callable[[str], None] = lambda line: None,
        routes: Routes | None = None,
    ) -> None:
        self.plugins, self.audio, self.speed, self.say = plugins, audio, speed, say
        self.routes = routes or Routes()
        with WavReader(audio) as reader:
            if reader.samples is None:
                raise SourceError(f"{audio}: nobody knows how long it is; it was cut off")
            self.seconds = reader.samples / reader.format.sample_rate
        self.hearers: dict[str, Callable[[str, Mapping[str, Any]], None]] = {}
        """Who is told what happens to a stream, by its id."""
        plugins.add(self, "lab")

    @property
    def pace(self) -> float:
        """Seconds of the call in a second of ours, as far as there is a clock."""
        return 1.0 if self.speed == "max" else self.speed

    @hookspecs.hookimpl
    def noted(self, stream: Stream, name: str, facts: Mapping[str, Any]) -> None:
        """Lead news of a stream to who waits for them."""
        hearer = self.hearers.get(str(facts.get("stream_id")))
        if hearer is not None:
            hearer(name, facts)


def pipeline(
    rig: Rig, url: str, call_id: str, *, content_type: str, track: str = "both", start_s: float = 0.0, **options: Any
) -> Pipeline:
    """Return ``lab_call.yaml`` for one stream of a call, ``options`` being those of the sink."""
    env = {"LAB_URL": url, "LAB_AUDIO": str(rig.audio), "LAB_SPEED": str(rig.speed)}
    base = config.load(str(files("mediaflow_pipelines") / "lab_call.yaml"), rig.plugins, env)
    make = rig.plugins.components
    steps: list[tuple[str, dict[str, Any]]] = [("mulaw_decode", {}), ("alaw_decode", {})]
    steps.append(("resample", {"rate": RATES[content_type]}))
    if track != "both":
        steps.insert(0, ("select", {"track": track}))
    if content_type == "audio/x-mulaw;rate=8000":
        steps.append(("mulaw_encode", {}))
    names: dict[config.Place, str] = {("source",): "file", ("sinks", 0): "vobiz_call"}
    names |= {("transforms", index): name for index, (name, _) in enumerate(steps)}
    return msgspec.structs.replace(
        base,
        source=msgspec.structs.replace(base.source, id=call_id, start_s=start_s),
        transforms=tuple(make[name].component(**given) for name, given in steps),
        sinks=(msgspec.structs.replace(base.sinks[0], url=Secret(url), content_type=content_type, **options),),
        names=names,
        marks=dict.fromkeys(names, (1, 1)),
    )


class Owner(Protocol):
    """The call that a fork is of."""

    id: str
    account_id: str

    def position(self) -> float:
        """Return how far the conversation has come, in seconds."""

    def tell_of_stream(self, fork: Fork, event: str, facts: Mapping[str, Any]) -> None:
        """Hear what happened to the fork."""

    def poke(self) -> None:
        """Hear that the fork is over, or about to be connected again."""


class Fork:
    """One stream of a call."""

    def __init__(self, order: Order, call: Owner, rig: Rig) -> None:
        self.order, self.id = order, str(uuid.uuid4())
        self.ids = [self.id]
        """The ids of all its sockets; the last is ``id``."""
        self.status: Literal["in-progress", "completed", "failed"] = "in-progress"
        self.heard_out = False
        """True once the conversation came to its end on it."""
        self.lost = False
        """True once a socket was lost."""
        self.over = anyio.Event()
        self.started_at, self.ended_at = time.time(), 0.0
        self.sent_s = 0.0
        """Seconds of audio, of the longer track, that were sent on all its sockets."""
        self._call, self._rig = call, rig
        self._runner: Runner | None = None
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """End the stream; a second time, without waiting for what is under way."""
        self._stopping.set()
        if self._runner is not None:
            self._runner.stop()

    async def run(self) -> None:
        """Carry the stream to its end, whatever that is."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._limit)
            try:
                self.status = "completed" if await self._connect() else "failed"
            except MediaflowError as error:
                self.status = "failed"
                self._say(f"broke: {error}")
            tasks.cancel_scope.cancel()
        self.ended_at = time.time()
        self.over.set()
        self._call.poke()

    async def _limit(self) -> None:
        await anyio.sleep(self.order.timeout_s / self._rig.pace)
        self._say(f"streamTimeout: over after {self.order.timeout_s} s")
        self.stop()

    async def _connect(self) -> bool:
        """Connect as often as may be; return False where the last socket was lost too."""
        if self.order.content_type == MUTE:
            self._say(f"{MUTE}: never connected")
            await self._stopping.wait()
            return True
        for left in range(self.order.max_retries, -1, -1):
            failure = await self._one_socket(self._call.position())
            if failure is None or failure["code"] == "stopped" or self._stopping.is_set():
                return True
            self.lost = True
            error = "connection disconnected with the remote service"
            self._call.tell_of_stream(self, "DroppedStream", {"error": error})
            self._say(f"lost: {failure['code']}; {left} retries left")
            self._call.poke()
            if left:
                with anyio.move_on_after(0.0 if self._rig.speed == "max" else RETRY_S / self._rig.speed):
                    await self._stopping.wait()
                if self._stopping.is_set():
                    return True
                self.id = str(uuid.uuid4())
                self.ids.append(self.id)
        return False

    async def _one_socket(self, start_s: float) -> Mapping[str, Any] | None:
        """Stream over one socket; return how it failed."""
        url = self._rig.routes.lead(self.order.url)
        self._say(f"connecting to {public(url)}, {self.order.track} as {self.order.content_type}")
        self._rig.hearers[self.id] = self._hear
        self._runner = Runner(
            pipeline(
                self._rig,
                url,
                self._call.id,
                content_type=self.order.content_type,
                track=self.order.track,
                start_s=self.sent_s if self._rig.speed == "max" else start_s,
                stream_id=self.id,
                account_id=self._call.account_id,
                bidirectional=self.order.bidirectional,
                end="close",
                played=PathTemplate(PLAYED) if self.order.bidirectional else None,
            ),
            self._rig.plugins,
        )
        if self._stopping.is_set():
            self._runner.stop()
        try:
            await self._runner.run()
        finally:
            del self._rig.hearers[self.id]
        (account,) = self._runner.accounts or (None,)
        if account is None:
            return None
        (sink,) = account["sinks"]
        rate = account["sample_rate"]
        self.sent_s += max(figures["timeline"] for figures in account["tracks"].values()) / rate
        self._say(describe(account))
        failure: Mapping[str, Any] | None = sink["failure"]
        if failure is None and not self._stopping.is_set():
            self.heard_out = True
        return failure

    def _hear(self, name: str, facts: Mapping[str, Any]) -> None:
        shown = f" {facts['name']}" if "name" in facts else ""
        self._say(f"{name}{shown}")
        self._call.tell_of_stream(self, name, facts)

    def _say(self, text: str) -> None:
        self._rig.say(f"call {self._call.id}: stream {self.id}: {text}")


def describe(account: Mapping[str, Any]) -> str:
    """Say in a line what became of one stream's audio."""
    (sink,) = account["sinks"]
    outcome = sink["outcome"]
    text = f"the server has read {sink['delivered']:,} of {sink['received']:,} samples"
    if outcome.get("played_s"):
        text += f" and played {outcome['played_s']:.2f} s: {', '.join(outcome.get('played', ()))}"
    if sink["failure"] is not None:
        text += f"; {sink['failure']['text']}"
    return text
