"""The speech detector, for modules that call it without Python."""

from libc.stdint cimport int16_t, int64_t

from mediaflow._dsp.findings cimport VadResult
from mediaflow._dsp.kernels cimport PAST
from mediaflow._dsp.span cimport Span
from mediaflow._dsp.stage cimport Stage

cdef enum:
    BANDS = 2
    PARTS = 15

cdef struct Band:
    double mean, spread         # of the noise, dB
    double smooth               # the level whose minima are kept
    double least                # its minimum in the part that is being filled
    double floor                # its minimum in the parts that are full
    double parts[PARTS]

cdef class EnergyVad(Stage):
    cdef readonly int rate
    cdef readonly int frame_samples
    cdef readonly bint speaking
    cdef double _start_db, _stop_db, _sure_db, _silence_dbfs
    cdef double _floor_share, _noise_share, _fill, _drain, _drain_loud, _lately
    cdef int _milliseconds
    cdef int _step, _count      # a frame is `_count` sums of `_step` samples, and at most a rest
    cdef double _scale[BANDS]
    cdef int _min_frames, _hangover_frames, _part_frames
    cdef float _past[PAST]      # the last sums of the frame before
    cdef int16_t *_pcm          # the frame being filled
    cdef int _filled
    cdef Band _bands[BANDS]
    cdef int _part, _part_age
    cdef double _evidence, _loudest
    cdef double _verdict        # like the evidence, but a pause takes most of it
    cdef int _quiet             # consecutive frames that do not stand out
    cdef bint _active, _fresh
    cdef int _run, _gap         # consecutive speech frames, consecutive others
    cdef int64_t _position      # of the frame being filled
    cdef int64_t _speech_end
    cdef VadResult _found       # in a chain, since the last `take`

    cdef void _start(self) noexcept nogil
    cdef double _stand_out(self, Band *band, double level) noexcept nogil
    cdef void _learn(self, Band *band, double level) noexcept nogil
    cdef void _end_part(self) noexcept nogil
    cdef double _score(self, const char *frame) noexcept nogil
    cdef bint _pause(self) noexcept nogil
    cdef int _judge(self, const char *frame, VadResult result) except -1 nogil
    cdef int _take_in(self, const Span *source, VadResult result) except -1 nogil
    cdef int _end(self, VadResult result) except -1 nogil
