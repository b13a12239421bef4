cimport cython

from mediaflow._websocket.core cimport Cork
from mediaflow._wire.poller cimport Poller, Watched


cdef int MOST, FEW


cdef class Hub

cdef class Member(Watched):
    cdef readonly Hub hub
    cdef public double due, filed


cdef class Hub:
    cdef readonly Poller poller
    cdef readonly Cork cork
    cdef readonly list _filed
    cdef object _numbers
    cdef list _put_off

    @cython.locals(left=int, found=int)
    cpdef turn(self)

    cdef _tell(self, int found)
    cdef _tend(self, Member member)

    @cython.locals(waits=bint, found=int)
    cpdef wait(self, double until)
