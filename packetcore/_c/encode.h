/* `encode`, the twin of that in _codec.py. */

static size_t
count_special(const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (; size >= BLOCK; data += BLOCK, size -= BLOCK) {
        for (uint32_t specials = specials_in(data); specials; specials &= specials - 1) {
            count++;
        }
    }
    while (size--) {
        count += is_special(*data++);
    }
    return count;
}

static inline uint8_t *
escape_byte(uint8_t *out, uint8_t byte)
{
    *out++ = ESCAPE;
    *out++ = (uint8_t)(0xFF - byte);
    return out;
}

static uint8_t *
escape_bytes(uint8_t *out, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    while (end - data >= BLOCK) {
        uint32_t specials = specials_in(data);
        /* What follows a special byte is written over: there is room for all of a block,
           since what is left takes no less. */
        memcpy(out, data, BLOCK);
        if (specials) {
            size_t plain = plain_bytes(specials);
            data += plain;
            out = escape_byte(out + plain, *data++);
        }
        else {
            data += BLOCK;
            out += BLOCK;
        }
    }
    for (; data < end; data++) {
        if (is_special(*data)) {
            out = escape_byte(out, *data);
        }
        else {
            *out++ = *data;
        }
    }
    return out;
}

#ifdef USE_AVX512
/* The two above without a branch on any special byte: for payloads so short that to look twice costs little. */
FOR_AVX512 static size_t
count_special_avx512(const uint8_t *data, size_t size)
{
    const __m512i flag = _mm512_set1_epi8((char)FLAG), escape = _mm512_set1_epi8((char)ESCAPE);
    size_t count = 0;
    for (; size >= 64; data += 64, size -= 64) {
        __m512i bytes = _mm512_loadu_si512(data);
        count += (size_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(bytes, flag) | _mm512_cmpeq_epi8_mask(bytes, escape));
    }
    _mm256_zeroupper(); /* see `crc_folded_wide` */
    return count + count_special(data, size);
}

FOR_AVX512 static uint8_t *
escape_bytes_avx512(uint8_t *out, const uint8_t *data, size_t size)
{
    const uint64_t before = 0x5555555555555555, bytes_at = ~before; /* two places for each byte: an escape, itself */
    const __m512i flag = _mm512_set1_epi8((char)FLAG), escape = _mm512_set1_epi8((char)ESCAPE);
    const __m512i all = _mm512_set1_epi8(-1);
    for (; size >= 64; data += BLOCK, size -= BLOCK) { /* so much room is left */
        __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)data));
        __mmask64 specials = _mm512_mask_cmpeq_epi8_mask(UINT32_MAX, bytes, flag) |
                             _mm512_mask_cmpeq_epi8_mask(UINT32_MAX, bytes, escape);
        uint64_t places = _pdep_u64(specials, before) | bytes_at; /* which of them are taken */
        bytes = _mm512_mask_sub_epi8(bytes, specials, all, bytes); /* 0xFF - byte */
        _mm512_storeu_si512(out, _mm512_mask_expand_epi8(escape, _pext_u64(bytes_at, places), bytes));
        out += _mm_popcnt_u64(places);
    }
    _mm256_zeroupper();
    return escape_bytes(out, data, size);
}
#endif

/* The best that this processor has for long payloads; set once, to the same in every interpreter. */
static size_t (*count_special_long)(const uint8_t *, size_t) = count_special;
static uint8_t *(*escape_bytes_long)(uint8_t *, const uint8_t *, size_t) = escape_bytes;

enum { BEYOND = 3 * BLOCK }; /* bytes that may be written behind those that count */

/* Escape the first bytes of a payload, which moves `out`, and give how many they are: as many as there is room for, if
   `BEYOND` of it stays free. */
typedef size_t (*EscapeWide)(uint8_t **out, const uint8_t *end, const uint8_t *data, size_t size);

#ifdef USE_AVX2
/* By blocks, without a branch on the first special byte of each: what follows it is written once more, behind its
   escape. Where nothing is special for long, as in text, there is such a branch. */
