/* COBS and COBS/R, the twins of those in framings/_zeros.py. */

enum { FULL_CODE = 0xFF, FULL_BLOCK = FULL_CODE - 1 };

/* Write the blocks of a frame, each with its code. Gives the end, and where the last code stands. */
static uint8_t *
write_blocks(uint8_t *out, const uint8_t *data, size_t size, uint8_t **last)
{
    const uint8_t *end = data + size;
    for (;;) {
        size_t most = (size_t)(end - data) < FULL_BLOCK ? (size_t)(end - data) : FULL_BLOCK;
        const uint8_t *zero = most ? memchr(data, 0, most) : NULL;
        size_t plain = zero ? (size_t)(zero - data) : most;
        *last = out;
        *out++ = (uint8_t)(plain + 1);
        if (plain) {
            memcpy(out, data, plain);
            out += plain;
            data += plain;
        }
        if (zero) {
            data++;
        }
        else if (data == end) { /* an end behind a full block needs no code of its own */
            return out;
        }
    }
}

static PyObject *
encode_cobs_as(PyObject *frame, bool is_reduced)
{
    Py_buffer view;
    if (get_frame(frame, &view) < 0) {
        return NULL;
    }
    size_t size = (size_t)view.len, most = size + size / FULL_BLOCK + 2;
    PyObject *sent = most > (size_t)PY_SSIZE_T_MAX ? PyErr_NoMemory() : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)most);
    if (sent != NULL) {
        uint8_t *begin = (uint8_t *)PyBytes_AS_STRING(sent), *last;
        uint8_t *out = write_blocks(begin, bytes_of(&view), size, &last);
        if (is_reduced && out - last > 1 && out[-1] >= *last) {
            *last = *--out;
        }
        *out++ = 0;
        if ((size_t)(out - begin) < most) {
            _PyBytes_Resize(&sent, out - begin);
        }
    }
    PyBuffer_Release(&view);
    return sent;
}

PyDoc_STRVAR(encode_cobs_doc, "encode_cobs($module, frame, /)\n--\n\nA frame as COBS, and a zero.");

static PyObject *
encode_cobs(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return encode_cobs_as(frame, false);
}

PyDoc_STRVAR(encode_cobsr_doc, "encode_cobsr($module, frame, /)\n--\n\nA frame as COBS/R, and a zero.");

static PyObject *
encode_cobsr(PyObject *Py_UNUSED(module), PyObject *frame)
{
    return encode_cobs_as(frame, true);
}

static int
judge_zeros(RunDecoder *self, PyObject *events, const WholeRun *whole)
{
    const uint8_t *run = whole->bytes;
    size_t size = whole->size;
    /* How long the frame is, before room is made for it. */
    size_t at = 0, last = 0, full = 0;
    size_t length = 0;
    while (at < size) {
        last = at;
        full += run[at] == FULL_CODE;
        length += run[at]; /* its bytes, and a zero */
        at += run[at];
    }
    bool is_cut = at > size; /* the last code is the last byte, or wrong */
    if (is_cut && !self->is_reduced) {
        return give_refused(self, events, BAD_LENGTH, whole);
    }
    /* No zero stands behind a full block, nor at the end. */
    length = is_cut ? length - full + (run[last] == FULL_CODE) - (at - size) : length - full - (run[last] != FULL_CODE);
    if (length > self->max_frame) {
        return give_refused(self, events, TOO_LONG, whole);
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (frame == NULL) {
        return -1;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    if (full == 0) { /* each code but the first stands where its zero was */
        memcpy(out, run + 1, size - 1);
        for (at = run[0]; at < size; at += run[at]) {
            out[at - 1] = 0;
        }
        if (is_cut) {
            out[size - 1] = run[last];
        }
        return give_frame(events, frame) < 0 ? -1 : 1;
    }
    for (at = 0; at < last; at += run[at]) {
        size_t plain = (size_t)run[at] - 1;
        memcpy(out, run + at + 1, plain);
        out += plain;
        if (run[at] != FULL_CODE) {
            *out++ = 0;
        }
    }
    memcpy(out, run + last + 1, size - last - 1);
    if (is_cut) {
        out[size - last - 1] = run[last];
    }
    return give_frame(events, frame) < 0 ? -1 : 1;
}

PyDoc_STRVAR(cobs_decoder_doc,
"COBSDecoder(max_frame, is_reduced=False)\n--\n\n"
"Runs between zeros, as COBS or COBS/R.");

static PyObject *
new_cobs_decoder(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_frame", "is_reduced", NULL};
    PyObject *number;
    int is_reduced = false;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|p:COBSDecoder", names, &number, &is_reduced)) {
        return NULL;
    }
    size_t max_frame = max_frame_of(number);
    if (max_frame == 0) {
        return NULL;
    }
    RunDecoder *self = new_runs(type, 0, 0, max_frame, max_frame + max_frame / FULL_BLOCK + 1, false, judge_zeros);
    if (self != NULL) {
        self->is_reduced = is_reduced;
    }
    return (PyObject *)self;
}

static PyType_Slot cobs_decoder_slots[] = {
    {Py_tp_doc, (void *)cobs_decoder_doc},
    {Py_tp_new, new_cobs_decoder},
    {Py_tp_traverse, runs_traverse},
    {Py_tp_dealloc, runs_dealloc},
    {Py_tp_methods, runs_methods},
    {Py_tp_getset, runs_properties},
    {0, NULL},
};

static PyType_Spec cobs_decoder_spec = {
    .name = "packetcore._speedups.COBSDecoder",
    .basicsize = sizeof(RunDecoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = cobs_decoder_slots,
};
