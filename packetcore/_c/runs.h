/* Streams that one byte cuts into runs, the twin of framings/_runs.py.

   Unlike `Decoder`, which judges a run as it comes, this looks for the flag first and judges a whole run:
   in place, where it lies in one chunk, and else where it was put together. */

/* Which bytes of a block are the one or the other: bit n stands for byte n. */
INLINE uint32_t
either_in(const uint8_t *block, uint8_t one, uint8_t other)
{
    uint32_t found = 0;
#ifdef USE_SSE2
    const __m128i ones = _mm_set1_epi8((char)one), others = _mm_set1_epi8((char)other);
    for (unsigned n = 0; n < BLOCK; n += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(block + n));
        __m128i equal = _mm_or_si128(_mm_cmpeq_epi8(bytes, ones), _mm_cmpeq_epi8(bytes, others));
        found |= (uint32_t)_mm_movemask_epi8(equal) << n;
    }
#else
    for (unsigned n = 0; n < BLOCK; n++) {
        found |= (uint32_t)(block[n] == one || block[n] == other) << n;
    }
#endif
    return found;
}

#ifdef USE_AVX2
FOR_AVX2 INLINE uint64_t
equal_in_avx2(const uint8_t *block, uint8_t byte)
{
    const __m256i bytes = _mm256_set1_epi8((char)byte);
    __m256i first = _mm256_loadu_si256((const __m256i *)block);
    __m256i second = _mm256_loadu_si256((const __m256i *)(block + BLOCK));
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(first, bytes));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(second, bytes));
    return low | (uint64_t)high << BLOCK;
}
#endif

typedef struct {
    uint8_t *bytes;
    size_t size;
    size_t room;
} Held;

/* Keep bytes, of which there are never more than `most`. The room grows by doubling up to that, so that what is
   moved stays in proportion to what comes. */
static int
hold(Held *held, const uint8_t *data, size_t size, size_t most)
{
    if (size > held->room - held->size) {
        size_t needed = held->size + size, room = 2 * held->room < most ? 2 * held->room : most;
        room = room < needed ? needed : room;
        uint8_t *bytes = PyMem_Realloc(held->bytes, room);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        held->bytes = bytes;
        held->room = room;
    }
    if (size) {
        memcpy(held->bytes + held->size, data, size);
        held->size += size;
    }
    return 0;
}

static void
let_go(Held *held)
{
    uint8_t *bytes = held->bytes;
    *held = (Held){0};
    PyMem_Free(bytes);
}

static int
give_frame(PyObject *events, PyObject *frame)
{
    int failed = frame == NULL ? -1 : PyList_Append(events, frame);
    Py_XDECREF(frame);
    return failed;
}

typedef struct RunDecoder RunDecoder;

/* Bytes between two flags, neither none nor more than the bound. */
typedef struct {
    const uint8_t *bytes;
    size_t size;
    bool is_escaped; /* there is an escape among them */
} WholeRun;

/* Give what a run is: 1 for a frame, 0 for none, -1 with an exception set. */
typedef int (*Judge)(RunDecoder *, PyObject *events, const WholeRun *run);

struct RunDecoder {
    PyObject_HEAD
    State *module;   /* kept alive by the type */
    PyObject *rules; /* a `Stuffing`, or NULL for COBS */
    Judge judge;
    bool is_reduced; /* COBS/R */
    bool opens;      /* a flag stands in front of each frame too */
    bool in_frame;   /* false before the first flag, where it opens, and after a TOO_LONG */
    bool shared;     /* the flag before the open run ended a frame, and may begin none */
    uint8_t flag;
    uint8_t escape; /* the flag itself, where there is none */
    size_t max_frame;
    size_t bound; /* the most bytes that the run of such a frame can have */
    Held run;     /* the open run, kept while it may become a frame */
    Refused dropped;
};

static int
give_noise(RunDecoder *self, PyObject *events)
{
    return self->dropped.size ? give_malformed(self->module, events, NOISE, &self->dropped) : 0;
}

static int
give_refused(RunDecoder *self, PyObject *events, int reason, const WholeRun *run)
{
    Refused refused = {0};
    count_bytes(&refused, run->bytes, run->size);
    return give_malformed(self->module, events, reason, &refused);
}

/* Refuse a run above the bound, of which `data` is what has come last: as much as proves it too long,
   and the rest as noise. */
static int
give_too_long(RunDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    Refused refused = {0};
    size_t more = self->bound + 1 - self->run.size;
    count_bytes(&refused, self->run.bytes, self->run.size);
    count_bytes(&refused, data, more);
    let_go(&self->run);
    count_bytes(&self->dropped, data + more, size - more);
    return give_malformed(self->module, events, TOO_LONG, &refused);
}

