/* `Items`, the twin of that in _items.py. */

typedef struct {
    PyObject_HEAD
    PyObject *take;
    PyObject *wait;
} Items;

/* What an item is awaited with that is there already: it gives it at the first step. A packet or
   a message refers to nothing that could lead back here, so the garbage collector need not know. */
typedef struct {
    PyObject_HEAD
    PyObject *item; /* NULL once it was given */
} Ready;

static PySendResult
ready_send(Ready *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = self->item;
    self->item = NULL;
    if (*result == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "it was awaited already");
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

static PyObject *
ready_next(Ready *self)
{
    PyObject *item;
    if (ready_send(self, NULL, &item) == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, item); /* an item may be a tuple */
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        Py_DECREF(item);
    }
    return NULL;
}

static void
ready_dealloc(Ready *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->item);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot ready_slots[] = {
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, ready_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ready_next},
    {Py_tp_dealloc, ready_dealloc},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    .name = "packetcore._speedups.Ready",
    .basicsize = sizeof(Ready),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ready_slots,
};

static PyObject *
items_next(Items *self)
{
    State *state = PyType_GetModuleState(Py_TYPE(self));
    Ready *ready = PyObject_New(Ready, state->ready); /* first: what was taken must not be lost */
    if (ready == NULL) {
        return NULL;
    }
    ready->item = PyObject_CallNoArgs(self->take);
    if (ready->item != NULL) {
        return (PyObject *)ready;
    }
    Py_DECREF(ready);
    if (!PyErr_ExceptionMatches(PyExc_IndexError)) {
        return NULL;
    }
    PyErr_Clear();
    return PyObject_CallNoArgs(self->wait);
}

/* The same where waiting blocks: it gives the item itself. */
static PyObject *
items_next_now(Items *self)
{
    PyObject *item = PyObject_CallNoArgs(self->take);
    if (item != NULL || !PyErr_ExceptionMatches(PyExc_IndexError)) {
        return item;
    }
    PyErr_Clear();
    return PyObject_CallNoArgs(self->wait);
}

static PyObject *
items_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", NULL};
    PyObject *take, *wait;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Items", names, &take, &wait)) {
        return NULL;
    }
    Items *self = (Items *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->take = Py_NewRef(take);
        self->wait = Py_NewRef(wait);
    }
    return (PyObject *)self;
}

static int
items_traverse(Items *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->take);
    Py_VISIT(self->wait);
    return 0;
}

static void
items_dealloc(Items *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, items_dealloc)
    Py_XDECREF(self->take);
    Py_XDECREF(self->wait);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

PyDoc_STRVAR(items_doc,
"Items(take, wait, /)\n--\n\n"
"An iterator, for `for` or for `async for`, that waits only where it must.");

static PyType_Slot items_slots[] = {
    {Py_tp_doc, (void *)items_doc},
    {Py_tp_new, items_new},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, items_next},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, items_next_now},
    {Py_tp_traverse, items_traverse},
    {Py_tp_dealloc, items_dealloc},
    {0, NULL},
};

static PyType_Spec items_spec = {
    .name = "packetcore._speedups.Items",
    .basicsize = sizeof(Items),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = items_slots,
};
