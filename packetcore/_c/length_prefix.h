/* Frames with their length in front, the twin of framings/_prefix.py. */

enum { MOST_VARINT = 10 };
static const long long MOST_ADJUST = INT64_MAX / 2; /* far above any frame, and nothing made of it overflows */

typedef struct {
    PyObject_HEAD
    State *module;   /* kept alive by the type */
    PyObject *magic; /* bytes, empty without one */
    size_t before;   /* how many bytes stand before the length field */
    size_t size;     /* of the length field; 0 for a varint */
    int64_t adjust;  /* what is added to it, a field of so many bytes that counts itself included */
    size_t max_frame;
    size_t bound; /* the most bytes that are held */
    bool is_little;
    bool counts_itself; /* a varint, its own bytes */
    bool strip;
    bool is_lost; /* nobody can tell any more where a frame begins */
    size_t need;  /* how many bytes must be held for `cut_frames` to find anything new */
    Held held;
    Refused dropped;
} LengthDecoder;

/* What a length field says. */
typedef struct {
    uint64_t following; /* bytes behind it; as many as there are numbers, if it says more */
    bool is_negative;
    size_t head; /* how many bytes there are up to its end; 0 if it is incomplete */
} Length;

static Length
length_of(const LengthDecoder *self, const uint8_t *frame, size_t size)
{
    uint64_t value = 0;
    int64_t adjust = self->adjust;
    size_t head = self->before + self->size;
    if (self->size) {
        if (size < head) {
            return (Length){0};
        }
        const uint8_t *field = frame + self->before;
        for (size_t n = 0; n < self->size; n++) {
            value = value << 8 | field[self->is_little ? self->size - 1 - n : n];
        }
    }
    else {
        for (unsigned shift = 0;; shift += 7) {
            if (head >= size) {
                return (Length){0};
            }
            uint8_t byte = frame[head++];
            if (shift == 63 && byte > 1) { /* 64 bits at most, in 10 bytes */
                return (Length){.is_negative = true, .head = head};
            }
            value |= (uint64_t)(byte & 0x7F) << shift;
            if (byte < 0x80) {
                break;
            }
        }
        adjust -= self->counts_itself ? (int64_t)(head - self->before) : 0;
    }
    if (adjust < 0 && value < (uint64_t)-adjust) {
        return (Length){.is_negative = true, .head = head};
    }
    uint64_t following = value + (uint64_t)adjust;
    if (adjust > 0 && following < value) {
        following = UINT64_MAX;
    }
    return (Length){.following = following, .head = head};
}

static int
give_dropped(LengthDecoder *self, PyObject *events)
{
    return self->dropped.size ? give_malformed(self->module, events, NOISE, &self->dropped) : 0;
}

/* How many bytes come before the next magic, or before what may be the beginning of one. */
static size_t
before_magic(const LengthDecoder *self, const uint8_t *data, size_t size)
{
    const uint8_t *magic = (const uint8_t *)PyBytes_AS_STRING(self->magic), *end = data + size, *at = data;
    size_t length = (size_t)PyBytes_GET_SIZE(self->magic);
    while ((at = memchr(at, magic[0], (size_t)(end - at))) != NULL) {
        size_t left = (size_t)(end - at);
        if (memcmp(at, magic, left < length ? left : length) == 0) {
            return (size_t)(at - data);
        }
        at++;
    }
    return size;
}

/* Give what is complete, and where in the data the rest begins, -1 with an exception set; and set `need`
   for that, or `is_lost`. */
