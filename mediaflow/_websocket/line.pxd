cimport cython

from mediaflow._websocket.core cimport WebSocket
from mediaflow._websocket.hub cimport Member
from mediaflow._wire.poller cimport Poller


cdef class Line(Member):
    # What every read and write asks for, side by side in memory.
    cdef readonly WebSocket socket
    cdef readonly bint full
    cdef bint _ending, _ended, _broken, _over, _lost
    cdef Poller _poller
    cdef bytearray _buffer
    cdef object _tls
    cdef list _backlog
    cdef long long _reads_left

    cdef bint _paused
    cdef readonly object failure
    cdef object _sock, _reader, _room
    cdef Py_ssize_t _waiting
    cdef long long _reads, _tended, _look_at

    @cython.locals(size=Py_ssize_t)
    cpdef happened(self, bint readable, bint writable)
    cdef _give(self, Py_ssize_t size)
    cpdef write(self, bytes data)

    @cython.locals(sent=Py_ssize_t)
    cdef _send(self, bytes data)

    @cython.locals(sent=Py_ssize_t)
    cdef _write_on(self, list backlog)
