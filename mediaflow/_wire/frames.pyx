# cython: binding=False, embedsignature.format=clinic
"""WebSocket frames (RFC 6455, section 5): bytes to messages and back, without I/O.

::

     bit 0 1 2 3 4-7      8 9-15       then
        ┌─┬─┬─┬─┬──────┐ ┌─┬────────┐ ┌────────────────┬─────────┬───────────┐
        │F│R│R│R│opcode│ │M│ length │ │ longer length  │ mask    │ payload   │
        └─┴─┴─┴─┴──────┘ └─┴────────┘ └────────────────┴─────────┴───────────┘
         │ └ reserved: 0  │  0 … 125     none            4 bytes,
         └ last frame of  │  126         16 bits         if M is 1
           its message    │  127         64 bits
                          └ 1 from clients, 0 from servers

      opcode   0 continuation   1 text   2 binary   8 close   9 ping   10 pong

A message is a text or binary frame and its continuations. Control frames (8 and up) may come between these; they are
whole and hold 125 bytes at most. What breaks the rules fails the connection with a close code:

      1002   reserved bits or opcodes, a wrong mask bit, a continuation of nothing, a message inside another, control
             frames that are long or in parts, a length of 2⁶³ and more, a close code that must not be on the wire
      1007   text that is not UTF-8, told by the first byte that cannot be put right (section 8.1)
      1009   a message over the limit, told by the header that would exceed it

A length written longer than needed is taken, as by all common peers, though section 5.2 forbids it.

`Decoder` keeps the read it was given and works in it: the payload of a frame that came whole is unmasked into the
message's own ``bytes``, and there is no other copy, but of a read in a buffer that is used again (20 ns for such a
frame). Only what comes in parts is gathered, in memory that doubles.
Messages are pulled out of it one by one, so who cannot take more leaves the rest where it is.

Masks keep clients from choosing the bytes on the wire (section 10.3), so they come from the system's generator. Asking
it for 4 bytes is a system call, 0.35 µs; for 256 it is 0.9. So they come from a store, one per thread, which a forked
child throws away. (For 4096 it is 9, and was 28 amid calls: one frame of a thousand waited for that.)

Nanoseconds for one frame, medians of alternating rounds on a busy machine (benchmarks/bench_wire.py; the ratio counts):

                                             here   `websockets`, its protocol without I/O
      read 380 B of masked text                90           2,500     0.04
      write 640 B of binary, masked            71           1,500     0.05
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from "frames_kernel.h" nogil:
    uint8_t mediaflow_unmask(char *out, const char *data, size_t n, const uint8_t *mask)
    int mediaflow_check_utf8(mediaflow_utf8 *state, const char *text, size_t n)

cdef extern from *:
    """
    #define MEDIAFLOW_MASKS 256
    static _Thread_local uint8_t mediaflow_masks[MEDIAFLOW_MASKS];
    static _Thread_local int mediaflow_masks_left = 0;
    """
    const int MEDIAFLOW_MASKS
    uint8_t *mediaflow_masks
    int mediaflow_masks_left


class FrameError(ValueError):
    """The peer broke the protocol; ``code`` is what to close with (RFC 6455, section 7.4.1)."""

    def __init__(self, int code, str text):
        self.code = code
        super().__init__(text)


cdef bint _may_be_sent(int code) noexcept:
    """Tell whether a close code may be on the wire: section 7.4, and what was registered since."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