FOR_AVX2 static size_t
escape_wide_avx2(uint8_t **written, const uint8_t *end, const uint8_t *data, size_t size)
{
    const uint8_t *begin = data;
    uint8_t *out = *written;
    uint64_t lately = 1 << 6; /* as in `read_wide_avx2` */
    for (; size >= 2 * BLOCK && end - out >= BEYOND; data += BLOCK, size -= BLOCK) {
        if (size > AHEAD) {
            __builtin_prefetch(data + AHEAD);
        }
        uint64_t specials = specials_in_avx2(data);
        copy_block(out, data);
        lately = lately >> 1 | specials;
        if (lately) {
            specials |= UINT64_C(1) << BLOCK; /* where there is none, behind the block */
            do {
                size_t plain = _tzcnt_u64(specials);
                out[plain] = ESCAPE;
                copy_block(out + plain + 1, data + plain);
                out[plain + 1] = (uint8_t)(0xFF - data[plain]);
                out++;
                specials &= specials - 1;
            } while (specials & (specials - 1));
            out -= !specials;
        }
        out += BLOCK;
    }
    *written = out;
    return (size_t)(data - begin);
}
#endif

#ifdef USE_AVX512
/* By blocks that are taken apart where a byte is special, without a branch on one or two of them. Where nothing is
   special for long, as in text, there is such a branch. */
FOR_AVX512 static size_t
escape_wide_avx512(uint8_t **written, const uint8_t *end, const uint8_t *data, size_t size)
{
    enum { TAKEN = WIDE - 2 };
    const __m512i escape = _mm512_set1_epi8((char)ESCAPE), all = _mm512_set1_epi8(-1), one = _mm512_set1_epi8(1);
    const uint64_t before = 0x5555555555555555; /* of two places for each byte the one for an escape */
    const uint8_t *begin = data, *data_end = data + size;
    uint8_t *out = *written;
    uint64_t lately = 1 << 6; /* as in `read_wide_avx2` */
    while (data_end - data >= WIDE && end - out >= BEYOND) {
        if (data_end - data > AHEAD) {
            __builtin_prefetch(data + AHEAD);
        }
        __m512i bytes = _mm512_loadu_si512(data);
        __mmask64 specials_at = _mm512_cmple_epu8_mask(_mm512_sub_epi8(bytes, escape), one);
        uint64_t specials = specials_at;
        lately = lately >> 1 | specials;
        if (!lately) {
            _mm512_storeu_si512(out, bytes);
            out += WIDE;
            data += WIDE;
            continue;
        }
        bytes = _mm512_mask_sub_epi8(bytes, specials_at, all, bytes); /* 0xFF - byte */
        specials &= UINT64_MAX >> (WIDE - TAKEN);
        uint64_t second = specials & (specials - 1);
        uint64_t escapes = (specials ^ second) | second << 1; /* the second moves on by the first one's */
        size_t taken = TAKEN;
        if (second & (second - 1)) {
            specials = (uint32_t)specials;
            escapes = ~_pext_u64(~before, _pdep_u64(specials, before) | ~before);
            taken = BLOCK;
        }
        _mm512_storeu_si512(out, _mm512_mask_expand_epi8(escape, ~escapes, bytes));
        out += taken + (size_t)_mm_popcnt_u64(specials);
        data += taken;
    }
    _mm256_zeroupper(); /* see `crc_folded_wide` */
    *written = out;
    return (size_t)(data - begin);
}
#endif

/* The best that this processor has, NULL for none; set once, to the same in every interpreter. */
static EscapeWide escape_wide = NULL;

enum {
    LONG_PAYLOAD = 256,
    LOOKED_AT_TWICE = 4096, /* bytes at most, where that can be done without a branch */
    MOST_ASIDE = 1000, /* bytes of a payload that is escaped before room is made for it */
    FEW = 64,          /* bytes of a longer one for each escape that room is made for: twice as many as random ones have */
};

/* Write the flag and the header, `special` of whose bytes are escaped. Gives the end. */
static uint8_t *
write_header(uint8_t *out, const uint8_t *header, size_t special)
{
    *out++ = FLAG;
    if (special) {
        return escape_bytes(out, header, HEADER_SIZE);
    }
    memcpy(out, header, HEADER_SIZE);
    return out + HEADER_SIZE;
}

