/* Checks at a frame's end, the twins of those in framings/_check.py.

   The three CRCs take the bits of a byte from the least on, so that one kernel does for all: each
   is a polynomial of at most 32 bits, mirrored, and what is put in before the first byte and XORed at
   the end. */

typedef struct {
    const char *name;
    unsigned width; /* bits */
    uint32_t polynomial;
    uint32_t first;
    uint32_t last;
    uint32_t table[8][256]; /* what a byte comes to, with 0 to 7 bytes behind it */
    uint64_t fold[3][2];    /* see `crc_folded`: by 128, 512 and 2,048 bits */
} CRC;

enum { FCS16, FCS32, MODBUS, CRCS };

static CRC crcs[CRCS] = {
    {.name = "fcs16", .width = 16, .polynomial = 0x8408, .first = 0xFFFF, .last = 0xFFFF},
    {.name = "fcs32", .width = 32, .polynomial = 0xEDB88320, .first = 0xFFFFFFFF, .last = 0xFFFFFFFF},
    {.name = "crc16_modbus", .width = 16, .polynomial = 0xA001, .first = 0xFFFF, .last = 0},
};

/* x to a power modulo the polynomial, mirrored: the bit of x to the 0 is the most of 64. */
static uint64_t
power_of_x(const CRC *crc, unsigned power)
{
    uint32_t value = (uint32_t)1 << (crc->width - 1);
    while (power--) {
        value = value >> 1 ^ (value & 1 ? crc->polynomial : 0);
    }
    return (uint64_t)value << (64 - crc->width);
}

/* Fill the tables; the same in every interpreter. */
static void
set_up_crcs(void)
{
    for (CRC *crc = crcs; crc < crcs + CRCS; crc++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t value = byte;
            for (int bit = 0; bit < 8; bit++) {
                value = value >> 1 ^ (value & 1 ? crc->polynomial : 0);
            }
            crc->table[0][byte] = value;
        }
        for (int behind = 1; behind < 8; behind++) {
            for (int byte = 0; byte < 256; byte++) {
                uint32_t value = crc->table[behind - 1][byte];
                crc->table[behind][byte] = value >> 8 ^ crc->table[0][value & 0xFF];
            }
        }
        /* A product of two mirrored numbers has a bit too few: hence one power less. */
        for (int n = 0; n < 3; n++) {
            unsigned bits = 128u << 2 * n;
            crc->fold[n][0] = power_of_x(crc, bits + 63);
            crc->fold[n][1] = power_of_x(crc, bits - 1);
        }
    }
}

/* By eight bytes at a time ("slicing"): M. E. Kounavis and F. L. Berry, "A systematic approach to building
   high performance software-based CRC generators", ISCC 2005. */
static uint32_t
crc_sliced(const CRC *crc, uint32_t value, const uint8_t *data, size_t size)
{
    const uint32_t(*table)[256] = crc->table;
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low = value ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        value = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^ table[4][low >> 24] ^
                table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^ table[0][data[7]];
    }
    while (size--) {
        value = value >> 8 ^ table[0][(value ^ *data++) & 0xFF];
    }
    return value;
}

#ifdef USE_AVX2
#define FOR_CLMUL __attribute__((target("pclmul")))

FOR_CLMUL static inline __m128i
fold(__m128i bytes, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(bytes, by, 0x00), high = _mm_clmulepi64_si128(bytes, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* The CRC of 16 bytes that have come of a fold, and of what is left behind them. */
FOR_CLMUL static uint32_t
crc_of_fold(const CRC *crc, __m128i bytes, const uint8_t *data, size_t size)
{
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold[0]);
    for (; size >= 16; data += 16, size -= 16) {
        bytes = fold(bytes, one, _mm_loadu_si128((const __m128i *)data));
    }
    uint8_t left[16];
    _mm_storeu_si128((__m128i *)left, bytes);
    return crc_sliced(crc, crc_sliced(crc, 0, left, sizeof(left)), data, size);
}

/* By blocks that are multiplied without carry into those behind them, which leaves 16 bytes with the
   same remainder: V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
   Instruction", Intel 2009. */
FOR_CLMUL static uint32_t
crc_folded(const CRC *crc, uint32_t value, const uint8_t *data, size_t size)
{
    if (size < 64) {
        return crc_sliced(crc, value, data, size);
    }
    const __m128i *blocks = (const __m128i *)data;
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold[0]);
    const __m128i four = _mm_loadu_si128((const __m128i *)crc->fold[1]);
    __m128i a = _mm_xor_si128(_mm_loadu_si128(blocks), _mm_cvtsi32_si128((int)value));
    __m128i b = _mm_loadu_si128(blocks + 1), c = _mm_loadu_si128(blocks + 2), d = _mm_loadu_si128(blocks + 3);
    for (blocks += 4, size -= 64; size >= 64; blocks += 4, size -= 64) {
        a = fold(a, four, _mm_loadu_si128(blocks));
        b = fold(b, four, _mm_loadu_si128(blocks + 1));
        c = fold(c, four, _mm_loadu_si128(blocks + 2));
        d = fold(d, four, _mm_loadu_si128(blocks + 3));
    }
    a = fold(fold(fold(a, one, b), one, c), one, d);
    return crc_of_fold(crc, a, (const uint8_t *)blocks, size);
}
#endif

#ifdef USE_AVX512
#define FOR_WIDE_CLMUL __attribute__((target("pclmul,vpclmulqdq,avx512f")))

