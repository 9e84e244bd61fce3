/* The codec in C: `Packet`, `encode`, `Output`, `Sender` and `Decoder`, the fast twins of those
   in _packet.py, _codec.py, _output.py and _decoder.py.

   The Python is the reference: what is a frame, which reason a bad one gets, and where each
   event is given are decided there and only repeated here. A Python decoder keeps the raw
   bytes of the open run and judges them when a flag comes. This one judges them as they
   come and writes the payload, unescaped, straight into the bytes object that the packet
   will hold; of the raw bytes it keeps their number and the first 64.

   Nothing is shared between interpreters: what the functions need stands in the module's
   state, and the type is a heap type. Without the GIL a decoder would need a lock of its
   own; such builds are declined in setup.py and run the Python twins. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
/* PLAIN_C and ONLY_SSE2, which only tests define, leave out what not every compiler and
   processor has. */
#if defined(__SSE2__) && !defined(PLAIN_C)
#define USE_SSE2
#include <emmintrin.h>
#if defined(__GNUC__) && !defined(ONLY_SSE2)
#define USE_AVX2 /* where the processor has it; looked at when the module is loaded */
#include <immintrin.h>
#endif
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum {
    FLAG = 0xFE,
    ESCAPE = 0xFD, /* FLAG is sent as FD 01, ESCAPE as FD 02: the second byte is 0xFF - byte */
    HEADER_SIZE = 9,
    SAMPLE_SIZE = 64,
};

static const uint32_t MAX_LENGTH = 0xFFFFFFFF;
static const uint32_t DEFAULT_MAX_PAYLOAD = 1 << 20;

/* How much is set aside for a payload before more of it than its header has come: enough
   for most packets to be written in place, little for a peer that sends headers only. */
static const size_t FIRST_ROOM = 64 * 1024;

enum { NOISE, BAD_ESCAPE, TOO_SHORT, LENGTH_MISMATCH, TOO_LONG, TRUNCATED, REASONS };

static const char *const REASON_NAMES[REASONS] = {
    "NOISE", "BAD_ESCAPE", "TOO_SHORT", "LENGTH_MISMATCH", "TOO_LONG", "TRUNCATED",
};

typedef struct {
    PyTypeObject *packet;
    PyTypeObject *output;
    PyObject *encode;     /* the function below */
    PyObject *state_name; /* "state" */
    /* The rest is imported when first needed: those modules need `Packet` themselves. */
    PyObject *malformed;
    PyObject *open;
    PyObject *reasons[REASONS];
} State;

static PyObject *
import_from(const char *name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(name);
    PyObject *value = module == NULL ? NULL : PyObject_GetAttrString(module, attribute);
    Py_XDECREF(module);
    return value;
}

static int
load(State *state)
{
    if (state->malformed != NULL) {
        return 0;
    }
    PyObject *reasons = import_from("packetcore._reasons", "Reason");
    if (reasons == NULL) {
        return -1;
    }
    for (int reason = 0; reason < REASONS; reason++) {
        PyObject *member = PyObject_GetAttrString(reasons, REASON_NAMES[reason]);
        if (member == NULL) {
            Py_DECREF(reasons);
            return -1;
        }
        Py_XSETREF(state->reasons[reason], member);
    }
    Py_DECREF(reasons);
    PyObject *states = import_from("packetcore._state", "State");
    if (states == NULL) {
        return -1;
    }
    Py_XSETREF(state->open, PyObject_GetAttrString(states, "OPEN"));
    Py_DECREF(states);
    if (state->open == NULL) {
        return -1;
    }
    state->malformed = import_from("packetcore._events", "Malformed");
    return state->malformed == NULL ? -1 : 0;
}


/* Packet */

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
new_sound_packet(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyTypeObject *type;
    int id, kind, count;
    PyObject *payload;
    if (!PyArg_ParseTuple(args, "O!(iSii):new_packet", &PyType_Type, &type, &id, &payload, &kind, &count)) {
        return NULL;
    }
    return new_packet(type, id, Py_NewRef(payload), kind, count);
}


/* Finding the next flag or escape */

enum { BLOCK = 32, SMALL = 4 * BLOCK };

static inline bool
is_special(uint8_t byte)
{
    return byte == FLAG || byte == ESCAPE;
}