static Py_ssize_t
cut_frames(LengthDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    size_t at = 0, magic_size = (size_t)PyBytes_GET_SIZE(self->magic);
    while (at < size) {
        if (magic_size) {
            size_t noise = before_magic(self, data + at, size - at);
            count_bytes(&self->dropped, data + at, noise);
            at += noise;
            if (size - at < magic_size) {
                self->need = size - at + 1;
                break;
            }
            if (give_dropped(self, events) < 0) {
                return -1;
            }
        }
        const uint8_t *frame = data + at;
        size_t left = size - at;
        Length length = length_of(self, frame, left);
        if (length.head == 0) {
            self->need = self->size ? self->before + self->size : (self->before > left ? self->before : left) + 1;
            break;
        }
        size_t most = self->strip ? self->max_frame : self->max_frame - (length.head < self->max_frame ? length.head : self->max_frame);
        if (length.is_negative || length.following > most || (!self->strip && length.head > self->max_frame)) {
            Refused refused = {0};
            count_bytes(&refused, frame, length.head);
            at += length.head;
            self->is_lost = magic_size == 0;
            if (give_malformed(self->module, events, length.is_negative ? BAD_LENGTH : TOO_LONG, &refused) < 0) {
                return -1;
            }
            if (magic_size) {
                continue;
            }
            break;
        }
        size_t following = (size_t)length.following;
        if (following > left - length.head) {
            self->need = length.head + following;
            break;
        }
        size_t skipped = self->strip ? length.head : 0;
        PyObject *found = PyBytes_FromStringAndSize((const char *)frame + skipped, (Py_ssize_t)(length.head + following - skipped));
        if (give_frame(events, found) < 0) {
            return -1;
        }
        at += length.head + following;
    }
    return (Py_ssize_t)at;
}

/* Go on with what is held, as far as the bytes that came now are needed for it. Gives how many were
   taken, -1 with an exception set. */
static Py_ssize_t
feed_held(LengthDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    size_t taken = 0;
    while (self->held.size && taken < size) {
        size_t want = self->need > self->held.size ? self->need - self->held.size : 1;
        want = want < size - taken ? want : size - taken;
        if (hold(&self->held, data + taken, want, self->bound) < 0) {
            return -1;
        }
        taken += want;
        if (self->held.size < self->need) {
            break;
        }
        Held held = self->held; /* what is made of it can run anything */
        self->held = (Held){0};
        Py_ssize_t at = cut_frames(self, events, held.bytes, held.size);
        size_t rest = at < 0 ? 0 : held.size - (size_t)at;
        int failed = at < 0 ? -1 : 0;
        if (!failed && rest <= taken) {
            taken -= rest; /* it is the end of what came now */
        }
        else if (!failed && self->is_lost) {
            count_bytes(&self->dropped, held.bytes + at, rest);
        }
        else if (!failed) {
            failed = hold(&self->held, held.bytes + at, rest, self->bound);
        }
        let_go(&held);
        if (failed) {
            return -1;
        }
    }
    return (Py_ssize_t)taken;
}

static int
feed_length_bytes(LengthDecoder *self, PyObject *events, const uint8_t *data, size_t size)
{
    Py_ssize_t at = feed_held(self, events, data, size);
    if (at >= 0 && !self->is_lost && !self->held.size) {
        Py_ssize_t more = cut_frames(self, events, data + at, size - (size_t)at);
        at = more < 0 ? -1 : at + more;
    }
    if (at < 0) {
        return -1;
    }
    if (self->is_lost) {
        count_bytes(&self->dropped, data + at, size - (size_t)at);
        return 0;
    }
    return hold(&self->held, data + at, size - (size_t)at, self->bound);
}

/* All that is pending, if there is noise in it: no frame is begun then. */
static int
give_all_noise(LengthDecoder *self, PyObject *events)
{
    if (self->dropped.size && self->held.size) {
        count_bytes(&self->dropped, self->held.bytes, self->held.size);
        let_go(&self->held);
    }
    return give_dropped(self, events);
}

static PyObject *
events_of_lengths(LengthDecoder *self, PyObject *events, int failed)
{
    if (failed) {
        self->dropped.size = 0;
        self->is_lost = false;
        let_go(&self->held);
        Py_CLEAR(events);
    }
    return events;
}

static PyObject *
feed_lengths(LengthDecoder *self, PyObject *object)
{
    Py_buffer view;
    PyObject *events = PyList_New(0);
    if (events == NULL || get_bytes(object, &view) < 0) {
        Py_XDECREF(events);
        return NULL;
    }
    int failed = view.len ? feed_length_bytes(self, events, view.buf, (size_t)view.len) : 0;
    PyBuffer_Release(&view);
    return events_of_lengths(self, events, failed);
}

static PyObject *
end_lengths(LengthDecoder *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    self->is_lost = false;
    int failed = give_all_noise(self, events);
    if (!failed && self->held.size) {
        Refused refused = {0};
        count_bytes(&refused, self->held.bytes, self->held.size);
        let_go(&self->held);
        failed = give_malformed(self->module, events, TRUNCATED, &refused);
    }
    return events_of_lengths(self, events, failed);
}

