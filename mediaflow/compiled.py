"""Steps that are compiled, and how neighbours among them become one call.

A processor that is nothing but a stage of ``mediaflow.dsp`` need not be called for every frame: where several stand one
behind the other, the engine links their stages to one ``dsp.Chain``, and a frame goes through all of them in one call::

    mulaw_decode   resample   energy_vad        three processors
    └─────────── dsp.Chain ───────────┘         one call, one new frame, 0.4 µs; a further stage costs its kernel

A stage may find something on the way, as a speech detector does.  Only then is its processor asked, by ``tell``, what
that means for the frame.  The one who is asked sees the end of the chain, so the chain ends behind it.

The position of what comes out is that of what went in, unless the chain changes the rate: then its output goes on
where it ended, as that of a resampler must, which returns samples later than it is given them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from . import dsp
from .component import Processor
from .frame import AudioFormat, AudioFrame, Event, Item, new_frame, rescale


class Compiled(Processor):
    """A processor made of one stage, ``Stage`` or codec function, of ``mediaflow.dsp``.

    One that overrides ``process``, ``event`` or ``flush`` is run as any other, and fused with nothing.
    """

    origin: int = 0
    """Position of the first sample that came out; with ``track`` known from the first frame on."""
    track: str = ""

    def __init__(self, stage: dsp.Stage | Callable[..., bytes], input: AudioFormat, output: AudioFormat) -> None:
        self.stage, self.input, self.output = stage, input, output
        self.latency = getattr(stage, "latency", 0.0)
        self._alone: Fused | None = None

    def tell(self, frame: AudioFrame) -> Iterable[Item]:
        """Return the samples of ``frame``, which may be none, and the events that the stage has found, in order.

        It is only asked when the stage has news, and at the end of the stream.
        """
        return (frame,) if frame.data else ()

    def process(self, frame: AudioFrame) -> Iterable[Item]:
        return self._run().process(frame)

    def flush(self) -> Iterable[Item]:
        return self._run().flush()

    def _run(self) -> Fused:
        if self._alone is None:
            self._alone = Fused([self])
        return self._alone


class Fused:
    """Compiled processors that follow one another, as one."""

    def __init__(self, processors: Sequence[Compiled]) -> None:
        last = processors[-1]
        self._chain = dsp.Chain([processor.stage for processor in processors])
        self._teller = last
        self._output = last.output
        self._sample_bytes = last.output.sample_bytes
        self._rates = processors[0].input.sample_rate, last.output.sample_rate
        self._resamples = any(each.input.sample_rate != each.output.sample_rate for each in processors)
        self._next = -1  # position of the next sample, where it is counted on; -1 until there was a frame
        self._track = ""

    def process(self, frame: AudioFrame) -> Iterable[Item]:
        """Send a frame through all of them."""
        return self.take(frame.data, frame.track, frame.position)

    def take(self, data: bytes, track: str, position: int) -> Iterable[Item]:
        """Send what could be a frame through all of them."""
        if self._resamples or self._next < 0:
            position = self._begin(track, position)
        pcm = self._chain.process(data)
        self._next = position + len(pcm) // self._sample_bytes
        frame = new_frame(pcm, self._output, track, position)
        if self._chain.news():
            return self._teller.tell(frame)
        return (frame,) if pcm else ()

    def event(self, event: Event) -> Iterable[Item]:
        """Let an event pass."""
        return (event,)

    def flush(self) -> Iterable[Item]:
        """Return what is left; the stream has ended."""
        return self._teller.tell(AudioFrame(self._chain.flush(), self._output, self._track, self._next))

    def _begin(self, track: str, position: int) -> int:
        if self._next < 0:
            self._next = rescale(position, *self._rates)
            self._track = self._teller.track = track
            self._teller.origin = self._next
        return self._next


def _is_more(kind: type[Compiled]) -> bool:
    """Tell whether a processor does by itself what would be passed over if only its stage were run."""
    return any(getattr(kind, name) is not getattr(Compiled, name) for name in ("process", "event", "flush"))


def fuse(steps: Iterable[tuple[str, Processor]]) -> list[tuple[str, Processor | Fused]]:
    """Replace the compiled ones among labelled processors that follow one another by one each."""
    fused: list[tuple[str, Processor | Fused]] = []
    run: list[tuple[str, Compiled]] = []

    def end() -> None:
        if run:
            label = sys.intern(", ".join(label for label, _ in run))  # every call has the same
            fused.append((label, Fused([processor for _, processor in run])))
            run.clear()

    for label, processor in steps:
        if not isinstance(processor, Compiled) or _is_more(type(processor)):
            end()
            fused.append((label, processor))
            continue
        run.append((label, processor))
        if type(processor).tell is not Compiled.tell:
            end()
    end()
    return fused
