/* Touches memory for some seconds, and prints for what share of them the core stood still: stalls.py. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PAGES = 5000, PAGE = 4096, LINE = 64, LEAST_NS = 50000 };

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    char *memory = malloc((size_t)PAGES * PAGE);
    if (argc < 2 || !memory) return 2;
    memset(memory, 1, (size_t)PAGES * PAGE);
    int64_t begun = now(), end = begun + (int64_t)(atof(argv[1]) * 1e9), last = begun, stood = 0;
    for (uint32_t random = 1; last < end;) {
        random = random * 1664525 + 1013904223;
        memory[(size_t)((random >> 8) % PAGES) * PAGE + (random & (PAGE / LINE - 1)) * LINE]++;
        int64_t at = now();
        if (at - last >= LEAST_NS) stood += at - last;
        last = at;
    }
    printf("%.5f\n", (double)stood / (double)(last - begun));
    return 0;
}
