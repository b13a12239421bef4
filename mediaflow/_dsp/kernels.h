/* What the C files of this folder offer to the Cython modules. */

#ifndef MEDIAFLOW_KERNELS_H
#define MEDIAFLOW_KERNELS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Zeros that start with a cache line, so that vectors of them never straddle two. NULL without memory; free() them. */
static inline float *mediaflow_zeros(int64_t count)
{
    const size_t size = (count * sizeof(float) + 63) / 64 * 64;
    float *zeros = aligned_alloc(64, size);

    return zeros ? memset(zeros, 0, size) : NULL;
}

/* g711_kernel.c: `count` samples from `data` to `out`, which must not overlap. */
void mediaflow_mulaw_decode(const char *data, char *out, int64_t count);
void mediaflow_mulaw_encode(const char *data, char *out, int64_t count);
void mediaflow_alaw_decode(const char *data, char *out, int64_t count);
void mediaflow_alaw_encode(const char *data, char *out, int64_t count);

/* stage_kernel.c: LENT bytes of the thread that calls, from a cache line on, in which `input` does not lie. */
enum { LENT = 4096 };
char *mediaflow_lent(const char *input);

/* step_kernel.c. Vectors run past the last output asked for: buffers of `count` floats need SLACK more. */
enum {
    STRIDE = 16,        /* taps of a filter come in groups of so many, padded with zeros */
    SLACK = 80,         /* half of the widest tile: a smaller rest is made in narrower ones */
};

/* The taps of one phase that meet one of the interleaved input streams. No groups: a single tap; no taps: nothing. */
struct part {
    const float *taps;
    int64_t groups;
    int64_t start;      /* of the first tap's sample, from the output's own position in the stream */
};

/* Write outputs 0 to `count` of every phase to `sums + phase * room`; stream s begins at `streams + s * capacity`. */
void mediaflow_polyphase(const struct part *parts, int64_t up, int64_t down, const float *streams, int64_t capacity,
                         int64_t count, float *sums, int64_t room);
/* Write `count` outputs whose phases have a row of taps each, one after the other; `taps` is a multiple of STRIDE. */
void mediaflow_rows(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down, int64_t phase,
                    int64_t count, float *sums);
/* Room for what a resampler computes in one call, of the thread that calls: a stream keeps only what lasts. It begins with
 * a cache line, and stays in the cache where memory of each stream's own would not. */
enum { SCRATCH = 16 * 1024 };
float *mediaflow_scratch(void);
void mediaflow_from_pcm(const char *pcm, int64_t count, float *out);
/* Every `step`th sample. */
void mediaflow_pick(const float *samples, int64_t step, int64_t count, float *out);
/* Round, saturate and interleave `count` outputs of each of `up` phases. */
void mediaflow_to_pcm(const float *sums, int64_t room, int64_t up, int64_t count, char *pcm);


/* vad_kernel.c: the energies of a frame of `count * step` samples in two bands. `work` holds `count` + PAST floats, of
 * which the first PAST are kept from frame to frame. */
enum { PAST = 8 };
void mediaflow_band_energies(const char *pcm, int64_t step, int64_t count, float *work, float *low_energy,
                             float *high_energy);

/* pcm_kernel.c: the energy of the first difference of `count` samples, big-endian if swapped, over that of their
 * deviation from the mean; infinity where nothing deviates. */
double mediaflow_roughness(const char *pcm, int64_t count, int swapped);

#endif
