/* `Sender`, the twin of that in _sender.py. */

typedef struct {
    PyObject_HEAD
    PyObject *session;
    PyObject *drain;
    PyObject *send;
    PyObject *closed;
    PyObject *sent;
    vectorcallfunc call;
} Sender;

static PyObject *
sender_call(Sender *self, PyObject *const *args, size_t flags, PyObject *names)
{
    if (PyVectorcall_NARGS(flags) != 1 || names != NULL) {
        return PyObject_Vectorcall(self->send, args, (size_t)PyVectorcall_NARGS(flags), names);
    }
    State *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *both[] = {NULL, self->session, args[0]};
    PyObject *has_room =
        PyObject_VectorcallMethod(state->name_send, both + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (has_room == Py_True) {
        Py_DECREF(has_room);
        return self->sent == Py_None ? Py_NewRef(Py_None) : PyObject_CallNoArgs(self->sent);
    }
    if (has_room != NULL) {
        Py_DECREF(has_room);
        return PyObject_CallNoArgs(self->drain);
    }
    if (!PyErr_ExceptionMatches(self->closed)) {
        return NULL;
    }
    PyErr_Clear(); /* nothing was sent, and it will say so again */
    return PyObject_CallOneArg(self->send, args[0]);
}

static PyObject *
sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", "", "", "", NULL};
    PyObject *session, *drain, *send, *closed, *sent = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|O:Sender", names, &session, &drain, &send, &closed, &sent)) {
        return NULL;
    }
    Sender *self = (Sender *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->session = Py_NewRef(session);
        self->drain = Py_NewRef(drain);
        self->send = Py_NewRef(send);
        self->closed = Py_NewRef(closed);
        self->sent = Py_NewRef(sent);
        self->call = (vectorcallfunc)sender_call;
    }
    return (PyObject *)self;
}

static int
sender_traverse(Sender *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->session);
    Py_VISIT(self->drain);
    Py_VISIT(self->send);
    Py_VISIT(self->closed);
    Py_VISIT(self->sent);
    return 0;
}

static void
sender_dealloc(Sender *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, sender_dealloc)
    Py_XDECREF(self->session);
    Py_XDECREF(self->drain);
    Py_XDECREF(self->send);
    Py_XDECREF(self->closed);
    Py_XDECREF(self->sent);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMemberDef sender_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Sender, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(sender_doc,
"Sender(session, drain, send, closed, sent=None, /)\n--\n\n"
"Is called as a stream's `send`, and leaves to that what is seldom.");

static PyType_Slot sender_slots[] = {
    {Py_tp_doc, (void *)sender_doc},
    {Py_tp_new, sender_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, sender_members},
    {Py_tp_traverse, sender_traverse},
    {Py_tp_dealloc, sender_dealloc},
    {0, NULL},
};

static PyType_Spec sender_spec = {
    .name = "packetcore._speedups.Sender",
    .basicsize = sizeof(Sender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = sender_slots,
};
