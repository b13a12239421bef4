cimport cython

from mediaflow.frame cimport AudioFrame


@cython.final
cdef class Span:
    cdef readonly long long start, end
    cdef readonly str reason


@cython.final
cdef class Timeline:
    cdef readonly dict extents, concealed


cpdef Timeline carry(Timeline timeline, path)


@cython.locals(joined=Span, extent=Span, concealed=list)
cdef Timeline _joined(Timeline timeline, join)


@cython.locals(
    extents=dict, concealed=dict, spans=list, extent=Span, span=Span, rate_in=cython.longlong, rate_out=cython.longlong,
    origin=cython.longlong, start=cython.longlong, span_start=cython.longlong
)
cdef Timeline _scaled(Timeline timeline, rate)


@cython.locals(span=Span, start=cython.longlong, reached=cython.longlong)
cdef list _union(list spans)


@cython.locals(total=cython.longlong, span=Span)
cdef Py_ssize_t _total(spans) except? -1


@cython.locals(totals=dict, span=Span)
cdef dict _by_reason(tracks)


cdef class TrackAccount:
    cdef public long long start, end
    cdef public list concealed
    cdef public object dropped

    @cython.locals(timeline=cython.longlong)
    cpdef dict figures(self)


@cython.final
cdef class _Run:
    cdef public str track
    cdef public long long start, end


@cython.final
cdef class _Runs:
    cdef readonly list runs
    cdef _Run _last

    @cython.locals(last=_Run)
    cpdef add(self, str track, Py_ssize_t start, Py_ssize_t end)

    @cython.locals(run=_Run, total=cython.longlong)
    cdef Py_ssize_t total(self) except? -1

    @cython.locals(run=_Run, span=Span, total=cython.longlong)
    cdef Py_ssize_t real(self, dict concealed) except? -1


@cython.final
cdef class SinkAccount:
    cdef str _track
    cdef long long _start, _end, _sample_bytes
    cdef readonly object format
    cdef tuple _path
    cdef _Runs _written, _delivered
    cdef long long _confirmed
    cdef dict _dropped
    cdef str _closed

    @cython.locals(start=cython.longlong, track=str)
    cpdef write(self, AudioFrame frame)
    cdef _gather(self)

    @cython.locals(
        here=Timeline, received=cython.longlong, delivered=cython.longlong, spooled=cython.longlong,
        samples=cython.longlong, dropped=dict, runs=_Runs
    )
    cpdef dict figures(self, Timeline source)