/* Make a bytes object shorter, in place where little is saved. */
static void
shorten(PyObject **bytes, Py_ssize_t size)
{
    if (size < PyBytes_GET_SIZE(*bytes) / 8 * 7) {
        _PyBytes_Resize(bytes, size);
        return;
    }
    Py_SET_SIZE(*bytes, size);
    PyBytes_AS_STRING(*bytes)[size] = '\0';
}

/* The frame of a payload in which so many bytes are escaped, or all of them have been. */
static PyObject *
frame_with(const uint8_t *header, const uint8_t *data, size_t size, size_t special)
{
    size_t in_header = count_special(header, BLOCK), extra = 2 + HEADER_SIZE + in_header + special;
    if (extra > (size_t)PY_SSIZE_T_MAX - size) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size + extra));
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = write_header((uint8_t *)PyBytes_AS_STRING(frame), header, in_header);
    if (special) {
        out = size < LONG_PAYLOAD ? escape_bytes(out, data, size) : escape_bytes_long(out, data, size);
    }
    else {
        memcpy(out, data, size);
        out += size;
    }
    *out = FLAG;
    return frame;
}

/* The frame of a payload that is looked at once. Its size is known when it has been escaped. */
static PyObject *
frame_aside(const uint8_t *header, const uint8_t *data, size_t size)
{
    uint8_t escaped[2 * MOST_ASIDE + BEYOND], *out = escaped;
    size_t done = escape_wide(&out, escaped + sizeof(escaped), data, size);
    out = escape_bytes(out, data + done, size - done);
    return frame_with(header, escaped, (size_t)(out - escaped), 0);
}

/* The same where it would take too long to move it. What is found to be too little room is made more. */
static PyObject *
frame_in_place(const uint8_t *header, const uint8_t *data, size_t size)
{
    size_t room = 2 * (1 + HEADER_SIZE) + size + size / FEW + BEYOND;
    PyObject *frame = room > (size_t)PY_SSIZE_T_MAX ? PyErr_NoMemory() : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *begin = (uint8_t *)PyBytes_AS_STRING(frame), *out = write_header(begin, header, specials_in(header));
    size_t done = escape_wide(&out, begin + room, data, size), filled = (size_t)(out - begin);
    data += done;
    size -= done;
    size_t needed = size + count_special(data, size) + 1;
    if (needed > room - filled) {
        if (needed > (size_t)PY_SSIZE_T_MAX - filled) {
            Py_DECREF(frame);
            return PyErr_NoMemory();
        }
        if (_PyBytes_Resize(&frame, (Py_ssize_t)(filled + needed)) < 0) {
            return NULL;
        }
        begin = (uint8_t *)PyBytes_AS_STRING(frame);
    }
    out = escape_bytes(begin + filled, data, size);
    *out++ = FLAG;
    shorten(&frame, out - begin);
    return frame;
}

static PyObject *
frame_of(const Packet *packet)
{
    uint16_t id = packet->id, count = packet->count;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(packet->payload);
    size_t size = (size_t)PyBytes_GET_SIZE(packet->payload);
    const uint8_t header[BLOCK] = { /* looked through as a whole */
        (uint8_t)(id >> 8),    (uint8_t)id,
        packet->type,          (uint8_t)(count >> 8),
        (uint8_t)count,        (uint8_t)(size >> 24),
        (uint8_t)(size >> 16), (uint8_t)(size >> 8),
        (uint8_t)size,
    };
    if (size < LONG_PAYLOAD || escape_wide == NULL) {
        return frame_with(header, data, size, count_special(data, size));
    }
    if (size <= LOOKED_AT_TWICE && count_special_long != count_special) {
        return frame_with(header, data, size, count_special_long(data, size));
    }
    return size <= MOST_ASIDE ? frame_aside(header, data, size) : frame_in_place(header, data, size);
}

static PyObject *
encode_with(State *state, PyObject *packet)
{
    if (Py_TYPE(packet) != state->packet) {
        PyErr_Format(PyExc_TypeError, "encode() takes a Packet, not %.200s", Py_TYPE(packet)->tp_name);
        return NULL;
    }
    return frame_of((Packet *)packet);
}

static PyObject *
encode(PyObject *module, PyObject *packet)
{
    return encode_with(PyModule_GetState(module), packet);
}