/* Where the special bytes of a block are: bit n stands for byte n. */
static inline uint32_t
specials_in(const uint8_t *block)
{
    uint32_t specials = 0;
#ifdef USE_SSE2
    /* Moved so that the two are the largest of signed bytes: one comparison finds both. */
    const __m128i move = _mm_set1_epi8((char)(0x7F - FLAG));
    const __m128i below = _mm_set1_epi8(0x7F - 2);
    for (unsigned n = 0; n < BLOCK; n += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(block + n));
        __m128i found = _mm_cmpgt_epi8(_mm_add_epi8(bytes, move), below);
        specials |= (uint32_t)_mm_movemask_epi8(found) << n;
    }
#else
    for (unsigned n = 0; n < BLOCK; n++) {
        specials |= (uint32_t)is_special(block[n]) << n;
    }
#endif
    return specials;
}

#ifdef USE_AVX2
#define FOR_AVX2 __attribute__((target("avx2,bmi")))

FOR_AVX2 static inline uint32_t
specials_in_avx2(const uint8_t *block)
{
    __m256i bytes = _mm256_loadu_si256((const __m256i *)block);
    __m256i moved = _mm256_add_epi8(bytes, _mm256_set1_epi8((char)(0x7F - FLAG)));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(moved, _mm256_set1_epi8(0x7F - 2)));
}
#endif

/* How many bytes of a block come before its first special one; all of them without one. */
static inline size_t
plain_bytes(uint32_t specials)
{
#if defined(__GNUC__) && !defined(PLAIN_C)
    return specials ? (size_t)__builtin_ctz(specials) : BLOCK;
#else
    size_t n = 0;
    while (n < BLOCK && !(specials >> n & 1)) {
        n++;
    }
    return n;
#endif
}


/* encode */

static size_t
count_special(const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (; size >= BLOCK; data += BLOCK, size -= BLOCK) {
        for (uint32_t specials = specials_in(data); specials; specials &= specials - 1) {
            count++;
        }
    }
    while (size--) {
        count += is_special(*data++);
    }
    return count;
}

static inline uint8_t *
escape_byte(uint8_t *out, uint8_t byte)
{
    *out++ = ESCAPE;
    *out++ = (uint8_t)(0xFF - byte);
    return out;
}

static uint8_t *
escape_bytes(uint8_t *out, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    while (end - data >= BLOCK) {
        uint32_t specials = specials_in(data);
        /* What follows a special byte is written over: there is room for all of a block,
           since what is left takes no less. */
        memcpy(out, data, BLOCK);
        if (specials) {
            size_t plain = plain_bytes(specials);
            data += plain;
            out = escape_byte(out + plain, *data++);
        }
        else {
            data += BLOCK;
            out += BLOCK;
        }
    }
    for (; data < end; data++) {
        if (is_special(*data)) {
            out = escape_byte(out, *data);
        }
        else {
            *out++ = *data;
        }
    }
    return out;
}

static PyObject *
frame_of(const Packet *packet)
{
    PyObject *payload = packet->payload;
    uint16_t id = packet->id, count = packet->count;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(payload);
    size_t length = (size_t)PyBytes_GET_SIZE(payload);
    const uint8_t header[HEADER_SIZE] = {
        (uint8_t)(id >> 8),      (uint8_t)id,
        packet->type,            (uint8_t)(count >> 8),
        (uint8_t)count,          (uint8_t)(length >> 24),
        (uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length,
    };
    size_t in_payload = count_special(data, length);
    size_t extra = 2 + HEADER_SIZE + count_special(header, HEADER_SIZE) + in_payload;
    if (extra > (size_t)PY_SSIZE_T_MAX - length) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(length + extra));
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    *out++ = FLAG;
    out = escape_bytes(out, header, HEADER_SIZE);
    if (in_payload) {
        out = escape_bytes(out, data, length);
    }
    else {
        memcpy(out, data, length);
        out += length;
    }
    *out = FLAG;
    return frame;
}

static PyObject *
encode(PyObject *module, PyObject *packet)
{
    State *state = PyModule_GetState(module);
    if (Py_TYPE(packet) != state->packet) {
        PyErr_Format(PyExc_TypeError, "encode() takes a Packet, not %.200s", Py_TYPE(packet)->tp_name);
        return NULL;
    }
    return frame_of((Packet *)packet);
}


