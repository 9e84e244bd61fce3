/* `Output`, the twin of that in _output.py. */

typedef struct {
    PyObject_HEAD
    PyObject *encode; /* NULL for the function above, of what was checked */
    PyObject *frames; /* NULL while there are none: most connections are idle */
    uint64_t max_payload;
    bool checks; /* what is sent; else `encode` does */
    Py_ssize_t size;
    uint64_t packets;
    uint64_t bytes;
    uint64_t taken;
} Output;

PyDoc_STRVAR(put_doc,
"put($self, packet, /)\n--\n\n"
"Add a packet's frame. Gives how many bytes wait now.");

/* See that something can be sent. */
static int
check(Output *self, State *state, PyObject *packet)
{
    bool is_sound = Py_TYPE(packet) == state->packet &&
                    (uint64_t)PyBytes_GET_SIZE(((Packet *)packet)->payload) <= self->max_payload;
    if (is_sound || !self->checks) {
        return 0;
    }
    PyObject *check = import_from("packetcore._output", "check_packet");
    PyObject *nothing =
        check == NULL ? NULL : PyObject_CallFunction(check, "OK", packet, (unsigned long long)self->max_payload);
    Py_XDECREF(check);
    return done(nothing);
}

/* A packet's frame; and a list to put it into, so that `add` runs nobody's code. */
static PyObject *
prepare(Output *self, State *state, PyObject *packet)
{
    if (check(self, state, packet) < 0) {
        return NULL;
    }
    PyObject *frame = self->encode != NULL ? PyObject_CallOneArg(self->encode, packet) : encode_with(state, packet);
    if (frame != NULL && !PyBytes_Check(frame)) {
        PyErr_Format(PyExc_TypeError, "encode() must give bytes, not %.200s", Py_TYPE(frame)->tp_name);
        Py_CLEAR(frame);
    }
    if (frame != NULL && self->frames == NULL) {
        PyObject *frames = PyList_New(0); /* may run the garbage collector, and that anything */
        if (frames == NULL) {
            Py_CLEAR(frame);
        }
        else if (self->frames == NULL) {
            self->frames = frames;
        }
        else {
            Py_DECREF(frames);
        }
    }
    return frame;
}

/* See that sizes can be added up: the same bytes can be put again and again. */
static int
check_sum(Py_ssize_t size, Py_ssize_t more)
{
    if (more > PY_SSIZE_T_MAX - size) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Add a frame that `prepare` gave, and take it over. Gives how many bytes wait now, -1 with an
   exception set. */
static Py_ssize_t
add(Output *self, PyObject *frame)
{
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    int failed = check_sum(self->size, size) < 0 || PyList_Append(self->frames, frame) < 0;
    Py_DECREF(frame);
    if (failed) {
        return -1;
    }
    self->packets++;
    self->bytes += (uint64_t)size;
    self->size += size;
    return self->size;
}

static PyObject *
output_put(Output *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "put() takes one positional argument, packet");
        return NULL;
    }
    PyObject *frame = prepare(self, PyType_GetModuleState(type), args[0]);
    Py_ssize_t size = frame == NULL ? -1 : add(self, frame);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(put_all_doc,
"put_all($self, packets, /)\n--\n\n"
"Add the frames of several packets, with none of others between them.");

static PyObject *
output_put_all(Output *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    if (given != 1 || names != NULL || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "put_all() takes one positional argument, a list of packets");
        return NULL;
    }
    State *state = PyType_GetModuleState(type);
    PyObject *packets = PyList_AsTuple(args[0]); /* which nobody changes meanwhile */
    PyObject *frames = packets == NULL ? NULL : PyList_New(0);
    Py_ssize_t size = 0, count = packets == NULL ? 0 : PyTuple_GET_SIZE(packets);
    for (Py_ssize_t index = 0; frames != NULL && index < count; index++) { /* before anything is encoded */
        if (check(self, state, PyTuple_GET_ITEM(packets, index)) < 0) {
            Py_CLEAR(frames);
        }
    }
    for (Py_ssize_t index = 0; frames != NULL && index < count; index++) {
        PyObject *frame = prepare(self, state, PyTuple_GET_ITEM(packets, index));
        if (frame == NULL || check_sum(size, PyBytes_GET_SIZE(frame)) < 0 || PyList_Append(frames, frame) < 0) {
            Py_CLEAR(frames);
        }
        size += frames == NULL ? 0 : PyBytes_GET_SIZE(frame);
        Py_XDECREF(frame);
    }
    Py_XDECREF(packets);
    if (frames == NULL || check_sum(self->size, size) < 0) {
        Py_XDECREF(frames);
        return NULL;
    }
    /* From here on nobody else's code runs. */
    Py_ssize_t added = PyList_GET_SIZE(frames);
    if (self->frames == NULL) {
        self->frames = frames;
    }
    else {
        Py_ssize_t end = PyList_GET_SIZE(self->frames);
        int failed = PyList_SetSlice(self->frames, end, end, frames);
        Py_DECREF(frames);
        if (failed) {
            return NULL;
        }
    }
    self->packets += (uint64_t)added;
    self->bytes += (uint64_t)size;
    self->size += size;
    return PyLong_FromSsize_t(self->size);
}