/* Bytes with no flag among them: keep them if a frame can still come of them. */
static int
hold_open(RunDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    if (!self->in_frame) {
        count_bytes(&self->dropped, data, size);
        return 0;
    }
    if (size <= self->bound - self->run.size) {
        return hold(&self->run, data, size, self->bound);
    }
    self->in_frame = false;
    return give_too_long(self, events, data, size);
}

/* Where the run ends that begins here: at a flag, NULL where there is none; and whether an escape, if
   that is another byte, stands in it. */
static const uint8_t *
find_flag_plain(const uint8_t *data, const uint8_t *end, uint8_t flag, uint8_t escape, bool *is_escaped)
{
    const uint8_t *found = memchr(data, flag, (size_t)(end - data));
    size_t size = (size_t)((found == NULL ? end : found) - data);
    *is_escaped = *is_escaped || (escape != flag && memchr(data, escape, size) != NULL);
    return found;
}

#ifdef USE_AVX2
FOR_AVX2 static const uint8_t *
find_flag_avx2(const uint8_t *data, const uint8_t *end, uint8_t flag, uint8_t escape, bool *is_escaped)
{
    uint64_t escapes = 0;
    for (; end - data >= WIDE; data += WIDE) {
        uint64_t flags = equal_in_avx2(data, flag), more = equal_in_avx2(data, escape);
        if (flags) {
            *is_escaped = escapes || (more & (_blsi_u64(flags) - 1));
            return data + _tzcnt_u64(flags);
        }
        escapes |= more;
    }
    *is_escaped = escapes;
    return find_flag_plain(data, end, flag, escape, is_escaped);
}
#endif

#ifdef USE_AVX512
FOR_AVX512 static const uint8_t *
find_flag_avx512(const uint8_t *data, const uint8_t *end, uint8_t flag, uint8_t escape, bool *is_escaped)
{
    const __m512i all_flags = _mm512_set1_epi8((char)flag), all_escapes = _mm512_set1_epi8((char)escape);
    uint64_t escapes = 0, flags = 0;
    for (; data < end; data += 64) {
        __mmask64 all = end - data < 64 ? UINT64_MAX >> (64 - (end - data)) : UINT64_MAX;
        __m512i bytes = _mm512_maskz_loadu_epi8(all, data);
        flags = _mm512_mask_cmpeq_epi8_mask(all, bytes, all_flags);
        uint64_t more = _mm512_mask_cmpeq_epi8_mask(all, bytes, all_escapes);
        if (flags) {
            escapes |= more & (_blsi_u64(flags) - 1);
            break;
        }
        escapes |= more;
    }
    *is_escaped = escapes;
    return flags ? data + _tzcnt_u64(flags) : NULL;
}
#endif

/* The best that this processor has; set once, to the same in every interpreter. */
static const uint8_t *(*find_flag)(const uint8_t *, const uint8_t *, uint8_t, uint8_t, bool *) = find_flag_plain;

/* A flag came: give what the open run is, of which `data` is the end. Gives what `Judge` does. */
static int
end_open_run(RunDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    if (!self->in_frame) {
        count_bytes(&self->dropped, data, size);
        self->in_frame = true;
        return give_noise(self, events);
    }
    if (size > self->bound - self->run.size) {
        return give_too_long(self, events, data, size) < 0 ? -1 : give_noise(self, events);
    }
    if (hold(&self->run, data, size, self->bound) < 0) {
        return -1;
    }
    Held held = self->run; /* what is made of it can run anything */
    self->run = (Held){0};
    bool is_escaped = self->escape != self->flag && memchr(held.bytes, self->escape, held.size) != NULL;
    WholeRun run = {held.bytes, held.size, is_escaped};
    int gave = self->judge(self, events, &run);
    let_go(&held);
    return gave;
}

/* The same where no run is open and all of it lies in `data`, up to a flag. */
static inline int
give_run(RunDecoder *self, PyObject *events, const WholeRun *run)
{
    return run->size <= self->bound ? self->judge(self, events, run) : end_open_run(self, events, run->bytes, run->size);
}

static int
feed_run_bytes(RunDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size, *flag;
    int gave;
    if (self->run.size || !self->in_frame) {
        flag = memchr(data, self->flag, size);
        if (flag == NULL) {
            return hold_open(self, events, data, size);
        }
        gave = end_open_run(self, events, data, (size_t)(flag - data));
        self->shared = gave > 0 && self->opens;
        data = flag + 1;
        if (gave < 0) {
            return -1;
        }
    }
    while (data < end) {
        if (*data == self->flag) { /* nothing between two flags is nothing */
            self->shared = false;
            data++;
            continue;
        }
        bool is_escaped = false;
        flag = find_flag(data, end, self->flag, self->escape, &is_escaped);
        if (flag == NULL) {
            return hold_open(self, events, data, (size_t)(end - data));
        }
        WholeRun run = {data, (size_t)(flag - data), is_escaped};
        gave = give_run(self, events, &run);
        self->shared = gave > 0 && self->opens;
        data = flag + 1;
        if (gave < 0) {
            return -1;
        }
    }
    return 0;
}

