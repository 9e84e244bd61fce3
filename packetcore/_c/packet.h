/* `Packet`, the twin of that in _packet.py. */

/* 32 bytes. It refers to nothing but a bytes object, so the garbage collector need not know it. */
typedef struct {
    PyObject_HEAD
    PyObject *payload;
    uint16_t id;
    uint16_t count;
    uint8_t type;
} Packet;

/* Takes over the reference to the payload, also where it fails. */
static inline PyObject *
new_packet(PyTypeObject *type, long id, PyObject *payload, long kind, long count)
{
    Packet *self = PyObject_New(Packet, type);
    if (self == NULL) {
        Py_DECREF(payload);
        return NULL;
    }
    self->payload = payload;
    self->id = (uint16_t)id;
    self->type = (uint8_t)kind;
    self->count = (uint16_t)count;
    return (PyObject *)self;
}

static void
packet_dealloc(Packet *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(self->payload);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* The value of a field, -1 with an exception set where it has none. */
static long
field_in_range(const char *name, PyObject *value, long largest)
{
    PyObject *number = PyNumber_Index(value);
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be an int, not %.200s", name, Py_TYPE(value)->tp_name);
        }
        return -1;
    }
    int overflow;
    long field = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow || field < 0 || field > largest) {
        PyErr_Format(PyExc_ValueError, "%s=%S is out of range 0 to %ld", name, number, largest);
        field = -1;
    }
    Py_DECREF(number);
    return field;
}

static PyObject *
packet_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "payload", "type", "count", NULL};
    PyObject *id_given, *payload_given = NULL, *type_given = NULL, *count_given = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$OO:Packet", names, &id_given, &payload_given, &type_given,
                                     &count_given)) {
        return NULL;
    }
    if (payload_given != NULL && !PyBytes_Check(payload_given) && !PyByteArray_Check(payload_given) &&
        !PyMemoryView_Check(payload_given)) {
        PyErr_Format(PyExc_TypeError, "payload must be bytes, not %.200s", Py_TYPE(payload_given)->tp_name);
        return NULL;
    }
    long id = field_in_range("id", id_given, 0xFFFF);
    if (id < 0) {
        return NULL;
    }
    PyObject *payload;
    if (payload_given == NULL) {
        payload = PyBytes_FromStringAndSize(NULL, 0);
    }
    else if (PyBytes_CheckExact(payload_given)) {
        payload = Py_NewRef(payload_given);
    }
    else {
        payload = PyObject_CallOneArg((PyObject *)&PyBytes_Type, payload_given);
    }
    if (payload == NULL) {
        return NULL;
    }
    long type = 0, count = 1;
    if ((uint64_t)PyBytes_GET_SIZE(payload) > MAX_LENGTH) {
        PyErr_Format(PyExc_ValueError, "payload of %zd bytes exceeds the format's %lu", PyBytes_GET_SIZE(payload),
                     (unsigned long)MAX_LENGTH);
        type = -1;
    }
    if (type == 0 && type_given != NULL) {
        type = field_in_range("type", type_given, 0xFF);
    }
    if (type >= 0 && count_given != NULL) {
        count = field_in_range("count", count_given, 0xFFFF);
    }
    if (type < 0 || count < 0) {
        Py_DECREF(payload);
        return NULL;
    }
    return new_packet(cls, id, payload, type, count);
}

static PyObject *
packet_repr(Packet *self)
{
    return PyUnicode_FromFormat("Packet(id=%d, payload=%R, type=%d, count=%d)", self->id, self->payload, self->type,
                                self->count);
}

static Py_hash_t
packet_hash(Packet *self)
{
    Py_hash_t hash = PyObject_Hash(self->payload);
    if (hash == -1) {
        return -1;
    }
    uint64_t header = (uint64_t)self->id << 24 | (uint64_t)self->type << 16 | self->count;
    hash ^= (Py_hash_t)(header * UINT64_C(0x9E3779B97F4A7C15));
    return hash == -1 ? -2 : hash;
}

