/* Byte stuffing with any flag and escape, the twin of framings/_stuffing.py. */

enum { NO_CODE = 0x100 };

typedef struct Stuffing Stuffing;

/* Read the first bytes of a run, write what they stand for, which moves `out`, and give how many they
   are: at most to where something is odd. There is room for as many as are read. */
typedef size_t (*Unescape)(const Stuffing *, const uint8_t *data, size_t size, uint8_t **out);

struct Stuffing {
    PyObject_HEAD
    PyObject *check; /* the function of the check at each frame's end; NULL without one */
    CheckKind kind;
    const CRC *crc;
    size_t check_size;
    uint8_t flag;
    uint8_t escape;
    bool opens;
    bool escapes_more; /* others than flag and escape too */
    uint8_t xor;           /* what a code is XORed with, where any byte may be escaped */
    Unescape unescape;     /* the best that the processor has for these rules; NULL for none */
    uint16_t code_of[256]; /* what follows an escape for a byte; NO_CODE where it is sent as it is */
    uint16_t known[256];   /* what a code stands for; NO_CODE where it is none */
};

#ifdef USE_AVX2
enum { AT_ONCE = 8 };

/* By wide blocks as long as the end is not near, as `read_wide_avx2` does for the default format: the
   first escape of a block is left out without a branch on it. At most to a bad escape, or to one that
   another follows. */
FOR_AVX2 static size_t
unescape_avx2(const Stuffing *rules, const uint8_t *data, size_t size, uint8_t **written)
{
    static const uint8_t behind[2 * WIDE] = {[WIDE ... 2 * WIDE - 1] = 0xFF};
    const uint8_t *begin = data, *end = data + size;
    uint8_t *out = *written;
    while (end - data >= 2 * WIDE) {
        size_t blocks = (size_t)(end - data - 2) / WIDE;
        blocks = blocks < AT_ONCE ? blocks : AT_ONCE;
        uint64_t escapes_of[AT_ONCE], any = 0, adjacent = 0;
        for (size_t n = 0; n < blocks; n++) {
            escapes_of[n] = equal_in_avx2(data + n * WIDE, rules->escape);
            any |= escapes_of[n];
            adjacent |= escapes_of[n] & escapes_of[n] >> 1;
        }
        if (adjacent) {
            break;
        }
        if (!any) {
            for (size_t n = 0; n < blocks; n++, data += WIDE, out += WIDE) {
                copy_wide(out, data);
            }
            continue;
        }
        size_t split = any >> (WIDE - 1);
        if (split) { /* an escape lies across the end of a block: the next begin behind it */
            for (blocks = 0; !(escapes_of[blocks++] >> (WIDE - 1));) {
            }
        }
        for (size_t n = 0; n < blocks; n++) {
            uint64_t escapes = escapes_of[n];
            size_t plain = _tzcnt_u64(escapes), none = plain / WIDE; /* of none it gives 64 */
            for (size_t half = 0; half < WIDE; half += BLOCK) {
                __m256i bytes = _mm256_loadu_si256((const __m256i *)(data + half));
                __m256i next = _mm256_loadu_si256((const __m256i *)(data + half + 1));
                __m256i from = _mm256_loadu_si256((const __m256i *)(behind + WIDE - plain + half));
                _mm256_storeu_si256((__m256i *)(out + half), _mm256_blendv_epi8(bytes, next, from));
            }
            uint16_t byte = rules->known[data[plain + 1]];
            if (byte & NO_CODE & (none - 1)) {
                goto done;
            }
            out[plain] = (uint8_t)byte;
            if (escapes & (escapes - 1)) {
                uint8_t *before = out;
                if (end - data < 2 * WIDE) {
                    goto done;
                }
                while (escapes &= escapes - 1) {
                    plain = _tzcnt_u64(escapes);
                    byte = rules->known[data[plain + 1]];
                    if (byte == NO_CODE) {
                        out = before;
                        goto done;
                    }
                    out--;
                    copy_wide(out + plain, data + plain + 1);
                    out[plain] = (uint8_t)byte;
                }
            }
            out += WIDE - 1 + none;
            data += WIDE;
        }
        out += split;
        data += split;
    }
done:
    *written = out;
    return (size_t)(data - begin);
}
#endif

