#include "frames_kernel.h"

#include <string.h>

uint8_t mediaflow_unmask(char *restrict out, const char *restrict in, size_t n, const uint8_t *mask)
{
    uint8_t wide[8];
    uint64_t key, word, seen = 0;
    size_t i = 0;

    memcpy(wide, mask, 4);
    memcpy(wide + 4, mask, 4);
    memcpy(&key, wide, 8);
    for (; i + 8 <= n; i += 8) { /* gcc makes vectors of this; memcpy, since a payload starts anywhere */
        memcpy(&word, in + i, 8);
        word ^= key;
        memcpy(out + i, &word, 8);
        seen |= word;
    }
    for (; i < n; i++) {
        uint8_t byte = (uint8_t)in[i] ^ mask[i & 3];
        out[i] = (char)byte;
        seen |= byte;
    }
    return (seen & 0x8080808080808080u) != 0 ? 0x80 : 0;
}

int mediaflow_check_utf8(mediaflow_utf8 *state, const char *text, size_t n)
{
    uint8_t due = state->due, low = state->low, high = state->high;
    size_t i = 0;

    while (i < n) {
        uint8_t byte = (uint8_t)text[i];
        if (due) {
            if (byte < low || byte > high)
                return 0;
            due--;
            low = 0x80, high = 0xBF;
        } else if (byte < 0x80) {
            uint64_t word;
            while (i + 8 <= n && (memcpy(&word, text + i, 8), (word & 0x8080808080808080u) == 0))
                i += 8;
            if (i == n || (uint8_t)text[i] >= 0x80)
                continue;
        } else { /* The Unicode Standard, table 3-7: no second way to write a code, no surrogates, none over 10FFFF. */
            if (byte < 0xC2 || byte > 0xF4)
                return 0;
            due = 1 + (byte >= 0xE0) + (byte >= 0xF0);
            low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
            high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
        }
        i++;
    }
    state->due = due, state->low = low, state->high = high;
    return 1;
}
