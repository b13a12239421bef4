"""The codec's kernels: ``count`` samples from the first pointer to the second, which must not overlap."""

from libc.stdint cimport int64_t

ctypedef void (*Kernel)(const char *data, char *out, int64_t count) noexcept nogil

cdef extern from *:
    """
    #include <stdint.h>
    void mediaflow_mulaw_decode(const char *codes, char *pcm, int64_t count);
    void mediaflow_mulaw_encode(const char *pcm, char *codes, int64_t count);
    void mediaflow_alaw_decode(const char *codes, char *pcm, int64_t count);
    void mediaflow_alaw_encode(const char *pcm, char *codes, int64_t count);
    """
    void mediaflow_mulaw_decode(const char *codes, char *pcm, int64_t count) noexcept nogil
    void mediaflow_mulaw_encode(const char *pcm, char *codes, int64_t count) noexcept nogil
    void mediaflow_alaw_decode(const char *codes, char *pcm, int64_t count) noexcept nogil
    void mediaflow_alaw_encode(const char *pcm, char *codes, int64_t count) noexcept nogil
