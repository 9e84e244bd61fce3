/* What all parts use: the state of the module, and ways to call Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
/* PLAIN_C, ONLY_SSE2 and ONLY_AVX2, which only tests define, leave out what not every compiler and
   processor has. */
#if defined(__SSE2__) && !defined(PLAIN_C)
#define USE_SSE2
#include <emmintrin.h>
#if defined(__GNUC__) && defined(__x86_64__) && !defined(ONLY_SSE2)
#define USE_AVX2 /* where the processor has it; looked at when the module is loaded */
#include <immintrin.h>
#if (__GNUC__ >= 9 || __clang_major__ >= 9) && !defined(ONLY_AVX2)
#define USE_AVX512 /* likewise: VBMI2 and VPCLMULQDQ, which came together */
#endif
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

enum { NOISE, BAD_ESCAPE, TOO_SHORT, LENGTH_MISMATCH, BAD_LENGTH, BAD_CHECK, TOO_LONG, TRUNCATED, REASONS };

static const char *const REASON_NAMES[REASONS] = {
    "NOISE", "BAD_ESCAPE", "TOO_SHORT", "LENGTH_MISMATCH", "BAD_LENGTH", "BAD_CHECK", "TOO_LONG", "TRUNCATED",
};

/* What a decoder or a connection gives beside packets. */
enum { MALFORMED, MESSAGE, END_OF_STREAM, CLOSED, EVENTS };

static const char *const EVENT_NAMES[EVENTS] = {"Malformed", "Message", "EndOfStream", "Closed"};

typedef struct {
    PyTypeObject *packet;
    PyTypeObject *output;
    PyTypeObject *decoder;
    PyTypeObject *receiver;
    PyTypeObject *pump;
    PyTypeObject *ready;
    PyTypeObject *items;
    PyTypeObject *order;
    PyTypeObject *latch;
    PyTypeObject *sender;
    PyTypeObject *stuffing;
    PyTypeObject *stuffing_decoder;
    PyTypeObject *cobs_decoder;
    PyTypeObject *length_decoder;
    PyObject *encode; /* the function below */
    PyObject *name_send;
    PyObject *name_write;
    PyObject *name_own_write;
    PyObject *name_sent_at;
    /* The rest is imported when first needed: those modules need `Packet` themselves. */
    PyObject *events[EVENTS];
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
    if (state->events[EVENTS - 1] != NULL) {
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
    for (int event = 0; event < EVENTS; event++) {
        PyObject *type = import_from("packetcore._events", EVENT_NAMES[event]);
        if (type == NULL) {
            return -1;
        }
        Py_XSETREF(state->events[event], type);
    }
    return 0;
}

/* Whether an event is a packet, which may be of any type but those of the others. */
static inline bool
is_packet(State *state, PyObject *event)
{
    PyObject *type = (PyObject *)Py_TYPE(event);
    if (type == (PyObject *)state->packet) {
        return true;
    }
    for (int other = 0; other < EVENTS; other++) {
        if (type == state->events[other]) {
            return false;
        }
    }
    return true;
}

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

/* A type that refers to objects of any type lets go of them between Py_TRASHCAN_BEGIN and Py_TRASHCAN_END, so
   that a chain of them may have any length. */

/* Begin to refer to another value. What the last one's end runs finds it there. */
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
    PyObject *copy = PyBytes_FromObject(object); /* a view would not copy an empty one, which is refused all the same */
    if (copy == NULL) {
        return -1;
    }
    int failed = PyObject_GetBuffer(copy, view, PyBUF_SIMPLE);
    Py_DECREF(copy);
    return failed;
}

static const uint8_t NO_BYTES[1] = {0};

/* Where a buffer's bytes are, somewhere even if there are none: to nowhere not even 0 may be added. */
static const uint8_t *
bytes_of(const Py_buffer *view)
{
    return view->buf == NULL ? NO_BYTES : view->buf;
}