/* Output */

typedef struct {
    PyObject_HEAD
    PyObject *encode; /* NULL for the function above */
    PyObject *frames; /* NULL while there are none: most connections are idle */
    uint64_t max_payload;
    Py_ssize_t size;
    uint64_t packets;
    uint64_t bytes;
} Output;

PyDoc_STRVAR(put_doc,
"put($self, packet, /)\n--\n\n"
"Add a packet's frame. Gives how many bytes wait now.");

/* Gives how many bytes wait now, -1 with an exception set. */
static Py_ssize_t
put(Output *self, State *state, PyObject *packet)
{
    if (Py_TYPE(packet) != state->packet ||
        (uint64_t)PyBytes_GET_SIZE(((Packet *)packet)->payload) > self->max_payload) {
        PyObject *check = import_from("packetcore._output", "check_packet");
        PyObject *nothing =
            check == NULL ? NULL : PyObject_CallFunction(check, "OK", packet, (unsigned long long)self->max_payload);
        Py_XDECREF(check);
        if (nothing == NULL) {
            return -1;
        }
        Py_DECREF(nothing);
    }
    PyObject *frame = self->encode == NULL ? frame_of((Packet *)packet) : PyObject_CallOneArg(self->encode, packet);
    if (frame == NULL) {
        return -1;
    }
    if (!PyBytes_Check(frame)) {
        PyErr_Format(PyExc_TypeError, "encode() must give bytes, not %.200s", Py_TYPE(frame)->tp_name);
        Py_DECREF(frame);
        return -1;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    if (self->frames == NULL) {
        self->frames = PyList_New(0);
    }
    int failed = self->frames == NULL || PyList_Append(self->frames, frame) < 0;
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
    Py_ssize_t size = put(self, PyType_GetModuleState(type), args[0]);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(take_doc,
"take($self, /)\n--\n\n"
"Take what waits, each packet's frame by itself.");

static PyObject *
output_take(Output *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *frames = self->frames;
    self->frames = NULL;
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
    Py_CLEAR(self->frames);
    self->size = 0;
    return joined;
}

static PyObject *
output_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"encode", "max_payload", NULL};
    PyObject *given;
    unsigned long long max_payload;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OK:Output", names, &given, &max_payload)) {
        return NULL;
    }
    Output *self = (Output *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    State *state = PyType_GetModuleState(type);
    self->encode = given == state->encode ? NULL : Py_NewRef(given);
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
    Py_XDECREF(self->encode);
    Py_XDECREF(self->frames);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef output_methods[] = {
    {"put", (PyCFunction)(void (*)(void))output_put, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"take", (PyCFunction)output_take, METH_NOARGS, take_doc},
    {"join", (PyCFunction)output_join, METH_NOARGS, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef output_members[] = {
    {"size", T_PYSSIZET, offsetof(Output, size), READONLY, "Bytes that wait."},
    {"packets", T_ULONGLONG, offsetof(Output, packets), READONLY, "Packets put until now."},
    {"bytes", T_ULONGLONG, offsetof(Output, bytes), READONLY, "Bytes of their frames."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(output_doc,
"Output(encode, max_payload)\n--\n\n"
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


/* Sender */

typedef struct {
    PyObject_HEAD
    PyObject *connection;
    PyObject *output;
    PyObject *running;
    PyObject *woken;
    Py_ssize_t room;
    Py_ssize_t ease;
} Sender;

/* Call one of a session's own methods that gives nothing. */
static int
call_own(Sender *self, const char *name)
{
    PyObject *nothing = PyObject_CallMethod((PyObject *)self, name, NULL);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

PyDoc_STRVAR(send_doc,
"send($self, packet, /)\n--\n\n"
"Send a packet, or a message: at the end of the chunk under way, or soon. Gives whether there\n"
"is room for more.");

static PyObject *
sender_send(Sender *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "send() takes one positional argument, packet");
        return NULL;
    }
    State *state = PyType_GetModuleState(type);
    if (load(state) < 0) {
        return NULL;
    }
    if (Py_TYPE(args[0]) != state->packet) {
        return PyObject_CallMethod((PyObject *)self, "_send_other", "O", args[0]);
    }
    if (self->connection == NULL || self->output == NULL || Py_TYPE(self->output) != state->output) {
        PyErr_SetString(PyExc_TypeError, "send() needs a connection and its output");
        return NULL;
    }
    PyObject *now = PyObject_GetAttr(self->connection, state->state_name);
    if (now == NULL) {
        return NULL;
    }
    Py_DECREF(now); /* its enum holds it */
    if (now != state->open) {
        PyObject *nothing = PyObject_CallMethod(self->connection, "check_sending", NULL);
        if (nothing == NULL) {
            return NULL;
        }
        Py_DECREF(nothing);
    }
    PyObject *output = Py_NewRef(self->output); /* another framing's code may do anything */
    Py_ssize_t size = put((Output *)output, state, args[0]);
    Py_DECREF(output);
    if (size < 0 || (size > self->room && call_own(self, "_overflow") < 0) ||
        (self->running != Py_True && self->woken != Py_True && call_own(self, "_wake") < 0)) {
        return NULL;
    }
    return PyBool_FromLong(size <= self->ease);
}

static int
sender_traverse(Sender *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->connection);
    Py_VISIT(self->output);
    Py_VISIT(self->running);
    Py_VISIT(self->woken);
    return 0;
}

static int
sender_clear(Sender *self)
{
    Py_CLEAR(self->connection);
    Py_CLEAR(self->output);
    Py_CLEAR(self->running);
    Py_CLEAR(self->woken);
    return 0;
}

static void
sender_dealloc(Sender *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sender_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, send_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sender_members[] = {
    {"_connection", T_OBJECT_EX, offsetof(Sender, connection), 0, NULL},
    {"_output", T_OBJECT_EX, offsetof(Sender, output), 0, NULL},
    {"_ease", T_PYSSIZET, offsetof(Sender, ease), 0, NULL},
    {"_room", T_PYSSIZET, offsetof(Sender, room), 0, NULL},
    {"_running", T_OBJECT_EX, offsetof(Sender, running), 0, NULL},
    {"_woken", T_OBJECT_EX, offsetof(Sender, woken), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(sender_doc,
"The part of a session that is done for each packet it sends.");

static PyType_Slot sender_slots[] = {
    {Py_tp_doc, (void *)sender_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_traverse, sender_traverse},
    {Py_tp_clear, sender_clear},
    {Py_tp_dealloc, sender_dealloc},
    {Py_tp_methods, sender_methods},
    {Py_tp_members, sender_members},
    {0, NULL},
};

static PyType_Spec sender_spec = {
    .name = "packetcore._speedups.Sender",
    .basicsize = sizeof(Sender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = sender_slots,
};


/* Decoder */

/* The open run, as far as it has been read. */
typedef struct {
    uint8_t header[HEADER_SIZE];
    uint8_t header_size; /* how much of it has come */
    bool in_escape;      /* the last byte was FD, and what it stands for has not come */
    bool is_bad;         /* a bad escape has come: nothing after it is read */
    bool is_mismatch;    /* so many bytes have come, or are sure not to come */
    uint32_t filled;     /* how much of the payload has come */
    PyObject *payload;   /* owned; its size is the room made so far, at most the length */
} Run;

typedef struct {
    PyObject_HEAD
    uint64_t max_payload;
    uint64_t bound; /* a frame of nothing but escapes */
    bool in_frame;  /* false before the first flag and after a TOO_LONG */
    Run run;
    uint64_t size; /* bytes of the open run, or outside a frame, fed before this chunk */
    uint8_t sample[SAMPLE_SIZE]; /* the first of them */
} Decoder;

static uint32_t
length_in(const uint8_t *header)
{
    return (uint32_t)header[5] << 24 | (uint32_t)header[6] << 16 | (uint32_t)header[7] << 8 | header[8];
}

static void
forget(Decoder *self)
{
    PyObject *payload = self->run.payload;
    self->run = (Run){0};
    self->size = 0;
    Py_XDECREF(payload);
}

/* Count bytes that no event speaks for yet, and keep the first of them. */
static void
remember(Decoder *self, const uint8_t *data, size_t size)
{
    if (self->size < SAMPLE_SIZE) {
        size_t room = SAMPLE_SIZE - (size_t)self->size;
        memcpy(self->sample + self->size, data, size < room ? size : room);
    }
    self->size += size;
}

/* Refuse all that is remembered. */
static int
refuse(Decoder *self, State *state, PyObject *events, int reason)
{
    unsigned long long size = self->size;
    PyObject *sample =
        PyBytes_FromStringAndSize((char *)self->sample, size < SAMPLE_SIZE ? (Py_ssize_t)size : SAMPLE_SIZE);
    /* First, since the call below can run anything, a feed of this decoder included. */
    forget(self);
    if (sample == NULL || load(state) < 0) {
        Py_XDECREF(sample);
        return -1;
    }
    PyObject *event = PyObject_CallFunction(state->malformed, "OKO", state->reasons[reason], size, sample);
    Py_DECREF(sample);
    if (event == NULL) {
        return -1;
    }
    int failed = PyList_Append(events, event);
    Py_DECREF(event);
    return failed;
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

/* The size of a run that begins here, ends soon and needs no unescaping, as most small packets;
   0 if it is not such a one. */
static inline size_t
small_run(const uint8_t *data, const uint8_t *end, uint64_t max_payload)
{
    size_t size = 0;
    uint32_t specials = 0;
    while (!specials && size < SMALL && end - data - (Py_ssize_t)size >= BLOCK) {
        if (size && length_in(data) > SMALL) {
            return 0;
        }
        specials = specials_in(data + size);
        size += plain_bytes(specials);
    }
    bool is_whole = specials && size >= HEADER_SIZE && data[size] == FLAG;
    return is_whole && length_in(data) == size - HEADER_SIZE && length_in(data) <= max_payload ? size : 0;
}

/* Read on in the header. Returns the end of what it took: a flag, the first byte of the
   payload, a bad escape or the limit. */
static const uint8_t *
read_header(Run *run, const uint8_t *data, const uint8_t *limit)
{
    if (run->header_size == 0 && !run->in_escape && limit - data >= BLOCK &&
        plain_bytes(specials_in(data)) >= HEADER_SIZE) {
        memcpy(run->header, data, HEADER_SIZE);
        run->header_size = HEADER_SIZE;
        return data + HEADER_SIZE;
    }
    for (; data < limit && *data != FLAG && run->header_size < HEADER_SIZE && !run->is_bad; data++) {
        uint8_t byte = *data;
        if (run->in_escape) {
            run->is_bad = byte != 1 && byte != 2;
            byte = (uint8_t)(0xFF - byte);
        }
        else if (byte == ESCAPE) {
            run->in_escape = true;
            continue;
        }
        run->in_escape = false;
        run->header[run->header_size++] = byte;
    }
    return data;
}

/* Make room for the payload that the next `coming` bytes may hold. */
static int
make_room(Run *run, size_t coming)
{
    size_t length = length_in(run->header);
    size_t room = run->payload == NULL ? 0 : (size_t)PyBytes_GET_SIZE(run->payload);
    if (run->payload != NULL && (room == length || room - run->filled >= coming)) {
        return 0;
    }
    /* Twice as much each time, so that what is moved stays in proportion to what comes. */
    room = room ? 2 * room : FIRST_ROOM;
    room = room < run->filled + coming ? run->filled + coming : room;
    room = room < length ? room : length;
    if (room > PY_SSIZE_T_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    if (run->payload != NULL) {
        return _PyBytes_Resize(&run->payload, (Py_ssize_t)room);
    }
    run->payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    return run->payload == NULL ? -1 : 0;
}

/* Read on in the payload. Returns the end of what it took: a flag, a bad escape or the
   limit. Where the length is known not to match, escapes are read all the same: of two
   reasons a bad escape is the one to give. */
INLINE const uint8_t *
read_payload_with(uint32_t specials_in_block(const uint8_t *), Run *run, const uint8_t *data, const uint8_t *limit)
{
    bool in_escape = run->in_escape;
    uint8_t *out = NULL;
    size_t room = 0;
    if (!run->is_mismatch) {
        out = (uint8_t *)PyBytes_AS_STRING(run->payload) + run->filled;
        room = (size_t)PyBytes_GET_SIZE(run->payload) - run->filled;
    }
    while (data < limit) {
        if (in_escape) {
            if (*data != 1 && *data != 2) {
                run->is_bad = true;
                break;
            }
            in_escape = false;
            if (room) {
                *out++ = (uint8_t)(0xFF - *data);
                room--;
            }
            else {
                run->is_mismatch = true;
            }
            data++;
        }
        size_t plain;
        while (room >= BLOCK && limit - data > BLOCK) {
            uint32_t specials = specials_in_block(data);
            memcpy(out, data, BLOCK); /* what follows a special one is written over */
            if (!specials) {
                out += BLOCK;
                data += BLOCK;
                room -= BLOCK;
                continue;
            }
            plain = plain_bytes(specials);
            out += plain;
            data += plain;
            room -= plain;
            if (*data == FLAG || (data[1] != 1 && data[1] != 2)) {
                goto special;
            }
            *out++ = (uint8_t)(0xFF - data[1]);
            data += 2;
            room--;
        }
        if (limit - data >= BLOCK) {
            plain = plain_bytes(specials_in_block(data));
        }
        else {
            for (plain = 0; data + plain < limit && !is_special(data[plain]); plain++) {
            }
        }
        if (plain > room) {
            run->is_mismatch = true;
            room = 0;
        }
        else if (plain) {
            memcpy(out, data, plain);
            out += plain;
            room -= plain;
        }
        data += plain;
        if (data == limit || !is_special(*data)) {
            continue;
        }
    special:
        if (*data == FLAG) {
            break;
        }
        in_escape = true;
        data++;
    }
    run->in_escape = in_escape;
    if (!run->is_mismatch) {
        run->filled = (uint32_t)((size_t)PyBytes_GET_SIZE(run->payload) - room);
    }
    return data;
}

static const uint8_t *
read_payload_plain(Run *run, const uint8_t *data, const uint8_t *limit)
{
    return read_payload_with(specials_in, run, data, limit);
}

#ifdef USE_AVX2
FOR_AVX2 static const uint8_t *
read_payload_avx2(Run *run, const uint8_t *data, const uint8_t *limit)
{
    return read_payload_with(specials_in_avx2, run, data, limit);
}
#endif

/* The best that this processor has; set once, to the same in every interpreter. */
static const uint8_t *(*read_payload)(Run *, const uint8_t *, const uint8_t *) = read_payload_plain;

/* Take the open run as far as `data` has it. Returns the end of what it took: the flag that
   ends the run, the end, or where the run proved too long; NULL with an exception set. */
static const uint8_t *
take(Decoder *self, State *state, PyObject *events, const uint8_t *data, const uint8_t *end)
{
    Run *run = &self->run;
    const uint8_t *begin = data;
    size_t small = self->size ? 0 : small_run(data, end, self->max_payload);
    if (small) {
        PyObject *payload = PyBytes_FromStringAndSize((const char *)data + HEADER_SIZE, (Py_ssize_t)small - HEADER_SIZE);
        return payload == NULL || deliver(state, events, data, payload) < 0 ? NULL : data + small;
    }
    uint64_t left = self->bound + 1 - self->size; /* so many bytes more prove it too long */
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
    remember(self, begin, (size_t)(data - begin));
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
    while (data < end) {
        if (self->in_frame && (*data != FLAG || self->size)) { /* nothing between two flags is nothing */
            data = take(self, state, events, data, end);
            if (data == NULL) {
                return -1;
            }
        }
        if (!self->in_frame && data < end) {
            const uint8_t *flag = memchr(data, FLAG, (size_t)(end - data));
            flag = flag ? flag : end;
            remember(self, data, (size_t)(flag - data));
            data = flag;
        }
        if (data == end) {
            break;
        }
        if (!self->in_frame && self->size && refuse(self, state, events, NOISE) < 0) {
            return -1;
        }
        self->in_frame = true;
        data++;
    }
    return 0;
}

/* Get a buffer of any bytes-like object, one with gaps copied into one without. */
static int
get_bytes(PyObject *object, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) == 0) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_BufferError)) {
        return -1;
    }
    PyErr_Clear();
    PyObject *copy = PyMemoryView_GetContiguous(object, PyBUF_READ, 'C');
    if (copy == NULL) {
        return -1;
    }
    int failed = PyObject_GetBuffer(copy, view, PyBUF_SIMPLE);
    Py_DECREF(copy);
    return failed;
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
feed(Decoder *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_buffer view;
    if (count != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "feed() takes one positional argument, data");
        return NULL;
    }
    PyObject *events = PyList_New(0);
    if (events == NULL || get_bytes(args[0], &view) < 0) {
        Py_XDECREF(events);
        return NULL;
    }
    /* Untracked while it grows: the garbage collector, called by each packet's allocation in
       its turn, has no need to walk it again and again. */
    PyObject_GC_UnTrack(events);
    const uint8_t *data = view.buf;
    int failed = view.len ? feed_bytes(self, PyType_GetModuleState(type), events, data, data + view.len) : 0;
    PyBuffer_Release(&view);
    if (failed) {
        return give_up(self, events);
    }
    PyObject_GC_Track(events);
    return events;
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
    if (self->size && refuse(self, PyType_GetModuleState(type), events, reason) < 0) {
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
    return PyLong_FromUnsignedLongLong(self->size < self->bound ? self->size : self->bound);
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


/* The module */

static int
module_exec(PyObject *module)
{
#ifdef USE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")) {
        read_payload = read_payload_avx2;
    }
#endif
    State *state = PyModule_GetState(module);
    PyObject *packet = PyType_FromModuleAndSpec(module, &packet_spec, NULL);
    if (packet == NULL) {
        return -1;
    }
    state->packet = (PyTypeObject *)packet;
    PyObject *names = Py_BuildValue("(ssss)", "id", "payload", "type", "count");
    int failed = names == NULL || PyObject_SetAttrString(packet, "__match_args__", names) < 0 ||
                 PyModule_AddType(module, state->packet) < 0;
    Py_XDECREF(names);
    if (failed) {
        return -1;
    }
    state->encode = PyObject_GetAttrString(module, "encode");
    if (state->encode == NULL) {
        return -1;
    }
    state->state_name = PyUnicode_InternFromString("state");
    state->output = (PyTypeObject *)PyType_FromModuleAndSpec(module, &output_spec, NULL);
    if (state->state_name == NULL || state->output == NULL || PyModule_AddType(module, state->output) < 0) {
        return -1;
    }
    PyType_Spec *specs[] = {&sender_spec, &decoder_spec};
    for (size_t index = 0; index < sizeof(specs) / sizeof(*specs); index++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[index], NULL);
        if (type == NULL) {
            return -1;
        }
        failed = PyModule_AddType(module, (PyTypeObject *)type);
        Py_DECREF(type);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->packet);
    Py_VISIT(state->output);
    Py_VISIT(state->encode);
    Py_VISIT(state->malformed);
    Py_VISIT(state->open);
    for (int reason = 0; reason < REASONS; reason++) {
        Py_VISIT(state->reasons[reason]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->packet);
    Py_CLEAR(state->output);
    Py_CLEAR(state->state_name);
    Py_CLEAR(state->encode);
    Py_CLEAR(state->malformed);
    Py_CLEAR(state->open);
    for (int reason = 0; reason < REASONS; reason++) {
        Py_CLEAR(state->reasons[reason]);
    }
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

PyDoc_STRVAR(encode_doc,
"encode($module, packet, /)\n--\n\n"
"Give one packet as one frame.");

PyDoc_STRVAR(only_packets_doc,
"only_packets($module, frames, /)\n--\n\n"
"Whether nothing that a decoder gave is malformed.");

static PyObject *
only_packets(PyObject *module, PyObject *frames)
{
    State *state = PyModule_GetState(module);
    if (!PyList_Check(frames)) {
        PyErr_SetString(PyExc_TypeError, "only_packets() takes a list");
        return NULL;
    }
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(frames); index++) {
        if (Py_TYPE(PyList_GET_ITEM(frames, index)) != state->packet) {
            Py_RETURN_FALSE;
        }
    }
    Py_RETURN_TRUE;
}

static PyMethodDef module_methods[] = {
    {"encode", encode, METH_O, encode_doc},
    {"only_packets", only_packets, METH_O, only_packets_doc},
    {"new_packet", new_sound_packet, METH_VARARGS, new_packet_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packetcore._speedups",
    .m_doc = "The codec in C.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module_def);
}
