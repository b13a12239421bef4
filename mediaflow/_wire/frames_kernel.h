/* What the frames need of bytes: masks off and on, and whether text is UTF-8. Theory in frames.pyx. */

#ifndef MEDIAFLOW_FRAMES_KERNEL_H
#define MEDIAFLOW_FRAMES_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Between two pieces of a text: how many continuation bytes are due, and the range of the next one. */
typedef struct {
    uint8_t due, low, high;
} mediaflow_utf8;

/* Copies n bytes from in to out, changed by the four mask bytes, of which the first belongs to *in. Returns all bytes
   of the output in one OR, whose bit 7 tells whether any is not ASCII. */
uint8_t mediaflow_unmask(char *out, const char *in, size_t n, const uint8_t *mask);

/* Goes on with a text. Returns 0 as soon as nothing behind this could make it UTF-8. */
int mediaflow_check_utf8(mediaflow_utf8 *state, const char *text, size_t n);

#endif
