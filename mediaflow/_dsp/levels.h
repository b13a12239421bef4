/* One function, compiled for several levels of the instruction set.
 *
 * EVERY_LEVEL before a function makes gcc compile it three times on x86-64 Linux, and the dynamic linker picks
 * the widest version that the processor has. That needs glibc's ifunc; everywhere else, and where ONE_LEVEL is
 * defined (the tests compare the levels so), there is one version, as wide as the compiler's flags allow.
 *
 * The loops below such a function are plain and hold integers, or floats whose order of summation they spell
 * out, so every level gives the same bits. Floats also need -ffp-contract=off (setup.py): a fused multiply-add
 * rounds once where two instructions round twice.
 */

#ifndef MEDIAFLOW_LEVELS_H
#define MEDIAFLOW_LEVELS_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) && defined(__GLIBC__) \
    && !defined(ONE_LEVEL)
#define MANY_LEVELS 1
#define EVERY_LEVEL __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
/* Whether 16-bit lanes can each shift by a distance of their own. */
#define HAS_WORD_SHIFTS __builtin_cpu_supports("avx512bw")
/* Whether one instruction looks 64 bytes up in a table of 128. No level says so: a function apart, WITH_BYTE_TABLES. */
#define HAS_BYTE_TABLES (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw"))
#define WITH_BYTE_TABLES __attribute__((target("avx512bw,avx512vbmi")))
#else
#define MANY_LEVELS 0
#define EVERY_LEVEL
#ifdef __AVX512BW__
#define HAS_WORD_SHIFTS 1
#else
#define HAS_WORD_SHIFTS 0
#endif
#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
#define HAS_BYTE_TABLES 1
#define WITH_BYTE_TABLES
#endif
#endif

#define INLINE static inline __attribute__((always_inline))

#endif
