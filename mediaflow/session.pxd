cimport cython

from mediaflow.compiled cimport Fused
from mediaflow.delivery.account cimport Span, Timeline, TrackAccount
from mediaflow.delivery.edge cimport Edge
from mediaflow.frame cimport AudioFrame


@cython.final
cdef class _Lane(TrackAccount):
    cdef readonly str track, label
    cdef readonly Fused first
    cdef readonly list chain, rest


@cython.final
cdef class LiveSession:
    # What every frame asks for, side by side in memory.
    cdef readonly tuple edges
    cdef _Lane _lane
    cdef long long _sample_bytes
    cdef readonly bint undelivered, broke
    cdef bint _ending

    cdef bint _sinks_done
    cdef readonly object stream, plan, finished
    cdef public bint changed
    cdef public long long due
    cdef readonly double started
    cdef public str error
    cdef public dict settled
    cdef str _pipeline
    cdef public object reply
    cdef object _keeper, _format
    cdef tuple _lanes
    cdef dict _others, _lost
    cdef list _notes
    cdef long long _notes_left_out

    @cython.locals(lane=_Lane, edge=Edge, size=Py_ssize_t, position=cython.longlong)
    cpdef bint push(self, data, str track=*) except *

    @cython.locals(lane=_Lane)
    cdef _Lane _find(self, str track)

    @cython.locals(lane=_Lane)
    cdef _Lane _lane_of(self, str track)

    @cython.locals(first=Fused)
    cdef _enter(self, _Lane lane, data, long long position)

    @cython.locals(out=list)
    cdef _through(self, list chain, items)
    cdef _carry(self, list chain, items)

    @cython.locals(edge=Edge)
    cdef _deliver(self, items)
    cdef _hear(self, event)

    @cython.locals(timeline=Timeline, tracks=dict, account=TrackAccount, sinks=list, edge=Edge, sink=dict)
    cpdef dict account(self)

    @cython.locals(lane=_Lane, extents=dict, concealed=dict)
    cdef Timeline _timeline(self)
