"""Simple arithmetic on 16-bit samples: mixing, levels, channels and byte order.

The loops are plain so that the compiler vectorises them; sums are integers, so no result depends
on how it did.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport INFINITY, log10
from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memset

from mediaflow._dsp.kernels cimport mediaflow_roughness
from mediaflow._dsp.span cimport Span, hold_codes, hold_pcm

cdef enum:
    # Below this many samples a correlation of 0.5 may be chance: for white noise its spread is
    # 1/sqrt(160) = 0.08, so the limit stands six deviations away.
    MIN_ORDER_SAMPLES = 160

# Roughness of a signal: the energy of its first difference over the energy of its deviation from
# the mean, 2 * (1 - r1) for a correlation r1 between neighbours. White noise has 2, telephone
# speech about 0.2 to 0.6. The right order must be smooth (r1 >= 0.5) ...
cdef double SMOOTH = 1.0
# ... and the other one at least this many times rougher. Samples that never leave one byte scale
# by 256 when swapped, so both orders are equally rough and the ratio stays near 1.
cdef double MARGIN = 2.0


cdef void _swap(const uint16_t *pcm, uint16_t *out, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = (pcm[i] << 8) | (pcm[i] >> 8)


cdef void _add(const int16_t *a, const int16_t *b, int16_t *out, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t total
    for i in range(count):
        total = <int32_t>a[i] + b[i]
        out[i] = <int16_t>(32767 if total > 32767 else -32768 if total < -32768 else total)


cdef void _interleave(
    const int16_t *left, const int16_t *right, int16_t *out, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out[2 * i] = left[i]
        out[2 * i + 1] = right[i]


cdef void _take(const int16_t *pcm, int16_t *out, Py_ssize_t step, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = pcm[i * step]


cdef uint64_t _energy(const int16_t *pcm, Py_ssize_t count) noexcept nogil:
    # A square is at most 2^30, so 64 bits last for 2^34 samples: two days at 96 kHz.
    cdef Py_ssize_t i
    cdef uint64_t total = 0
    for i in range(count):
        total += <uint64_t>(<int32_t>pcm[i] * pcm[i])
    return total


def swap_bytes(pcm) -> bytes:
    """Exchange the two bytes of every 16-bit sample: big-endian to little-endian and back."""
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, source.size)
    _swap(<const uint16_t *>source.start, <uint16_t *>PyBytes_AS_STRING(out), source.size // 2)
    return out


def mix(a, b) -> bytes:
    """Add two equally long signals sample by sample; sums beyond 16 bits stop at the limit."""
    cdef Span first, second
    cdef object _held_a = hold_pcm(a, "a", &first)
    cdef object _held_b = hold_pcm(b, "b", &second)
    if first.size != second.size:
        raise ValueError(f"a holds {first.size // 2} samples and b {second.size // 2}, not equally many")
    cdef bytes out = PyBytes_FromStringAndSize(NULL, first.size)
    _add(
        <const int16_t *>first.start, <const int16_t *>second.start,
        <int16_t *>PyBytes_AS_STRING(out), first.size // 2,
    )
    return out


def interleave(left, right) -> bytes:
    """Join two equally long signals to stereo: left, right, left, right, ..."""
    cdef Span first, second
    cdef object _held_left = hold_pcm(left, "left", &first)
    cdef object _held_right = hold_pcm(right, "right", &second)
    if first.size != second.size:
        raise ValueError(
            f"left holds {first.size // 2} samples and right {second.size // 2}, not equally many"
        )
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 2 * first.size)
    _interleave(
        <const int16_t *>first.start, <const int16_t *>second.start,
        <int16_t *>PyBytes_AS_STRING(out), first.size // 2,
    )
    return out


def deinterleave(pcm, int channels) -> list:
    """Split interleaved samples into one ``bytes`` per channel."""
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    cdef Py_ssize_t count = source.size // 2 // channels
    if source.size != 2 * count * channels:
        raise ValueError(
            f"pcm holds {source.size // 2} samples, not a whole number for each of {channels} channels"
        )
    cdef int channel
    cdef bytes out
    cdef list split = []
    for channel in range(channels):
        out = PyBytes_FromStringAndSize(NULL, 2 * count)
        _take(<const int16_t *>source.start + channel, <int16_t *>PyBytes_AS_STRING(out), channels, count)
        split.append(out)
    return split


def rms_dbfs(pcm) -> float:
    """Return the root-mean-square level in dB relative to a full-scale square wave of 32768.

    A full-scale sine has -3.01 dB, a signal of ±1 has -90.31. Digital silence and an empty signal
    have no level: minus infinity.
    """
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    cdef Py_ssize_t count = source.size // 2
    cdef uint64_t energy = _energy(<const int16_t *>source.start, count)
    if energy == 0:
        return -INFINITY
    return 10.0 * log10(<double>energy / <double>count / 32768.0 ** 2)


def roughness(pcm) -> float:
    """Return the energy of the first difference of a signal over that of its deviation from the mean.

    0 for the slowest sound, 2 for white noise, up to 4 for the highest tone. A constant, which is neither, has 2.
    """
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    cdef double rough = mediaflow_roughness(source.start, source.size // 2, False)
    return 2.0 if rough == INFINITY else rough


def varied(data, int values) -> bool:
    """Tell whether ``data`` holds at least ``values`` different bytes: silence and a codec's idle pattern do not."""
    cdef Span source
    cdef object _held = hold_codes(data, "data", &source)
    cdef uint8_t seen[256]
    cdef const uint8_t *codes = <const uint8_t *>source.start
    cdef Py_ssize_t i
    cdef int found = 0
    memset(seen, 0, sizeof(seen))
    for i in range(source.size):
        if found >= values:
            break
        found += not seen[codes[i]]
        seen[codes[i]] = 1
    return found >= values


