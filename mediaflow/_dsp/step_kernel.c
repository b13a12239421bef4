/* The loops of mediaflow._dsp.step. */

#include <stdint.h>
#include <string.h>

#include "kernels.h"
#include "levels.h"

/* Round to nearest, ties to even, and saturate. Adding 1.5 * 2^23 leaves no room for a fraction in a float's 24 bits,
 * so the integer stands in the lowest 16 of them; unlike lrintf() it needs no function call on any level. */
INLINE uint32_t round_bits(float value)
{
    union { float number; uint32_t bits; } as;

    value = value > 32767.0f ? 32767.0f : value;
    value = value < -32768.0f ? -32768.0f : value;
    as.number = value + 12582912.0f;
    return as.bits;
}

EVERY_LEVEL
void mediaflow_from_pcm(const char *pcm, int64_t count, float *restrict out)
{
    const int16_t *restrict samples = (const int16_t *)pcm;

    for (int64_t i = 0; i < count; i++)
        out[i] = samples[i];
}

float *mediaflow_scratch(void)
{
    static _Thread_local float scratch[SCRATCH] __attribute__((aligned(64)));

    return scratch;
}

INLINE void pick(const float *restrict samples, int64_t step, int64_t count, float *restrict out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = samples[i * step];
}

/* Small steps are worth a loop of their own, in which the compiler knows them. */
EVERY_LEVEL
void mediaflow_pick(const float *samples, int64_t step, int64_t count, float *out)
{
    if (step == 2)
        pick(samples, 2, count, out);
    else if (step == 3)
        pick(samples, 3, count, out);
    else
        pick(samples, step, count, out);
}

INLINE void interleave(const float *restrict sums, int64_t room, int64_t up, int64_t count, int16_t *restrict pcm)
{
    for (int64_t i = 0; i < count; i++)
        for (int64_t phase = 0; phase < up; phase++)
            pcm[i * up + phase] = (int16_t)round_bits(sums[phase * room + i]);
}

/* Two phases are a matter of 32-bit words, which every vector unit masks and shifts; little-endian, like PCM. */
INLINE void interleave_two(const float *restrict even, const float *restrict odd, int64_t count, char *restrict pcm)
{
    for (int64_t i = 0; i < count; i++) {
        const uint32_t pair = (round_bits(even[i]) & 0xFFFF) | round_bits(odd[i]) << 16;
        memcpy(pcm + 4 * i, &pair, 4);      /* a pair of samples may stand on any even address */
    }
}

EVERY_LEVEL
void mediaflow_to_pcm(const float *sums, int64_t room, int64_t up, int64_t count, char *pcm)
{
    if (up == 1)
        interleave(sums, room, 1, count, (int16_t *)pcm);
    else if (up == 2)
        interleave_two(sums, sums + room, count, pcm);
    else if (up == 3)
        interleave(sums, room, 3, count, (int16_t *)pcm);
    else
        interleave(sums, room, up, count, (int16_t *)pcm);
}

/* The filter of a single tap. */
EVERY_LEVEL
static void scale(const float *restrict samples, float tap, int64_t count, float *restrict out, int fresh)
{
    if (fresh)
        for (int64_t i = 0; i < count; i++)
            out[i] = tap * samples[i];
    else
        for (int64_t i = 0; i < count; i++)
            out[i] += tap * samples[i];
}

enum { REACH = 5, BLOCKS = 10 };
typedef float quad __attribute__((vector_size(16), aligned(4)));

#if MANY_LEVELS
#define LANES 16
#define NAME(x) x##_v4
#define TARGET __attribute__((target("arch=x86-64-v4")))
#include "fir.h"
#undef LANES
#undef NAME
#undef TARGET
#define LANES 8
#define NAME(x) x##_v3
#define TARGET __attribute__((target("arch=x86-64-v3")))
#include "fir.h"
#undef LANES
#undef NAME
#undef TARGET
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define NAME(x) x##_plain
#define TARGET
#include "fir.h"

#if MANY_LEVELS
#define AT_BEST_LEVEL(function, ...) do { \
    if (__builtin_cpu_supports("x86-64-v4")) function##_v4(__VA_ARGS__); \
    else if (__builtin_cpu_supports("x86-64-v3")) function##_v3(__VA_ARGS__); \
    else function##_plain(__VA_ARGS__); \
} while (0)
#else
#define AT_BEST_LEVEL(function, ...) function##_plain(__VA_ARGS__)
#endif

void mediaflow_polyphase(const struct part *parts, int64_t up, int64_t down, const float *streams, int64_t capacity,
                         int64_t count, float *sums, int64_t room)
{
    for (int64_t phase = 0; phase < up; phase++, sums += room) {
        int fresh = 1;

        for (int64_t stream = 0; stream < down; stream++, parts++) {
            const float *samples = streams + stream * capacity + parts->start;

            if (parts->groups)
                AT_BEST_LEVEL(lanes, samples, parts->taps, parts->groups, sums, count, fresh);
            else if (parts->taps)
                scale(samples, *parts->taps, count, sums, fresh);
            fresh = fresh && !parts->taps;
        }
    }
}

void mediaflow_rows(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down, int64_t phase,
                    int64_t count, float *sums)
{
    AT_BEST_LEVEL(rows, samples, rows, taps, up, down, phase, count, sums);
}