/* As new. */
static void
begin_anew(RunDecoder *self)
{
    self->in_frame = !self->opens;
    self->shared = false;
    self->dropped.size = 0;
    let_go(&self->run);
}

/* A feed that fails has lost what it was fed, so the decoder begins anew. */
static PyObject *
events_of_runs(RunDecoder *self, PyObject *events, int failed)
{
    if (failed) {
        begin_anew(self);
        Py_CLEAR(events);
    }
    return events;
}

static PyObject *
feed_runs(RunDecoder *self, PyObject *object)
{
    Py_buffer view;
    PyObject *events = PyList_New(0);
    if (events == NULL || get_bytes(object, &view) < 0) {
        Py_XDECREF(events);
        return NULL;
    }
    int failed = view.len ? feed_run_bytes(self, events, view.buf, (size_t)view.len) : 0;
    PyBuffer_Release(&view);
    return events_of_runs(self, events, failed);
}

static PyObject *
end_runs(RunDecoder *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    Refused refused = self->dropped;
    int reason = NOISE;
    if (self->run.size) {
        refused.size = 0;
        count_bytes(&refused, self->run.bytes, self->run.size);
        reason = TRUNCATED;
    }
    begin_anew(self);
    return events_of_runs(self, events, refused.size ? give_malformed(self->module, events, reason, &refused) : 0);
}

static PyObject *
time_out_runs(RunDecoder *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *events = PyList_New(0);
    if (events == NULL || (self->in_frame && !(self->shared && self->run.size))) {
        return events;
    }
    if (self->run.size + self->dropped.size == 0) {
        return events;
    }
    self->in_frame = self->shared = false;
    count_bytes(&self->dropped, self->run.bytes, self->run.size);
    let_go(&self->run);
    return events_of_runs(self, events, give_noise(self, events));
}

static PyObject *
runs_pending(RunDecoder *self, void *Py_UNUSED(closure))
{
    uint64_t dropped = self->dropped.size < self->bound ? self->dropped.size : self->bound;
    return PyLong_FromUnsignedLongLong(self->in_frame ? self->run.size : dropped);
}

static PyObject *
runs_sizeof(RunDecoder *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t((size_t)Py_TYPE(self)->tp_basicsize + self->run.room);
}

static int
runs_traverse(RunDecoder *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->rules);
    return 0;
}

static void
runs_dealloc(RunDecoder *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, runs_dealloc)
    let_go(&self->run);
    Py_XDECREF(self->rules);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* The most that `max_frame` can be: far above what fits into memory, and nothing made of it
   overflows. */
static const size_t MOST_FRAME = PY_SSIZE_T_MAX / 8;

/* A `max_frame`, which the framing has checked; 0 with an exception set. */
static size_t
max_frame_of(PyObject *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && PyErr_Occurred()) {
        return 0;
    }
    if (!overflow && value < 1) {
        PyErr_Format(PyExc_ValueError, "max_frame=%S is below 1", number);
        return 0;
    }
    return overflow || (unsigned long long)value > MOST_FRAME ? MOST_FRAME : (size_t)value;
}

static RunDecoder *
new_runs(PyTypeObject *type, uint8_t flag, uint8_t escape, size_t max_frame, size_t bound, bool opens, Judge judge)
{
    State *state = PyType_GetModuleState(type);
    RunDecoder *self = state == NULL ? NULL : (RunDecoder *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = state;
        self->flag = flag;
        self->escape = escape;
        self->max_frame = max_frame;
        self->bound = bound;
        self->opens = opens;
        self->in_frame = !opens;
        self->judge = judge;
    }
    return self;
}

PyDoc_STRVAR(runs_sizeof_doc,
"__sizeof__($self, /)\n--\n\n"
"Bytes of memory that the decoder takes, what it holds included.");

static PyMethodDef runs_methods[] = {
    {"feed", (PyCFunction)feed_runs, METH_O, feed_doc},
    {"feed_eof", (PyCFunction)end_runs, METH_NOARGS, feed_eof_doc},
    {"feed_timeout", (PyCFunction)time_out_runs, METH_NOARGS, feed_timeout_doc},
    {"__sizeof__", (PyCFunction)runs_sizeof, METH_NOARGS, runs_sizeof_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef runs_properties[] = {
    {"pending", (getter)runs_pending, NULL, "Bytes fed that no event speaks for yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