@cython.final
cdef class Decoder:
    """What the peer's bytes say, for one connection.

    ``masked`` is True where we are the server. ``limit`` is the longest message in bytes.
    """

    def __cinit__(self, bint masked, Py_ssize_t limit):
        self._masked = masked
        self._limit = limit

    def __dealloc__(self):
        free(self._held)

    cpdef feed(self, data, Py_ssize_t size=-1):
        """Take what was read: ``bytes``, or the first ``size`` bytes of a buffer, which may be used again.

        What is not pulled out yet stays in front of it.
        """
        cdef Py_buffer view
        cdef bytes read
        if self._over:
            return
        if PyBytes_CheckExact(data):
            read = data
        elif PyByteArray_CheckExact(data) and 0 <= size <= PyByteArray_GET_SIZE(data):     # what lines read into
            read = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(data), size)
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                if not 0 <= size <= view.len:
                    raise ValueError(f"the buffer holds {view.len} bytes, not {size}")
                read = PyBytes_FromStringAndSize(<const char *>view.buf, size)
            finally:
                PyBuffer_Release(&view)
        if self._at != self._end:
            read = self._at[:self._end - self._at] + read
        self._data = read
        self._at = PyBytes_AS_STRING(read)
        self._end = self._at + PyBytes_GET_SIZE(read)

    cpdef int deliver(self, take) except -1:
        """Call ``take`` with message after message, each as ``bytes``, as long as it returns True.

        Returns why it stopped: 0, all that was fed is used up; TEXT or BINARY, ``take`` wants no more than this one for
        now; CLOSE, PING or PONG, the peer sent that, with ``payload``. During the call ``opcode`` is the message's.
        Raises ``FrameError`` once, where the peer breaks the protocol. Behind that, or a CLOSE, nothing is read.
        What ``take`` raises comes out, and the message counts as taken.
        """
        cdef int event
        cdef bytes message
        while True:
            event = self.next()
            if event != TEXT and event != BINARY:
                return event
            message, self.payload = self.payload, None
            if not take(message):
                return event

    cpdef bint ends_here(self):
        """Tell whether what was fed ends within the next frame, or with it; False also if that is not seen at once."""
        cdef const uint8_t *head = <const uint8_t *>self._at
        cdef Py_ssize_t here = self._end - self._at
        if self._inside:
            return here <= self._left
        if self._have or here < 4:
            return here == 0
        if head[1] & 0x7F == 127:
            return False
        return here <= _header_size(head) + (head[1] & 0x7F if head[1] & 0x7F < 126 else head[2] << 8 | head[3])

    @property
    def waiting(self) -> bool:
        """True while there is something fed and not looked at."""
        return self._at != self._end

    cdef int next(self) except -1:
        """Return the kind of what comes next, with ``payload`` and ``opcode`` set; 0 if more must be fed."""
        if self._over:
            return 0
        while self._inside or self._take_header():
            if self._frame >= CLOSE:
                if not self._take_control():
                    break
                return self.opcode
            if not self._take_payload():
                break
            if self._fin:
                return self.opcode
        self._data = None
        self._at = self._end = NULL
        return 0

    cdef int _fail(self, int code, str text) except -1:
        self._over = True
        self._data = None
        self._at = self._end = NULL
        raise FrameError(code, text)

    cdef bint _take_header(self) except -1:
        """Go into the next frame if its header is here."""
        cdef Py_ssize_t here = self._end - self._at
        cdef int size = 2
        if self._have == 0 and here >= 2:
            size = self._begin(<const uint8_t *>self._at)
            if here >= size:
                self._enter(<const uint8_t *>self._at)
                self._at += size
                return True
        size = _header_size(self._head) if self._have >= 2 else 2
        while self._have < size:
            if self._at == self._end:
                return False
            self._head[self._have] = <uint8_t>self._at[0]
            self._have += 1
            self._at += 1
            if self._have == 2:
                size = self._begin(self._head)
        self._enter(self._head)
        self._have = 0
        return True

    cdef int _begin(self, const uint8_t *head) except -1:
        """Hold the first two bytes of a header against the rules, and return how long it is."""
        cdef int frame = head[0] & 0x0F
        if head[0] & 0x70:
            self._fail(1002, "a reserved bit is set")
        if ((head[1] & 0x80) != 0) != self._masked:
            self._fail(1002, "a frame without a mask" if self._masked else "a frame with a mask")
        if frame >= CLOSE:
            if frame > PONG:
                self._fail(1002, f"the opcode {frame} is reserved")
            if head[0] & 0x80 == 0:
                self._fail(1002, "a control frame in parts")
        elif frame > BINARY:
            self._fail(1002, f"the opcode {frame} is reserved")
        elif frame == CONTINUATION and self._kind == 0:
            self._fail(1002, "a continuation of nothing")
        elif frame != CONTINUATION and self._kind != 0:
            self._fail(1002, "a message inside another")
        return _header_size(head)

    cdef int _enter(self, const uint8_t *head) except -1:
        """Go into the frame with this header."""
        cdef uint64_t length = head[1] & 0x7F
        cdef int i, ext = 0 if length < 126 else 2 if length == 126 else 8
        if ext:
            length = 0
            for i in range(ext):
                length = length << 8 | head[2 + i]
        if self._masked:
            memcpy(self._mask, head + 2 + ext, 4)
        self._frame = head[0] & 0x0F
        self._fin = head[0] & 0x80
        if self._frame >= CLOSE:
            if length > 125:
                self._fail(1002, "a control frame over 125 bytes")
        else:
            if length >> 63:
                self._fail(1002, "a length with its highest bit set")
            if length > <uint64_t>(self._limit - self._filled):
                self._fail(1009, f"a message of more than {self._limit} bytes")
            if self._frame != CONTINUATION:
                self._kind = self._frame
        self._left = length
        self._inside = True
        return 0

    cdef bint _take_control(self) except -1:
        """Gather a control frame; True once it is whole."""
        cdef Py_ssize_t size = min(self._left, self._end - self._at)
        cdef bytes piece = PyBytes_FromStringAndSize(NULL, size)
        mediaflow_unmask(PyBytes_AS_STRING(piece), self._at, size, self._mask)
        self._control = piece if self._control is None else self._control + piece
        self._advance(size)
        if self._left:
            return False
        self._inside = False
        self.opcode = self._frame
        self.payload, self._control = self._control, None
        if self._frame == CLOSE:
            self._check_close()
            self._over = True
            self._data = None
            self._at = self._end = NULL
        return True

    cdef int _check_close(self) except -1:
        cdef mediaflow_utf8 text
        cdef int code
        cdef const char *said = PyBytes_AS_STRING(self.payload)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.payload)
        text.due = 0
        if size == 1:
            self._fail(1002, "a close frame of one byte")
        if size:
            code = <uint8_t>said[0] << 8 | <uint8_t>said[1]
            if not mediaflow_check_utf8(&text, said + 2, size - 2) or text.due:
                self._fail(1007, "the reason of a close is not UTF-8")
            if not _may_be_sent(code):
                self._fail(1002, f"the close code {code} must not be sent")
        return 0

    cdef bint _take_payload(self) except -1:
        """Take what is here of a frame of a message; True once the frame is whole."""
        cdef Py_ssize_t size = min(self._left, self._end - self._at)
        cdef bytes message
        cdef uint8_t wide
        if self._fin and self._filled == 0 and size == self._left:
            message = PyBytes_FromStringAndSize(NULL, size)
            wide = mediaflow_unmask(PyBytes_AS_STRING(message), self._at, size, self._mask)
            if wide and self._kind == TEXT:
                self._check_text(PyBytes_AS_STRING(message), size)
            self._at += size
        else:
            self._grow(size)
            wide = mediaflow_unmask(self._held + self._filled, self._at, size, self._mask)
            if self._kind == TEXT and (wide or self._utf8.due):
                self._check_text(self._held + self._filled, size)
            self._filled += size
            self._advance(size)
            if self._left:
                return False
            if not self._fin:
                self._inside = False
                return True
            message = PyBytes_FromStringAndSize(self._held, self._filled)
            free(self._held)
            self._held = NULL
            self._filled = self._room = 0
        if self._utf8.due:
            self._fail(1007, "text that ends within a character")
        self.payload = message
        self.opcode = self._kind
        self._kind = 0
        self._inside = False
        return True

    cdef int _check_text(self, const char *text, Py_ssize_t size) except -1:
        if not mediaflow_check_utf8(&self._utf8, text, size):
            self._fail(1007, "text that is not UTF-8")
        return 0

    cdef void _advance(self, Py_ssize_t size) noexcept:
        """Go on by ``size`` bytes within a payload, and turn the mask by as many."""
        cdef uint8_t before[4]
        cdef int i
        memcpy(before, self._mask, 4)
        for i in range(4):
            self._mask[i] = before[(i + size) & 3]
        self._at += size
        self._left -= size

    cdef int _grow(self, Py_ssize_t size) except -1:
        """Have room for ``size`` bytes more of a message."""
        cdef Py_ssize_t room = max(self._filled + size, 2 * self._room)
        cdef char *grown
        if self._filled + size > self._room:
            grown = <char *>realloc(self._held, room)
            if grown == NULL:
                raise MemoryError
            self._held = grown
            self._room = room
        return 0


