/* Filters whose vector lanes are outputs: `TILE` of them at a time, each the dot product of `groups * STRIDE` samples
 * with the coefficients. Included by step_kernel.c once per level of the instruction set, with
 *
 *     LANES       floats in a vector of that level
 *     NAME(x)     the level's name for x
 *     TARGET      what makes gcc compile for it
 *
 * Output i is sum(h[t] * s[i + t]). Written like that, each product costs a load, and most of those straddle two cache
 * lines. But tap t of output i and tap t + STRIDE of output i - STRIDE read the same sample. So the tile keeps BLOCKS
 * vectors of sums in registers, loads each vector of samples once and gives it to every sum that wants it, with up to
 * REACH coefficients at a time, STRIDE apart. That reads a quarter as much, and leaves the multipliers as the only
 * limit: 142 products a nanosecond on a Zen 5 core against 67 for the plain loop.
 *
 * A product and a sum are two instructions with two roundings, on every level. That costs nothing here: multiplying
 * and adding have execution units of their own, and both are busy all the time.
 *
 * The order of a sum is: runs of REACH groups; in them the offset in a group; in that the group. It depends on the
 * filter's length alone, neither on the lane nor on BLOCKS or LANES.
 */

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE TARGET void NAME(run)(const float *samples, const float *taps, NAME(vector) *sums, const int blocks,
                             const int reach)
{
    const int step = STRIDE / LANES;

    for (int offset = 0; offset < STRIDE; offset++)
#pragma GCC unroll 64
        for (int v = 0; v < blocks + (reach - 1) * step; v++) {
            /* volatile: gcc would load again for each use, as an operand, and straddle cache lines each time. */
            const NAME(vector) x = *(const volatile NAME(vector) *)(samples + offset + v * LANES);
#pragma GCC unroll 8
            for (int g = 0; g < reach; g++)
                if (v - g * step >= 0 && v - g * step < blocks)
                    sums[v - g * step] += taps[offset + g * STRIDE] * x;
        }
}

INLINE TARGET void NAME(tile)(const float *samples, const float *taps, int64_t groups, float *out, const int blocks,
                              const int fresh)
{
    NAME(vector) sums[BLOCKS];

#pragma GCC unroll 16
    for (int b = 0; b < blocks; b++)
        sums[b] = fresh ? (NAME(vector)){0} : *(const NAME(vector) *)(out + b * LANES);
    for (; groups >= REACH; groups -= REACH, taps += REACH * STRIDE, samples += REACH * STRIDE)
        NAME(run)(samples, taps, sums, blocks, REACH);
    switch (groups) {
    case 4: NAME(run)(samples, taps, sums, blocks, 4); break;
    case 3: NAME(run)(samples, taps, sums, blocks, 3); break;
    case 2: NAME(run)(samples, taps, sums, blocks, 2); break;
    case 1: NAME(run)(samples, taps, sums, blocks, 1); break;
    }
#pragma GCC unroll 16
    for (int b = 0; b < blocks; b++)
        *(NAME(vector) *)(out + b * LANES) = sums[b];
}

/* Write the products of `groups * STRIDE` taps to `count` sums, or add them, unless `fresh`, and to up to SLACK more. */
static TARGET void NAME(lanes)(const float *samples, const float *taps, int64_t groups, float *out, int64_t count,
                               int fresh)
{
    enum { WHOLE = BLOCKS * LANES, PART = 2 * STRIDE };

    for (; count > WHOLE / 2; count -= WHOLE, samples += WHOLE, out += WHOLE)
        NAME(tile)(samples, taps, groups, out, BLOCKS, fresh);
    for (; count > 0; count -= PART, samples += PART, out += PART)
        NAME(tile)(samples, taps, groups, out, PART / LANES, fresh);
}

/* The other shape of filter: too many phases to have many outputs of one at a time, so here the lanes are taps. An output
 * has STRIDE partial sums, which are added as a tree: to four, by quarters of the vector, then to one, together with the
 * next three outputs', so that the last additions have full vectors, too. 3 ns an output of 112 taps. */
#define QUARTER(i) __builtin_shufflevector(sums[(i) * 4 / LANES], sums[(i) * 4 / LANES], \
                                           (i) * 4 % LANES, (i) * 4 % LANES + 1, (i) * 4 % LANES + 2, (i) * 4 % LANES + 3)

INLINE TARGET quad NAME(row)(const float *samples, const float *row, int64_t taps)
{
    NAME(vector) sums[STRIDE / LANES];

#pragma GCC unroll 4
    for (int v = 0; v < STRIDE / LANES; v++)
        sums[v] = (NAME(vector)){0};
    for (int64_t t = 0; t < taps; t += STRIDE)
#pragma GCC unroll 4
        for (int v = 0; v < STRIDE / LANES; v++)
            sums[v] += *(const NAME(vector) *)(row + t + v * LANES) * *(const NAME(vector) *)(samples + t + v * LANES);
    return (QUARTER(0) + QUARTER(2)) + (QUARTER(1) + QUARTER(3));
}

static TARGET void NAME(rows)(const float *samples, const float *rows, int64_t taps, int64_t up, int64_t down, int64_t phase,
                              int64_t count, float *out)
{
    const int64_t whole = down / up, part = down % up;

    for (int64_t k = 0; k < count; k += 4) {
        quad sums[4];

        for (int i = 0; i < 4; i++) {
            sums[i] = NAME(row)(samples, rows + phase * taps, taps);
            if (k + i + 1 >= count)         /* behind the last output there may be no samples: stay with it */
                continue;
            samples += whole;
            phase += part;
            if (phase >= up) {
                phase -= up;
                samples++;
            }
        }
        const quad low = __builtin_shufflevector(sums[0], sums[1], 0, 4, 1, 5)
            + __builtin_shufflevector(sums[0], sums[1], 2, 6, 3, 7);
        const quad high = __builtin_shufflevector(sums[2], sums[3], 0, 4, 1, 5)
            + __builtin_shufflevector(sums[2], sums[3], 2, 6, 3, 7);
        *(quad *)(out + k) = __builtin_shufflevector(low, high, 0, 1, 4, 5) + __builtin_shufflevector(low, high, 2, 3, 6, 7);
    }
}

#undef QUARTER
