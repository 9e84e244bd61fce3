/* Finding the next flag or escape. */

enum { BLOCK = 32, WIDE = 2 * BLOCK, SMALL = 4 * BLOCK };

static inline bool
is_special(uint8_t byte)
{
    return byte == FLAG || byte == ESCAPE;
}

/* Where the special bytes of a block are: bit n stands for byte n. */
static inline uint32_t
specials_in(const uint8_t *block)
{
    uint32_t specials = 0;
#ifdef USE_SSE2
    /* Moved so that the two are the largest of signed bytes: one comparison finds both. */
    const __m128i move = _mm_set1_epi8((char)(0x7F - FLAG));
    const __m128i below = _mm_set1_epi8(0x7F - 2);
    for (unsigned n = 0; n < BLOCK; n += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(block + n));
        __m128i found = _mm_cmpgt_epi8(_mm_add_epi8(bytes, move), below);
        specials |= (uint32_t)_mm_movemask_epi8(found) << n;
    }
#else
    for (unsigned n = 0; n < BLOCK; n++) {
        specials |= (uint32_t)is_special(block[n]) << n;
    }
#endif
    return specials;
}

#ifdef USE_AVX2
#define FOR_AVX2 __attribute__((target("avx2,bmi")))

FOR_AVX2 INLINE uint32_t
specials_in_avx2(const uint8_t *block)
{
    __m256i bytes = _mm256_loadu_si256((const __m256i *)block);
    __m256i moved = _mm256_add_epi8(bytes, _mm256_set1_epi8((char)(0x7F - FLAG)));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(moved, _mm256_set1_epi8(0x7F - 2)));
}

/* How far ahead what is read is asked for: the processor does so by itself, but not from one page into the next. */
enum { AHEAD = 1024 };

FOR_AVX2 INLINE void
copy_wide(uint8_t *out, const uint8_t *data)
{
    __m256i first = _mm256_loadu_si256((const __m256i *)data);
    __m256i second = _mm256_loadu_si256((const __m256i *)(data + BLOCK));
    _mm256_storeu_si256((__m256i *)out, first);
    _mm256_storeu_si256((__m256i *)(out + BLOCK), second);
}

FOR_AVX2 INLINE void
copy_block(uint8_t *out, const uint8_t *data)
{
    _mm256_storeu_si256((__m256i *)out, _mm256_loadu_si256((const __m256i *)data));
}
#endif

#ifdef USE_AVX512
#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi2,popcnt,bmi,bmi2")))
#endif

/* How many bytes of a block come before its first special one; all of them without one. */
static inline size_t
plain_bytes(uint32_t specials)
{
#if defined(__GNUC__) && !defined(PLAIN_C)
    return specials ? (size_t)__builtin_ctz(specials) : BLOCK;
#else
    size_t n = 0;
    while (n < BLOCK && !(specials >> n & 1)) {
        n++;
    }
    return n;
#endif
}
