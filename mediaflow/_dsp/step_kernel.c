/* The loops of mediaflow._dsp.step. */

#include <stdint.h>
#include <string.h>

#include "kernels.h"
#include "levels.h"

/* Round to nearest, ties to even, and saturate. Adding 1.5 * 2^23 leaves no room for a fraction in a float's 24 bits,
 * so the integer stands in the lowest of them; unlike lrintf() it needs no function call on any level. */
INLINE int16_t to_int16(float value)
{
    union { float number; uint32_t bits; } as;

    value = value > 32767.0f ? 32767.0f : value;
    value = value < -32768.0f ? -32768.0f : value;
    as.number = value + 12582912.0f;
    return (int16_t)as.bits;
}

EVERY_LEVEL
void mediaflow_from_pcm(const char *pcm, int64_t count, float *restrict out)
{
    const int16_t *restrict samples = (const int16_t *)pcm;

    for (int64_t i = 0; i < count; i++)
        out[i] = samples[i];
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
            pcm[i * up + phase] = to_int16(sums[phase * room + i]);
}

EVERY_LEVEL
void mediaflow_to_pcm(const float *sums, int64_t room, int64_t up, int64_t count, char *pcm)
{
    if (up == 1)
        interleave(sums, room, 1, count, (int16_t *)pcm);
    else if (up == 2)
        interleave(sums, room, 2, count, (int16_t *)pcm);
    else if (up == 3)
        interleave(sums, room, 3, count, (int16_t *)pcm);
    else
        interleave(sums, room, up, count, (int16_t *)pcm);
}

EVERY_LEVEL
static void add_scaled(const float *restrict samples, float tap, int64_t count, float *restrict out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] += tap * samples[i];
}

enum { REACH = 5, BLOCKS = 10 };

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

static void lanes(const float *samples, const float *taps, int64_t groups, float *out, int64_t count)
{
#if MANY_LEVELS
    if (__builtin_cpu_supports("x86-64-v4"))
        lanes_v4(samples, taps, groups, out, count);
    else if (__builtin_cpu_supports("x86-64-v3"))
        lanes_v3(samples, taps, groups, out, count);
    else
#endif
        lanes_plain(samples, taps, groups, out, count);
}

void mediaflow_polyphase(const struct part *parts, int64_t up, int64_t down, const float *streams, int64_t capacity,
                         int64_t count, float *sums, int64_t room)
{
    for (int64_t phase = 0; phase < up; phase++, sums += room) {
        memset(sums, 0, (count + SLACK) * sizeof(float));
        for (int64_t stream = 0; stream < down; stream++, parts++) {
            const float *samples = streams + stream * capacity + parts->start;

            if (parts->groups)
                lanes(samples, parts->taps, parts->groups, sums, count);
            else if (parts->taps)
                add_scaled(samples, *parts->taps, count, sums);
        }
    }
}

/* Here a vector's lanes are taps, for the phases are too many to have sixteen outputs of one at a time. Output k is
 * summed in STRIDE partial sums and those as a tree. From one output to the next the position moves on by down/up. */
EVERY_LEVEL
void mediaflow_rows(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down, int64_t phase,
                    int64_t count, float *sums)
{
    const int64_t whole = down / up, part = down % up;

    for (int64_t k = 0; k < count; k++) {
        const float *row = rows + phase * taps;
        float lane[STRIDE] = {0};

        for (int64_t t = 0; t < taps; t += STRIDE)
            for (int i = 0; i < STRIDE; i++)
                lane[i] += row[t + i] * samples[t + i];
        for (int half = STRIDE / 2; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                lane[i] += lane[i + half];
        sums[k] = lane[0];

        samples += whole;
        phase += part;
        if (phase >= up) {
            phase -= up;
            samples++;
        }
    }
}
