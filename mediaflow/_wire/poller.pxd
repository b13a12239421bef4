"""The poller for code that cimports it: what has a socket derives from `Watched`."""

from libc.stdint cimport uint32_t

from mediaflow._wire.footprint cimport Footprint

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void *ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef enum:
    MOST = 256                  # sockets in one turn: 2 ms, after which the event loop has its own turn


cdef class Watched:
    cdef readonly int fd
    cdef readonly bint readable, writable
    cdef bint _known, _ended
    cdef unsigned long long _read   # which read of the poller's was the last, or was to be when it was fetched
    cdef void *_previous            # who was read before it and behind it last time
    cdef void *_next
    cdef Footprint _footprint

    cpdef look_around(self)
    cpdef happened(self, bint readable, bint writable)
    cpdef broke(self, error)


cdef class Poller:
    cdef readonly int fd
    cdef public bint wanted
    cdef readonly bytearray buffer
    cdef int _clock
    cdef char *_at
    cdef unsigned long long _reads
    cdef void *_newest              # who was read last
    cdef Py_ssize_t _room
    cdef set _watched
    cdef list _left
    cdef int _found                 # how many of these are to be told
    cdef epoll_event _events[MOST]

    cpdef close(self)
    cpdef watch(self, Watched watched, bint readable, bint writable)
    cpdef watch_always(self, Watched watched)
    cdef int _add(self, int fd, void *who) except -1
    cdef int _tell(self, Watched watched, int what) except -1
    cpdef leave(self, Watched watched)
    cpdef wake_at(self, double when)
    cpdef int find(self, bint waits=*) except -1
    cpdef tell(self)
    cdef int _pass_over(self, Watched watched, error) except -1
    cdef void _fetch(self, Watched watched) noexcept
    cdef void _follow(self, Watched watched) noexcept
    cdef void _unfollow(self, Watched watched) noexcept
    cpdef Py_ssize_t receive(self, Watched watched)
    cpdef Py_ssize_t send(self, Watched watched, bytes data)