#ifdef USE_AVX512
/* All of a run, without a branch on any escape, where codes are of flag and escape alone or XORed. */
FOR_AVX512 static size_t
unescape_avx512(const Stuffing *rules, const uint8_t *data, size_t size, uint8_t **written)
{
    const __m512i flag = _mm512_set1_epi8((char)rules->flag), escape = _mm512_set1_epi8((char)rules->escape);
    const __m512i of_flag = _mm512_set1_epi8((char)rules->code_of[rules->flag]);
    const __m512i of_escape = _mm512_set1_epi8((char)rules->code_of[rules->escape]);
    const __m512i xor = _mm512_set1_epi8((char)rules->xor);
    const uint8_t *begin = data, *end = data + size;
    uint8_t *out = *written;
    __mmask64 cut = 0; /* the block before this one ended in an escape */
    while (data < end) {
        size_t left = (size_t)(end - data) < 64 ? (size_t)(end - data) : 64;
        __mmask64 all = UINT64_MAX >> (64 - left);
        __m512i bytes = _mm512_maskz_loadu_epi8(all, data);
        __mmask64 escapes = _mm512_mask_cmpeq_epi8_mask(all, bytes, escape), codes = escapes << 1 | cut;
        __mmask64 odd = (codes & escapes) | (codes & ~all);
        if (rules->xor) {
            bytes = _mm512_mask_xor_epi32(bytes, 0xFFFF, bytes, _mm512_maskz_mov_epi8(codes, xor));
        }
        else {
            __mmask64 flags = _mm512_mask_cmpeq_epi8_mask(codes, bytes, of_flag);
            __mmask64 others = _mm512_mask_cmpeq_epi8_mask(codes, bytes, of_escape);
            bytes = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(bytes, flags, flag), others, escape);
            odd |= codes ^ flags ^ others;
        }
        if (odd) {
            break;
        }
        __mmask64 plain = all & ~escapes;
        bytes = _mm512_maskz_compress_epi8(plain, bytes);
        if (left == 64) {
            _mm512_storeu_si512(out, bytes);
        }
        else {
            _mm512_mask_storeu_epi8(out, all, bytes);
        }
        out += _mm_popcnt_u64(plain);
        cut = escapes >> 63;
        data += left;
    }
    *written = out;
    return (size_t)(data - begin) - (size_t)cut;
}
#endif

/* The best that this processor has; set once, to the same in every interpreter. */
static Unescape unescape_any = NULL, unescape_two = NULL;

/* Write what a run stands for, where there is room for as much. Gives how much it is, -1 for a bad
   escape. */
static Py_ssize_t
unescape(const Stuffing *rules, const WholeRun *run, uint8_t *out)
{
    const uint8_t *begin = out, *data = run->bytes, *end = data + run->size;
    const uint8_t escape = rules->escape;
    if (rules->unescape != NULL) {
        data += rules->unescape(rules, data, run->size, &out);
    }
    while (data < end) {
        if (end - data > BLOCK) {
            uint32_t escapes = either_in(data, escape, escape);
            memcpy(out, data, BLOCK); /* what follows an escape is written over */
            size_t plain = plain_bytes(escapes);
            out += plain;
            data += plain;
            if (!escapes) {
                continue;
            }
        }
        uint16_t byte = *data++;
        if (byte == escape) {
            byte = data < end ? rules->known[*data++] : NO_CODE;
            if (byte == NO_CODE) {
                return -1;
            }
        }
        *out++ = (uint8_t)byte;
    }
    return out - begin;
}

