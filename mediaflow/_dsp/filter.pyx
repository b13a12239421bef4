"""Design the filters of the resampler.

Theory in four steps. (1) A band-limited signal is the sum of its samples, each times a sinc centred
on it, so it has a value at any time. (2) Going to a lower rate, what lies above half of that rate
must be removed first; a wider sinc does both at once, so one kernel, scaled to the lower of the two
rates, serves every pair. (3) A sinc never ends; a Kaiser window ends it, at the price of a
transition band: for A dB of rejection and a reach of ``R`` samples of the lower rate to each side,
the band is (A - 8) / (14.36 * R) times the lower Nyquist frequency wide. (4) With the ratio in lowest
terms ``up / down``, output ``k`` lies at input time ``k * down / up``, so only ``up`` different positions
between two input samples occur. Each gets a row of coefficients, worked out once (a *polyphase*
filter); each row is scaled to the sum 1, which makes the gain for a constant exact.

    quality    transition            reach    rejection
    strict     0.90 .. 1.00 of the   56       > 100 dB
    fast       0.91 .. 1.09 lower    36       > 100 dB
                            Nyquist

A windowed sinc is as even before its transition as it is deaf behind it, which is more than strict
needs: 0.01 dB is an error of -59 dB, and 100 are asked for behind. So strict adds a second term under
the same window, a small cosine of a frequency within the transition. Its spectrum is the window's, moved
there: it fills up the dip at the edge of the pass band, and is gone where the stop band begins. The
transition so may start later, and the reach is 56 instead of 60. (Designs by frequency sampling do the
same with a sample in the transition.)

Measured on the kernels themselves: strict has 0.009 dB of ripple up to 0.9 and 100.6 dB from 1.0;
fast 0.0004 dB up to 0.91 and 100.1 dB from 1.09. What aliases in fast stays between 0.91 and 1.09;
for a doubling or halving it is a half-band filter, half of whose coefficients are zero.

Every value is made of additions, multiplications, divisions and square roots, which IEEE 754 rounds
alike everywhere; the sine is a series of ours, because the C library's differs between processors in
its last bit.

References: J. Kaiser, R. Schafer, "On the use of the I0-sinh window for spectrum analysis", IEEE
Trans. ASSP 28 (1980); L. Rabiner, B. Gold, C. McGonegal, "An approach to the approximation problem for
nonrecursive digital filters", IEEE Trans. AU 18 (1970); R. Crochiere, L. Rabiner, "Multirate Digital
Signal Processing" (1983), ch. 4.
"""

cimport cython
from libc.math cimport M_PI, ceil, fabs, rint, sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc

from mediaflow._dsp.kernels cimport STRIDE, mediaflow_zeros, part

cdef enum:
    # Sixteen outputs of one phase at a time pay as long as a frame of 20 ms has as many of each phase.
    MAX_PHASES = 16
    MAX_COEFFICIENTS = 1 << 19  # 2 MiB of rows; the widest telephone or studio ratio needs less than 300 000
    HALVING_DB = 106

# beta = 0.1102 * (A - 8.7) after Kaiser, for A = 100 dB. The strict numbers were found by search (Nelder
# and Mead's): with the ripple up to 0.9 held below 0.009 dB, those that reject most from 1.0 on, for
# the shortest reach that gets past 100 dB.
cdef Design STRICT = Design(56.0, 0.9428, 10.034, 0.00083, 0.931)
cdef Design FAST = Design(36.0, 1.0, 10.061, 0.0, 0.0)

cdef dict _filters = {}


cdef Design halving(double edge):
    """Design a half-band filter that keeps what lies below ``edge`` of the lower Nyquist clean."""
    return Design(ceil((HALVING_DB - 8) / (14.36 * (2 - 2 * edge))), 1.0, 0.1102 * (HALVING_DB - 8.7), 0.0, 0.0)


cdef double _bessel_i0(double x) noexcept nogil:
    """Sum the power series of the modified Bessel function of order zero."""
    cdef double term = 1.0, total = 1.0
    cdef int k = 1
    while term > total * 1e-17:
        term *= (x / (2 * k)) * (x / (2 * k))
        total += term
        k += 1
    return total


cdef double _sine(double x) noexcept nogil:
    """Sum the power series of the sine; good to the last bits for the quarter turn that is asked for."""
    cdef double term = x, total = x
    cdef int k = 2
    while fabs(term) > fabs(total) * 1e-18:
        term *= -x * x / (k * (k + 1))
        total += term
        k += 2
    return total


cdef double _sine_of_half_turns(double x) noexcept nogil:
    """Return the sine of ``x`` half turns; exactly 0 for whole ones, so a half-band's zeros are zeros."""
    cdef double nearest = rint(x)
    return _sine(M_PI * (x - nearest)) * (-1.0 if <int64_t>nearest & 1 else 1.0)


cdef double _kernel(double u, Design design) noexcept nogil:
    """Return the kernel at ``u`` samples of the lower rate from its centre, not normalised."""
    cdef double edge = u / design.reach
    if fabs(edge) >= 1.0:
        return 0.0
    cdef double x = u * design.cutoff
    cdef double sinc = _sine_of_half_turns(x) / (M_PI * x) if x != 0.0 else 1.0
    cdef double lift = design.lift * _sine_of_half_turns(u * design.lifted + 0.5)  # a cosine
    return (sinc + lift) * _bessel_i0(design.beta * sqrt(1.0 - edge * edge))