static PyObject *
time_out_lengths(LengthDecoder *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    if (self->held.size < (size_t)PyBytes_GET_SIZE(self->magic)) {
        count_bytes(&self->dropped, self->held.bytes, self->held.size);
        let_go(&self->held);
    }
    return events_of_lengths(self, events, give_all_noise(self, events));
}

static PyObject *
lengths_pending(LengthDecoder *self, void *Py_UNUSED(closure))
{
    uint64_t pending = self->dropped.size + self->held.size;
    return PyLong_FromUnsignedLongLong(pending < self->bound ? pending : self->bound);
}

static PyObject *
lengths_sizeof(LengthDecoder *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t((size_t)Py_TYPE(self)->tp_basicsize + self->held.room);
}

PyDoc_STRVAR(length_decoder_doc,
"LengthPrefixDecoder(size, byteorder, before, adjust, counts_itself, strip, magic, max_frame)\n--\n\n"
"Reads the length, then waits for so many bytes.");

static PyObject *
new_length_decoder(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "byteorder", "before", "adjust", "counts_itself", "strip", "magic", "max_frame", NULL};
    PyObject *size, *magic, *number;
    const char *byteorder;
    Py_ssize_t before;
    long long adjust;
    int counts_itself, strip;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OsnLppSO:LengthPrefixDecoder", names, &size, &byteorder, &before,
                                     &adjust, &counts_itself, &strip, &magic, &number)) {
        return NULL;
    }
    Py_ssize_t bytes = PyUnicode_Check(size) ? 0 : PyLong_AsSsize_t(size);
    size_t max_frame = bytes == -1 && PyErr_Occurred() ? 0 : max_frame_of(number);
    if (max_frame == 0) {
        return NULL;
    }
    if (bytes < 0 || bytes > 8 || before < 0 || (size_t)before > MOST_FRAME) {
        PyErr_Format(PyExc_ValueError, "no length field of %zd bytes behind %zd", bytes, before);
        return NULL;
    }
    if (adjust < -MOST_ADJUST || adjust > MOST_ADJUST) {
        PyErr_Format(PyExc_ValueError, "adjust=%lld is out of range %lld to %lld", adjust, -MOST_ADJUST, MOST_ADJUST);
        return NULL;
    }
    State *state = PyType_GetModuleState(type);
    LengthDecoder *self = state == NULL ? NULL : (LengthDecoder *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = state;
    self->magic = Py_NewRef(magic);
    self->before = (size_t)before;
    self->size = (size_t)bytes;
    self->adjust = adjust - (counts_itself ? bytes : 0);
    self->counts_itself = counts_itself;
    self->max_frame = max_frame;
    self->bound = self->before + (bytes ? self->size : MOST_VARINT) + max_frame;
    self->is_little = strcmp(byteorder, "little") == 0;
    self->strip = strip;
    return (PyObject *)self;
}

static void
lengths_dealloc(LengthDecoder *self)
{
    PyTypeObject *type = Py_TYPE(self);
    let_go(&self->held);
    Py_XDECREF(self->magic);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef lengths_methods[] = {
    {"feed", (PyCFunction)feed_lengths, METH_O, feed_doc},
    {"feed_eof", (PyCFunction)end_lengths, METH_NOARGS, feed_eof_doc},
    {"feed_timeout", (PyCFunction)time_out_lengths, METH_NOARGS, feed_timeout_doc},
    {"__sizeof__", (PyCFunction)lengths_sizeof, METH_NOARGS, runs_sizeof_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lengths_properties[] = {
    {"pending", (getter)lengths_pending, NULL, "Bytes fed that no event speaks for yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot length_decoder_slots[] = {
    {Py_tp_doc, (void *)length_decoder_doc},
    {Py_tp_new, new_length_decoder},
    {Py_tp_dealloc, lengths_dealloc},
    {Py_tp_methods, lengths_methods},
    {Py_tp_getset, lengths_properties},
    {0, NULL},
};

static PyType_Spec length_decoder_spec = {
    .name = "packetcore._speedups.LengthPrefixDecoder",
    .basicsize = sizeof(LengthDecoder),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = length_decoder_slots,
};
