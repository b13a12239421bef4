/* Which branches of this module an input took, for libFuzzer: linked into each module that `make fuzz` builds.

   gcc calls __sanitizer_cov_trace_pc in every branch (-fsanitize-coverage=trace-pc); libFuzzer, which is clang's, counts
   branches in arrays that it is told of. So each branch gets the next counter when it is taken for the first time, and
   the same one when all is done again. What is compared with what (trace-cmp) both know alike, but for floats. */

#include <stdint.h>
#include <stdlib.h>

#define MOST 16384 /* branches; frames.pyx has some 3000 that a test may take */

typedef struct {
    uintptr_t place, is_entry;
} Branch;

extern const char __ehdr_start[] __attribute__((visibility("hidden"))); /* of this module, from the linker */
extern const char etext[] __attribute__((visibility("hidden")));

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);
void __sanitizer_cov_pcs_init(const Branch *start, const Branch *stop);

#define UNSEEN no_sanitize_coverage, no_sanitize("address", "undefined")

static uint8_t counters[MOST];
static Branch branches[MOST]; /* libFuzzer wants as many as there are counters, and prints them */
static uint16_t *numbers;     /* of the branch behind each call, whose five bytes leave room for one number in four */
static uint16_t next = 1;

__attribute__((constructor, UNSEEN)) static void announce(void)
{
    size_t i;

    numbers = calloc((size_t)(etext - __ehdr_start) / 4 + 1, sizeof *numbers);
    if (numbers == NULL)
        abort();
    for (i = 0; i < MOST; i++)
        branches[i].place = (uintptr_t)__ehdr_start + i;
    __sanitizer_cov_8bit_counters_init(counters, counters + MOST);
    __sanitizer_cov_pcs_init(branches, branches + MOST);
}

__attribute__((UNSEEN, visibility("hidden"))) void __sanitizer_cov_trace_pc(void)
{
    uint16_t *number = numbers + ((const char *)__builtin_return_address(0) - __ehdr_start) / 4;

    if (numbers == NULL) /* while the module is being loaded */
        return;
    if (*number == 0) {
        if (next == MOST)
            abort();
        *number = next++;
    }
    counters[*number]++;
}

__attribute__((UNSEEN, visibility("hidden"))) void __sanitizer_cov_trace_cmpd(double a, double b)
{
    (void)a, (void)b;
}
