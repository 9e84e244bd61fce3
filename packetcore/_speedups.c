/* The codec in C, and what is done for each chunk and each packet around it: `Packet`, `encode`,
   `Output`, `Decoder`, `Receiver`, `Pump` and `Items`, the fast twins of those in the modules of these
   names.

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
#if defined(__GNUC__) && defined(__x86_64__) && !defined(ONLY_SSE2)
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
    PyTypeObject *decoder;
    PyTypeObject *receiver;
    PyTypeObject *pump;
    PyTypeObject *ready;
    PyTypeObject *items;
    PyObject *encode; /* the function below */
    PyObject *name_write;
    PyObject *name_own_write;
    PyObject *name_sent_at;
    /* The rest is imported when first needed: those modules need `Packet` themselves. */
    PyObject *malformed;
    PyObject *open;
    PyObject *reasons[REASONS];
} State;

static struct PyModuleDef module_def;

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
    const uint8_t header[BLOCK] = { /* looked through as a whole */
        (uint8_t)(id >> 8),      (uint8_t)id,
        packet->type,            (uint8_t)(count >> 8),
        (uint8_t)count,          (uint8_t)(length >> 24),
        (uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length,
    };
    size_t in_payload = count_special(data, length);
    size_t in_header = count_special(header, BLOCK);
    size_t extra = 2 + HEADER_SIZE + in_header + in_payload;
    if (extra > (size_t)PY_SSIZE_T_MAX - length) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(length + extra));
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    *out++ = FLAG;
    if (in_header) {
        out = escape_bytes(out, header, HEADER_SIZE);
    }
    else {
        memcpy(out, header, HEADER_SIZE);
        out += HEADER_SIZE;
    }
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