cdef void _fill_row(float *row, Coefficients *of, int64_t phase, Design design, double *exact) noexcept nogil:
    """Work out one phase's coefficients, in the order in which they meet the samples."""
    cdef int64_t t
    cdef double total = 0.0
    for t in range(2 * of.reach):
        exact[t] = _kernel((of.reach - 1 - t + <double>phase / <double>of.up) * of.scale, design)
        total += exact[t]
    for t in range(2 * of.reach):
        row[t] = <float>(exact[t] / total)


cdef void _split_row(const float *row, int64_t phase, Coefficients *of, part *parts, float *values) noexcept nogil:
    """Deal the coefficients of a phase out to the streams, without the zeros around them.

    Stream ``s`` has the input samples ``s``, ``s + streams``, ... Output ``i`` of the phase is at
    input position ``phase * down // up + i * down``, so with ``streams = down`` each stream moves on by
    one sample from output to output.
    """
    cdef int64_t oldest = phase * of.down // of.up + 1 - of.reach
    cdef int64_t room = (2 * of.reach // of.streams + 2 * STRIDE) // STRIDE * STRIDE
    cdef int64_t stream, first, last, t
    for stream in range(of.streams):
        first = (stream - oldest) % of.streams
        first += of.streams if first < 0 else 0
        last = first + (2 * of.reach - 1 - first) // of.streams * of.streams
        while first <= last and row[first] == 0:
            first += of.streams
        while last > first and row[last] == 0:
            last -= of.streams
        if first <= last:
            parts[stream].start = (oldest + first - stream) // of.streams   # exact, so C's rounding is right
            parts[stream].taps = values
            if last > first:
                parts[stream].groups = ((last - first) // of.streams + STRIDE) // STRIDE
            of.back = min(of.back, parts[stream].start)
            for t in range((last - first) // of.streams + 1):
                values[t] = row[first + t * of.streams]
        values += room


@cython.final
cdef class Filter:
    """The coefficients of one ratio, constant once made and shared by all streams and threads."""

    def __dealloc__(self):
        free(self.coefficients.values)
        free(self.coefficients.parts)

    cdef int _design(self, int64_t up, int64_t down, Design design) except -1:
        cdef Coefficients *of = &self.coefficients
        of.up, of.down = up, down
        of.scale = min(1.0, <double>up / <double>down)
        of.reach = <int64_t>ceil(design.reach / of.scale)
        of.back = 1 - of.reach
        of.streams = 1
        of.taps = (2 * of.reach + STRIDE - 1) // STRIDE * STRIDE
        if of.taps * up > MAX_COEFFICIENTS:
            of.shape = TABLE
            return self._fill_table(design)
        of.shape = LANES if up <= MAX_PHASES and down <= MAX_PHASES else ROWS
        return self._fill_rows(design)

    cdef int _fill_rows(self, Design design) except -1:
        cdef Coefficients *of = &self.coefficients
        cdef double *exact = <double *>malloc(of.taps * sizeof(double))
        cdef float *rows = mediaflow_zeros(of.up * of.taps)
        cdef int64_t phase, room
        try:
            if exact == NULL or rows == NULL:
                raise MemoryError
            for phase in range(of.up):
                _fill_row(rows + phase * of.taps, of, phase, design, exact)
            if of.shape == ROWS:
                of.values, rows = rows, NULL
                return 0
            of.streams = of.down
            of.back = 0
            room = (2 * of.reach // of.streams + 2 * STRIDE) // STRIDE * STRIDE * of.streams
            of.values = mediaflow_zeros(of.up * room)
            of.parts = <part *>calloc(of.up * of.streams, sizeof(part))
            if of.values == NULL or of.parts == NULL:
                raise MemoryError
            for phase in range(of.up):
                # Rows are in the order of their place between two samples, outputs in that of time.
                _split_row(
                    rows + phase * of.down % of.up * of.taps, phase, of,
                    of.parts + phase * of.streams, of.values + phase * room,
                )
            return 0
        finally:
            free(exact)
            free(rows)

    cdef int _fill_table(self, Design design) except -1:
        """Tabulate one side of the kernel, scaled so that all its values together sum to 1."""
        cdef Coefficients *of = &self.coefficients
        # Rounding the reach up to whole samples may read one zero crossing past the kernel: zeros.
        cdef int64_t i, count = <int64_t>design.reach * RESOLUTION
        of.values = mediaflow_zeros(count + RESOLUTION + 2)
        if of.values == NULL:
            raise MemoryError
        cdef double area = 0.0
        for i in range(count):
            area += _kernel(<double>i / RESOLUTION, design) * (2.0 if i else 1.0) / RESOLUTION
        for i in range(count):
            of.values[i] = <float>(_kernel(<double>i / RESOLUTION, design) * of.scale / area)
        return 0


cdef Filter get_filter(int64_t up, int64_t down, Design design):
    """Return the filter for ``up / down``, in lowest terms, made at the first call."""
    key = (up, down, design.reach, design.cutoff)
    cdef Filter made = _filters.get(key)
    if made is None:
        made = Filter.__new__(Filter)
        made._design(up, down, design)
        _filters[key] = made
    return made