cdef inline int _header_size(const uint8_t *head) noexcept:
    cdef int length = head[1] & 0x7F
    return 2 + (0 if length < 126 else 2 if length == 126 else 8) + (4 if head[1] & 0x80 else 0)


def _forget_masks() -> None:
    """Throw the thread's masks away: parent and child of a fork must not both use them."""
    global mediaflow_masks_left
    mediaflow_masks_left = 0


os.register_at_fork(after_in_child=_forget_masks)


cdef const uint8_t *_next_mask() except NULL:
    global mediaflow_masks_left
    cdef bytes fresh
    if mediaflow_masks_left == 0:
        fresh = os.urandom(MEDIAFLOW_MASKS)
        memcpy(mediaflow_masks, PyBytes_AS_STRING(fresh), MEDIAFLOW_MASKS)
        mediaflow_masks_left = MEDIAFLOW_MASKS
    mediaflow_masks_left -= 4
    return mediaflow_masks + mediaflow_masks_left


cdef bytes build(int opcode, const char *data, Py_ssize_t size, bint masked):
    """Return a whole frame with this payload."""
    cdef int ext = 0 if size < 126 else 2 if size < 65536 else 8
    cdef int i, header = 2 + ext + (4 if masked else 0)
    cdef const uint8_t *mask = _next_mask() if masked else NULL
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, header + size)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(frame)
    out[0] = 0x80 | opcode
    out[1] = (0x80 if masked else 0) | (size if ext == 0 else 126 if ext == 2 else 127)
    for i in range(ext):
        out[2 + i] = <uint8_t>(<uint64_t>size >> 8 * (ext - 1 - i))
    if masked:
        memcpy(out + 2 + ext, mask, 4)
        mediaflow_unmask(<char *>out + header, data, size, mask)
    elif size:
        memcpy(out + header, data, size)
    return frame


cpdef bytes encode(int opcode, payload, bint masked):
    """Return one whole frame: header, mask if ``masked``, and ``payload``, a str (sent as UTF-8) or a buffer of bytes.

    Raises ValueError for a control frame of more than 125 bytes, and UnicodeEncodeError for what UTF-8 cannot say.
    """
    cdef Py_ssize_t size
    cdef const char *text
    cdef const uint8_t[::1] data
    if PyUnicode_CheckExact(payload):
        text = PyUnicode_AsUTF8AndSize(payload, &size)
    elif PyBytes_CheckExact(payload):
        text = PyBytes_AS_STRING(payload)
        size = PyBytes_GET_SIZE(payload)
    else:
        data = payload
        size = data.shape[0]
        text = <const char *>&data[0] if size else NULL
    if opcode >= CLOSE and size > 125:
        raise ValueError(f"a control frame holds 125 bytes, not {size}")
    return build(opcode, text, size, masked)