/* What is wrong with an unescaped run; REASONS if nothing is, as far as can be told here. */
static int
wrong_with(const RunDecoder *self, const Stuffing *rules, const uint8_t *plain, size_t length)
{
    size_t check_size = rules->check_size;
    if (length > self->max_frame + check_size) {
        return TOO_LONG;
    }
    if (length < check_size) {
        return TOO_SHORT;
    }
    if (rules->kind == CRC_CHECK || rules->kind == XOR_CHECK) {
        uint8_t check[MOST_CHECK];
        write_check(rules->kind, rules->crc, plain, length - check_size, check);
        for (size_t n = 0; n < check_size; n++) {
            if (check[n] != plain[length - check_size + n]) {
                return BAD_CHECK;
            }
        }
    }
    return REASONS;
}

/* Whether a function of the application gives, for the frame, the check behind it; one that raises
   does not. */
static int
agrees(const Stuffing *rules, PyObject *frame, PyObject *check)
{
    PyObject *given = PyObject_CallOneArg(rules->check, frame);
    int equal = given == NULL ? -1 : PyObject_RichCompareBool(given, check, Py_EQ);
    Py_XDECREF(given);
    if (equal < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        equal = 0;
    }
    return equal;
}

static int
judge_stuffed(RunDecoder *self, PyObject *events, const WholeRun *run)
{
    const Stuffing *rules = (const Stuffing *)self->rules;
    const uint8_t *plain = run->bytes;
    PyObject *frame = NULL;
    Py_ssize_t length = (Py_ssize_t)run->size;
    if (run->is_escaped) {
        frame = PyBytes_FromStringAndSize(NULL, length);
        if (frame == NULL) {
            return -1;
        }
        plain = (const uint8_t *)PyBytes_AS_STRING(frame);
        length = unescape(rules, run, (uint8_t *)PyBytes_AS_STRING(frame));
    }
    int reason = length < 0 ? BAD_ESCAPE : wrong_with(self, rules, plain, (size_t)length);
    if (reason != REASONS) {
        Py_XDECREF(frame);
        return give_refused(self, events, reason, run);
    }
    length -= (Py_ssize_t)rules->check_size;
    PyObject *check = NULL;
    if (rules->kind == OTHER_CHECK) {
        check = PyBytes_FromStringAndSize((const char *)plain + length, (Py_ssize_t)rules->check_size);
        if (check == NULL) {
            Py_XDECREF(frame);
            return -1;
        }
    }
    if (frame == NULL) {
        frame = PyBytes_FromStringAndSize((const char *)plain, length);
    }
    else {
        shorten(&frame, length);
    }
    int sound = frame == NULL ? -1 : check == NULL ? 1 : agrees(rules, frame, check);
    Py_XDECREF(check);
    if (sound > 0) {
        return give_frame(events, frame) < 0 ? -1 : 1;
    }
    Py_XDECREF(frame);
    return sound < 0 ? -1 : give_refused(self, events, BAD_CHECK, run);
}

PyDoc_STRVAR(stuffing_decoder_doc,
"StuffingDecoder(rules, max_frame)\n--\n\n"
"Runs between flags, with escapes and a check in them.");

static PyObject *
new_stuffing_decoder(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"rules", "max_frame", NULL};
    PyObject *rules, *number;
    State *state = PyType_GetModuleState(type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:StuffingDecoder", names, state->stuffing, &rules, &number)) {
        return NULL;
    }
    const Stuffing *stuffing = (const Stuffing *)rules;
    size_t max_frame = max_frame_of(number);
    if (max_frame == 0) {
        return NULL;
    }
    size_t bound = 2 * (max_frame + stuffing->check_size);
    RunDecoder *self = new_runs(type, stuffing->flag, stuffing->escape, max_frame, bound, stuffing->opens, judge_stuffed);
    if (self != NULL) {
        self->rules = Py_NewRef(rules);
    }
    return (PyObject *)self;
}

/* How many bytes have a code. */
static size_t
count_escaped(const Stuffing *rules, const uint8_t *data, size_t size)
{
    size_t count = 0;
    if (!rules->escapes_more) {
        for (; size >= BLOCK; data += BLOCK, size -= BLOCK) {
            for (uint32_t found = either_in(data, rules->flag, rules->escape); found; found &= found - 1) {
                count++;
            }
        }
    }
    while (size--) {
        count += rules->code_of[*data++] != NO_CODE;
    }
    return count;
}