def unevenness(data) -> float:
    """Return how differently the bytes at even and at odd places are spread: from 0, the same, to 1, nothing shared.

    How often each value is there at even places less how often at odd ones, summed without signs, over the number of
    bytes. The last of an odd number counts like the others. No bytes at all raise ``ValueError``.
    """
    cdef Span source
    cdef object _held = hold_codes(data, "data", &source)
    cdef Py_ssize_t more[256]
    cdef const uint8_t *codes = <const uint8_t *>source.start
    cdef Py_ssize_t i, apart = 0
    if source.size == 0:
        raise ValueError("data is empty, and the unevenness of no bytes is not defined")
    memset(more, 0, sizeof(more))
    for i in range(0, source.size - 1, 2):
        more[codes[i]] += 1
        more[codes[i + 1]] -= 1
    if source.size & 1:
        more[codes[source.size - 1]] += 1
    for i in range(256):
        apart += more[i] if more[i] > 0 else -more[i]
    return <double>apart / <double>source.size


def guess_byte_order(pcm):
    """Tell whether 16-bit samples are "little"- or "big"-endian, or None where they do not show it.

    Speech is smooth: neighbours resemble each other. Read in the wrong order the fast-changing low
    byte leads, and what comes out is close to white noise. So each reading gets a *roughness*, the
    energy of its first difference over the energy of its deviation from the mean (2 for white
    noise), and an order is named when its roughness is at most 1.0 and the other reading is at
    least twice as rough.

    None for fewer than 160 samples, for silence or any constant, for white noise of any level, and
    for sounds so quiet that one byte holds them, which are equally smooth in both readings. None
    is no failure: ask again with the next second of audio.
    """
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    cdef Py_ssize_t count = source.size // 2
    if count < MIN_ORDER_SAMPLES:
        return None
    cdef double little = mediaflow_roughness(source.start, count, False)
    cdef double big = mediaflow_roughness(source.start, count, True)
    if little <= SMOOTH and big >= MARGIN * little:
        return "little"
    if big <= SMOOTH and little >= MARGIN * big:
        return "big"
    return None
