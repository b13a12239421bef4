/* The loops of mediaflow._dsp.g711: the laws as arithmetic on vectors of 16-bit lanes.
 *
 * Expanding shifts each step left by its segment. AVX-512 has that shift; elsewhere three conditional shifts by
 * 4, 2 and 1 make it up, which every vector unit can do. Where one instruction looks 64 bytes up in a table of 128
 * (AVX-512 VBMI), a table of each law is shorter than the arithmetic. Compressing needs the position of the highest
 * set bit: converted to float, a magnitude carries it in the exponent and the four bits below it at the top of the
 * fraction, side by side as the code wants them.
 *
 * For 160 samples, on a Zen 5 core: 4 ns (VBMI), 5 to 8 ns (AVX-512) and 15 ns (AVX2) to expand, 10 and 18 ns to
 * compress; one look-up after the other, which this replaces, took 45 ns for either.
 */

#include <stdint.h>

#include "kernels.h"
#include "levels.h"

#ifdef HAS_BYTE_TABLES
#include <immintrin.h>
#endif

INLINE uint16_t shift(uint16_t value, uint16_t segment, int word_shifts)
{
    if (word_shifts)
        return value << segment;
    value = segment & 4 ? value << 4 : value;
    value = segment & 2 ? value << 2 : value;
    return segment & 1 ? value << 1 : value;
}

INLINE void expand_mulaw(const uint8_t *restrict codes, int16_t *restrict pcm, int64_t count, int word_shifts)
{
    for (int64_t i = 0; i < count; i++) {
        const uint16_t code = codes[i] ^ 0xFF;
        const int16_t value = shift(((code & 15) << 3) + 0x84, code >> 4 & 7, word_shifts) - 0x84;
        pcm[i] = code & 0x80 ? -value : value;
    }
}

INLINE void expand_alaw(const uint8_t *restrict codes, int16_t *restrict pcm, int64_t count, int word_shifts)
{
    for (int64_t i = 0; i < count; i++) {
        const uint16_t code = codes[i] ^ 0x55, segment = code >> 4 & 7;
        /* Segments 0 and 1 share a step, so the shift is one less than the segment, and only 0 lacks the top bit. */
        const uint16_t distance = (segment > 1 ? segment : 1) - 1;
        const uint16_t top = (segment < 1 ? segment : 1) << 8;
        const int16_t value = shift((code << 4 & 0xF0) | 8 | top, distance, word_shifts);
        pcm[i] = code & 0x80 ? value : -value;
    }
}

#ifdef HAS_BYTE_TABLES
/* The same as tables, for the compiler to work out: what the codes 0 to 127, the negative ones in both laws, stand for.
 * Their low bytes come first, then their high bytes. The other half of each law is the same without the minus. */
#define MULAW(code) -(((((~(code) & 15) << 3) + 0x84) << (~(code) >> 4 & 7)) - 0x84)
#define ALAW(code) -ALAW_STEP(((code) ^ 0x55) << 4 & 0xF0, ((code) ^ 0x55) >> 4)
#define ALAW_STEP(step, segment) (((step) | 8 | ((segment) ? 0x100 : 0)) << ((segment) ? (segment) - 1 : 0))
#define LOW(value) (uint8_t)(value)
#define HIGH(value) (uint8_t)((value) >> 8)
#define FOUR(byte, law, code) byte(law(code)), byte(law((code) + 1)), byte(law((code) + 2)), byte(law((code) + 3))
#define SIXTEEN(byte, law, code) \
    FOUR(byte, law, code), FOUR(byte, law, (code) + 4), FOUR(byte, law, (code) + 8), FOUR(byte, law, (code) + 12)
#define HALF(byte, law, code) SIXTEEN(byte, law, code), SIXTEEN(byte, law, (code) + 16), \
    SIXTEEN(byte, law, (code) + 32), SIXTEEN(byte, law, (code) + 48)
#define TABLE(law) {HALF(LOW, law, 0), HALF(LOW, law, 64), HALF(HIGH, law, 0), HALF(HIGH, law, 64)}

static const uint8_t mulaw_table[256] __attribute__((aligned(64))) = TABLE(MULAW);
static const uint8_t alaw_table[256] __attribute__((aligned(64))) = TABLE(ALAW);