static uint8_t *
escape_stuffed(const Stuffing *rules, uint8_t *out, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    while (data < end) {
        if (!rules->escapes_more && end - data >= BLOCK) {
            uint32_t found = either_in(data, rules->flag, rules->escape);
            memcpy(out, data, BLOCK); /* what is left takes no less room */
            size_t plain = plain_bytes(found);
            out += plain;
            data += plain;
            if (!found) {
                continue;
            }
        }
        uint16_t code = rules->code_of[*data];
        if (code == NO_CODE) {
            *out++ = *data++;
        }
        else {
            *out++ = rules->escape;
            *out++ = (uint8_t)code;
            data++;
        }
    }
    return out;
}

/* The frame and its check, between flags. */
static PyObject *
stuff(const Stuffing *rules, const uint8_t *data, size_t size, const uint8_t *check, size_t check_size)
{
    size_t extra = check_size + count_escaped(rules, data, size) + count_escaped(rules, check, check_size) + 2;
    if (extra > (size_t)PY_SSIZE_T_MAX - size) {
        return PyErr_NoMemory();
    }
    PyObject *sent = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size + extra));
    if (sent == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(sent);
    *out++ = rules->flag;
    out = escape_stuffed(rules, out, data, size);
    out = escape_stuffed(rules, out, check, check_size);
    *out = rules->flag;
    return sent;
}

/* The check that a function of the application gives for a frame. */
static PyObject *
other_check(const Stuffing *rules, const Py_buffer *view)
{
    PyObject *frame = PyBytes_FromStringAndSize(view->buf, view->len);
    PyObject *check = frame == NULL ? NULL : PyObject_CallOneArg(rules->check, frame);
    Py_XDECREF(frame);
    if (check != NULL && !PyBytes_Check(check)) {
        PyErr_Format(PyExc_TypeError, "a check gave %.200s, not bytes", Py_TYPE(check)->tp_name);
        Py_CLEAR(check);
    }
    if (check != NULL && (size_t)PyBytes_GET_SIZE(check) != rules->check_size) {
        PyErr_Format(PyExc_ValueError, "a check of size=%zu gave %zd bytes", rules->check_size, PyBytes_GET_SIZE(check));
        Py_CLEAR(check);
    }
    return check;
}

/* Get the buffer of a frame that is to be encoded. */
static int
get_frame(PyObject *frame, Py_buffer *view)
{
    if (!PyBytes_Check(frame) && !PyByteArray_Check(frame) && !PyMemoryView_Check(frame)) {
        PyErr_Format(PyExc_TypeError, "encode() takes bytes, not %.200s", Py_TYPE(frame)->tp_name);
        return -1;
    }
    return get_bytes(frame, view);
}

PyDoc_STRVAR(stuffing_encode_doc,
"encode($self, frame, /)\n--\n\n"
"Give a frame and its check, with what may not be sent escaped, between flags.");

static PyObject *
stuffing_encode(Stuffing *self, PyObject *frame)
{
    Py_buffer view;
    if (get_frame(frame, &view) < 0) {
        return NULL;
    }
    PyObject *sent = NULL;
    const uint8_t *data = bytes_of(&view);
    size_t size = (size_t)view.len;
    if (self->kind == OTHER_CHECK) {
        PyObject *check = other_check(self, &view);
        if (check != NULL) {
            sent = stuff(self, data, size, (const uint8_t *)PyBytes_AS_STRING(check), self->check_size);
            Py_DECREF(check);
        }
    }
    else if (self->kind != NO_CHECK) {
        uint8_t check[MOST_CHECK];
        write_check(self->kind, self->crc, data, size, check);
        sent = stuff(self, data, size, check, self->check_size);
    }
    else if (size == 0) {
        PyErr_SetString(PyExc_ValueError, "an empty frame without a check is nothing: two flags with nothing between them");
    }
    else {
        sent = stuff(self, data, size, NO_BYTES, 0);
    }
    PyBuffer_Release(&view);
    return sent;
}

