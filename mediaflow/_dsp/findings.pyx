"""What a speech detector has found.

Most results are of one frame and are looked at for their events, of which there are none. So nothing
becomes a Python object before somebody asks for it.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from typing import NamedTuple

VadEvent = NamedTuple("VadEvent", [("started", bool), ("position", int)])
VadEvent.__module__ = __name__
VadEvent.__doc__ = """Speech started or ended at ``position``, in samples from the start of the stream.

    It started with the first sample of the first speech frame; it ended before ``position``, the end
    of the last speech frame.
    """


cdef void *_grown(void *old, const void *few, int64_t *room, size_t size) except NULL nogil:
    """Return twice the room with the same contents."""
    cdef void *grown = malloc(2 * room[0] * size)
    if grown == NULL:
        with gil:
            raise MemoryError
    memcpy(grown, old, room[0] * size)
    if old != few:
        free(old)
    room[0] *= 2
    return grown


@cython.final
@cython.freelist(8)
cdef class VadResult:
    """What `EnergyVad.process` found: an entry in ``speech`` and ``scores`` for each whole frame.

    ``speech`` tells for each frame whether it is speech by itself, without regard to the minimum
    length and the hang-over that shape the events; ``scores`` is the evidence for that, 0 to 20.
    ``events`` are the starts and ends that became certain, in order.
    """

    def __cinit__(self, *_arguments):
        self._verdicts = self._few_verdicts
        self._marks = self._few_marks
        self._verdict_room = self._mark_room = FEW

    def __init__(self, speech, scores, events):
        for judged, score in zip(speech, scores, strict=True):
            self.add_verdict(score, judged)
        for event in events:
            self.add_mark(event.started, event.position)

    def __dealloc__(self):
        if self._verdicts != self._few_verdicts:
            free(self._verdicts)
        if self._marks != self._few_marks:
            free(self._marks)

    cdef int add_verdict(self, double score, bint speech) except -1 nogil:
        if self._verdict_count == self._verdict_room:
            self._verdicts = <Verdict *>_grown(
                self._verdicts, self._few_verdicts, &self._verdict_room, sizeof(Verdict)
            )
        self._verdicts[self._verdict_count].score = score
        self._verdicts[self._verdict_count].speech = speech
        self._verdict_count += 1
        return 0

    cdef int add_mark(self, bint started, int64_t position) except -1 nogil:
        if self._mark_count == self._mark_room:
            self._marks = <Mark *>_grown(self._marks, self._few_marks, &self._mark_room, sizeof(Mark))
        self._marks[self._mark_count].started = started
        self._marks[self._mark_count].position = position
        self._mark_count += 1
        return 0

    cdef bint keep_marks(self) noexcept nogil:
        """Forget the verdicts, and tell whether there are marks."""
        self._verdict_count = 0
        return self._mark_count > 0

    @property
    def speech(self) -> list[bool]:
        """Whether each frame is speech."""
        cdef int64_t i
        return [bool(self._verdicts[i].speech) for i in range(self._verdict_count)]

    @property
    def scores(self) -> list[float]:
        """The evidence that each frame is speech, 0 to 20."""
        cdef int64_t i
        return [self._verdicts[i].score for i in range(self._verdict_count)]

    @property
    def events(self) -> list:
        """The starts and ends of speech that became certain."""
        cdef int64_t i
        return [
            VadEvent(bool(self._marks[i].started), self._marks[i].position) for i in range(self._mark_count)
        ]

    def __eq__(self, other):
        if not isinstance(other, VadResult):
            return NotImplemented
        return (self.speech, self.scores, self.events) == (other.speech, other.scores, other.events)

    def __repr__(self):
        return f"VadResult(speech={self.speech}, scores={self.scores}, events={self.events})"
