#include "media_kernel.h"

#include <stdint.h>

#include "../_dsp/levels.h"

#ifdef HAS_BYTE_TABLES
#include <immintrin.h>

/* What the 128 characters of ASCII stand for, and 0x80 for those that are not in the alphabet (RFC 4648, section 4). */
#define NO 0x80
static const uint8_t alphabet[128] = {
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, 62, NO, NO, NO, 63, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, NO, NO,
    NO, NO, NO, NO, NO, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
    25, NO, NO, NO, NO, NO, NO, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48,
    49, 50, 51, NO, NO, NO, NO, NO};

/* Of four bytes with 24 bits in the first three places, highest first as a number, the three in the order of the text. */
#define THREE(at) (at) + 2, (at) + 1, (at)
#define TWELVE(at) THREE(at), THREE((at) + 4), THREE((at) + 8), THREE((at) + 12)
static const uint8_t order[64] = {TWELVE(0), TWELVE(16), TWELVE(32), TWELVE(48)};

WITH_BYTE_TABLES
static size_t decode_by_table(const char *text, size_t blocks, char *out)
{
    const __m512i low = _mm512_loadu_si512(alphabet), high = _mm512_loadu_si512(alphabet + 64);
    const __m512i places = _mm512_loadu_si512(order);
    const __m512i pairs = _mm512_set1_epi32(0x01400140), quads = _mm512_set1_epi32(0x00011000);

    for (size_t block = 0; block < blocks; block++) {
        const __m512i characters = _mm512_loadu_si512(text + 64 * block);
        /* The table is looked up by seven bits: a byte beyond ASCII shows its eighth. */
        const __m512i values = _mm512_permutex2var_epi8(low, characters, high);
        if (_mm512_movepi8_mask(_mm512_or_si512(values, characters)))
            return block;
        /* 6 bits and 6 to 12, 12 and 12 to 24, and those without the byte above them. */
        const __m512i twelves = _mm512_maddubs_epi16(values, pairs);
        const __m512i bits = _mm512_madd_epi16(twelves, quads);
        _mm512_mask_storeu_epi8(out + 48 * block, 0xFFFFFFFFFFFFull, _mm512_permutexvar_epi8(places, bits));
    }
    return blocks;
}
#endif

size_t mediaflow_base64(const char *text, size_t blocks, char *out)
{
#ifdef HAS_BYTE_TABLES
    if (HAS_BYTE_TABLES)
        return decode_by_table(text, blocks, out);
#endif
    (void)text, (void)blocks, (void)out;
    return 0;
}
