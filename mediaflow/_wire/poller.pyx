# cython: binding=False, embedsignature.format=clinic
"""Sockets that are ready, all of an event loop's in one turn: epoll(7), recv(2) and send(2), and nothing in between.

An event loop calls a Python object for each socket that is ready, and takes and gives up the interpreter's lock around
each call; its transports add a buffer, a queue and their checks. Here one file descriptor stands for all sockets: that
of an epoll instance, which is readable while any of them is. The event loop, whichever it is, watches that one and
calls `Poller.find` and `Poller.tell`; or it waits in `find` itself, and has its own file descriptors watched there::

    event loop ── epoll instance ─┬─ socket ── happened ── receive ── …
                    find, tell    ├─ socket       all reads of the turn, one after the other
                                  └─ socket

Beside the two system calls of a frame that takes 0.06 µs. uvloop's transports took 0.9 µs more in their place, those of
stock asyncio 2.4, and a task per connection on trio, which has no callbacks, 7 (64 calls, one frame in flight each).

The instance tells what *has become* ready (EPOLLET), for else the kernel would look at every socket again that it told
of last time. Who watches anew is told what is ready already. So a line may leave bytes in the kernel while it does not
watch for them; one that watches reads on as long as a read fills the buffer, and behind the peer's end up to it.

What a read will go through in memory (`_wire.footprint`) is fetched while the socket before it is served, and, before
the poller waits, for whoever was read next last time: calls send at the same pace, so they keep their order. At 100
calls that takes 1.5 of the 33 µs from the end of a wait to the end of ``send`` off the way; it spares no time in all.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close as close_fd

from mediaflow._wire.footprint cimport footprint_fetch, footprint_find, footprint_free, footprint_runs

cdef extern from "sys/epoll.h" nogil:
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int what, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout_ms)

cdef extern from "time.h" nogil:
    const int CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec

cdef extern from "sys/timerfd.h" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value

    const int TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)

cdef extern from "sys/socket.h" nogil:
    const int MSG_NOSIGNAL
    Py_ssize_t recv(int fd, void *buffer, size_t size, int flags)
    Py_ssize_t send(int fd, const void *buffer, size_t size, int flags)

cdef enum:
    BUFFER = 65536
    RECENT = 80                 # reads ago: 6 KB of ours and 10 of the kernel's each, and so in the cache yet
    NOT_NOW = -1
    IS_BROKEN = -2

cdef double FAR = 1e9           # seconds: of no machine that runs

NOTHING = NOT_NOW
"""There is nothing to read now, or no room to write."""

BROKEN = IS_BROKEN
"""The connection is broken."""

cdef class Watched:
    """A socket of a poller; to be derived from. ``fd`` is the file descriptor, which stays the caller's."""

    def __cinit__(self, int fd, *args, **kwargs):
        self.fd = fd

    def __dealloc__(self):
        footprint_free(&self._footprint)

    cpdef look_around(self):
        """Find out what ``happened`` goes through: from then on it is fetched before it is needed."""
        footprint_find(&self._footprint, self)

    @property
    def footprint(self):
        """Where in memory it lies: the beginning and the end of each piece."""
        return footprint_runs(&self._footprint)

    cpdef happened(self, bint readable, bint writable):
        """Called in a turn for what is watched for. An error counts as both: reading and writing tell it."""
        raise NotImplementedError

    cpdef broke(self, error):
        """Called with what ``happened`` raised: the turn goes on with the others."""
        raise NotImplementedError