PyDoc_STRVAR(take_doc,
"take($self, /)\n--\n\n"
"Take what waits, each packet's frame by itself.");

static PyObject *
output_take(Output *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *frames = self->frames;
    self->frames = NULL;
    self->taken += (uint64_t)self->size;
    self->size = 0;
    return frames == NULL ? PyList_New(0) : frames;
}

PyDoc_STRVAR(join_doc,
"join($self, /)\n--\n\n"
"Take what waits as one.");

static PyObject *
output_join(Output *self, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t count = self->frames == NULL ? 0 : PyList_GET_SIZE(self->frames);
    PyObject *joined;
    if (count == 1) {
        joined = Py_NewRef(PyList_GET_ITEM(self->frames, 0));
    }
    else {
        joined = PyBytes_FromStringAndSize(NULL, self->size);
        if (joined == NULL) {
            return NULL;
        }
        char *out = PyBytes_AS_STRING(joined);
        for (Py_ssize_t index = 0; index < count; index++) {
            PyObject *frame = PyList_GET_ITEM(self->frames, index);
            memcpy(out, PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame));
            out += PyBytes_GET_SIZE(frame);
        }
    }
    self->taken += (uint64_t)self->size;
    self->size = 0;
    Py_CLEAR(self->frames); /* last: the end of a frame of a type of its own can run anything */
    return joined;
}

static PyObject *
output_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"encode", "max_payload", "checks", NULL};
    PyObject *given;
    int checks = true;
    unsigned long long max_payload;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OK|p:Output", names, &given, &max_payload, &checks)) {
        return NULL;
    }
    Output *self = (Output *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    State *state = PyType_GetModuleState(type);
    self->encode = given == state->encode && checks ? NULL : Py_NewRef(given); /* it looks by itself what it is given */
    self->checks = checks;
    self->max_payload = max_payload;
    return (PyObject *)self;
}

static int
output_traverse(Output *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->encode);
    Py_VISIT(self->frames);
    return 0;
}

static void
output_dealloc(Output *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, output_dealloc)
    Py_XDECREF(self->encode);
    Py_XDECREF(self->frames);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef output_methods[] = {
    {"put", (PyCFunction)(void (*)(void))output_put, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"put_all", (PyCFunction)(void (*)(void))output_put_all, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, put_all_doc},
    {"take", (PyCFunction)output_take, METH_NOARGS, take_doc},
    {"join", (PyCFunction)output_join, METH_NOARGS, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef output_members[] = {
    {"size", T_PYSSIZET, offsetof(Output, size), READONLY, "Bytes that wait."},
    {"packets", T_ULONGLONG, offsetof(Output, packets), READONLY, "Packets put until now."},
    {"bytes", T_ULONGLONG, offsetof(Output, bytes), READONLY, "Bytes of their frames."},
    {"taken", T_ULONGLONG, offsetof(Output, taken), READONLY, "Bytes taken until now."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(output_doc,
"Output(encode, max_payload, checks=True)\n--\n\n"
"Frames in the order in which they are to be sent.");

static PyType_Slot output_slots[] = {
    {Py_tp_doc, (void *)output_doc},
    {Py_tp_new, output_new},
    {Py_tp_traverse, output_traverse},
    {Py_tp_dealloc, output_dealloc},
    {Py_tp_methods, output_methods},
    {Py_tp_members, output_members},
    {0, NULL},
};

static PyType_Spec output_spec = {
    .name = "packetcore._speedups.Output",
    .basicsize = sizeof(Output),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = output_slots,
};
