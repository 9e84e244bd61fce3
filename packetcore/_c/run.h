/* Reading one run, which is what stands between two flags: its header, then its payload. */

/* The open run, as far as it has been read. */
typedef struct {
    uint8_t header[HEADER_SIZE];
    uint8_t header_size; /* how much of it has come */
    bool in_escape;      /* the last byte was FD, and what it stands for has not come */
    bool is_bad;         /* a bad escape has come: nothing after it is read */
    bool is_mismatch;    /* so many bytes have come, or are sure not to come */
    uint32_t filled;     /* how much of the payload has come */
    PyObject *payload;   /* owned; its size is the room made so far, at most the length */
} Run;

static uint32_t
length_in(const uint8_t *header)
{
    return (uint32_t)header[5] << 24 | (uint32_t)header[6] << 16 | (uint32_t)header[7] << 8 | header[8];
}

/* The size of a run that begins here, ends soon and needs no unescaping, as most small packets;
   0 if it is not such a one. */
static inline size_t
small_run(const uint8_t *data, const uint8_t *end, uint64_t max_payload)
{
    size_t size = 0;
    uint32_t specials = 0;
    while (!specials && size < SMALL && end - data - (Py_ssize_t)size >= BLOCK) {
        if (size && length_in(data) > SMALL) {
            return 0;
        }
        specials = specials_in(data + size);
        size += plain_bytes(specials);
    }
    bool is_whole = specials && size >= HEADER_SIZE && data[size] == FLAG;
    return is_whole && length_in(data) == size - HEADER_SIZE && length_in(data) <= max_payload ? size : 0;
}

/* Read on in the header. Returns the end of what it took: a flag, the first byte of the
   payload, a bad escape or the limit. */
static const uint8_t *
read_header(Run *run, const uint8_t *data, const uint8_t *limit)
{
    if (run->header_size == 0 && !run->in_escape && limit - data >= BLOCK &&
        plain_bytes(specials_in(data)) >= HEADER_SIZE) {
        memcpy(run->header, data, HEADER_SIZE);
        run->header_size = HEADER_SIZE;
        return data + HEADER_SIZE;
    }
    for (; data < limit && *data != FLAG && run->header_size < HEADER_SIZE && !run->is_bad; data++) {
        uint8_t byte = *data;
        if (run->in_escape) {
            run->is_bad = byte != 1 && byte != 2;
            byte = (uint8_t)(0xFF - byte);
        }
        else if (byte == ESCAPE) {
            run->in_escape = true;
            continue;
        }
        run->in_escape = false;
        run->header[run->header_size++] = byte;
    }
    return data;
}

