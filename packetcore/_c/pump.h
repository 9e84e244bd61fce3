/* `Pump`, the twin of that in _pump.py. */

typedef struct {
    PyObject_HEAD
    State *module; /* kept alive by the type */
    PyObject *connection;
    PyObject *output;
    PyObject *host;
    PyObject *queue;
    PyObject *on_packet;
    PyObject *on_packets;
    PyObject *on_sent;
    PyObject *now;
    PyObject *tap;
    double refresh_at;
    Py_ssize_t unsent;
    Py_ssize_t room;
    Py_ssize_t ease;
    char paused;
    char write_paused;
    char lost;
    char must_arm;
    char running;
    char woken;
    char is_framed; /* packets may be of any type */
    unsigned long thread;
    bool is_set_up; /* all that is above has a value */
} Pump;

/* An attribute of a pump. Once set it is never without a value of its type, so that the pump need
   not look again after each call of anybody's code. */
typedef struct {
    size_t offset;
    PyTypeObject *(*type)(State *); /* NULL for any */
} Field;

static PyObject **
field_of(Pump *self, const Field *field)
{
    return (PyObject **)((char *)self + field->offset);
}

static PyObject *
get_field(Pump *self, void *field)
{
    PyObject *value = *field_of(self, field);
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "not set yet");
    }
    return Py_XNewRef(value);
}

static int
set_field(Pump *self, PyObject *value, void *closure)
{
    const Field *field = closure;
    PyTypeObject *type = field->type == NULL ? &PyBaseObject_Type : field->type(self->module);
    if (value == NULL || !PyObject_TypeCheck(value, type)) {
        PyErr_Format(PyExc_TypeError, "it has to be set to a %.200s", type->tp_name);
        return -1;
    }
    set(field_of(self, field), value);
    return 0;
}

static PyTypeObject *
a_receiver(State *state)
{
    return state->receiver;
}

static PyTypeObject *
an_output(State *state)
{
    return state->output;
}

static PyTypeObject *
a_list(State *Py_UNUSED(state))
{
    return &PyList_Type;
}

static const Field CONNECTION = {offsetof(Pump, connection), a_receiver}, OUTPUT = {offsetof(Pump, output), an_output},
                   QUEUE = {offsetof(Pump, queue), a_list}, HOST = {offsetof(Pump, host), NULL},
                   ON_PACKET = {offsetof(Pump, on_packet), NULL}, ON_PACKETS = {offsetof(Pump, on_packets), NULL},
                   ON_SENT = {offsetof(Pump, on_sent), NULL}, NOW = {offsetof(Pump, now), NULL},
                   TAP = {offsetof(Pump, tap), NULL};

static int
check_set_up(Pump *self)
{
    if (self->is_set_up) {
        return 0;
    }
    bool has_all = self->connection != NULL && self->output != NULL && self->queue != NULL && self->host != NULL &&
                   self->on_packet != NULL && self->on_packets != NULL && self->on_sent != NULL && self->now != NULL &&
                   self->tap != NULL;
    if (!has_all) {
        return not_set_up(self);
    }
    self->is_set_up = load(self->module) == 0;
    return self->is_set_up ? 0 : -1;
}

static bool
is_open(Pump *self)
{
    return ((Receiver *)self->connection)->state == self->module->open;
}

PyDoc_STRVAR(send_doc,
"send($self, packet, /)\n--\n\n"
"Send a packet, or a message: at the end of the chunk under way, or soon. Gives whether there\n"
"is room for more.");

/* Another thread may run while a packet is encoded, and not between the look at the state and
   the end of `add`: so this needs no lock. */
static PyObject *
pump_send(Pump *self, PyObject *packet)
{
    State *state = self->module;
    if (check_set_up(self) < 0) {
        return NULL;
    }
    bool is_foreign = self->thread && self->thread != PyThread_get_thread_ident();
    bool is_other = Py_TYPE(packet) != state->packet && !self->is_framed;
    if (is_foreign || is_other || !is_open(self)) {
        return call(self, "_send_other", packet, NULL);
    }
    Output *output = (Output *)Py_NewRef(self->output);
    PyObject *frame = prepare(output, state, packet);
    if (frame == NULL || !is_open(self)) {
        PyObject *result = frame == NULL ? NULL : call(self, "_send_other", packet, NULL);
        Py_XDECREF(frame);
        Py_DECREF(output);
        return result;
    }
    Py_ssize_t size = add(output, frame);
    Py_DECREF(output);
    if (size < 0 || (size > self->room && done(call(self, "_overflow", NULL, NULL)) < 0) ||
        (!self->running && !self->woken && done(call(self, "_wake", NULL, NULL)) < 0)) {
        return NULL;
    }
    return PyBool_FromLong(size <= self->ease);
}

