/* `Receiver`, the twin of that in _receiver.py. */

typedef struct {
    PyObject_HEAD
    State *module; /* kept alive by the type */
    PyObject *state;
    PyObject *decoder;
    PyObject *joiner;
    PyObject *now;
    PyObject *heard;
    PyObject *frame_since;
    uint64_t packets_received;
    uint64_t bytes_received;
} Receiver;

static int
is_earlier(PyObject *one, PyObject *other)
{
    if (PyFloat_CheckExact(one) && PyFloat_CheckExact(other)) {
        return PyFloat_AS_DOUBLE(one) < PyFloat_AS_DOUBLE(other);
    }
    return PyObject_RichCompareBool(one, other, Py_LT);
}

static bool
only_packets(State *state, PyObject *frames)
{
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(frames); index++) {
        if (!is_packet(state, PyList_GET_ITEM(frames, index))) {
            return false;
        }
    }
    return true;
}

/* Feed the decoder. Gives a list, and whether anything is pending. */
static PyObject *
frames_in(Receiver *self, PyObject *data, int *pending)
{
    State *state = self->module;
    if (self->decoder == NULL) { /* what came before may have run anything */
        not_set_up(self);
        return NULL;
    }
    PyObject *decoder = Py_NewRef(self->decoder);
    PyTypeObject *type = Py_TYPE(decoder);
    PyObject *frames;
    if (type == state->decoder) {
        frames = feed_object((Decoder *)decoder, state, data);
        *pending = ((Decoder *)decoder)->seen.size != 0;
    }
    else if (type == state->stuffing_decoder || type == state->cobs_decoder) {
        frames = feed_runs((RunDecoder *)decoder, data);
        *pending = ((RunDecoder *)decoder)->run.size || ((RunDecoder *)decoder)->dropped.size;
    }
    else if (type == state->length_decoder) {
        frames = feed_lengths((LengthDecoder *)decoder, data);
        *pending = ((LengthDecoder *)decoder)->held.size || ((LengthDecoder *)decoder)->dropped.size;
    }
    else {
        PyObject *given = call(decoder, "feed", data, NULL);
        frames = given == NULL ? NULL : PySequence_List(given);
        Py_XDECREF(given);
        PyObject *bytes = frames == NULL ? NULL : PyObject_GetAttrString(decoder, "pending");
        *pending = bytes == NULL ? -1 : PyObject_IsTrue(bytes);
        Py_XDECREF(bytes);
        if (*pending < 0) {
            Py_CLEAR(frames);
        }
    }
    Py_DECREF(decoder);
    return frames;
}

/* What is made of a chunk that came while the state was OPEN. */
static PyObject *
events_in(Receiver *self, PyObject *data, Py_ssize_t size, PyObject *now)
{
    set(&self->now, now);
    if (size == 0) {
        return PyList_New(0);
    }
    set(&self->heard, now);
    int pending;
    PyObject *frames = frames_in(self, data, &pending);
    if (frames == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(frames);
    /* An event ends all bytes before it, so what is pending after one began just now. */
    if (!pending) {
        set(&self->frame_since, Py_None);
    }
    else if (count || self->frame_since == Py_None) {
        set(&self->frame_since, now);
    }
    self->bytes_received += (uint64_t)size;
    if (self->joiner == Py_None && only_packets(self->module, frames)) {
        self->packets_received += (uint64_t)count;
        return frames;
    }
    PyObject *events = call(self, "_deliver", frames, NULL);
    Py_DECREF(frames);
    return events;
}

static PyObject *
receive(Receiver *self, PyObject *data, PyObject *now)
{
    if (load(self->module) < 0) {
        return NULL;
    }
    if (self->state != self->module->open) {
        return call(self, "_receive_late", data, now);
    }
    Py_ssize_t size = PyObject_Size(data);
    if (size < 0) {
        return NULL;
    }
    if (self->decoder == NULL || self->joiner == NULL || self->now == NULL || self->frame_since == NULL) {
        not_set_up(self);
        return NULL;
    }
    PyObject *last = Py_NewRef(self->now); /* the comparison, and another framing's code, may do anything */
    int went_back = is_earlier(now, last);
    now = Py_NewRef(went_back ? last : now);
    PyObject *events = went_back < 0 ? NULL : events_in(self, data, size, now);
    Py_DECREF(now);
    Py_DECREF(last);
    return events;
}

PyDoc_STRVAR(receive_data_doc,
"receive_data($self, data, now)\n--\n\n"
"Take bytes that came from the peer, in order, cut anywhere. Gives what they complete.");

static PyObject *
receive_data(Receiver *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "now", NULL};
    PyObject *data, *now;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:receive_data", names, &data, &now)) {
        return NULL;
    }
    return receive(self, data, now);
}

static PyObject *
receiver_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    State *state = state_of(type);
    Receiver *self = state == NULL ? NULL : (Receiver *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = state;
    }
    return (PyObject *)self;
}

static int
receiver_traverse(Receiver *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->state);
    Py_VISIT(self->decoder);
    Py_VISIT(self->joiner);
    Py_VISIT(self->now);
    Py_VISIT(self->heard);
    Py_VISIT(self->frame_since);
    return 0;
}

static int
receiver_clear(Receiver *self)
{
    Py_CLEAR(self->state);
    Py_CLEAR(self->decoder);
    Py_CLEAR(self->joiner);
    Py_CLEAR(self->now);
    Py_CLEAR(self->heard);
    Py_CLEAR(self->frame_since);
    return 0;
}

static void
receiver_dealloc(Receiver *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, receiver_dealloc)
    receiver_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef receiver_methods[] = {
    {"receive_data", (PyCFunction)(void (*)(void))receive_data, METH_VARARGS | METH_KEYWORDS, receive_data_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receiver_members[] = {
    {"state", T_OBJECT_EX, offsetof(Receiver, state), 0, "Where the conversation stands."},
    {"frame_since", T_OBJECT_EX, offsetof(Receiver, frame_since), 0, "When the bytes pending began to come."},
    {"_decoder", T_OBJECT_EX, offsetof(Receiver, decoder), 0, NULL},
    {"_joiner", T_OBJECT_EX, offsetof(Receiver, joiner), 0, NULL},
    {"_now", T_OBJECT_EX, offsetof(Receiver, now), 0, NULL},
    {"_heard", T_OBJECT_EX, offsetof(Receiver, heard), 0, NULL},
    {"_packets_received", T_ULONGLONG, offsetof(Receiver, packets_received), 0, NULL},
    {"_bytes_received", T_ULONGLONG, offsetof(Receiver, bytes_received), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(receiver_doc,
"The part of a connection that is done for each chunk it receives.");

static PyType_Slot receiver_slots[] = {
    {Py_tp_doc, (void *)receiver_doc},
    {Py_tp_new, receiver_new},
    {Py_tp_traverse, receiver_traverse},
    {Py_tp_clear, receiver_clear},
    {Py_tp_dealloc, receiver_dealloc},
    {Py_tp_methods, receiver_methods},
    {Py_tp_members, receiver_members},
    {0, NULL},
};

static PyType_Spec receiver_spec = {
    .name = "packetcore._speedups.Receiver",
    .basicsize = sizeof(Receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = receiver_slots,
};
