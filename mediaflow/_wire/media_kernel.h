/* Base64 in blocks: `blocks` times 64 characters to 48 bytes. Returns how many blocks were decoded: fewer where the
 * next one has a character that is not in the alphabet, and none where the processor has no tables of bytes. */

#ifndef MEDIAFLOW_MEDIA_KERNEL_H
#define MEDIAFLOW_MEDIA_KERNEL_H

#include <stddef.h>

size_t mediaflow_base64(const char *text, size_t blocks, char *out);

#endif