static PyObject *
packet_compare(Packet *self, PyObject *object, int operator)
{
    if (Py_TYPE(object) != Py_TYPE(self) || (operator != Py_EQ && operator != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    Packet *other = (Packet *)object;
    if (self->id != other->id || self->type != other->type || self->count != other->count) {
        return PyBool_FromLong(operator == Py_NE);
    }
    return PyObject_RichCompare(self->payload, other->payload, operator);
}

static Py_ssize_t
packet_length(PyObject *Py_UNUSED(self))
{
    return 4;
}

/* One field after the other, so that a packet can be unpacked. */
static PyObject *
packet_item(Packet *self, Py_ssize_t index)
{
    switch (index) {
    case 0:
        return PyLong_FromLong(self->id);
    case 1:
        return Py_NewRef(self->payload);
    case 2:
        return PyLong_FromLong(self->type);
    case 3:
        return PyLong_FromLong(self->count);
    default:
        PyErr_SetString(PyExc_IndexError, "a packet has four fields");
        return NULL;
    }
}

static PyObject *
packet_getnewargs(Packet *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(iO){sisi}", self->id, self->payload, "type", self->type, "count", self->count);
}

static PyObject *
packet_replace(Packet *self, PyObject *args, PyObject *changes)
{
    PyObject *packet = NULL;
    PyObject *fields = Py_BuildValue("{sisOsisi}", "id", self->id, "payload", self->payload, "type", self->type,
                                     "count", self->count);
    if (fields != NULL && (changes == NULL || PyDict_Update(fields, changes) == 0)) {
        packet = PyObject_Call((PyObject *)Py_TYPE(self), args, fields); /* of args it takes none */
    }
    Py_XDECREF(fields);
    return packet;
}

PyDoc_STRVAR(packet_doc,
"Packet(id, payload=b'', *, type=0, count=1)\n--\n\n"
"One packet: immutable, hashable, and usable with `match`.");

static PyMethodDef packet_methods[] = {
    {"__getnewargs_ex__", (PyCFunction)packet_getnewargs, METH_NOARGS, NULL},
    {"__replace__", (PyCFunction)(void (*)(void))packet_replace, METH_VARARGS | METH_KEYWORDS, NULL},
    {"_replace", (PyCFunction)(void (*)(void))packet_replace, METH_VARARGS | METH_KEYWORDS,
     "The same packet with other values for some fields, checked anew."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef packet_members[] = {
    {"id", T_USHORT, offsetof(Packet, id), READONLY, NULL},
    {"payload", T_OBJECT_EX, offsetof(Packet, payload), READONLY, NULL},
    {"type", T_UBYTE, offsetof(Packet, type), READONLY, NULL},
    {"count", T_USHORT, offsetof(Packet, count), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot packet_slots[] = {
    {Py_tp_doc, (void *)packet_doc},
    {Py_tp_new, packet_new},
    {Py_tp_dealloc, packet_dealloc},
    {Py_tp_repr, packet_repr},
    {Py_tp_hash, packet_hash},
    {Py_tp_richcompare, packet_compare},
    {Py_sq_length, packet_length},
    {Py_sq_item, packet_item},
    {Py_tp_methods, packet_methods},
    {Py_tp_members, packet_members},
    {0, NULL},
};

static PyType_Spec packet_spec = {
    .name = "packetcore.Packet",
    .basicsize = sizeof(Packet),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = packet_slots,
};

PyDoc_STRVAR(new_packet_doc,
"new_packet($module, type, fields, /)\n--\n\n"
"A packet of four fields that are known to be sound.");

static PyObject *
new_sound_packet(PyObject *module, PyObject *args)
{
    PyTypeObject *type = ((State *)PyModule_GetState(module))->packet;
    PyObject *given;
    int id, kind, count;
    PyObject *payload;
    if (!PyArg_ParseTuple(args, "O(iSii):new_packet", &given, &id, &payload, &kind, &count)) {
        return NULL;
    }
    if (given != (PyObject *)type) {
        PyErr_Format(PyExc_TypeError, "new_packet() makes a Packet, not a %R", given);
        return NULL;
    }
    return new_packet(type, id, Py_NewRef(payload), kind, count);
}
