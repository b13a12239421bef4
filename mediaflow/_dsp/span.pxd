"""Borrow the memory of an argument: the one place where buffers meet pointers.

Every kernel of this package works on a pointer and a size. ``bytes`` (what sockets and codecs
hand over) take a path of three instructions; anything else with a C-contiguous buffer goes
through a memoryview, 50 ns more. Each function fills a `Span` and returns the object that keeps
that memory alive: hold it in a local until the kernel is done.

PCM is signed 16-bit in the byte order of the machine, which on every platform we build for is
little-endian, so raw bytes and an array of int16 are the same thing.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.stdint cimport uintptr_t


cdef struct Span:
    char *start
    Py_ssize_t size     # always in bytes


cdef inline bint _is_bytes(const char *format) noexcept:
    """Tell whether a buffer's items are plain bytes; a missing format means they are."""
    return format == NULL or (format[0] in b"Bbc" and format[1] == 0)


cdef inline bint _is_int16(const char *format) noexcept:
    """Tell whether a buffer's items are int16 as the machine writes them."""
    if format[0] in b"@=<":
        format += 1
    return format[0] == b"h" and format[1] == 0


cdef inline object _view(object data, str name, bint pcm, Span *span):
    """Fill ``span`` from a buffer that is not ``bytes``, refusing what a kernel would misread."""
    cdef object held
    try:
        held = PyMemoryView_FromObject(data)
    except TypeError:
        raise TypeError(f"{name} must be bytes or another buffer, not {type(data).__name__}") from None
    cdef Py_buffer *buffer = PyMemoryView_GET_BUFFER(held)
    if not (_is_bytes(buffer.format) or (pcm and _is_int16(buffer.format))):
        expected = "bytes or native int16" if pcm else "bytes"
        raise TypeError(f"{name} must hold {expected}, not items of format {held.format!r}")
    if buffer.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {buffer.ndim}")
    if not held.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous, not a strided view")
    span.start = <char *>buffer.buf
    span.size = buffer.len
    return held


cdef inline object hold_codes(object data, str name, Span *span):
    """Borrow 8-bit codes for reading."""
    if PyBytes_CheckExact(data):
        span.start = PyBytes_AS_STRING(data)
        span.size = PyBytes_GET_SIZE(data)
        return data
    return _view(data, name, False, span)


cdef inline object hold_pcm(object data, str name, Span *span):
    """Borrow 16-bit samples for reading; ``span.start`` is aligned for them."""
    cdef object held = data
    if PyBytes_CheckExact(data):
        span.start = PyBytes_AS_STRING(data)
        span.size = PyBytes_GET_SIZE(data)
    else:
        held = _view(data, name, True, span)
        # A slice of a message may start anywhere, and an int16 pointer may not: copy it.
        if <uintptr_t>span.start & 1:
            held = held.tobytes()
            span.start = PyBytes_AS_STRING(held)
    if span.size & 1:
        raise ValueError(f"{name} holds {span.size} bytes, not a whole number of 16-bit samples")
    return held


cdef inline object hold_output(object out, Py_ssize_t needed, bint pcm, Span *span):
    """Borrow ``out`` for writing ``needed`` bytes."""
    cdef object held = _view(out, "out", pcm, span)
    if held.readonly:
        raise TypeError(f"out must be writable, and this {type(out).__name__} is read-only")
    if span.size < needed:
        raise ValueError(f"out holds {span.size} bytes, but {needed} are needed")
    if pcm and <uintptr_t>span.start & 1:
        raise ValueError("out must start at an even address to hold 16-bit samples")
    return held
