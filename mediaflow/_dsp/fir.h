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

INLINE TARGET void NAME(tile)(const float *samples, const float *taps, int64_t groups, float *out, const int blocks)
{
    NAME(vector) sums[BLOCKS];

#pragma GCC unroll 16
    for (int b = 0; b < blocks; b++)
        sums[b] = *(const NAME(vector) *)(out + b * LANES);
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

/* Add the products of `groups * STRIDE` taps to `count` sums, and to up to SLACK more. */
static TARGET void NAME(lanes)(const float *samples, const float *taps, int64_t groups, float *out, int64_t count)
{
    enum { WHOLE = BLOCKS * LANES, PART = 2 * STRIDE };

    for (; count > WHOLE / 2; count -= WHOLE, samples += WHOLE, out += WHOLE)
        NAME(tile)(samples, taps, groups, out, BLOCKS);
    for (; count > 0; count -= PART, samples += PART, out += PART)
        NAME(tile)(samples, taps, groups, out, PART / LANES);
}
