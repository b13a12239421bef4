cimport cython

from mediaflow.frame cimport AudioFrame


cdef class Quota:
    cdef public object put
    cdef public double limit
    cdef public long long given
