"""Change the sampling rate of a stream of 16-bit samples.

Theory in four steps. (1) A band-limited signal is the sum of its samples, each times a sinc centred
on it, so it has a value at any time. (2) Going to a lower rate, what lies above half of that rate
must be removed first; a wider sinc does both at once, so one kernel, scaled to the lower of the two
rates, serves every pair. (3) A sinc never ends; a Kaiser window ends it, at the price of a
transition band: for A dB of rejection and a reach of ``R`` samples of the lower rate to each side,
the band is about (A - 8) / (14.4 * R) of that rate wide. (4) With the ratio in lowest terms
``up / down``, output ``k`` lies at input time ``k * down / up``, so only ``up`` different positions
between two input samples occur. Each gets a row of coefficients, worked out once (a *polyphase*
filter); each row is scaled to the sum 1, which makes the gain for a constant exact.

The kernel is symmetric around its output (linear phase), so every frequency is delayed alike and the
delay can be taken out entirely: output ``k`` needs the input up to half a kernel after its time and
is returned as soon as that has arrived. That wait is the `latency`; nothing is shifted.

    quality    transition            reach    rejection    delay from 8 kHz
    strict     0.89 .. 1.00 of the   60       > 100 dB     7.5 ms
    fast       0.91 .. 1.09 lower    36       > 100 dB     4.5 ms
                            Nyquist

Measured on the kernels themselves: strict has 0.009 dB of ripple up to 0.9 and 100.8 dB from 1.0;
fast 0.0004 dB up to 0.91 and 100.1 dB from 1.09. What aliases in fast stays between 0.91 and 1.09;
for a doubling or halving it is a half-band filter, half of whose coefficients are zero.

When ``up`` is huge (8001 to 16000 Hz has 16000 rows) the rows would fill memory. Beyond 2^19
coefficients the kernel is kept once, 1024 points per zero crossing, and read with linear
interpolation: slower (some 2 ns per coefficient), 230 KiB at most, and with an error near -115 dB.

References: J. Kaiser, R. Schafer, "On the use of the I0-sinh window for spectrum analysis", IEEE
Trans. ASSP 28 (1980); R. Crochiere, L. Rabiner, "Multirate Digital Signal Processing" (1983), ch. 4.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.math cimport M_PI, ceil, fabs, rint, sin, sqrt
from libc.stdint cimport int16_t, int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memmove, memset

from math import gcd

from mediaflow._dsp.span cimport Span, hold_pcm

cdef extern from *:
    """
    #include <stdint.h>
    void mediaflow_fir(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down,
                       int64_t phase, int64_t count, int16_t *out);
    """
    void mediaflow_fir(
        const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down,
        int64_t phase, int64_t count, int16_t *out,
    ) noexcept nogil

cdef enum:
    MAX_RATE = 384_000
    LANES = 16                  # rows are padded to the kernel's step
    BLOCK = 2048                # input samples taken in at a time: 8 KiB of floats stay in L1
    MAX_COEFFICIENTS = 1 << 19  # 2 MiB of rows; the widest telephone or studio ratio needs 290 000
    RESOLUTION = 1024           # points per zero crossing of the interpolated kernel
    RELEASE_GIL = 1 << 17       # multiplications, about 8 us with AVX2; a 20 ms telephone frame has 40 000


cdef struct Design:
    double reach        # half the kernel, in samples of the lower rate
    double cutoff       # the middle of the transition, in lower Nyquist frequencies
    double beta         # the Kaiser window's shape


# beta = 0.1102 * (A - 8.7) after Kaiser, for A = 101 and 100 dB. The strict cut-off was found by
# search: the highest that keeps 100 dB at 1.0 with the shortest kernel that keeps 0.01 dB at 0.9.
cdef Design STRICT = Design(60.0, 0.946, 10.171)
cdef Design FAST = Design(36.0, 1.0, 10.061)


cdef double _bessel_i0(double x) noexcept nogil:
    """Sum the power series of the modified Bessel function of order zero."""
    cdef double term = 1.0, total = 1.0
    cdef int k = 1
    while term > total * 1e-17:
        term *= (x / (2 * k)) * (x / (2 * k))
        total += term
        k += 1
    return total


cdef double _kernel(double u, Design design) noexcept nogil:
    """Return the windowed sinc at ``u`` samples of the lower rate from its centre, not normalised."""
    cdef double edge = u / design.reach
    if fabs(edge) >= 1.0:
        return 0.0
    cdef double x = u * design.cutoff
    cdef double nearest = rint(x)
    # The sine of the distance to the nearest zero: exactly 0 on it, so a half-band's zeros are zeros.
    cdef double sine = sin(M_PI * (x - nearest)) * (-1.0 if <int64_t>nearest & 1 else 1.0)
    return (sine / (M_PI * x) if x != 0.0 else 1.0) * _bessel_i0(design.beta * sqrt(1.0 - edge * edge))


cdef int _check_rate(object rate, str name) except -1:
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise TypeError(f"{name} must be an int, not {type(rate).__name__}")
    if not 1 <= rate <= MAX_RATE:
        raise ValueError(f"{name} must be 1 to {MAX_RATE} Hz, not {rate}")
    return rate


@cython.final
cdef class Resampler:
    """Resample one mono stream from ``rate_in`` to ``rate_out`` Hz, each 1 to 384000.

    Give the stream to `process` in pieces of any length, then call `flush`; the bytes returned,
    joined, are the same whatever the pieces were, and hold exactly ``ceil(n * rate_out / rate_in)``
    samples for ``n`` given. Sample ``k`` belongs to the time ``k / rate_out``: the filter's delay
    shows as samples that come later, never as a shift. Values beyond 16 bits saturate.

    ``quality`` is ``"fast"`` or ``"strict"``. Both pass speech unchanged up to 0.9 of the lower
    Nyquist frequency and reject what must go by 100 dB; they differ in the narrow band around that
    frequency. ``"fast"``, the default, lets it fold there: for telephone audio that band, 3.64 to
    4.36 kHz, lies outside what the line carries (300 to 3400 Hz), so a recogniser gets the same
    speech 3 ms earlier, with 0.6 of the coefficients. Take ``"strict"`` where the source is wideband and
    everything above the lower Nyquist frequency must be gone.

    Equal rates are legal and pass the samples through. An object serves one thread at a time; long
    blocks run without the GIL.
    """

    cdef readonly int rate_in
    cdef readonly int rate_out
    cdef readonly str quality
    cdef int64_t _up, _down
    cdef int64_t _reach         # input samples needed on each side of an output
    cdef int64_t _taps          # length of a row, padded; 0 when the kernel is interpolated
    cdef double _scale          # input samples to samples of the lower rate, at most 1
    cdef float *_coefficients   # rows, or the kernel from its centre outwards
    cdef float *_window         # the input that is still needed
    cdef int64_t _capacity, _held
    cdef int64_t _first         # position in the stream of _window[0]
    cdef int64_t _received, _returned

    def __cinit__(self, rate_in, rate_out, quality="fast"):
        self.rate_in = _check_rate(rate_in, "rate_in")
        self.rate_out = _check_rate(rate_out, "rate_out")
        if quality not in ("strict", "fast"):
            raise ValueError(f'quality must be "strict" or "fast", not {quality!r}')
        self.quality = quality
        cdef int common = gcd(self.rate_in, self.rate_out)
        self._up = self.rate_out // common
        self._down = self.rate_in // common
        if self._up == self._down:
            return
        cdef Design design = STRICT if quality == "strict" else FAST
        self._scale = min(1.0, <double>self._up / <double>self._down)
        self._reach = <int64_t>ceil(design.reach / self._scale)
        cdef int64_t taps = (2 * self._reach + LANES - 1) // LANES * LANES
        if taps * self._up <= MAX_COEFFICIENTS:
            self._taps = taps
            self._design_rows(design)
        else:
            self._design_kernel(design)
        self._reserve(self._reach + BLOCK if self._taps else BLOCK)
        self._start()

    def __dealloc__(self):
        free(self._coefficients)
        free(self._window)

    cdef int _design_rows(self, Design design) except -1:
        """Work out the coefficients of each phase, in the order in which they meet the samples."""
        self._coefficients = <float *>calloc(self._up * self._taps, sizeof(float))
        cdef double *exact = <double *>malloc(2 * self._reach * sizeof(double))
        cdef int64_t phase, t, taps = 2 * self._reach
        cdef double total
        cdef float *row
        if self._coefficients == NULL or exact == NULL:
            free(exact)
            raise MemoryError
        for phase in range(self._up):
            row = self._coefficients + phase * self._taps
            if 2 * phase > self._up:
                # Seen from the next sample this phase is a mirrored earlier one.
                for t in range(taps):
                    row[t] = self._coefficients[(self._up - phase) * self._taps + taps - 1 - t]
                continue
            total = 0.0
            for t in range(taps):
                exact[t] = _kernel(
                    (self._reach - 1 - t + <double>phase / <double>self._up) * self._scale, design
                )
                total += exact[t]
            for t in range(taps):
                row[t] = <float>(exact[t] / total)
        free(exact)
        return 0

    cdef int _design_kernel(self, Design design) except -1:
        """Tabulate one side of the kernel, scaled so that all its values together sum to 1."""
        # Rounding the reach up to whole samples may read one zero crossing past the kernel: zeros.
        cdef int64_t i, count = <int64_t>design.reach * RESOLUTION
        self._coefficients = <float *>calloc(count + RESOLUTION + 2, sizeof(float))
        if self._coefficients == NULL:
            raise MemoryError
        cdef double area = 0.0
        for i in range(count):
            area += _kernel(<double>i / RESOLUTION, design) * (2.0 if i else 1.0) / RESOLUTION
        for i in range(count):
            self._coefficients[i] = <float>(_kernel(<double>i / RESOLUTION, design) * self._scale / area)
        return 0

    cdef int _reserve(self, int64_t samples) except -1 nogil:
        """Make room for ``samples`` more in the window."""
        cdef int64_t needed = self._held + samples + 2 * LANES
        if needed <= self._capacity:
            return 0
        needed = max(needed, self._capacity * 2)
        cdef float *window = <float *>realloc(self._window, needed * sizeof(float))
        if window == NULL:
            with gil:
                raise MemoryError
        # A padded row reads up to a step past the input and multiplies it with zeros; memory never
        # written could hold a NaN there.
        memset(window + self._capacity, 0, (needed - self._capacity) * sizeof(float))
        self._window = window
        self._capacity = needed
        return 0

    cdef void _start(self) noexcept nogil:
        self._received = self._returned = 0
        # Before the stream there was silence, as far back as the first output reaches.
        self._first = 1 - self._reach if self._taps else 0
        self._held = -self._first
        memset(self._window, 0, self._held * sizeof(float))

    cdef int64_t _ready(self) noexcept nogil:
        """Count the outputs whose input has fully arrived, from the start of the stream."""
        cdef int64_t complete = self._received - self._reach
        return (complete * self._up + self._down - 1) // self._down if complete > 0 else 0

    cdef int64_t _take(self, const int16_t *pcm, int64_t count, int64_t upto, int16_t *out) except -1 nogil:
        """Take in ``count`` samples (zeros if ``pcm`` is NULL), write the outputs now due before ``upto``."""
        cdef int64_t i, due
        self._reserve(count)
        cdef float *end = self._window + self._held
        if pcm == NULL:
            memset(end, 0, count * sizeof(float))
        else:
            for i in range(count):
                end[i] = <float>pcm[i]
        self._held += count
        self._received += count
        due = min(self._ready(), upto) - self._returned
        if due > 0:
            self._filter(due, out)
        return max(due, 0)

    cdef void _filter(self, int64_t count, int16_t *out) noexcept nogil:
        """Write the next ``count`` outputs and drop the input that no later one needs."""
        cdef int64_t ticks = self._returned * self._down
        cdef int64_t oldest = ticks // self._up - self._reach + 1
        if self._taps:
            mediaflow_fir(
                self._window + (oldest - self._first), self._coefficients, self._taps,
                self._up, self._down, ticks % self._up, count, out,
            )
        else:
            self._interpolate(count, out)
        self._returned += count
        oldest = self._returned * self._down // self._up - self._reach + 1
        cdef int64_t spent = oldest - self._first
        if spent > 0:
            self._held -= spent
            self._first = oldest
            memmove(self._window, self._window + spent, self._held * sizeof(float))

    cdef void _interpolate(self, int64_t count, int16_t *out) noexcept nogil:
        """Write ``count`` outputs by the kernel's table; input outside the window counts as silence."""
        cdef int64_t k, n, centre, low, high, index, ticks
        cdef double after, point, total
        cdef const float *table = self._coefficients
        for k in range(count):
            ticks = (self._returned + k) * self._down
            centre = ticks // self._up
            after = <double>(ticks % self._up) / <double>self._up
            low = max(centre - self._reach + 1, self._first)
            high = min(centre + self._reach, self._first + self._held - 1)
            total = 0.0
            for n in range(low, high + 1):
                point = fabs(<double>(centre - n) + after) * self._scale * RESOLUTION
                index = <int64_t>point
                total += self._window[n - self._first] * (
                    table[index] + (point - <double>index) * (table[index + 1] - table[index])
                )
            out[k] = <int16_t>rint(min(max(total, -32768.0), 32767.0))

    cdef int _run(self, const int16_t *pcm, int64_t count, int64_t upto, int16_t *out) except -1 nogil:
        """Take in ``count`` samples (zeros if ``pcm`` is NULL) block by block."""
        cdef int64_t size, done = 0
        while done < count:
            size = min(count - done, BLOCK)
            out += self._take(pcm + done if pcm != NULL else NULL, size, upto, out)
            done += size
        return 0

    def process(self, pcm) -> bytes:
        """Take in samples and return those that are due: none at first, later about as many as come.

        ``pcm`` is ``bytes`` or a one-dimensional C-contiguous buffer of bytes or int16. Raises
        ``TypeError`` for other items and ``ValueError`` for half a sample.
        """
        cdef Span source
        cdef object held = hold_pcm(pcm, "pcm", &source)
        if self._up == self._down:
            return held if PyBytes_CheckExact(held) else bytes(held)
        cdef int64_t samples = source.size // 2
        self._received += samples
        cdef int64_t due = self._ready() - self._returned
        self._received -= samples
        cdef bytes result = PyBytes_FromStringAndSize(NULL, 2 * due)
        cdef int16_t *out = <int16_t *>PyBytes_AS_STRING(result)
        if due * self._reach * 2 >= RELEASE_GIL:
            with nogil:
                self._run(<const int16_t *>source.start, samples, self._returned + due, out)
        else:
            self._run(<const int16_t *>source.start, samples, self._returned + due, out)
        return result

    def flush(self) -> bytes:
        """End the stream: return its last samples and be ready for another one."""
        if self._up == self._down:
            return b""
        cdef int64_t upto = (self._received * self._up + self._down - 1) // self._down
        cdef bytes result = PyBytes_FromStringAndSize(NULL, 2 * (upto - self._returned))
        cdef int16_t *out = <int16_t *>PyBytes_AS_STRING(result)
        if self._taps:
            self._run(NULL, self._reach, upto, out)
        else:
            with nogil:
                self._interpolate(upto - self._returned, out)
        self._start()
        return result

    def reset(self) -> None:
        """Forget the stream, as if newly made."""
        if self._up != self._down:
            self._start()

    @property
    def latency(self) -> float:
        """Seconds of input that an output waits for: half of the kernel."""
        return <double>self._reach / <double>self.rate_in