/* Take the last item off a list, which has one. */
static PyObject *
pop(PyObject *list)
{
    Py_ssize_t last = PyList_GET_SIZE(list) - 1;
    PyObject *item = PyList_GET_ITEM(list, last);
    if (last > 0) {
        Py_SET_SIZE(list, last);
        return item;
    }
    Py_INCREF(item);
    if (PyList_SetSlice(list, 0, 1, NULL) < 0) { /* which lets go of its memory, too */
        Py_CLEAR(item);
    }
    return item;
}

/* How many packets stand at the end of a list. */
static Py_ssize_t
packets_at_end(State *state, PyObject *list)
{
    Py_ssize_t end = PyList_GET_SIZE(list), begin = end;
    while (begin > 0 && is_packet(state, PyList_GET_ITEM(list, begin - 1))) {
        begin--;
    }
    return end - begin;
}

/* Take the packets off the end of the queue, the last one first. */
static PyObject *
pop_packets(Pump *self)
{
    for (;;) {
        Py_ssize_t count = packets_at_end(self->module, self->queue);
        PyObject *packets = PyList_New(count); /* may run the garbage collector, and that anything */
        if (packets == NULL) {
            return NULL;
        }
        PyObject *queue = self->queue;
        if (packets_at_end(self->module, queue) != count) {
            Py_DECREF(packets);
            continue;
        }
        Py_ssize_t end = PyList_GET_SIZE(queue);
        for (Py_ssize_t nth = 0; nth < count; nth++) {
            PyList_SET_ITEM(packets, nth, Py_NewRef(PyList_GET_ITEM(queue, end - 1 - nth)));
        }
        if (PyList_SetSlice(queue, end - count, end, NULL) < 0) {
            Py_CLEAR(packets);
        }
        return packets;
    }
}