/* A packet's frame; and a list to put it into, so that `add` runs nobody's code. */
static PyObject *
prepare(Output *self, State *state, PyObject *packet)
{
    if (Py_TYPE(packet) != state->packet ||
        (uint64_t)PyBytes_GET_SIZE(((Packet *)packet)->payload) > self->max_payload) {
        PyObject *check = import_from("packetcore._output", "check_packet");
        PyObject *nothing =
            check == NULL ? NULL : PyObject_CallFunction(check, "OK", packet, (unsigned long long)self->max_payload);
        Py_XDECREF(check);
        if (nothing == NULL) {
            return NULL;
        }
        Py_DECREF(nothing);
    }
    PyObject *frame = self->encode == NULL ? frame_of((Packet *)packet) : PyObject_CallOneArg(self->encode, packet);
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

/* Add a frame that `prepare` gave, and take it over. Gives how many bytes wait now, -1 with an
   exception set. */
static Py_ssize_t
add(Output *self, PyObject *frame)
{
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    int failed = PyList_Append(self->frames, frame);
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
enum { WIDE = 2 * BLOCK, AT_ONCE = 8 };

FOR_AVX2 static inline void
copy_wide(uint8_t *out, const uint8_t *data)
{
    __m256i first = _mm256_loadu_si256((const __m256i *)data);
    __m256i second = _mm256_loadu_si256((const __m256i *)(data + BLOCK));
    _mm256_storeu_si256((__m256i *)out, first);
    _mm256_storeu_si256((__m256i *)(out + BLOCK), second);
}

/* Read on in a payload that matches so far, by wide blocks, as long as there is room and
   `limit` is not near; at most to a flag or a bad escape. `read_payload_with` does the rest.

   Of 64 random bytes two in five have a special one, few have two, and a branch on that
   would be mispredicted as often. So the first is left out without one: from where it stands
   a block is taken from a byte further on. What is special is looked for in some blocks at
   once, before it is known where they go. */
FOR_AVX2 __attribute__((noinline)) static const uint8_t *
read_wide_avx2(Run *run, const uint8_t *data, const uint8_t *limit)
{
    static const uint8_t behind[2 * WIDE] = {[WIDE ... 2 * WIDE - 1] = 0xFF};
    const __m256i escape = _mm256_set1_epi8((char)ESCAPE);
    uint8_t *payload = (uint8_t *)PyBytes_AS_STRING(run->payload);
    uint8_t *out = payload + run->filled, *end = payload + PyBytes_GET_SIZE(run->payload);
    while (end - out >= 2 * WIDE && limit - data >= 2 * WIDE) {
        /* A block never writes more than it has, but the last is read two bytes beyond. */
        size_t room = (size_t)(end - out), coming = (size_t)(limit - data) - 2;
        size_t blocks = (room < coming ? room : coming) / WIDE;
        blocks = blocks < AT_ONCE ? blocks : AT_ONCE;
        uint64_t specials_of[AT_ONCE], any = 0;
        for (size_t n = 0; n < blocks; n++) {
            const uint8_t *block = data + n * WIDE;
            specials_of[n] = specials_in_avx2(block) | (uint64_t)specials_in_avx2(block + BLOCK) << BLOCK;
            any |= specials_of[n];
        }
        if (!any) {
            for (size_t n = 0; n < blocks; n++, data += WIDE, out += WIDE) {
                copy_wide(out, data); /* at this size faster than memcpy */
            }
            continue;
        }
        size_t split = any >> (WIDE - 1);
        if (split) { /* an escape lies across the end of a block: the next begin behind it */
            for (blocks = 0; !(specials_of[blocks++] >> (WIDE - 1));) {
            }
        }
        for (size_t n = 0; n < blocks; n++) {
            uint64_t specials = specials_of[n];
            size_t plain = _tzcnt_u64(specials), none = plain / WIDE; /* of none it gives 64 */
            for (size_t half = 0; half < WIDE; half += BLOCK) {
                __m256i bytes = _mm256_loadu_si256((const __m256i *)(data + half));
                __m256i next = _mm256_loadu_si256((const __m256i *)(data + half + 1));
                __m256i from = _mm256_loadu_si256((const __m256i *)(behind + WIDE - plain + half));
                next = _mm256_xor_si256(next, _mm256_cmpeq_epi8(bytes, escape)); /* 0xFF - byte */
                _mm256_storeu_si256((__m256i *)(out + half), _mm256_blendv_epi8(bytes, next, from));
            }
            uint16_t pair;
            memcpy(&pair, data + plain, sizeof(pair));
            if ((pair - 0x01FDu) & 0xFEFF & (none - 1)) { /* neither FD 01 nor FD 02 */
                out += plain;
                data += plain;
                goto done;
            }
            if (specials & (specials - 1)) {
                if (end - out < 2 * WIDE || limit - data < 2 * WIDE) {
                    goto done;
                }
                while (specials &= specials - 1) {
                    out--;
                    plain = _tzcnt_u64(specials);
                    if (data[plain] == FLAG || (data[plain + 1] != 1 && data[plain + 1] != 2)) {
                        out += plain;
                        data += plain;
                        goto done;
                    }
                    copy_wide(out + plain, data + plain + 1);
                    out[plain] = (uint8_t)(0xFF - data[plain + 1]);
                }
            }
            out += WIDE - 1 + none;
            data += WIDE;
        }
        out += split;
        data += split;
    }
done:
    run->filled = (uint32_t)(out - payload);
    return data;
}

FOR_AVX2 static const uint8_t *
read_payload_avx2(Run *run, const uint8_t *data, const uint8_t *limit)
{
    if (!run->in_escape && !run->is_mismatch && PyBytes_GET_SIZE(run->payload) >= 4 * WIDE) {
        data = read_wide_avx2(run, data, limit);
    }
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
feed_object(Decoder *self, State *state, PyObject *object)
{
    Py_buffer view;
    PyObject *events = PyList_New(0);
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


/* What Receiver and Pump share */

/* The state of the module that a type, or one that it inherits from, belongs to. */
static State *
state_of(PyTypeObject *type)
{
    for (; type != NULL; type = type->tp_base) {
        PyObject *module = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) ? PyType_GetModule(type) : NULL;
        if (module != NULL && PyModule_GetDef(module) == &module_def) {
            return PyModule_GetState(module);
        }
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_SystemError, "a type without its module");
    return NULL;
}

static void
set(PyObject **field, PyObject *value)
{
    Py_INCREF(value);
    Py_XSETREF(*field, value);
}

/* Call a method by its name. The arguments end with the first NULL. */
static PyObject *
call(void *object, const char *name, PyObject *first, PyObject *second)
{
    PyObject *method = PyUnicode_FromString(name);
    PyObject *result = method == NULL ? NULL : PyObject_CallMethodObjArgs(object, method, first, second, NULL);
    Py_XDECREF(method);
    return result;
}

/* The same where the result does not matter, also that of a call made already. */
static int
done(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
not_set_up(void *object)
{
    PyErr_Format(PyExc_TypeError, "a %.200s that was not set up", Py_TYPE(object)->tp_name);
    return -1;
}


/* Receiver */

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
        if (Py_TYPE(PyList_GET_ITEM(frames, index)) != state->packet) {
            return false;
        }
    }
    return true;
}

/* Feed the decoder. Gives a list, and whether a frame is pending. */
static PyObject *
frames_in(Receiver *self, PyObject *data, int *pending)
{
    PyObject *decoder = Py_NewRef(self->decoder);
    PyObject *frames;
    if (Py_TYPE(decoder) == self->module->decoder) {
        frames = feed_object((Decoder *)decoder, self->module, data);
        *pending = ((Decoder *)decoder)->size != 0;
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
    if (self->decoder == NULL || self->joiner == NULL || self->now == NULL || self->frame_since == NULL) {
        not_set_up(self);
        return NULL;
    }
    Py_ssize_t size = PyObject_Size(data);
    int went_back = is_earlier(now, self->now);
    if (size < 0 || went_back < 0) {
        return NULL;
    }
    now = Py_NewRef(went_back ? self->now : now); /* another framing's code may do anything */
    PyObject *events = events_in(self, data, size, now);
    Py_DECREF(now);
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
    receiver_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
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


/* Pump */

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
                   ON_SENT = {offsetof(Pump, on_sent), NULL}, NOW = {offsetof(Pump, now), NULL};

static int
check_set_up(Pump *self)
{
    if (self->is_set_up) {
        return 0;
    }
    bool has_all = self->connection != NULL && self->output != NULL && self->queue != NULL && self->host != NULL &&
                   self->on_packet != NULL && self->on_packets != NULL && self->on_sent != NULL && self->now != NULL;
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
    if (Py_TYPE(packet) != state->packet || !is_open(self)) {
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

/* Take the packets off the end of a list, the last one first. */
static PyObject *
pop_packets(State *state, PyObject *list)
{
    Py_ssize_t end = PyList_GET_SIZE(list), begin = end;
    while (begin > 0 && Py_TYPE(PyList_GET_ITEM(list, begin - 1)) == state->packet) {
        begin--;
    }
    PyObject *packets = PyList_GetSlice(list, begin, end);
    if (packets != NULL && (PyList_Reverse(packets) < 0 || PyList_SetSlice(list, begin, end, NULL) < 0)) {
        Py_CLEAR(packets);
    }
    return packets;
}

static int
deliver_next(Pump *self)
{
    PyObject *queue = self->queue;
    bool is_packet = Py_TYPE(PyList_GET_ITEM(queue, PyList_GET_SIZE(queue) - 1)) == self->module->packet;
    bool is_batch = is_packet && self->on_packets != Py_None;
    PyObject *event = is_batch ? pop_packets(self->module, queue) : pop(queue);
    if (event == NULL) {
        return -1;
    }
    PyObject *result;
    if (is_packet) {
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
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
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
    double time = PyFloat_AsDouble(now);
    if (is_something < 0 || (time == -1.0 && PyErr_Occurred()) || check_set_up(self) < 0) {
        return NULL;
    }
    if (!is_something || !is_open(self)) {
        return call(self, "_received_late", data, now);
    }
    set(&self->now, now);
    PyObject *connection = Py_NewRef(self->connection);
    PyObject *events = receive((Receiver *)connection, data, now); /* no Closed among them */
    Py_DECREF(connection);
    if (events == NULL) {
        return NULL;
    }
    int failed = !PyList_CheckExact(events) || (time >= self->refresh_at && done(call(self, "_refresh", NULL, NULL)) < 0) ||
                 PyList_Reverse(events) < 0;
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
    if (check_set_up(self) < 0 || PyObject_SetAttr(self->connection, state->name_sent_at, self->now) < 0) {
        return NULL;
    }
    PyObject *data = output_join((Output *)self->output, NULL);
    if (data == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    PyObject *args[] = {NULL, Py_NewRef(self->host), data};
    PyObject *result = PyObject_VectorcallMethod(state->name_write, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[1]);
    Py_DECREF(data);
    Py_ssize_t taken = result == NULL ? -1 : PyLong_AsSsize_t(result);
    if (taken == -1 && PyErr_Occurred()) {
        Py_XDECREF(result);
        return NULL;
    }
    bool is_plain = !self->unsent && self->on_sent == Py_None && !self->write_paused && is_open(self);
    if (is_plain && taken == size) { /* all has gone, as nearly always */
        Py_DECREF(result);
        Py_RETURN_NONE;
    }
    PyObject *written = PyLong_FromSsize_t(size);
    PyObject *nothing = written == NULL ? NULL : call(self, "_written", written, result);
    Py_XDECREF(written);
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
    return 0;
}

static void
pump_dealloc(Pump *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pump_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
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
    {"_woken", T_BOOL, offsetof(Pump, woken), 0, NULL},
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


/* Items */

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
    Py_XDECREF(self->take);
    Py_XDECREF(self->wait);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(items_doc,
"Items(take, wait, /)\n--\n\n"
"An asynchronous iterator that waits only where it must.");

static PyType_Slot items_slots[] = {
    {Py_tp_doc, (void *)items_doc},
    {Py_tp_new, items_new},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, items_next},
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


/* The module */

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

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
    state->name_write = PyUnicode_InternFromString("write");
    state->name_own_write = PyUnicode_InternFromString("_write");
    state->name_sent_at = PyUnicode_InternFromString("sent_at");
    if (state->name_write == NULL || state->name_own_write == NULL || state->name_sent_at == NULL ||
        add_type(module, &output_spec, &state->output) < 0 || add_type(module, &decoder_spec, &state->decoder) < 0 ||
        add_type(module, &receiver_spec, &state->receiver) < 0 || add_type(module, &pump_spec, &state->pump) < 0 ||
        add_type(module, &ready_spec, &state->ready) < 0 || add_type(module, &items_spec, &state->items) < 0) {
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->packet);
    Py_VISIT(state->output);
    Py_VISIT(state->decoder);
    Py_VISIT(state->receiver);
    Py_VISIT(state->pump);
    Py_VISIT(state->ready);
    Py_VISIT(state->items);
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
    Py_CLEAR(state->decoder);
    Py_CLEAR(state->receiver);
    Py_CLEAR(state->pump);
    Py_CLEAR(state->ready);
    Py_CLEAR(state->items);
    Py_CLEAR(state->name_write);
    Py_CLEAR(state->name_own_write);
    Py_CLEAR(state->name_sent_at);
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

static PyMethodDef module_methods[] = {
    {"encode", encode, METH_O, encode_doc},
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
