/* `Latch` and `open_latches`, the twins of those in _latch.py. */

typedef struct {
    PyObject_HEAD
    PyThread_type_lock lock; /* NULL once it could not be made */
} Latch;

#define LONGEST_LATCHED 9e9 /* seconds: what microseconds in 64 bits hold, by far */

static PyObject *
latch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Latch", names)) {
        return NULL;
    }
    Latch *self = (Latch *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->lock = PyThread_allocate_lock();
    if (self->lock == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    PyThread_acquire_lock(self->lock, NOWAIT_LOCK);
    return (PyObject *)self;
}

static void
latch_dealloc(Latch *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->lock != NULL) {
        PyThread_acquire_lock(self->lock, NOWAIT_LOCK); /* a lock is let go before it is freed */
        PyThread_release_lock(self->lock);
        PyThread_free_lock(self->lock);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(latch_wait_doc,
"wait($self, timeout, /)\n--\n\n"
"Wait until it is opened, for at most so many seconds; signals end the wait early.");

static PyObject *
latch_wait(Latch *self, PyObject *timeout)
{
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    seconds = seconds > 0.0 ? seconds : 0.0; /* which a NaN is, too */
    PY_TIMEOUT_T limit = (PY_TIMEOUT_T)((seconds < LONGEST_LATCHED ? seconds : LONGEST_LATCHED) * 1e6);
    if (limit > PY_TIMEOUT_MAX) {
        limit = PY_TIMEOUT_MAX;
    }
    PyLockStatus status;
    Py_BEGIN_ALLOW_THREADS
    status = PyThread_acquire_lock_timed(self->lock, limit, 1);
    Py_END_ALLOW_THREADS
    if (status == PY_LOCK_INTR && PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(open_latches_doc,
"open_latches($module, latches, /)\n--\n\n"
"Open a list of latches, each for the first time, while other threads may run: each thread that is\n"
"woken finds the interpreter free.");

static PyObject *
open_latches(PyObject *module, PyObject *latches)
{
    State *state = PyModule_GetState(module);
    PyObject *all = PySequence_Tuple(latches); /* which nobody changes meanwhile */
    if (all == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(all);
    for (Py_ssize_t index = 0; index < count; index++) {
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(all, index), state->latch)) {
            PyErr_SetString(PyExc_TypeError, "only latches can be opened");
            Py_DECREF(all);
            return NULL;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t index = 0; index < count; index++) {
        PyThread_release_lock(((Latch *)PyTuple_GET_ITEM(all, index))->lock);
    }
    Py_END_ALLOW_THREADS
    Py_DECREF(all);
    Py_RETURN_NONE;
}

static PyMethodDef latch_methods[] = {
    {"wait", (PyCFunction)latch_wait, METH_O, latch_wait_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(latch_doc,
"Latch()\n--\n\n"
"Holds up one thread, once.");

static PyType_Slot latch_slots[] = {
    {Py_tp_doc, (void *)latch_doc},
    {Py_tp_new, latch_new},
    {Py_tp_dealloc, latch_dealloc},
    {Py_tp_methods, latch_methods},
    {0, NULL},
};

static PyType_Spec latch_spec = {
    .name = "packetcore._speedups.Latch",
    .basicsize = sizeof(Latch),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = latch_slots,
};
