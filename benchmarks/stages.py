"""What a stage of a pipeline costs by itself: the same call through pipelines with more and more stages, no network.

    python plugin      a transform that returns its frame
    built-in           mulaw_encode and mulaw_decode in turn, without the time that their two kernels take by themselves

Each figure is the slope over 0, 4 and 8 stages, in ns of processor time a frame of 20 ms; the median of interleaved
rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from mediaflow import AudioFormat, AudioFrame, Engine, Item, Processor, Sink, Source, Stream, Transform, Writer, dsp
from mediaflow.config import Pipeline, Place
from mediaflow.plugins import Plugins
from mediaflow.runner import Runner
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_mulaw_encode import MulawEncode

STAGES = (0, 4, 8)
FRAMES = 5000
FORMAT = AudioFormat("s16le", 8000)
PCM = bytes(range(256)) + bytes(64)  # 20 ms


class Same(Transform, frozen=True):
    """A plugin in Python that does nothing."""

    def open(self, format: AudioFormat) -> Processor:
        return _Same()


class _Same(Processor):
    def process(self, frame: AudioFrame) -> tuple[AudioFrame]:
        return (frame,)


class Pushed(Source, frozen=True):
    """Pushes frames and says how long that took."""

    told: list[float]

    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        return [(FORMAT, ("inbound",))]

    async def serve(self, engine: Engine) -> None:
        async with engine.open(Stream("c", FORMAT, ("inbound",))) as session:
            for _ in range(100):  # for the caches, and until the sink is open
                await session.send(PCM)
            began = time.thread_time_ns()
            for _ in range(FRAMES):
                session.push(PCM)
            self.told.append((time.thread_time_ns() - began) / FRAMES)


class Nothing(Sink, frozen=True):
    """Takes everything at once."""

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        yield _Nothing()


class _Nothing(Writer):
    taken = 0

    @property
    def delivered(self) -> int:
        return self.taken

    def write_nowait(self, item: Item) -> bool:
        if isinstance(item, AudioFrame):
            self.taken += item.sample_count
        return True

    async def write(self, item: Item) -> None:
        self.write_nowait(item)


def _ns_per_frame(transforms: Sequence[Transform]) -> float:
    told: list[float] = []
    places: list[Place] = [("source",), *(("transforms", i) for i in range(len(transforms))), ("sinks", 0)]
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(
            file="stages.yaml",
            source=Pushed(told),
            transforms=tuple(transforms),
            sinks=(Nothing(),),
            names={place: str(place[0]) for place in places},
            marks=dict.fromkeys(places, (1, 1)),
            state=folder,
            drain_s=30.0,
        )
        anyio.run(_run, pipeline)
    return told[0]


async def _run(pipeline: Pipeline) -> None:
    await Runner(pipeline, Plugins()).run()


def _slope(costs: Sequence[float]) -> float:
    mean_x, mean_y = statistics.mean(STAGES), statistics.mean(costs)
    over = sum((x - mean_x) * (y - mean_y) for x, y in zip(STAGES, costs, strict=True))
    return over / sum((x - mean_x) ** 2 for x in STAGES)


def _kernels_ns() -> float:
    """Time both kernels, called by hand; return the mean of the two."""
    codes = dsp.mulaw_encode(PCM)
    calls: tuple[tuple[Callable[[Any], object], bytes], ...] = ((dsp.mulaw_encode, PCM), (dsp.mulaw_decode, codes))
    total = 0.0
    for kernel, data in calls:
        began = time.thread_time_ns()
        for _ in range(FRAMES):
            kernel(data)
        total += (time.thread_time_ns() - began) / FRAMES
    return total / 2


def measure(rounds: int) -> dict[str, float]:
    """Return ns per frame: of a pipeline without stages, and of a stage of each kind."""
    bare, python, built_in = [], [], []
    for _ in range(rounds):
        plugin = [_ns_per_frame([Same()] * number) for number in STAGES]
        ours = [_ns_per_frame([MulawEncode(), MulawDecode()] * (number // 2)) for number in STAGES]
        bare.append(plugin[0])
        python.append(_slope(plugin))
        built_in.append(_slope(ours) - _kernels_ns())
    return {
        "no stages": statistics.median(bare),
        "python plugin stage": statistics.median(python),
        "built-in stage": statistics.median(built_in),
    }