FOR_WIDE_CLMUL static inline __m512i
fold_wide(__m512i bytes, __m512i by, __m512i next)
{
    __m512i low = _mm512_clmulepi64_epi128(bytes, by, 0x00), high = _mm512_clmulepi64_epi128(bytes, by, 0x11);
    return _mm512_xor_si512(_mm512_xor_si512(low, high), next);
}

/* The same by four blocks at once. */
FOR_WIDE_CLMUL static uint32_t
crc_folded_wide(const CRC *crc, uint32_t value, const uint8_t *data, size_t size)
{
    if (size < 256) {
        return crc_folded(crc, value, data, size);
    }
    const __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)crc->fold[1]));
    const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)crc->fold[2]));
    __m512i a = _mm512_loadu_si512(data), b = _mm512_loadu_si512(data + 64);
    __m512i c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)value)));
    for (data += 256, size -= 256; size >= 256; data += 256, size -= 256) {
        a = fold_wide(a, all, _mm512_loadu_si512(data));
        b = fold_wide(b, all, _mm512_loadu_si512(data + 64));
        c = fold_wide(c, all, _mm512_loadu_si512(data + 128));
        d = fold_wide(d, all, _mm512_loadu_si512(data + 192));
    }
    a = fold_wide(fold_wide(fold_wide(a, four, b), four, c), four, d);
    for (; size >= 64; data += 64, size -= 64) {
        a = fold_wide(a, four, _mm512_loadu_si512(data));
    }
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold[0]);
    __m128i bytes = _mm512_castsi512_si128(a);
    bytes = fold(bytes, one, _mm512_extracti32x4_epi32(a, 1));
    bytes = fold(bytes, one, _mm512_extracti32x4_epi32(a, 2));
    bytes = fold(bytes, one, _mm512_extracti32x4_epi32(a, 3));
    _mm256_zeroupper(); /* the compiler forgets it where it ends in a call, and what follows gets slow */
    return crc_of_fold(crc, bytes, data, size);
}
#endif

/* The best that this processor has; set once, to the same in every interpreter. */
static uint32_t (*crc_of_bytes)(const CRC *, uint32_t, const uint8_t *, size_t) = crc_sliced;

/* All bytes XORed. */
static uint8_t
xor_of(const uint8_t *data, size_t size)
{
    uint64_t wide = 0, next;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&next, data, 8);
        wide ^= next;
    }
    wide ^= wide >> 32;
    wide ^= wide >> 16;
    wide ^= wide >> 8;
    while (size--) {
        wide ^= *data++;
    }
    return (uint8_t)wide;
}

/* Which check a framing has. */
typedef enum { NO_CHECK, CRC_CHECK, XOR_CHECK, OTHER_CHECK } CheckKind;

enum { MOST_CHECK = 4 }; /* bytes, of those here */

/* Write a check of a kind that is known here; it has so many bytes as `size_of_check` says. */
static size_t
write_check(CheckKind kind, const CRC *crc, const uint8_t *data, size_t size, uint8_t *out)
{
    if (kind == XOR_CHECK) {
        *out = xor_of(data, size);
        return 1;
    }
    uint32_t value = crc_of_bytes(crc, crc->first, data, size) ^ crc->last;
    for (unsigned n = 0; n < crc->width / 8; n++) {
        out[n] = (uint8_t)(value >> 8 * n);
    }
    return crc->width / 8;
}

static PyObject *
check_function(CheckKind kind, const CRC *crc, PyObject *frame)
{
    Py_buffer view;
    if (get_bytes(frame, &view) < 0) {
        return NULL;
    }
    uint8_t check[MOST_CHECK];
    size_t size = write_check(kind, crc, bytes_of(&view), (size_t)view.len, check);
    PyBuffer_Release(&view);
    return PyBytes_FromStringAndSize((char *)check, (Py_ssize_t)size);
}

static PyObject *
fcs16(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return check_function(CRC_CHECK, &crcs[FCS16], frame);
}

static PyObject *
fcs32(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return check_function(CRC_CHECK, &crcs[FCS32], frame);
}

static PyObject *
crc16_modbus(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return check_function(CRC_CHECK, &crcs[MODBUS], frame);
}

static PyObject *
xor_check(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return check_function(XOR_CHECK, NULL, frame);
}

/* Whether a function is one of the above, and of a check of its size, and then which check it is. */
static CheckKind
kind_of_check(PyObject *function, size_t size, const CRC **crc)
{
    static PyObject *(*const of_crcs[CRCS])(PyObject *, PyObject *) = {fcs16, fcs32, crc16_modbus};
    PyCFunction own = PyCFunction_Check(function) ? PyCFunction_GET_FUNCTION(function) : NULL;
    for (int n = 0; n < CRCS; n++) {
        if (own == of_crcs[n] && size == crcs[n].width / 8) {
            *crc = &crcs[n];
            return CRC_CHECK;
        }
    }
    return own == xor_check && size == 1 ? XOR_CHECK : OTHER_CHECK;
}

PyDoc_STRVAR(fcs16_doc, "fcs16($module, frame, /)\n--\n\nFCS-16 of RFC 1662, the least byte first.");
PyDoc_STRVAR(fcs32_doc, "fcs32($module, frame, /)\n--\n\nFCS-32 of RFC 1662, the least byte first.");
PyDoc_STRVAR(crc16_modbus_doc, "crc16_modbus($module, frame, /)\n--\n\nCRC-16/MODBUS, the least byte first.");
PyDoc_STRVAR(xor_doc, "xor($module, frame, /)\n--\n\nAll bytes XORed to one.");
