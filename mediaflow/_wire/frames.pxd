"""The WebSocket frames for code that cimports them: `Decoder.next` and `build` are the two hot calls."""

from libc.stdint cimport uint8_t

cdef extern from "frames_kernel.h":
    ctypedef struct mediaflow_utf8:
        uint8_t due, low, high

cpdef enum Opcode:
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


cdef class Decoder:
    cdef readonly bytes payload     # of the message or control frame that came last
    cdef readonly int opcode        # its kind

    cdef bint _masked               # what the peer has to do
    cdef bint _over                 # a failure or the peer's close: nothing is read any more
    cdef Py_ssize_t _limit

    cdef bytes _data                # the read that is being worked on
    cdef const char *_at
    cdef const char *_end

    cdef uint8_t _head[14]          # a header that came in pieces
    cdef int _have

    cdef bint _inside               # a frame, whose header is:
    cdef bint _fin
    cdef int _frame                 # its opcode
    cdef Py_ssize_t _left           # its payload still to come
    cdef uint8_t _mask[4]           # the first byte belongs to what comes next

    cdef int _kind                  # of the message that came in part, else 0
    cdef char *_held                # what there is of it
    cdef Py_ssize_t _filled, _room
    cdef mediaflow_utf8 _utf8
    cdef bytes _control             # what there is of a control frame, which may come amid a message

    cpdef feed(self, data, Py_ssize_t size=*)
    cpdef int deliver(self, take) except -1
    cpdef bint ends_here(self)
    cdef int next(self) except -1
    cdef int _fail(self, int code, str text) except -1
    cdef bint _take_header(self) except -1
    cdef int _begin(self, const uint8_t *head) except -1
    cdef int _enter(self, const uint8_t *head) except -1
    cdef bint _take_control(self) except -1
    cdef int _check_close(self) except -1
    cdef bint _take_payload(self) except -1
    cdef int _check_text(self, const char *text, Py_ssize_t size) except -1
    cdef void _advance(self, Py_ssize_t size) noexcept
    cdef int _grow(self, Py_ssize_t size) except -1


cpdef bytes encode(int opcode, payload, bint masked)
cdef bytes build(int opcode, const char *data, Py_ssize_t size, bint masked)