static int
deliver_next(Pump *self)
{
    PyObject *queue = self->queue;
    bool has_packet = is_packet(self->module, PyList_GET_ITEM(queue, PyList_GET_SIZE(queue) - 1));
    bool is_batch = has_packet && self->on_packets != Py_None;
    PyObject *event = is_batch ? pop_packets(self) : pop(queue);
    if (event == NULL) {
        return -1;
    }
    if (is_batch && PyList_GET_SIZE(event) == 0) { /* they went meanwhile */
        Py_DECREF(event);
        return 0;
    }
    PyObject *result;
    if (has_packet) {
        PyObject *deliver = Py_NewRef(is_batch ? self->on_packets : self->on_packet);
        PyObject *args[] = {NULL, (PyObject *)self, event};
        result = PyObject_Vectorcall(deliver, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(deliver);
    }
    else {
        result = call(self, "_deliver", event, NULL);
    }
    Py_DECREF(event);
    return done(result);
}

/* The handler raised: say so while its exception is being handled, as `except` would have it. */
static int
handler_failed(Pump *self)
{
    bool ends = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
    if (!ends && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *type, *error, *traceback, *outer_type, *outer, *outer_traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    PyErr_GetExcInfo(&outer_type, &outer, &outer_traceback);
    PyErr_SetExcInfo(type, Py_NewRef(error), traceback);
    int failed = done(call(self, "_handler_failed", error, NULL));
    PyErr_SetExcInfo(outer_type, outer, outer_traceback);
    Py_DECREF(error);
    return failed;
}

static int
run(Pump *self)
{
    /* A handler that hears of a write may send more, and one that ran into the end of the
       session still gets the rest of what came before it. */
    for (;;) {
        if (PyList_GET_SIZE(self->queue) && (!self->paused || self->lost)) {
            if (deliver_next(self) < 0 && handler_failed(self) < 0) {
                return -1;
            }
        }
        else if (((Output *)self->output)->size && !self->lost) {
            if (done(PyObject_CallMethodNoArgs((PyObject *)self, self->module->name_own_write)) < 0) {
                return -1;
            }
        }
        else {
            return 0;
        }
    }
}

static int
pump(Pump *self)
{
    if (self->running) {
        return 0;
    }
    if (check_set_up(self) < 0) {
        return -1;
    }
    if (PyList_GET_SIZE(self->queue) || ((Output *)self->output)->size) {
        self->running = true;
        int failed = run(self);
        self->running = false;
        if (failed) {
            return -1;
        }
    }
    if (self->lost || self->must_arm || !is_open(self) || ((Receiver *)self->connection)->frame_since != Py_None) {
        return done(call(self, "_settle", NULL, NULL));
    }
    return 0;
}

PyDoc_STRVAR(pump_doc,
"_pump($self, /)\n--\n\n"
"Deliver, write once, and see what the state and the times ask for.");

static PyObject *
pump_pump(Pump *self, PyObject *Py_UNUSED(ignored))
{
    return pump(self) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(received_doc,
"received($self, data, now, /)\n--\n\n"
"The peer sent `data`, cut anywhere.");

static PyObject *
pump_received(Pump *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "received() takes two positional arguments, data and now");
        return NULL;
    }
    PyObject *data = args[0], *now = args[1];
    int is_something = PyObject_IsTrue(data);
    double time = is_something < 0 ? -1.0 : PyFloat_AsDouble(now);
    if ((time == -1.0 && PyErr_Occurred()) || check_set_up(self) < 0) {
        return NULL;
    }
    if (self->tap != Py_None && done(call(self, "_tell_received", data, NULL)) < 0) {
        return NULL;
    }
    if (!is_something || !is_open(self)) {
        return call(self, "_received_late", data, now);
    }
    set(&self->now, now);
    PyObject *connection = Py_NewRef(self->connection);
    char outer = self->running;
    self->running = true; /* a check or a codec may end the session from inside */
    PyObject *events = receive((Receiver *)connection, data, now); /* no Closed among them */
    self->running = outer;
    Py_DECREF(connection);
    if (events == NULL) {
        return NULL;
    }
    if (!PyList_Check(events)) {
        PyErr_Format(PyExc_TypeError, "_deliver() must give a list, not %.200s", Py_TYPE(events)->tp_name);
        Py_DECREF(events);
        return NULL;
    }
    int failed = (time >= self->refresh_at && done(call(self, "_refresh", NULL, NULL)) < 0) || PyList_Reverse(events) < 0;
    if (!failed && PyList_GET_SIZE(self->queue) == 0) {
        set(&self->queue, events);
    }
    else if (!failed) {
        failed = PyList_SetSlice(self->queue, 0, 0, events);
    }
    Py_DECREF(events);
    return failed || pump(self) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(own_write_doc,
"_write($self, /)\n--\n\n"
"Hand the host all that waits, as one.");

static PyObject *
pump_write(Pump *self, PyObject *Py_UNUSED(ignored))
{
    State *state = self->module;
    if (check_set_up(self) < 0) {
        return NULL;
    }
    PyObject *connection = Py_NewRef(self->connection), *now = Py_NewRef(self->now);
    int failed = PyObject_SetAttr(connection, state->name_sent_at, now);
    Py_DECREF(connection);
    Py_DECREF(now);
    if (failed) {
        return NULL;
    }
    Output *output = (Output *)self->output;
    PyObject *data = check_sum(output->size, self->unsent) < 0 ? NULL : output_join(output, NULL);
    if (data == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    self->unsent += size; /* the host may say from within that they have gone */
    PyObject *args[] = {NULL, Py_NewRef(self->host), data};
    PyObject *result = PyObject_VectorcallMethod(state->name_write, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[1]);
    Py_DECREF(data);
    Py_ssize_t taken = result == NULL ? -1 : PyLong_AsSsize_t(result);
    if (taken == -1 && PyErr_Occurred()) {
        self->unsent -= size;
        Py_XDECREF(result);
        return NULL;
    }
    bool is_plain = self->on_sent == Py_None && !self->write_paused && is_open(self);
    if (is_plain && taken == size && self->unsent == size && size <= self->ease) { /* all has gone, as nearly always */
        self->unsent = 0;
        Py_DECREF(result);
        Py_RETURN_NONE;
    }
    PyObject *nothing = call(self, "_written", result, NULL);
    Py_DECREF(result);
    return nothing;
}

static PyObject *
pump_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    State *state = state_of(type);
    Pump *self = state == NULL ? NULL : (Pump *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = state;
    }
    return (PyObject *)self;
}

static int
pump_traverse(Pump *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->connection);
    Py_VISIT(self->output);
    Py_VISIT(self->host);
    Py_VISIT(self->queue);
    Py_VISIT(self->on_packet);
    Py_VISIT(self->on_packets);
    Py_VISIT(self->on_sent);
    Py_VISIT(self->now);
    Py_VISIT(self->tap);
    return 0;
}

static int
pump_clear(Pump *self)
{
    self->is_set_up = false;
    Py_CLEAR(self->connection);
    Py_CLEAR(self->output);
    Py_CLEAR(self->host);
    Py_CLEAR(self->queue);
    Py_CLEAR(self->on_packet);
    Py_CLEAR(self->on_packets);
    Py_CLEAR(self->on_sent);
    Py_CLEAR(self->now);
    Py_CLEAR(self->tap);
    return 0;
}

static void
pump_dealloc(Pump *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, pump_dealloc)
    pump_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef pump_methods[] = {
    {"send", (PyCFunction)pump_send, METH_O, send_doc},
    {"received", (PyCFunction)(void (*)(void))pump_received, METH_FASTCALL, received_doc},
    {"_pump", (PyCFunction)pump_pump, METH_NOARGS, pump_doc},
    {"_write", (PyCFunction)pump_write, METH_NOARGS, own_write_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef pump_members[] = {
    {"_refresh_at", T_DOUBLE, offsetof(Pump, refresh_at), 0, NULL},
    {"_unsent", T_PYSSIZET, offsetof(Pump, unsent), 0, NULL},
    {"_room", T_PYSSIZET, offsetof(Pump, room), 0, NULL},
    {"_ease", T_PYSSIZET, offsetof(Pump, ease), 0, NULL},
    {"_paused", T_BOOL, offsetof(Pump, paused), 0, NULL},
    {"_write_paused", T_BOOL, offsetof(Pump, write_paused), 0, NULL},
    {"_lost", T_BOOL, offsetof(Pump, lost), 0, NULL},
    {"_must_arm", T_BOOL, offsetof(Pump, must_arm), 0, NULL},
    {"_running", T_BOOL, offsetof(Pump, running), 0, NULL},
    {"_thread", T_ULONG, offsetof(Pump, thread), 0, NULL},
    {"_woken", T_BOOL, offsetof(Pump, woken), 0, NULL},
    {"_is_framed", T_BOOL, offsetof(Pump, is_framed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define FIELD(name, field) {name, (getter)get_field, (setter)set_field, NULL, (void *)&field}

static PyGetSetDef pump_fields[] = {
    FIELD("_connection", CONNECTION),
    FIELD("_output", OUTPUT),
    FIELD("_queue", QUEUE),
    FIELD("_host", HOST),
    FIELD("_on_packet", ON_PACKET),
    FIELD("_on_packets", ON_PACKETS),
    FIELD("_on_sent", ON_SENT),
    FIELD("_now", NOW),
    FIELD("_tap", TAP),
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(pump_type_doc,
"The part of a session that is done for each chunk and for each packet.");

static PyType_Slot pump_slots[] = {
    {Py_tp_doc, (void *)pump_type_doc},
    {Py_tp_new, pump_new},
    {Py_tp_traverse, pump_traverse},
    {Py_tp_clear, pump_clear},
    {Py_tp_dealloc, pump_dealloc},
    {Py_tp_methods, pump_methods},
    {Py_tp_members, pump_members},
    {Py_tp_getset, pump_fields},
    {0, NULL},
};

static PyType_Spec pump_spec = {
    .name = "packetcore._speedups.Pump",
    .basicsize = sizeof(Pump),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = pump_slots,
};