cdef class Poller:
    """Watches sockets. ``fd`` is readable while there is something to `find`; ``buffer`` is what `receive` fills.

    A turn is a `find` and a `tell`. ``wanted`` is set by whoever has something to do besides, and by the clock of
    `wake_at`: no `find` waits then.
    """

    def __cinit__(self):
        self._clock = -1
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, "there is no file descriptor for an epoll instance")
        self.buffer = bytearray(BUFFER)
        self._at = PyByteArray_AS_STRING(self.buffer)
        self._room = BUFFER
        self._watched = set()
        self._left = []

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Give the file descriptor back; for who does not wait for the garbage collector. Nothing is watched then."""
        if self.fd >= 0:
            close_fd(self.fd)
        if self._clock >= 0:
            close_fd(self._clock)
        self.fd = self._clock = -1

    def __len__(self):
        return len(self._watched)

    cpdef watch(self, Watched watched, bint readable, bint writable):
        """Have ``happened`` called when it is readable, or writable; with neither, only for an error or a hang-up.

        Raises OSError where the kernel refuses.
        """
        if watched._known and watched.readable == readable and watched.writable == writable:
            return
        watched.readable = readable
        watched.writable = writable
        self._tell(watched, EPOLL_CTL_MOD if watched._known else EPOLL_CTL_ADD)
        watched._known = True
        self._watched.add(watched)

    cpdef watch_always(self, Watched watched):
        """Have ``happened`` called in every turn while it is readable. It does not count, and the caller keeps it."""
        self._add(watched.fd, <void *>watched)
        watched.readable = watched._known = True

    cdef int _add(self, int fd, void *who) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.ptr = who
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, "it cannot be watched")
        return 0

    cdef int _tell(self, Watched watched, int what) except -1:
        cdef epoll_event event
        event.events = EPOLLET
        event.events |= EPOLLIN | EPOLLRDHUP if watched.readable else 0
        event.events |= EPOLLOUT if watched.writable else 0
        event.data.ptr = <void *>watched
        if epoll_ctl(self.fd, what, watched.fd, &event) < 0:
            watched.readable = watched.writable = False
            raise OSError(errno, "the socket cannot be watched")
        return 0

    cpdef leave(self, Watched watched):
        """Watch it no more; to be said before its socket is closed."""
        cdef epoll_event event
        if watched._known:
            epoll_ctl(self.fd, EPOLL_CTL_DEL, watched.fd, &event)
            watched._known = watched.readable = watched.writable = False
            self._unfollow(watched)
            self._watched.discard(watched)
            if self._found:
                self._left.append(watched)      # an event of this turn may still point to it

    cpdef wake_at(self, double when):
        """End a wait in `find` at that time of ``time.monotonic``, in the place of the time said before; inf is never.

        A clock among the sockets, which is set once for many frames: to tell the kernel with every wait how long it may
        take is 1 of 35 µs of a frame (100 calls). Raises OSError where the kernel has none.
        """
        cdef itimerspec alarm
        if self._clock < 0:
            self._clock = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
            if self._clock < 0:
                raise OSError(errno, "there is no file descriptor for a clock")
            self._add(self._clock, NULL)
        alarm.it_interval.tv_sec = alarm.it_interval.tv_nsec = 0
        alarm.it_value.tv_sec = <long>when if when < FAR else 0
        alarm.it_value.tv_nsec = <long>((when - <double>alarm.it_value.tv_sec) * 1e9) if when < FAR else 0
        timerfd_settime(self._clock, TFD_TIMER_ABSTIME, &alarm, NULL)

    cpdef int find(self, bint waits=False) except -1:
        """Find out which have become ready, for `tell`, and return how many; the clock is one of them.

        With ``waits`` it waits for the first, without the interpreter's lock. A signal ends that with 0.
        """
        if waits:
            PyErr_CheckSignals()    # one that came in a turn would not end the wait
        if waits and not self.wanted:
            if self._newest != NULL and (<Watched>self._newest)._next != NULL:
                self._fetch(<Watched>(<Watched>self._newest)._next)     # while there is time
            with nogil:
                self._found = max(epoll_wait(self.fd, self._events, MOST, -1), 0)
        else:
            self._found = max(epoll_wait(self.fd, self._events, MOST, 0), 0)
        return self._found

    cpdef tell(self):
        """Call ``happened`` of all that `find` has found."""
        cdef uint32_t what
        cdef int i
        cdef Watched watched
        try:
            for i in range(self._found):
                if self._events[i].data.ptr == NULL:
                    self.wanted = True
                    continue
                watched = <Watched>self._events[i].data.ptr
                if i + 1 < self._found and self._events[i + 1].data.ptr != NULL:
                    self._fetch(<Watched>self._events[i + 1].data.ptr)
                if watched._known:
                    what = self._events[i].events
                    watched._ended = (what & ~(EPOLLIN | EPOLLOUT)) != 0
                    try:
                        watched.happened((what & ~EPOLLOUT) != 0, (what & ~(EPOLLIN | EPOLLRDHUP)) != 0)
                    except Exception as error:
                        self._pass_over(watched, error)
        finally:
            self._found = 0
            if self._left:
                self._left.clear()

    cdef int _pass_over(self, Watched watched, error) except -1:
        try:
            watched.broke(error)
        except Exception:
            self.leave(watched)     # it can be told nothing; the others would not be told again
        return 0

    cdef void _fetch(self, Watched watched) noexcept:
        """Have what it goes through brought into the cache, unless it is there."""
        if self._reads - watched._read > RECENT:
            footprint_fetch(&watched._footprint)
            watched._read = self._reads

    cdef void _follow(self, Watched watched) noexcept:
        """Remember who is read behind whom: calls send at the same pace, so it will be so again."""
        cdef Watched newest = <Watched>self._newest if self._newest != NULL else None
        self._newest = <void *>watched if watched._known else NULL
        if newest is None or self._newest == NULL or newest._next == <void *>watched or newest is watched:
            return
        if newest._next != NULL:
            (<Watched>newest._next)._previous = NULL
        if watched._previous != NULL:
            (<Watched>watched._previous)._next = NULL
        newest._next = <void *>watched
        watched._previous = <void *>newest

    cdef void _unfollow(self, Watched watched) noexcept:
        """Forget it, so that nothing points to what may be gone."""
        if watched._previous != NULL:
            (<Watched>watched._previous)._next = NULL
        if watched._next != NULL:
            (<Watched>watched._next)._previous = NULL
        watched._previous = watched._next = NULL
        if self._newest == <void *>watched:
            self._newest = NULL

    @property
    def next(self):
        """Who is probably read next, or None."""
        cdef void *next = (<Watched>self._newest)._next if self._newest != NULL else NULL
        return <Watched>next if next != NULL else None

    cpdef Py_ssize_t receive(self, Watched watched):
        """Read what is there into ``buffer`` and return how many bytes: 0 at the end, or ``NOTHING`` or ``BROKEN``."""
        self._fetch(watched)
        self._reads += 1
        watched._read = self._reads
        self._follow(watched)
        cdef Py_ssize_t size = recv(watched.fd, self._at, self._room, 0)
        if size > 0 and (size == self._room or watched._ended) and watched._known:
            self._tell(watched, EPOLL_CTL_MOD)
        if size >= 0:
            return size
        return NOT_NOW if errno == EAGAIN or errno == EINTR else IS_BROKEN

    cpdef Py_ssize_t send(self, Watched watched, bytes data):
        """Write and return how many bytes the kernel took, or ``NOTHING`` or ``BROKEN``."""
        cdef Py_ssize_t size = send(watched.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL)
        if size >= 0:
            return size
        return NOT_NOW if errno == EAGAIN or errno == EINTR else IS_BROKEN
