"""The C files of this folder, as kernels.h declares them."""

from libc.stdint cimport int64_t

ctypedef void (*Kernel)(const char *data, char *out, int64_t count) noexcept nogil

cdef extern from "kernels.h":
    enum: STRIDE
    enum: SLACK
    enum: PAST
    enum: SCRATCH
    enum: LENT

    struct part:
        const float *taps
        int64_t groups
        int64_t start

    float *mediaflow_zeros(int64_t count) noexcept nogil
    float *mediaflow_scratch() noexcept nogil
    char *mediaflow_lent(const char *input) noexcept nogil

    void mediaflow_mulaw_decode(const char *data, char *out, int64_t count) noexcept nogil
    void mediaflow_mulaw_encode(const char *data, char *out, int64_t count) noexcept nogil
    void mediaflow_alaw_decode(const char *data, char *out, int64_t count) noexcept nogil
    void mediaflow_alaw_encode(const char *data, char *out, int64_t count) noexcept nogil

    void mediaflow_polyphase(
        const part *parts, int64_t up, int64_t down, const float *streams, int64_t capacity,
        int64_t count, float *sums, int64_t room,
    ) noexcept nogil
    void mediaflow_rows(
        const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down, int64_t phase,
        int64_t count, float *sums,
    ) noexcept nogil
    void mediaflow_from_pcm(const char *pcm, int64_t count, float *out) noexcept nogil
    void mediaflow_pick(const float *samples, int64_t step, int64_t count, float *out) noexcept nogil
    void mediaflow_to_pcm(const float *sums, int64_t room, int64_t up, int64_t count, char *pcm) noexcept nogil
    void mediaflow_band_energies(
        const char *pcm, int64_t step, int64_t count, float *work, float *low_energy, float *high_energy,
    ) noexcept nogil
    double mediaflow_roughness(const char *pcm, int64_t count, int swapped) noexcept nogil
