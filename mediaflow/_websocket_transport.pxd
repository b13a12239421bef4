from mediaflow._websocket_core cimport Cork, WebSocket


cdef class _Line:
    cdef readonly WebSocket socket
    cdef readonly bint full
    cdef bytearray _buffer
    cdef object _view
    cdef readonly object _transport
    cdef object _loop, _is_closing, _write, _room, _timer
    cdef double _due
    cdef Cork _cork
    cdef long long _reads, _reads_left

    cpdef write(self, bytes data)
