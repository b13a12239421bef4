"""Cut a recording into chunks, in the pauses: all of it in one compiled call."""

from libc.stdint cimport int64_t

from mediaflow._dsp.findings cimport VadResult, Verdict
from mediaflow._dsp.span cimport Span, hold_pcm
from mediaflow._dsp.vad cimport EnergyVad

cdef enum:
    FRAME_MS = 20
    # Half a second without speech is a pause for certain. A shorter run of quiet frames may be a weak
    # sound inside a word, so there the longest is taken.
    LONG_PAUSE = 25             # frames


cdef int64_t _cut(const Verdict *verdicts, int64_t first, int64_t last) noexcept nogil:
    """Return the frame in ``first`` to ``last`` before which to cut.

    That is the middle of the first long pause, of the longest one where none is long, and the frame
    with the lowest score where there is no pause at all.
    """
    cdef int64_t i, run = 0, longest = 0, end = last, lowest = last
    for i in range(first, last + 1):
        if verdicts[i].score < verdicts[lowest].score:
            lowest = i
        if verdicts[i].speech:
            if longest >= LONG_PAUSE:
                break
            run = 0
            continue
        run += 1
        if run > longest:
            longest, end = run, i
    return end + 1 - (longest + 1) // 2 if longest else lowest


def speech_chunks(pcm, rate, *, double min_s=10.0, double max_s=25.0) -> list[tuple[int, int]]:
    """Cut a whole recording into chunks of ``min_s`` to ``max_s`` seconds, in pauses where there are any.

    Returns the first sample and the end of each chunk; together they are the recording, and only the
    last may be shorter. A cut falls inside speech only if the window that the two lengths leave has no
    pause of 200 ms. What is a pause tells an `EnergyVad` at ``rate``.
    """
    if not 0.1 <= min_s <= max_s <= 3600:
        raise ValueError(f"min_s and max_s must be 0.1 to 3600 seconds and in this order, not {min_s:g} and {max_s:g}")
    cdef EnergyVad vad = EnergyVad(rate, frame_ms=FRAME_MS)
    cdef Span source
    cdef object _held = hold_pcm(pcm, "pcm", &source)
    cdef VadResult found
    cdef int64_t samples = source.size // 2
    cdef int64_t shortest = <int64_t>(min_s * 1000 / FRAME_MS + 0.5)
    cdef int64_t longest = <int64_t>(max_s * 1000 / FRAME_MS + 0.5)
    cdef int64_t start = 0, cut
    with nogil:
        vad.feed(&source)
    found = vad.take()
    cdef list chunks = []
    while found._verdict_count - start > longest:
        cut = _cut(found._verdicts, start + shortest, start + longest)
        chunks.append((start * vad.frame_samples, cut * vad.frame_samples))
        start = cut
    if samples > start * vad.frame_samples:
        chunks.append((start * vad.frame_samples, samples))
    return chunks
