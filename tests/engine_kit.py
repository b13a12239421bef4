"""Sources and sinks for the engine's tests: a source that acts a script, sinks that can be told to misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Engine,
    Item,
    Joiner,
    Processor,
    Sink,
    SinkError,
    Source,
    Stream,
    Transform,
    Writer,
)
from mediaflow.config import Pipeline, Place, Reply
from mediaflow.plugins import Plugins
from mediaflow.runner import Runner

S16_8K = AudioFormat("s16le", 8000)
TONE = bytes(range(256)) * 5  # 640 samples of 8 kHz: 80 ms


class Script(Source, frozen=True, kw_only=True):
    """Does what ``act`` does."""

    act: Callable[[Engine], Awaitable[None]]

    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        return [(S16_8K, ("inbound",)), (S16_8K, ("inbound", "outbound"))]

    async def serve(self, engine: Engine) -> None:
        await self.act(engine)


class Kept:
    """What a ``Memory`` sink was given, and how it is to behave."""

    def __init__(
        self,
        *,
        nowait: bool = True,
        opening: anyio.Event | None = None,
        gate: anyio.Event | None = None,
        fail_open: Exception | None = None,
        fail_at: int | None = None,
        fail_finish: Exception | None = None,
        hold: int = 0,
        finish: anyio.Event | None = None,
    ) -> None:
        self.nowait, self.opening, self.gate, self.hold, self.finish = nowait, opening, gate, hold, finish
        self.fail_open, self.fail_at, self.fail_finish = fail_open, fail_at, fail_finish
        self.items: list[Item] = []
        self.left = ""
        self.writer: Writer
        self.reached = {phase: anyio.Event() for phase in ("opening", "streaming", "writing", "finishing")}
        self.wrote = anyio.Event()

    @property
    def audio(self) -> bytes:
        return b"".join(item.data for item in self.items if isinstance(item, AudioFrame))


class Memory(Sink, frozen=True, kw_only=True):
    """Keeps everything."""

    kept: Kept

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        kept = self.kept
        kept.reached["opening"].set()
        if kept.opening is not None:
            await kept.opening.wait()
        if kept.fail_open is not None:
            raise kept.fail_open
        writer = kept.writer = _MemoryWriter(kept)
        kept.reached["streaming"].set()
        try:
            yield writer
            kept.reached["finishing"].set()
            if kept.finish is not None:
                await kept.finish.wait()
        except BaseException:
            kept.left = "aborted"
            raise
        if kept.fail_finish is not None:
            raise kept.fail_finish
        writer.confirmed = writer.taken
        kept.left = "finished"


class Light(Memory, frozen=True, kw_only=True):
    """Is the same, and needs no task while it streams."""

    resident: ClassVar[bool] = False


class _MemoryWriter(Writer):
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.taken = self.confirmed = 0

    @property
    def delivered(self) -> int:
        return max(self.confirmed, self.taken - self._kept.hold)

    def write_nowait(self, item: Item) -> bool:
        if not self._kept.nowait:
            return False
        self._take(item)
        return True

    async def write(self, item: Item) -> None:
        self._kept.reached["writing"].set()
        if self._kept.gate is not None:
            await self._kept.gate.wait()
        self._take(item)

    def _take(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            if self._kept.fail_at is not None and self.taken + item.sample_count > self._kept.fail_at:
                raise SinkError("lost", "the peer went away")
            self.taken += item.sample_count
        self._kept.items.append(item)
        self._kept.wrote.set()


def make_runner(
    folder: Path,
    act: Callable[[Engine], Awaitable[None]],
    *sinks: Sink,
    transforms: Sequence[Transform | Joiner] = (),
    plugin: object | None = None,
    drain_s: float = 30.0,
    reply: Reply | None = None,
) -> Runner:
    """Return a runner of a pipeline of these parts, whose ledger is in ``folder``."""
    places: list[Place] = [("source",)]
    places += [("transforms", index) for index in range(len(transforms))]
    places += [("sinks", index) for index in range(len(sinks))]
    pipeline = Pipeline(
        file="test.yaml",
        source=Script(act=act),
        transforms=tuple(transforms),
        sinks=sinks,
        names={place: str(place[0]) for place in places},
        marks={place: (line, 1) for line, place in enumerate(places, 1)},
        state=str(folder),
        drain_s=drain_s,
        reply=reply,
    )
    plugins = Plugins()
    if plugin is not None:
        plugins.add(plugin, "listener")
    return Runner(pipeline, plugins)


def make_reply(
    act: Callable[[Engine], Awaitable[None]], *transforms: Transform | Joiner, barge_in: bool = False
) -> Reply:
    """Return a reply that a script brings, of a pipeline whose source offers sinks for it."""
    places: list[Place] = [("source",), *(("transforms", index) for index in range(len(transforms))), ("sinks", 0)]
    return Reply(
        file="test.yaml",
        source=Script(act=act),
        transforms=transforms,
        sinks=(Memory(kept=Kept()),),
        names={place: str(place[0]) for place in places},
        marks={place: (line, 1) for line, place in enumerate(places, 1)},
        barge_in=barge_in,
    )


def call(*pushes: bytes, id: str = "c1", tracks: tuple[str, ...] = ("inbound",)) -> Callable[[Engine], Awaitable[None]]:
    """Return a script of one call that sends ``pushes`` on its first track."""

    async def act(engine: Engine) -> None:
        async with engine.open(Stream(id, S16_8K, tracks)) as session:
            for data in pushes:
                await session.send(data, tracks[0])

    return act


class Each(Transform, frozen=True, kw_only=True):
    """Does ``work`` to each frame."""

    work: Callable[[AudioFrame], Any]

    def open(self, format: AudioFormat) -> Processor:
        return _Each(self.work)


class _Each(Processor):
    def __init__(self, work: Callable[[AudioFrame], Any]) -> None:
        self._work = work

    def process(self, frame: AudioFrame) -> Iterable[Item]:
        return tuple(self._work(frame))


def booked(figures: Mapping[str, Any]) -> int:
    """Add up what became of the samples that a sink's account says were received."""
    return int(
        figures["delivered"]
        + figures["spooled"]
        + sum(figures["dropped"].values())
        + sum(figures["concealed"].values())
    )


async def run(runner: Runner) -> dict[str, Any]:
    """Run a pipeline with one call and return its account."""
    with anyio.fail_after(10):
        await runner.run()
    (account,) = runner.accounts
    for figures in account["sinks"]:
        assert figures["received"] == booked(figures)
        assert figures["spooled"] == 0
    return account
