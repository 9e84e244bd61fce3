/* `Decoder`, the twin of that in _decoder.py.

   A Python decoder keeps the raw bytes of the open run and judges them when a flag comes. This one
   judges them as they come and writes the payload, unescaped, straight into the bytes object that
   the packet will hold; of the raw bytes it keeps their number and the first 64. */

typedef struct {
    PyObject_HEAD
    uint64_t max_payload;
    uint64_t bound; /* a frame of nothing but escapes */
    bool in_frame;  /* false before the first flag and after a TOO_LONG */
    bool shares_flag; /* the flag before the open run ended a packet */
    Run run;
    Refused seen; /* bytes of the open run, or outside a frame, fed before this chunk */
} Decoder;

static void
forget(Decoder *self)
{
    PyObject *payload = self->run.payload;
    self->run = (Run){0};
    self->seen.size = 0;
    Py_XDECREF(payload);
}

/* Refuse all that is remembered. */
static int
refuse(Decoder *self, State *state, PyObject *events, int reason)
{
    Refused seen = self->seen;
    forget(self);
    return give_malformed(state, events, reason, &seen);
}

/* Give a packet. Takes over the reference to the payload. */
static int
deliver(State *state, PyObject *events, const uint8_t *header, PyObject *payload)
{
    /* The header's widths keep the fields in range. */
    PyObject *packet =
        new_packet(state->packet, header[0] << 8 | header[1], payload, header[2], header[3] << 8 | header[4]);
    if (packet == NULL) {
        return -1;
    }
    int failed = PyList_Append(events, packet);
    Py_DECREF(packet);
    return failed;
}

/* Take the open run as far as `data` has it. Returns the end of what it took: the flag that
   ends the run, the end, or where the run proved too long; NULL with an exception set. */
static const uint8_t *
take(Decoder *self, State *state, PyObject *events, const uint8_t *data, const uint8_t *end)
{
    Run *run = &self->run;
    const uint8_t *begin = data;
    size_t small = self->seen.size ? 0 : small_run(data, end, self->max_payload);
    if (small) {
        PyObject *payload = PyBytes_FromStringAndSize((const char *)data + HEADER_SIZE, (Py_ssize_t)small - HEADER_SIZE);
        return payload == NULL || deliver(state, events, data, payload) < 0 ? NULL : data + small;
    }
    uint64_t left = self->bound + 1 - self->seen.size; /* so many bytes more prove it too long */
    const uint8_t *limit = (size_t)(end - data) < left ? end : data + left;
    bool too_long = false;
    if (run->header_size < HEADER_SIZE && !run->is_bad) {
        data = read_header(run, data, limit);
        too_long = run->header_size == HEADER_SIZE && !run->is_bad && length_in(run->header) > self->max_payload;
    }
    if (!too_long) {
        if (run->header_size == HEADER_SIZE && !run->is_bad) {
            if (!run->is_mismatch && make_room(run, (size_t)(limit - data)) < 0) {
                return NULL;
            }
            data = read_payload(run, data, limit);
        }
        if (run->is_bad && data < limit) {
            const uint8_t *flag = memchr(data, FLAG, (size_t)(limit - data));
            data = flag ? flag : limit;
        }
        too_long = (uint64_t)(data - begin) == left;
    }
    if (!too_long && data < end && !run->is_bad && !run->in_escape && !run->is_mismatch &&
        run->header_size == HEADER_SIZE && run->filled == length_in(run->header)) {
        PyObject *payload = run->payload;
        run->payload = NULL;
        int failed = deliver(state, events, run->header, payload);
        forget(self);
        return failed ? NULL : data;
    }
    count_bytes(&self->seen, begin, (size_t)(data - begin));
    int reason = LENGTH_MISMATCH;
    if (too_long) {
        reason = TOO_LONG;
        self->in_frame = false;
    }
    else if (data == end) {
        return data;
    }
    else if (run->is_bad || run->in_escape) {
        reason = BAD_ESCAPE;
    }
    else if (run->header_size < HEADER_SIZE) {
        reason = TOO_SHORT;
    }
    return refuse(self, state, events, reason) < 0 ? NULL : data;
}

static int
feed_bytes(Decoder *self, State *state, PyObject *events, const uint8_t *data, const uint8_t *end)
{
    const uint8_t *begin = data;
    while (data < end) {
        if (self->in_frame && (*data != FLAG || self->seen.size)) { /* nothing between two flags is nothing */
            data = take(self, state, events, data, end);
            if (data == NULL) {
                return -1;
            }
        }
        if (!self->in_frame && data < end) {
            const uint8_t *flag = memchr(data, FLAG, (size_t)(end - data));
            flag = flag ? flag : end;
            count_bytes(&self->seen, data, (size_t)(flag - data));
            data = flag;
        }
        if (data == end) {
            break;
        }
        if (!self->in_frame && self->seen.size && refuse(self, state, events, NOISE) < 0) {
            return -1;
        }
        self->in_frame = true;
        data++;
    }
    if (self->in_frame && self->seen.size < (uint64_t)(end - begin)) { /* the open run began in this chunk, behind a flag */
        const uint8_t *open = end - self->seen.size;
        Py_ssize_t count = PyList_GET_SIZE(events);
        bool ended_run = open - 1 == begin || open[-2] != FLAG;
        self->shares_flag = ended_run && count && Py_TYPE(PyList_GET_ITEM(events, count - 1)) == state->packet;
    }
    return 0;
}

