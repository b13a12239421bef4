cdef class LiveSession:
    cdef readonly object stream, plan, finished, scope
    cdef readonly double started
    cdef readonly list edges
    cdef public str error
    cdef readonly bint undelivered
    cdef str _pipeline
    cdef bint _broke, _sinks_done, _ending
    cdef object _sink_failed, _ended
    cdef dict _tracks, _chains, _lost
    cdef list _notes
    cdef long long _notes_left_out

    cdef _account(self, str track)
    cdef _carry(self, list chain, items)
    cdef _deliver(self, items)
