"""The codec as stages of a chain."""

from mediaflow._dsp.stage cimport Stage

cdef Stage codec(object function)
