cimport cython

from mediaflow._wire.frames cimport Decoder, encode


cdef class WebSocket


@cython.final
cdef class Cork:
    cdef public bint is_in
    cdef list _sockets

    @cython.locals(socket=WebSocket)
    cpdef pull(self)
    cpdef hold(self, WebSocket socket)


@cython.final
cdef class WebSocket:
    # What every message asks for, side by side in memory.
    cdef readonly object _line
    cdef object _write_line
    cdef Cork _cork
    cdef object _closing, _end
    cdef bint _masks, _refused, _lost
    cdef bytes _out, _along
    cdef list _more
    cdef Py_ssize_t _out_size, _out_limit
    cdef object _take
    cdef Decoder _decoder

    cdef bint _receiving
    cdef readonly object _inbox
    cdef object _waiter, _consumer, _gone, _tell_gone, _pong, _pinged
    cdef str _path
    cdef long long _pings
    cdef readonly long long ponged

    cpdef received(self, data, Py_ssize_t size=*)

    @cython.locals(event=int, pulls=bint)
    cdef _deliver(self)
    cdef _tell_refused(self, failure)
    cdef _tell_end(self)
    cpdef bint _keep(self, bytes message) except -1
    cpdef send_nowait(self, message)
    cdef _write(self, bytes frame)
    cdef _flush(self)
