/* WebSocket frames (RFC 6455, sections 1.3 and 5.2) and base64, for the load and for the bridge in C.  No I/O.
 *
 *     1 byte   1      0, 2, 8        0, 4    rest
 *     opcode   size   size, longer   mask    payload
 */

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { FRAME_ROOM = 8 };  /* what must be free before a payload that ``build_frame`` wraps */

static inline int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Apply a mask, or take it off. */
static inline void apply_mask(uint8_t *data, size_t size, const uint8_t mask[4]) {
    uint64_t wide, key;
    memcpy(&key, mask, 4);
    memcpy((uint8_t *)&key + 4, mask, 4);
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&wide, data, 8);
        wide ^= key;
        memcpy(data, &wide, 8);
    }
    for (size_t i = 0; i < size; i++) data[i] ^= mask[i % 4];
}

/* Make a frame of the payload at ``room + FRAME_ROOM``, masked if there is a mask; return where it begins. */
static inline uint8_t *build_frame(uint8_t *room, uint8_t opcode, size_t size, const uint8_t *mask, size_t *whole) {
    uint8_t *at = room + FRAME_ROOM;
    if (mask) {
        apply_mask(at, size, mask);
        memcpy(at -= 4, mask, 4);
    }
    if (size < 126) *--at = (mask ? 0x80 : 0) | (uint8_t)size;
    else {
        *--at = size & 255;
        *--at = size >> 8;
        *--at = (mask ? 0x80 : 0) | 126;
    }
    *--at = 0x80 | opcode;
    *whole = room + FRAME_ROOM + size - at;
    return at;
}

struct frame {
    uint8_t opcode, final, masked;
    uint8_t *payload;
    size_t size, whole;
};

/* Read the frame that ``data`` begins with and take its mask off; return 0 if it is not whole yet. */
static inline int parse_frame(uint8_t *data, size_t size, struct frame *frame) {
    size_t head = 2, length;
    if (size < 2) return 0;
    length = data[1] & 127;
    if (length == 126) head = 4;
    if (length == 127) head = 10;
    if (size < head) return 0;
    if (head > 2) length = 0;
    for (size_t i = 2; i < head; i++) length = length << 8 | data[i];
    frame->masked = data[1] >> 7;
    if (frame->masked) head += 4;
    if (size < head || size - head < length) return 0;
    frame->opcode = data[0] & 15;
    frame->final = data[0] >> 7;
    frame->payload = data + head;
    frame->size = length;
    frame->whole = head + length;
    if (frame->masked) apply_mask(frame->payload, length, data + head - 4);
    return 1;
}

/* Write the answer to an upgrade whose head is ``head``; return its length, 0 if it is none. */
static inline int accept_upgrade(char answer[256], const char *head) {
    char key[128], text[64];
    uint8_t digest[SHA_DIGEST_LENGTH];
    const char *at = strcasestr(head, "sec-websocket-key:");
    if (!at || sscanf(at + 18, " %40[^\r\n ]", key) != 1) return 0;
    strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    SHA1((uint8_t *)key, strlen(key), digest);
    EVP_EncodeBlock((uint8_t *)text, digest, sizeof digest);
    return sprintf(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Accept: %s\r\n\r\n", text);
}

/* Write the request for an upgrade; return its length. */
static inline int request_upgrade(char request[512], const char *path, unsigned port) {
    return snprintf(request, 512, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    "Sec-WebSocket-Version: 13\r\n\r\n", path, port);
}

static inline size_t decode_base64(const uint8_t *text, size_t size, uint8_t *out) {
    static int8_t value[256];
    size_t n = 0;
    if (!value['B'])
        for (int i = 0; i < 64; i++)
            value[(uint8_t)"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = i;
    for (size_t i = 0; i + 4 <= size; i += 4) {
        uint32_t word = value[text[i]] << 18 | value[text[i + 1]] << 12 | value[text[i + 2]] << 6 | value[text[i + 3]];
        out[n++] = word >> 16;
        out[n++] = word >> 8;
        out[n++] = word;
    }
    return n - (size && text[size - 1] == '=') - (size > 1 && text[size - 2] == '=');
}

/* Find the base64 text of a media message, in whose alphabet there is no quotation mark. */
static inline const uint8_t *find_payload(const uint8_t *text, size_t size, size_t *length) {
    const uint8_t *from = memmem(text, size, "\"payload\":\"", 11), *to;
    if (!from) return NULL;
    from += 11;
    to = memchr(from, '"', text + size - from);
    *length = to ? to - from : 0;
    return to ? from : NULL;
}
