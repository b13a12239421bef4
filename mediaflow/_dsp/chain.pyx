"""Several compiled stages behind one call.

A 20 ms frame costs its kernels some 200 ns and each call from Python 40 to 60 more, for arguments,
the new ``bytes`` and the frame of the caller. A chain pays that once: between stages only a pointer
and a size change hands.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize

from mediaflow._dsp.g711 cimport codec
from mediaflow._dsp.span cimport Span, hold_codes, hold_pcm
from mediaflow._dsp.stage cimport Stage

cdef enum:
    RELEASE_GIL = 8192          # bytes; a frame stays below


cdef int _run(Stage stage, Span *data) except -1 nogil:
    """Send a run of samples through a stage and those that follow."""
    stage.feed(data)
    if stage.following is not None:
        return _run(stage.following, data)
    return 0


@cython.final
cdef class Chain:
    """Join stages to one: ``Chain([mulaw_decode, Resampler(8000, 16000), EnergyVad(16000)])``.

    A stage is one of the four codec functions, a `Resampler`, an `EnergyVad` or a compiled `Stage` of a
    plugin. It belongs to the chain from then on: do not call it, or a second chain. Rates and sample
    sizes must meet, else ``ValueError`` names both sides.

    `process` takes a piece of the stream of any length and returns what comes out at the end; the result
    of the whole stream does not depend on the pieces. What a detector finds waits in `EnergyVad.take`.
    A chain serves one thread at a time; long pieces run without the GIL.
    """

    def __init__(self, stages):
        cdef Stage stage, last = None
        cdef int rate = 0
        found = []
        for item in stages:
            stage = item if isinstance(item, Stage) else codec(item)
            if stage is None:
                raise TypeError(f"a stage must be a codec function or a Stage, not {item!r}")
            if stage.linked or stage in found:
                raise ValueError(f"{item!r} is in a chain already")
            if last is not None and last.bytes_out != stage.bytes_in:
                raise ValueError(
                    f"{item!r} takes samples of {stage.bytes_in} bytes, but those before it have {last.bytes_out}"
                )
            if rate and stage.rate_in and rate != stage.rate_in:
                raise ValueError(f"{item!r} takes {stage.rate_in} Hz, but what comes before it gives {rate}")
            rate = stage.rate_out or stage.rate_in or rate
            found.append(stage)
            last = stage
        if not found:
            raise ValueError("a chain needs at least one stage")
        self.stages = tuple(found)
        self._first = found[0]
        last = None
        for stage in found:
            stage.linked = True
            if last is not None:
                last.following = stage
            last = stage

    cdef object _borrow(self, object data, Span *span):
        if self._first.bytes_in == 1:
            return hold_codes(data, "data", span)
        return hold_pcm(data, "data", span)

    cpdef bytes process(self, object data):
        """Send a piece of the stream through all stages and return what comes out."""
        cdef Span span
        cdef object _held = self._borrow(data, &span)
        if span.size > RELEASE_GIL:
            with nogil:
                _run(self._first, &span)
        else:
            _run(self._first, &span)
        return PyBytes_FromStringAndSize(span.start, span.size)

    cpdef bint news(self):
        """Tell whether a stage has found something since it was last looked at; what is not news is forgotten."""
        cdef Stage stage = self._first
        cdef bint news = False
        while stage is not None:
            news = stage.news() or news
            stage = stage.following
        return news

    def flush(self) -> bytes:
        """End the stream: return what the stages still hold, and be ready for another one."""
        cdef Stage stage
        cdef Span span
        ends = []
        for stage in self.stages:
            span.start = <char *>b""
            span.size = 0
            stage.finish(&span)
            if stage.following is not None:
                _run(stage.following, &span)
            ends.append(PyBytes_FromStringAndSize(span.start, span.size))
        self.reset()
        return b"".join(ends)

    def reset(self) -> None:
        """Forget the stream, as if newly made."""
        cdef Stage stage
        for stage in self.stages:
            stage.restart()

    @property
    def latency(self) -> float:
        """Seconds by which the output comes late: the sum over the stages."""
        cdef Stage stage
        cdef double seconds = 0.0
        for stage in self.stages:
            seconds += stage.delay()
        return seconds