/* A feed that fails has lost what it was fed, so the decoder begins anew. */
static PyObject *
give_up(Decoder *self, PyObject *events)
{
    forget(self);
    self->in_frame = false;
    Py_XDECREF(events);
    return NULL;
}

PyDoc_STRVAR(feed_doc,
"feed($self, data, /)\n--\n\n"
"Take the next bytes of the stream and give what they complete.");

static PyObject *
feed_object(Decoder *self, State *state, PyObject *object)
{
    Py_buffer view;
    PyObject *events = self->bound == 0 && not_set_up(self) < 0 ? NULL : PyList_New(0);
    if (events == NULL || get_bytes(object, &view) < 0) {
        Py_XDECREF(events);
        return NULL;
    }
    /* Untracked while it grows: the garbage collector, called by each packet's allocation in
       its turn, has no need to walk it again and again. */
    PyObject_GC_UnTrack(events);
    const uint8_t *data = view.buf;
    int failed = view.len ? feed_bytes(self, state, events, data, data + view.len) : 0;
    PyBuffer_Release(&view);
    if (failed) {
        return give_up(self, events);
    }
    PyObject_GC_Track(events);
    return events;
}

static PyObject *
feed(Decoder *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "feed() takes one positional argument, data");
        return NULL;
    }
    return feed_object(self, PyType_GetModuleState(type), args[0]);
}

PyDoc_STRVAR(feed_eof_doc,
"feed_eof($self, /)\n--\n\n"
"Say that the stream has ended. The decoder is then as new.");

static PyObject *
feed_eof(Decoder *self, PyTypeObject *type, PyObject *const *Py_UNUSED(args), Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "feed_eof() takes no arguments");
        return NULL;
    }
    PyObject *events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    int reason = self->in_frame ? TRUNCATED : NOISE;
    self->in_frame = false;
    if (self->seen.size && refuse(self, PyType_GetModuleState(type), events, reason) < 0) {
        return give_up(self, events);
    }
    return events;
}

PyDoc_STRVAR(feed_timeout_doc,
"feed_timeout($self, /)\n--\n\n"
"Say that what is pending has been so for too long: give it as NOISE, unless it is a frame begun.");

static PyObject *
feed_timeout(Decoder *self, PyTypeObject *type, PyObject *const *Py_UNUSED(args), Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "feed_timeout() takes no arguments");
        return NULL;
    }
    PyObject *events = PyList_New(0);
    if (events == NULL || (self->in_frame && !self->shares_flag)) {
        return events;
    }
    self->in_frame = false;
    if (self->seen.size && refuse(self, PyType_GetModuleState(type), events, NOISE) < 0) {
        return give_up(self, events);
    }
    return events;
}

PyDoc_STRVAR(sizeof_doc,
"__sizeof__($self, /)\n--\n\n"
"Bytes of memory that the decoder takes, the payload under way included.");

static PyObject *
decoder_sizeof(Decoder *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *payload = self->run.payload;
    return PyLong_FromSsize_t(Py_TYPE(self)->tp_basicsize + (payload ? PyBytes_GET_SIZE(payload) : 0));
}

static PyObject *
decoder_pending(Decoder *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->seen.size < self->bound ? self->seen.size : self->bound);
}

static int
decoder_init(Decoder *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_payload", NULL};
    PyObject *argument = NULL;
    long long max_payload = DEFAULT_MAX_PAYLOAD;
    int overflow = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Decoder", names, &argument)) {
        return -1;
    }
    if (argument != NULL) {
        max_payload = PyLong_AsLongLongAndOverflow(argument, &overflow);
        if (max_payload == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    if (overflow || max_payload < 0 || max_payload > MAX_LENGTH) {
        PyErr_Format(PyExc_ValueError, "max_payload=%S is out of range 0 to %lu", argument, (unsigned long)MAX_LENGTH);
        return -1;
    }
    forget(self);
    self->in_frame = false;
    self->max_payload = (uint64_t)max_payload;
    self->bound = 2 * (self->max_payload + HEADER_SIZE);
    return 0;
}

static void
decoder_dealloc(Decoder *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->run.payload);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef decoder_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))feed, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, feed_doc},
    {"feed_eof", (PyCFunction)(void (*)(void))feed_eof, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, feed_eof_doc},
    {"feed_timeout", (PyCFunction)(void (*)(void))feed_timeout, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     feed_timeout_doc},
    {"__sizeof__", (PyCFunction)decoder_sizeof, METH_NOARGS, sizeof_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef decoder_properties[] = {
    {"pending", (getter)decoder_pending, NULL, "Bytes fed that neither an event nor a flag speaks for yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(decoder_doc,
"Decoder(*, max_payload=1048576)\n--\n\n"
"Takes the bytes of one stream, however they are cut, and gives what they hold.");

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, (void *)decoder_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, decoder_init},
    {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_methods, decoder_methods},
    {Py_tp_getset, decoder_properties},
    {0, NULL},
};

static PyType_Spec decoder_spec = {
    .name = "packetcore._speedups.Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = decoder_slots,
};
