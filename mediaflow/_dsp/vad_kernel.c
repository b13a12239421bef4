/* The loop of mediaflow._dsp.vad: how much energy a frame has in two bands.
 *
 * `count * step` samples are summed by `step` to about 8 kHz, behind the PAST sums that `work` still holds from the frame
 * before. Of those sums s
 *
 *     low[i]  = s[i] + s[i-1] + s[i-2] + s[i-3] - s[i-4] - s[i-5] - s[i-6] - s[i-7]     peak at 740 Hz, nothing at 0
 *     high[i] = s[i] - 2 s[i-1] + s[i-2]                                                rises by 12 dB an octave
 *
 * All of that is exact in floats, for the sums stay below 2^24. The squares are added up in LANES partial sums, then as a
 * tree, so the order is the same at every width.
 */

#include "kernels.h"
#include "levels.h"

enum { LANES = 16 };

INLINE void sum_by(const int16_t *restrict pcm, int64_t step, int64_t count, float *restrict sums)
{
    for (int64_t i = 0; i < count; i++) {
        int32_t sum = 0;
        for (int64_t k = 0; k < step; k++)
            sum += pcm[i * step + k];
        sums[i] = (float)sum;
    }
}

INLINE void add_squares(const float *s, float *low_sum, float *high_sum)
{
    const float low = ((s[0] + s[-1]) + (s[-2] + s[-3])) - ((s[-4] + s[-5]) + (s[-6] + s[-7]));
    const float high = (s[0] - s[-1]) - (s[-1] - s[-2]);

    *low_sum += low * low;
    *high_sum += high * high;
}

EVERY_LEVEL
void mediaflow_band_energies(const char *data, int64_t step, int64_t count, float *work, float *low_energy,
                             float *high_energy)
{
    const int16_t *pcm = (const int16_t *)data;
    float *sums = work + PAST;
    float low_lanes[LANES] = {0}, high_lanes[LANES] = {0};

    if (step == 1)
        sum_by(pcm, 1, count, sums);
    else if (step == 2)
        sum_by(pcm, 2, count, sums);
    else
        sum_by(pcm, step, count, sums);
    for (int64_t i = 0; i < count; i += LANES) {
        const int lanes = count - i < LANES ? (int)(count - i) : LANES;
        if (lanes == LANES)
            for (int lane = 0; lane < LANES; lane++)
                add_squares(sums + i + lane, &low_lanes[lane], &high_lanes[lane]);
        else
            for (int lane = 0; lane < lanes; lane++)
                add_squares(sums + i + lane, &low_lanes[lane], &high_lanes[lane]);
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) {
            low_lanes[lane] += low_lanes[lane + half];
            high_lanes[lane] += high_lanes[lane + half];
        }
    *low_energy = low_lanes[0];
    *high_energy = high_lanes[0];
    memmove(work, work + count, PAST * sizeof(float));
}
