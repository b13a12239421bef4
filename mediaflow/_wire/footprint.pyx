# cython: binding=False, embedsignature.format=clinic
"""What a frame goes through in memory, so that it can be fetched before it is needed.

A frame asks for some thirty of its call's sixty objects, each found by way of others. With a thousand calls they do not
fit into the cache, and come from memory one after the other, 0.1 µs each; with a hundred they have grown cold while
the processor slept. Fetched all at once they come side by side, and before they are waited for: `_wire.poller` knows
who is read next.

Nobody has to say which ones they are. The garbage collector knows what refers to what, and we follow it through the
objects of our own classes, of those that plugins derive from ours, and the short lists between them.

What is fetched and not asked for drives something else out of the cache. So lists, tuples and objects that Python lays
out are gone through but not fetched, nor is what the garbage collector has before an object. Of a call of
vobiz_to_eka.yaml that leaves 92 cache lines of 162; followed by single steps, a frame uses 57 of them, and 60 of all.

Only where they lie is kept. To fetch is a hint to the processor: what has gone meanwhile, or moved, costs no more than
that it is not there.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcpy

from types import BuiltinMethodType, MethodType

cdef extern from *:
    """
    #define mediaflow_fetch(at) __builtin_prefetch((const void *)(at))

    static inline int mediaflow_traverse(PyObject *object, visitproc visit, void *walk) {
        traverseproc traverse = PyObject_IS_GC(object) ? Py_TYPE(object)->tp_traverse : NULL;
        return traverse ? traverse(object, visit, walk) : 0;
    }

    static inline Py_ssize_t mediaflow_size(PyObject *object) {
        Py_ssize_t items = Py_TYPE(object)->tp_itemsize ? Py_SIZE(object) : 0;
        return Py_TYPE(object)->tp_basicsize + (items > 0 ? items : 0) * Py_TYPE(object)->tp_itemsize;
    }
    """
    ctypedef int (*visitproc)(PyObject *, void *) noexcept
    void mediaflow_fetch(uintptr_t at) noexcept nogil
    int mediaflow_traverse(PyObject *object, visitproc visit, void *walk)
    Py_ssize_t mediaflow_size(PyObject *object)
    Py_ssize_t Py_REFCNT(PyObject *object)
    PyObject *PyList_GET_ITEM(object list, Py_ssize_t at)

cdef enum:
    CACHE_LINE = 64             # bytes; where they are larger, some fetches are idle
    LARGEST = 1024              # bytes of an object, at most: of what is larger, not all is wanted for a frame
    LINES = 17                  # in so many
    MOST = 128                  # objects; a call has some sixty
    FEW = 8                     # a list that is longer leads elsewhere, to other calls
    SHARED = 16                 # what so many refer to belongs to many calls, and is in the cache already

OWN = ("mediaflow", "mediaflow_plugins")
SEQUENCES = (list, tuple)
BETWEEN = (*SEQUENCES, MethodType, BuiltinMethodType)
MADE_BY_PYTHON = 1 << 9         # in the flags of a class: Py_TPFLAGS_HEAPTYPE

cdef dict _leading = {}         # whether objects of a class lead on
cdef dict _holding = {}         # and whether a frame asks for what is in them


cdef int _gather(PyObject *each, void *near) noexcept:
    """Take down what an object refers to; no Python code may run meanwhile, which could change the object."""
    if Py_REFCNT(each) < SHARED:
        (<list>near).append(<object>each)
    return 0


cdef bint _leads_on(object each) except -1:
    """Tell whether we go through it, and so whether a frame may."""
    kind = type(each)
    leads = _leading.get(kind)
    if leads is None:
        ours = any(base.__module__.partition(".")[0] in OWN for base in kind.__mro__)
        leads = _leading[kind] = kind in BETWEEN or (ours and not issubclass(kind, type))
    return leads and not (kind in SEQUENCES and len(each) > FEW)


cdef bint _holds(object each) except -1:
    """Tell whether a frame asks for what is in it: compiled code says what lies there."""
    kind = type(each)
    holds = _holding.get(kind)
    if holds is None:
        compiled = any(not base.__flags__ & MADE_BY_PYTHON for base in kind.__mro__ if base is not object)
        holds = _holding[kind] = compiled and kind not in SEQUENCES
    return holds


cdef bint _is_in(list found, object wanted) noexcept:
    cdef object each
    for each in found:
        if each is wanted:
            return True
    return False


cpdef list belongings(object root):
    """Return ``root`` and what belongs to it, nearest first."""
    cdef list near, found = [root]
    cdef Py_ssize_t at = 0
    while at < len(found):
        near = []
        mediaflow_traverse(PyList_GET_ITEM(found, at), _gather, <void *>near)
        for each in near:
            if len(found) < MOST and _leads_on(each) and not _is_in(found, each):
                found.append(each)
        at += 1
    return found


cdef int _compare(const void *one, const void *other) noexcept nogil:
    cdef uintptr_t a = (<const uintptr_t *>one)[0], b = (<const uintptr_t *>other)[0]
    return (a > b) - (a < b)


cdef int footprint_find(Footprint *footprint, object root) except -1:
    """Find out what belongs to ``root``, which is not kept."""
    cdef uintptr_t runs[MOST * LINES]   # single lines first
    cdef uintptr_t line, end, next = 0
    cdef uintptr_t *kept
    cdef int i, lines = 0, count = 0
    cdef list found = belongings(root)
    cdef PyObject *each
    for i in range(<int>len(found)):
        each = PyList_GET_ITEM(found, i)
        if not _holds(<object>each):
            continue
        line = <uintptr_t>each // CACHE_LINE
        end = (<uintptr_t>each + min(mediaflow_size(each), LARGEST) - 1) // CACHE_LINE
        while line <= end:
            runs[lines] = line
            lines += 1
            line += 1
    qsort(runs, lines, sizeof(uintptr_t), _compare)
    for i in range(lines):
        line = runs[i]
        if line < next:             # of two objects
            continue
        if line > next or runs[count - 1] % CACHE_LINE == CACHE_LINE - 1:
            runs[count] = line * CACHE_LINE
            count += 1
        runs[count - 1] += 1
        next = line + 1
    kept = <uintptr_t *>realloc(footprint.runs, count * sizeof(uintptr_t))
    if kept == NULL:
        raise MemoryError
    memcpy(kept, runs, count * sizeof(uintptr_t))
    footprint.runs, footprint.count = kept, count
    return 0


cdef void footprint_fetch(const Footprint *footprint) noexcept nogil:
    """Have all of it brought into the cache, and do not wait for it."""
    cdef uintptr_t at, end
    cdef int i
    for i in range(footprint.count):
        at = footprint.runs[i] // CACHE_LINE * CACHE_LINE
        end = at + footprint.runs[i] % CACHE_LINE * CACHE_LINE
        while at < end:
            mediaflow_fetch(at)
            at += CACHE_LINE


cdef void footprint_free(Footprint *footprint) noexcept nogil:
    free(footprint.runs)
    footprint.runs = NULL
    footprint.count = 0


cdef list footprint_runs(const Footprint *footprint):
    """Return where the pieces of memory begin and end."""
    return [
        (run // CACHE_LINE * CACHE_LINE, run // CACHE_LINE * CACHE_LINE + run % CACHE_LINE * CACHE_LINE)
        for run in footprint.runs[:footprint.count]
    ]