/* Make room for the payload that the next `coming` bytes may hold. */
static int
make_room(Run *run, size_t coming)
{
    size_t length = length_in(run->header);
    size_t room = run->payload == NULL ? 0 : (size_t)PyBytes_GET_SIZE(run->payload);
    if (run->payload != NULL && (room == length || room - run->filled >= coming)) {
        return 0;
    }
    /* Twice as much each time, so that what is moved stays in proportion to what comes. */
    room = room ? 2 * room : FIRST_ROOM;
    room = room < run->filled + coming ? run->filled + coming : room;
    room = room < length ? room : length;
    if (room > PY_SSIZE_T_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    if (run->payload != NULL) {
        return _PyBytes_Resize(&run->payload, (Py_ssize_t)room);
    }
    run->payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    return run->payload == NULL ? -1 : 0;
}

/* Read on in the payload. Returns the end of what it took: a flag, a bad escape or the
   limit. Where the length is known not to match, escapes are read all the same: of two
   reasons a bad escape is the one to give. */
INLINE const uint8_t *
read_payload_with(uint32_t specials_in_block(const uint8_t *), Run *run, const uint8_t *data, const uint8_t *limit)
{
    bool in_escape = run->in_escape;
    uint8_t *out = NULL;
    size_t room = 0;
    if (!run->is_mismatch) {
        out = (uint8_t *)PyBytes_AS_STRING(run->payload) + run->filled;
        room = (size_t)PyBytes_GET_SIZE(run->payload) - run->filled;
    }
    while (data < limit) {
        if (in_escape) {
            if (*data != 1 && *data != 2) {
                run->is_bad = true;
                break;
            }
            in_escape = false;
            if (room) {
                *out++ = (uint8_t)(0xFF - *data);
                room--;
            }
            else {
                run->is_mismatch = true;
            }
            data++;
        }
        size_t plain;
        while (room >= BLOCK && limit - data > BLOCK) {
            uint32_t specials = specials_in_block(data);
            memcpy(out, data, BLOCK); /* what follows a special one is written over */
            if (!specials) {
                out += BLOCK;
                data += BLOCK;
                room -= BLOCK;
                continue;
            }
            plain = plain_bytes(specials);
            out += plain;
            data += plain;
            room -= plain;
            if (*data == FLAG || (data[1] != 1 && data[1] != 2)) {
                goto special;
            }
            *out++ = (uint8_t)(0xFF - data[1]);
            data += 2;
            room--;
        }
        if (limit - data >= BLOCK) {
            plain = plain_bytes(specials_in_block(data));
        }
        else {
            for (plain = 0; data + plain < limit && !is_special(data[plain]); plain++) {
            }
        }
        if (plain > room) {
            run->is_mismatch = true;
            room = 0;
        }
        else if (plain) {
            memcpy(out, data, plain);
            out += plain;
            room -= plain;
        }
        data += plain;
        if (data == limit || !is_special(*data)) {
            continue;
        }
    special:
        if (*data == FLAG) {
            break;
        }
        in_escape = true;
        data++;
    }
    run->in_escape = in_escape;
    if (!run->is_mismatch) {
        run->filled = (uint32_t)((size_t)PyBytes_GET_SIZE(run->payload) - room);
    }
    return data;
}

static const uint8_t *
read_payload_plain(Run *run, const uint8_t *data, const uint8_t *limit)
{
    return read_payload_with(specials_in, run, data, limit);
}

#ifdef USE_AVX2
/* 0 where FD 01 or FD 02 stands. */
FOR_AVX2 INLINE uint64_t
odd_pair(const uint8_t *data)
{
    uint16_t pair; /* the processor is little-endian */
    memcpy(&pair, data, sizeof(pair));
    return (pair - 0x01FDu) & 0xFEFF;
}

/* Read on in a payload that matches so far, by wide blocks, as long as there is room and
   `limit` is not near; at most to a flag or a bad escape. `read_payload_with` does the rest.

   Of 64 random bytes two in five have a special one, few have two, and a branch on that
   would be mispredicted as often. So the first is left out without one: what follows it is
   written over it. Where nothing is special for long, as in text, there is such a branch. */
FOR_AVX2 __attribute__((noinline)) static const uint8_t *
read_wide_avx2(Run *run, const uint8_t *data, const uint8_t *limit)
{
    uint8_t *payload = (uint8_t *)PyBytes_AS_STRING(run->payload);
    uint8_t *out = payload + run->filled, *end = payload + PyBytes_GET_SIZE(run->payload);
    uint64_t lately = 1 << 6; /* special bytes, each of which is forgotten after at most 64 blocks */
    while (end - out >= 2 * WIDE && limit - data >= 2 * WIDE) {
        __builtin_prefetch(data + AHEAD); /* the processor's own stops at each page */
        uint64_t specials = specials_in_avx2(data) | (uint64_t)specials_in_avx2(data + BLOCK) << BLOCK;
        lately = lately >> 1 | specials;
        if (!lately) {
            copy_wide(out, data);
            out += WIDE;
            data += WIDE;
            continue;
        }
        size_t plain = _tzcnt_u64(specials), none = plain / WIDE; /* of none it gives 64 */
        copy_block(out, data);
        copy_block(out + BLOCK, data + BLOCK + (plain < BLOCK));
        copy_block(out + plain, data + plain + 1);
        out[plain] = (uint8_t)(0xFF - data[plain + 1]);
        if (odd_pair(data + plain) & (none - 1)) {
            out += plain;
            data += plain;
            break;
        }
        size_t split = specials >> (WIDE - 1); /* an escape lies across the end of the block */
        while (specials &= specials - 1) {
            out--;
            plain = _tzcnt_u64(specials);
            if (odd_pair(data + plain)) {
                run->filled = (uint32_t)(out + plain - payload);
                return data + plain;
            }
            copy_wide(out + plain, data + plain + 1);
            out[plain] = (uint8_t)(0xFF - data[plain + 1]);
        }
        out += WIDE - 1 + none;
        data += WIDE;
        if (split) {
            out++;
            data++;
        }
    }
    run->filled = (uint32_t)(out - payload);
    return data;
}

FOR_AVX2 static const uint8_t *
read_payload_avx2(Run *run, const uint8_t *data, const uint8_t *limit)
{
    if (!run->in_escape && !run->is_mismatch) {
        data = read_wide_avx2(run, data, limit);
    }
    return read_payload_with(specials_in_avx2, run, data, limit);
}
#endif

#ifdef USE_AVX512
/* The same without a branch on any escape: they are pressed out of each block. To the end of the room, where all
   of the payload is in these bytes and as many as in a block follow it. */
FOR_AVX512 __attribute__((noinline)) static const uint8_t *
read_wide_avx512(Run *run, const uint8_t *data, const uint8_t *limit)
{
    const __m512i escape = _mm512_set1_epi8((char)ESCAPE), all = _mm512_set1_epi8(-1), one = _mm512_set1_epi8(1);
    uint8_t *payload = (uint8_t *)PyBytes_AS_STRING(run->payload);
    uint8_t *out = payload + run->filled, *end = payload + PyBytes_GET_SIZE(run->payload);
    uint64_t cut = run->in_escape; /* the block before this one ended in an escape */
    while (limit - data >= WIDE) {
        __builtin_prefetch(data + AHEAD); /* the processor's own stops at each page */
        __m512i bytes = _mm512_loadu_si512(data);
        __mmask64 escapes_at = _mm512_cmpeq_epi8_mask(bytes, escape), plain_at = _knot_mask64(escapes_at);
        uint64_t escapes = escapes_at, codes = escapes << 1 | cut;
        bytes = _mm512_mask_sub_epi8(bytes, codes, all, bytes); /* 0xFF - byte */
        /* Special are now what codes stand for, and escapes; else there is a flag or no code. */
        uint64_t odd = _mm512_cmple_epu8_mask(_mm512_sub_epi8(bytes, escape), one) ^ (escapes | codes);
        if (!odd && end - out >= WIDE) {
            _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(plain_at, bytes));
            out += WIDE - _mm_popcnt_u64(escapes);
            data += WIDE;
            cut = escapes >> (WIDE - 1);
            continue;
        }
        size_t taken = odd ? _tzcnt_u64(odd) : WIDE;
        uint64_t plain = _bzhi_u64(~escapes, (unsigned)taken);
        Py_ssize_t size = _mm_popcnt_u64(plain);
        if (size > end - out) {
            break; /* more than was announced */
        }
        _mm512_mask_storeu_epi8(out, _bzhi_u64(UINT64_MAX, (unsigned)size), _mm512_maskz_compress_epi8(plain, bytes));
        out += size;
        data += taken;
        cut = odd ? codes >> taken & 1 : escapes >> (WIDE - 1);
        if (odd) {
            break;
        }
    }
    run->in_escape = cut;
    run->filled = (uint32_t)(out - payload);
    _mm256_zeroupper(); /* see `crc_folded_wide` */
    return data;
}

FOR_AVX2 static const uint8_t *
read_payload_avx512(Run *run, const uint8_t *data, const uint8_t *limit)
{
    if (!run->is_mismatch) {
        data = read_wide_avx512(run, data, limit);
    }
    return read_payload_with(specials_in_avx2, run, data, limit);
}
#endif

/* The best that this processor has; set once, to the same in every interpreter. */
static const uint8_t *(*read_payload)(Run *, const uint8_t *, const uint8_t *) = read_payload_plain;
