cimport cython

from mediaflow._websocket.core cimport WebSocket
from mediaflow._websocket.hub cimport Member
from mediaflow._wire.poller cimport Poller


cdef class Line(Member):
    cdef readonly object failure
    cdef readonly WebSocket socket
    cdef readonly bint full
    cdef object _sock, _tls, _reader, _room
    cdef Poller _poller
    cdef bytearray _buffer
    cdef list _backlog
    cdef Py_ssize_t _waiting
    cdef long long _reads, _reads_left
    cdef bint _paused, _ending, _ended, _broken, _over, _lost

    @cython.locals(size=Py_ssize_t)
    cpdef happened(self, bint readable, bint writable)
    cdef _give(self, Py_ssize_t size)
    cpdef write(self, bytes data)

    @cython.locals(sent=Py_ssize_t)
    cdef _send(self, bytes data)

    @cython.locals(sent=Py_ssize_t)
    cdef _write_on(self, list backlog)
