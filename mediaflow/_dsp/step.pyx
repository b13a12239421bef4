"""One filter at work on one stream.

Samples are appended to the streams that the filter wants them dealt out to; outputs are made as soon
as half a kernel of later input is there; what no later output needs is dropped. Nothing depends on
how many samples come at a time.
"""

from libc.math cimport fabs
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from mediaflow._dsp.filter cimport LANES, RESOLUTION, ROWS, Coefficients
from mediaflow._dsp.kernels cimport (
    SLACK,
    STRIDE,
    mediaflow_from_pcm,
    mediaflow_pick,
    mediaflow_polyphase,
    mediaflow_rows,
    mediaflow_scratch,
    mediaflow_to_pcm,
    mediaflow_zeros,
)


cdef inline int64_t _floor(int64_t ticks, int64_t by) noexcept nogil:
    """Divide; a division takes longer than all the rest of a step's bookkeeping, and most are by 1 or 2."""
    return ticks if by == 1 else ticks >> 1 if by == 2 else ticks // by


cdef inline int64_t _ceil(int64_t ticks, int64_t by) noexcept nogil:
    return _floor(ticks + by - 1, by)


cdef int step_open(Step *step, const Coefficients *of, int64_t block) except -1 nogil:
    """Make room for ``block`` samples of input, BLOCK at most, and what comes of them; ``step`` is all zeros before."""
    step.filter = of
    step.block = block
    # A last tile reads past the last sample it needs, by its own width and that of its taps' last group.
    step.capacity = (2 * of.reach + block) // of.streams + SLACK + 3 * STRIDE if of.taps else block
    step.room = (block // of.down + 2 if of.shape == LANES else min(block * of.up // of.down + 2, OUTPUTS)) + SLACK
    step.streams = mediaflow_zeros(of.streams * step.capacity)
    if step.streams == NULL:
        with gil:
            raise MemoryError
    step_restart(step)
    return 0


cdef inline int64_t _phases(const Step *step) noexcept nogil:
    """Count the rows of ``sums``."""
    return step.filter.up if step.filter.shape == LANES else 1


cdef float *step_scratch() noexcept nogil:
    """Return SCRATCH floats of this thread."""
    return mediaflow_scratch()


cdef int64_t step_size(const Step *step) noexcept nogil:
    """Count the floats of ``sums``, whole cache lines."""
    return (_phases(step) * step.room + 15) // 16 * 16


cdef void step_close(Step *step) noexcept nogil:
    free(step.streams)
    free(step.pcm)


cdef void step_restart(Step *step) noexcept nogil:
    step.received = step.returned = 0
    step.limit = INT64_MAX
    # Before the stream there was silence, as far back as the first output reaches.
    step.first = step.filter.back if step.filter.shape <= ROWS else 0
    cdef int64_t stream
    for stream in range(step.filter.streams):
        memset(step.streams + stream * step.capacity, 0, -step.first * sizeof(float))


cdef int64_t step_ready(const Step *step, int64_t received) noexcept nogil:
    """Count the outputs that ``received`` samples determine, from the start of the stream."""
    cdef int64_t complete = received - step.filter.reach
    cdef int64_t ready = _ceil(complete * step.filter.up, step.filter.down)
    return min(ready, step.limit) if complete > 0 else 0


cdef float *_append(Step *step, int64_t count) except NULL nogil:
    """Return where the next ``count`` samples go, if there is one stream, and count them as received."""
    cdef int64_t held = step.received - step.first
    cdef int64_t needed = held + count + 2 * STRIDE
    cdef float *grown
    if needed > step.capacity:
        needed = max(needed, 2 * step.capacity)
        grown = <float *>realloc(step.streams, needed * sizeof(float))
        if grown == NULL:
            with gil:
                raise MemoryError
        # A padded row reads past the input and multiplies with zeros; memory never written could hold a NaN.
        memset(grown + step.capacity, 0, (needed - step.capacity) * sizeof(float))
        step.streams = grown
        step.capacity = needed
    step.received += count
    return step.streams + held


cdef int step_take(Step *step, const float *samples, int64_t count) except -1 nogil:
    """Append at most a block of samples."""
    cdef int64_t streams = step.filter.streams
    cdef int64_t stream, skipped, round
    if streams == 1:
        memcpy(_append(step, count), samples, count * sizeof(float))
        return 0
    round = _floor(step.received, streams)
    for stream in range(streams):
        skipped = round * streams + stream - step.received
        if skipped < 0:
            skipped += streams
        if skipped < count:
            mediaflow_pick(
                samples + skipped, streams, _ceil(count - skipped, streams),
                step.streams + stream * step.capacity + _ceil(step.received - stream, streams) - step.first,
            )
    step.received += count
    return 0


cdef int step_take_pcm(Step *step, const char *pcm, int64_t count) except -1 nogil:
    """Append at most a block of samples of 16 bits."""
    cdef float floats[BLOCK]
    if step.filter.streams == 1:
        mediaflow_from_pcm(pcm, count, _append(step, count))
    else:
        mediaflow_from_pcm(pcm, count, floats)
        step_take(step, floats, count)
    return 0


cdef int64_t step_give(Step *step) noexcept nogil:
    """Put the next outputs into ``sums``, and return how many.

    Filters with few phases make whole rounds of them: the first may begin with outputs that were
    returned before, and the last may hold some that are not due yet.
    """
    cdef const Coefficients *of = step.filter
    cdef int64_t count = step_ready(step, step.received) - step.returned
    cdef int64_t position, ticks
    if count <= 0:
        return 0
    if of.shape == LANES:
        position = _floor(step.returned, of.up)
        mediaflow_polyphase(
            of.parts, of.up, of.down, step.streams + position - step.first, step.capacity,
            _ceil(step.returned + count, of.up) - position, step.sums, step.room,
        )
        step.returned += count
        _drop(step, _floor(step.returned, of.up) + of.back)
        return count
    count = min(count, step.room - SLACK)
    ticks = step.returned * of.down
    if of.shape == ROWS:
        mediaflow_rows(
            step.streams + ticks // of.up + of.back - step.first, of.values, of.taps,
            of.up, of.down, ticks % of.up, count, step.sums,
        )
    else:
        _interpolate(step, count)
    step.returned += count
    _drop(step, step.returned * of.down // of.up + of.back)
    return count


cdef int64_t step_give_pcm(Step *step, char *out) except -1 nogil:
    """Write the next outputs as 16 bits, and return how many."""
    cdef int64_t up = _phases(step)
    cdef int64_t skip = step.returned - _floor(step.returned, up) * up
    cdef int64_t count = step_give(step)
    cdef int64_t rounds = _ceil(skip + count, up)
    if rounds * up == count:
        mediaflow_to_pcm(step.sums, step.room, up, rounds, out)
    else:
        if step.pcm == NULL:
            step.pcm = <char *>malloc(2 * up * step.room)
            if step.pcm == NULL:
                with gil:
                    raise MemoryError
        mediaflow_to_pcm(step.sums, step.room, up, rounds, step.pcm)
        memcpy(out, step.pcm + 2 * skip, 2 * count)
    return count


cdef void _drop(Step *step, int64_t oldest) noexcept nogil:
    """Forget what lies before ``oldest`` in each stream."""
    cdef int64_t spent = oldest - step.first
    cdef int64_t held = _ceil(step.received, step.filter.streams) - oldest
    cdef int64_t stream
    cdef float *start
    if spent <= 0:
        return
    for stream in range(step.filter.streams):
        start = step.streams + stream * step.capacity
        memmove(start, start + spent, held * sizeof(float))
    step.first = oldest


cdef void _interpolate(Step *step, int64_t count) noexcept nogil:
    """Make ``count`` outputs by the kernel's table; input outside the window counts as silence."""
    cdef const Coefficients *of = step.filter
    cdef int64_t k, n, centre, low, high, index, ticks
    cdef double after, point, total
    for k in range(count):
        ticks = (step.returned + k) * of.down
        centre = ticks // of.up
        after = <double>(ticks % of.up) / <double>of.up
        low = max(centre - of.reach + 1, step.first)
        high = min(centre + of.reach, step.received - 1)
        total = 0.0
        for n in range(low, high + 1):
            point = fabs(<double>(centre - n) + after) * of.scale * RESOLUTION
            index = <int64_t>point
            total += step.streams[n - step.first] * (
                of.values[index] + (point - <double>index) * (of.values[index + 1] - of.values[index])
            )
        step.sums[k] = <float>total
