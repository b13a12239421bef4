/* The inner loop of mediaflow._dsp.resample: one dot product of floats per output sample.
 *
 * Every output is summed in one fixed order (sixteen partial sums, then a tree), so neither the
 * chunking of the input nor the width of the machine's vectors changes a bit of the result. That
 * also needs -ffp-contract=off (setup.py): a fused multiply-add rounds once where SSE2 rounds twice.
 *
 * The compiler vectorises the loops over LANES by itself. On x86-64 Linux it does so three times,
 * and the dynamic linker picks the widest version the processor has; the attribute needs glibc's
 * ifunc, so everywhere else there is the baseline alone.
 */

#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
#define EVERY_X86_LEVEL __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EVERY_X86_LEVEL
#endif

enum { LANES = 16 };

/* Round to nearest, ties to even, and saturate. Adding and subtracting 1.5 * 2^23 leaves no room for
 * a fraction in a float's 24 bits; unlike lrintf() it needs no function call on any level. */
static inline int16_t to_int16(float value)
{
    const float no_fraction = 12582912.0f;

    value = value > 32767.0f ? 32767.0f : value;
    value = value < -32768.0f ? -32768.0f : value;
    return (int16_t)(int32_t)((value + no_fraction) - no_fraction);
}

/* Write `count` outputs. Output k is the dot product of `taps` samples, a multiple of LANES, with
 * the row of its phase; from one to the next the position moves on by down/up samples. */
EVERY_X86_LEVEL
void mediaflow_fir(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down,
                   int64_t phase, int64_t count, int16_t *out)
{
    const int64_t whole = down / up, part = down % up;

    for (int64_t k = 0; k < count; k++) {
        const float *row = rows + phase * taps;
        float sums[LANES] = {0};

        for (int64_t t = 0; t < taps; t += LANES)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += row[t + lane] * samples[t + lane];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++)
                sums[lane] += sums[lane + half];
        out[k] = to_int16(sums[0]);

        samples += whole;
        phase += part;
        if (phase >= up) {
            phase -= up;
            samples++;
        }
    }
}