/* Take the bytes and codes of a dict of ints below 256. */
static int
take_codes(Stuffing *self, PyObject *codes)
{
    PyObject *byte, *code;
    for (Py_ssize_t at = 0; PyDict_Next(codes, &at, &byte, &code);) {
        if (!PyLong_Check(byte) || !PyLong_Check(code)) { /* another's `__index__` might change the dict */
            PyErr_SetString(PyExc_TypeError, "codes has to map ints to ints");
            return -1;
        }
        long of = PyLong_AsLong(byte), is = of == -1 && PyErr_Occurred() ? -1 : PyLong_AsLong(code);
        if (is == -1 && PyErr_Occurred()) {
            return -1;
        }
        self->code_of[of & 0xFF] = (uint16_t)(is & 0xFF);
        self->known[is & 0xFF] = (uint16_t)(of & 0xFF);
    }
    self->escapes_more = PyDict_GET_SIZE(codes) > 2;
    self->unescape = self->escapes_more ? unescape_any : unescape_two;
    return 0;
}

static int
take_check(Stuffing *self, PyObject *check)
{
    PyObject *size = PyObject_GetAttrString(check, "size");
    if (size == NULL) {
        return -1;
    }
    self->check_size = PyLong_AsSize_t(size);
    Py_DECREF(size);
    self->check = PyErr_Occurred() ? NULL : PyObject_GetAttrString(check, "function");
    if (self->check == NULL) {
        return -1;
    }
    self->kind = kind_of_check(self->check, self->check_size, &self->crc);
    if (self->check_size > MOST_FRAME) {
        PyErr_Format(PyExc_ValueError, "a check of size=%zu", self->check_size);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(stuffing_doc,
"Stuffing(flag, escape, codes, check, xor=0, opens=True)\n--\n\n"
"What a framing of flags and escapes amounts to.");

static PyObject *
new_stuffing(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"flag", "escape", "codes", "check", "xor", "opens", NULL};
    unsigned char flag, escape, xor = 0;
    PyObject *codes, *check;
    int opens = true;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "bbO!O|bp:Stuffing", names, &flag, &escape, &PyDict_Type, &codes,
                                     &check, &xor, &opens)) {
        return NULL;
    }
    Stuffing *self = (Stuffing *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->flag = flag;
    self->escape = escape;
    self->opens = opens;
    self->xor = xor;
    for (int byte = 0; byte < 256; byte++) {
        self->code_of[byte] = NO_CODE;
        self->known[byte] = xor && byte != flag ? (uint16_t)(byte ^ xor) : NO_CODE;
    }
    if (take_codes(self, codes) < 0 || (check != Py_None && take_check(self, check) < 0)) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
stuffing_traverse(Stuffing *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->check);
    return 0;
}

static void
stuffing_dealloc(Stuffing *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, stuffing_dealloc)
    Py_XDECREF(self->check);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef stuffing_methods[] = {
    {"encode", (PyCFunction)stuffing_encode, METH_O, stuffing_encode_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stuffing_slots[] = {
    {Py_tp_doc, (void *)stuffing_doc},
    {Py_tp_new, new_stuffing},
    {Py_tp_traverse, stuffing_traverse},
    {Py_tp_dealloc, stuffing_dealloc},
    {Py_tp_methods, stuffing_methods},
    {0, NULL},
};

static PyType_Spec stuffing_spec = {
    .name = "packetcore._speedups.Stuffing",
    .basicsize = sizeof(Stuffing),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = stuffing_slots,
};

static PyType_Slot stuffing_decoder_slots[] = {
    {Py_tp_doc, (void *)stuffing_decoder_doc},
    {Py_tp_new, new_stuffing_decoder},
    {Py_tp_traverse, runs_traverse},
    {Py_tp_dealloc, runs_dealloc},
    {Py_tp_methods, runs_methods},
    {Py_tp_getset, runs_properties},
    {0, NULL},
};

static PyType_Spec stuffing_decoder_spec = {
    .name = "packetcore._speedups.StuffingDecoder",
    .basicsize = sizeof(RunDecoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = stuffing_decoder_slots,
};