INLINE WITH_BYTE_TABLES void look_up(__m512i codes, const __m512i *table, __m512i *first, __m512i *second)
{
    const __mmask64 positive = _mm512_movepi8_mask(codes);
    /* Unpacking goes by lanes of 128 bits, so deal the codes out to them first. */
    const __m512i dealt = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i low = _mm512_permutex2var_epi8(table[0], dealt, table[1]);
    const __m512i high = _mm512_permutex2var_epi8(table[2], dealt, table[3]);
    const __m512i front = _mm512_unpacklo_epi8(low, high), back = _mm512_unpackhi_epi8(low, high);

    *first = _mm512_mask_sub_epi16(front, (__mmask32)positive, _mm512_setzero_si512(), front);
    *second = _mm512_mask_sub_epi16(back, (__mmask32)(positive >> 32), _mm512_setzero_si512(), back);
}

/* Stores that straddle two cache lines do no harm here: starting with a whole line was measured to be no faster. */
WITH_BYTE_TABLES
static void expand_by_table(const char *codes, char *pcm, int64_t count, const uint8_t *bytes)
{
    const __m512i table[4] = {
        _mm512_load_si512(bytes), _mm512_load_si512(bytes + 64),
        _mm512_load_si512(bytes + 128), _mm512_load_si512(bytes + 192),
    };
    __m512i first, second;

    for (; count >= 64; codes += 64, pcm += 128, count -= 64) {
        look_up(_mm512_loadu_si512(codes), table, &first, &second);
        _mm512_storeu_si512(pcm, first);
        _mm512_storeu_si512(pcm + 64, second);
    }
    if (count > 0) {
        const __mmask64 wanted = (1ULL << count) - 1;

        look_up(_mm512_maskz_loadu_epi8(wanted, codes), table, &first, &second);
        _mm512_mask_storeu_epi16(pcm, (__mmask32)wanted, first);
        _mm512_mask_storeu_epi16(pcm + 64, (__mmask32)(wanted >> 32), second);
    }
}
#endif

EVERY_LEVEL
void mediaflow_mulaw_decode(const char *codes, char *pcm, int64_t count)
{
#ifdef HAS_BYTE_TABLES
    if (HAS_BYTE_TABLES) {
        expand_by_table(codes, pcm, count, mulaw_table);
        return;
    }
#endif
    if (HAS_WORD_SHIFTS)
        expand_mulaw((const uint8_t *)codes, (int16_t *)pcm, count, 1);
    else
        expand_mulaw((const uint8_t *)codes, (int16_t *)pcm, count, 0);
}

EVERY_LEVEL
void mediaflow_alaw_decode(const char *codes, char *pcm, int64_t count)
{
#ifdef HAS_BYTE_TABLES
    if (HAS_BYTE_TABLES) {
        expand_by_table(codes, pcm, count, alaw_table);
        return;
    }
#endif
    if (HAS_WORD_SHIFTS)
        expand_alaw((const uint8_t *)codes, (int16_t *)pcm, count, 1);
    else
        expand_alaw((const uint8_t *)codes, (int16_t *)pcm, count, 0);
}

/* Exponent and upper four fraction bits of a positive number; `unit` is the exponent that counts as 0. */
INLINE uint8_t float_code(int16_t magnitude, int unit)
{
    const union { float number; uint32_t bits; } as = { .number = (float)(int32_t)magnitude };

    return (uint8_t)(as.bits >> 19) - (uint8_t)((127 + unit) << 4);
}

EVERY_LEVEL
void mediaflow_mulaw_encode(const char *data, char *codes, int64_t count)
{
    const int16_t *restrict pcm = (const int16_t *)data;
    uint8_t *restrict out = (uint8_t *)codes;

    for (int64_t i = 0; i < count; i++) {
        const int16_t sign = pcm[i] >> 15;
        const int16_t magnitude = (pcm[i] >> 2 ^ sign) - sign;      /* the law drops two bits, then the sign */
        const int16_t biased = (magnitude > 8158 ? 8158 : magnitude) + 33;
        out[i] = ~(float_code(biased, 5) | (sign & 0x80));
    }
}

EVERY_LEVEL
void mediaflow_alaw_encode(const char *data, char *codes, int64_t count)
{
    const int16_t *restrict pcm = (const int16_t *)data;
    uint8_t *restrict out = (uint8_t *)codes;

    for (int64_t i = 0; i < count; i++) {
        const int16_t sign = pcm[i] >> 15;
        const int16_t magnitude = pcm[i] >> 3 ^ sign;               /* -1 mirrors 0: no sample is zero */
        const int16_t lift = magnitude < 32 ? 32 : 0;               /* segment 0 counts on like segment 1 */
        const uint8_t code = float_code(magnitude + lift, 4) - (lift >> 1);
        out[i] = (code | (~sign & 0x80)) ^ 0x55;
    }
}
