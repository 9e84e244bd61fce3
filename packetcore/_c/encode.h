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
/* The same two for long payloads, without a branch on any special byte. */
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

enum { LONG_PAYLOAD = 256 };

/* The best that this processor has for long payloads; set once, to the same in every interpreter. */
static size_t (*count_special_long)(const uint8_t *, size_t) = count_special;
static uint8_t *(*escape_bytes_long)(uint8_t *, const uint8_t *, size_t) = escape_bytes;

static PyObject *
frame_of(const Packet *packet)
{
    PyObject *payload = packet->payload;
    uint16_t id = packet->id, count = packet->count;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(payload);
    size_t length = (size_t)PyBytes_GET_SIZE(payload);
    const uint8_t header[BLOCK] = { /* looked through as a whole */
        (uint8_t)(id >> 8),      (uint8_t)id,
        packet->type,            (uint8_t)(count >> 8),
        (uint8_t)count,          (uint8_t)(length >> 24),
        (uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length,
    };
    bool is_long = length >= LONG_PAYLOAD;
    size_t in_payload = is_long ? count_special_long(data, length) : count_special(data, length);
    size_t in_header = count_special(header, BLOCK);
    size_t extra = 2 + HEADER_SIZE + in_header + in_payload;
    if (extra > (size_t)PY_SSIZE_T_MAX - length) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(length + extra));
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    *out++ = FLAG;
    if (in_header) {
        out = escape_bytes(out, header, HEADER_SIZE);
    }
    else {
        memcpy(out, header, HEADER_SIZE);
        out += HEADER_SIZE;
    }
    if (in_payload) {
        out = is_long ? escape_bytes_long(out, data, length) : escape_bytes(out, data, length);
    }
    else {
        memcpy(out, data, length);
        out += length;
    }
    *out = FLAG;
    return frame;
}

static PyObject *
encode(PyObject *module, PyObject *packet)
{
    State *state = PyModule_GetState(module);
    if (Py_TYPE(packet) != state->packet) {
        PyErr_Format(PyExc_TypeError, "encode() takes a Packet, not %.200s", Py_TYPE(packet)->tp_name);
        return NULL;
    }
    return frame_of((Packet *)packet);
}
