/* What has arrived of a call, block by block.
 *
 * No two blocks of the pool are alike and none depends on its neighbours (blocks.py), so each that arrives is compared
 * with the one that is due, byte by byte, and one that is not due is looked up:
 *
 *     found further on in the call     those between are lost
 *     found earlier in the call        doubled
 *     found elsewhere                  foreign: of another call, or long ago
 *     not found                        damaged
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 640, BLOCK_SAMPLES = 320 };  /* 20 ms of 16 bits at 16 kHz */

struct heard {
    uint32_t first;  /* the pool's number of the call's first block */
    uint32_t block;  /* the call's number of the block that is due */
    size_t bytes;  /* where the call has come to, were nothing lost or doubled */
    size_t fill;
    uint8_t partial[BLOCK];
};

static struct { uint64_t lost, doubled, foreign, damaged, broken; } wrong;
static const uint8_t *pool;
static uint32_t pool_count, *found, found_mask;  /* a hash table of block numbers + 1 */
static size_t exact = 1;

static uint32_t hash(const uint8_t *block) {
    uint64_t word;
    memcpy(&word, block + BLOCK / 2, 8);
    return (uint32_t)((word * 0x9E3779B97F4A7C15ULL) >> 40) & found_mask;
}

static void index_pool(const uint8_t *blocks, uint32_t count) {
    pool = blocks;
    pool_count = count;
    for (found_mask = 1; found_mask < 4 * count; found_mask *= 2);
    found = calloc(found_mask--, sizeof *found);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = hash(pool + (size_t)i * BLOCK);
        while (found[at]) at = (at + 1) & found_mask;
        found[at] = i + 1;
    }
}

static const uint8_t *due(const struct heard *heard) {
    return pool + (size_t)((heard->first + heard->block) % pool_count) * BLOCK;
}

/* For bridges with a filter of their own: what differs from ours may have a fifth of the energy. */
static int alike(const uint8_t *a, const uint8_t *b) {
    double energy = 1, other = 0;
    for (int i = 0; i < BLOCK; i += 2) {
        int16_t x, y;
        memcpy(&x, a + i, 2);
        memcpy(&y, b + i, 2);
        energy += (double)x * x;
        other += (double)(x - y) * (x - y);
    }
    return other < energy / 5;
}

static void judge(struct heard *heard, const uint8_t *block, uint32_t sent) {
    if (exact ? !memcmp(block, due(heard), BLOCK) : alike(due(heard), block)) {
        heard->block++;
        return;
    }
    for (uint32_t at = hash(block); found[at]; at = (at + 1) & found_mask) {
        if (memcmp(block, pool + (size_t)(found[at] - 1) * BLOCK, BLOCK)) continue;
        uint32_t ahead = (found[at] - 1 + pool_count - (heard->first + heard->block) % pool_count) % pool_count;
        /* The position moves along, so that what comes behind is taken for what it is. */
        if (heard->block + ahead < sent) {
            wrong.lost += ahead;
            heard->block += ahead + 1;
            heard->bytes += (size_t)ahead * BLOCK;
        } else if (pool_count - ahead <= heard->block) {
            wrong.doubled++;
            heard->bytes -= BLOCK;
        } else {
            wrong.foreign++;
            heard->block++;
        }
        return;
    }
    wrong.damaged++;
    heard->block++;
}

/* Take some PCM of a call that ``sent`` frames were sent of. */
static void hear(struct heard *heard, const uint8_t *pcm, size_t size, uint32_t sent) {
    heard->bytes += size;
    while (size) {
        if (!heard->fill && size >= BLOCK) {
            judge(heard, pcm, sent);
            pcm += BLOCK;
            size -= BLOCK;
            continue;
        }
        size_t take = size < BLOCK - heard->fill ? size : BLOCK - heard->fill;
        memcpy(heard->partial + heard->fill, pcm, take);
        heard->fill += take;
        pcm += take;
        size -= take;
        if (heard->fill == BLOCK) {
            heard->fill = 0;
            judge(heard, heard->partial, sent);
        }
    }
}

/* Say whether a call is as long as it must be; a resampler may keep ``slack`` samples at its end. */
static int whole(const struct heard *heard, uint32_t sent, size_t slack) {
    size_t must = (size_t)sent * BLOCK, is = (size_t)heard->block * BLOCK + heard->fill;
    return is <= must && is + 2 * slack >= must && (!exact || !memcmp(heard->partial, due(heard), heard->fill));
}
